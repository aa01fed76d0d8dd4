"""The plain recurrent network (Elman 1990), with tanh or with relu.

h' = φ(W_ih x + b_ih + W_hh h + b_hh)       φ = tanh (TanhRNN) or relu (ReluRNN)
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear


class RNNState(NamedTuple):
    """h: output and memory in one, [B, H]."""

    h: Tensor


@dataclass(frozen=True, eq=False)
class TanhRNN:
    """The network's weights: weight_ih [H, I], weight_hh [H, H], bias_ih and bias_hh [H]. Its one 'gate' is h itself."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    name: ClassVar[str] = "rnn_tanh"
    gates: ClassVar[tuple[str, ...]] = ("h",)
    State: ClassVar[type[RNNState]] = RNNState

    def named_gates(self, x: Tensor, state: RNNState) -> dict[str, Tensor]:
        """{"h": h'}, [B, H], for x [B, I]."""
        return {"h": torch.tanh(self.total(x, state))}

    def total(self, x: Tensor, state: RNNState) -> Tensor:
        """The sum before the nonlinearity, [B, H]."""
        return linear(x, self.weight_ih, self.bias_ih) + linear(state.h, self.weight_hh, self.bias_hh)

    def advance(self, gates: dict[str, Tensor], state: RNNState) -> tuple[Tensor, RNNState]:
        """h' [B, H] and (h',)."""
        return gates["h"], RNNState(gates["h"])

    def step(self, x: Tensor, state: RNNState) -> tuple[Tensor, RNNState]:
        """One step: x [B, I], state -> h' [B, H], (h',)."""
        return self.advance(self.named_gates(x, state), state)


@dataclass(frozen=True, eq=False)
class ReluRNN(TanhRNN):
    """The same with relu."""

    name: ClassVar[str] = "rnn_relu"

    def named_gates(self, x: Tensor, state: RNNState) -> dict[str, Tensor]:
        """{"h": h'}, [B, H], for x [B, I]."""
        return {"h": torch.relu(self.total(x, state))}
