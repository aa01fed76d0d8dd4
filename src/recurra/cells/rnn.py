"""The plain recurrent network (Elman 1990), with tanh or with relu.

h' = φ(W_ih x + b_ih + W_hh h + b_hh)       φ = tanh (TanhRNN) or relu (ReluRNN)

with LayerNorm (Ba, Kiros and Hinton 2016) h' = φ(LN(W_ih x) * gain_ih + b_ih + LN(W_hh h) * gain_hh + b_hh)
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from recurra.cells.cell import Steps, sums


class RNNState(NamedTuple):
    """h: output and memory in one, [B, H]."""

    h: Tensor


@dataclass(frozen=True, eq=False)
class TanhRNN(Steps):
    """The network's weights: weight_ih [H, I], weight_hh [H, H], bias_ih and bias_hh [H]. Its one 'gate' is h itself.

    gain_ih and gain_hh [H], both or none, normalise.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    gain_ih: Tensor | None = None
    gain_hh: Tensor | None = None

    name: ClassVar[str] = "rnn_tanh"
    gates: ClassVar[tuple[str, ...]] = ("h",)
    State: ClassVar[type[RNNState]] = RNNState

    def sums_ih(self, x: Tensor) -> Tensor:
        """The input's part of the sum before the nonlinearity, [..., H]."""
        return sums(x, self.weight_ih, self.bias_ih, self.gain_ih)

    def total(self, sums_ih: Tensor, state: RNNState) -> Tensor:
        """The sum before the nonlinearity, [B, H]."""
        return sums_ih + sums(state.h, self.weight_hh, self.bias_hh, self.gain_hh)

    def activate(self, sums_ih: Tensor, state: RNNState) -> dict[str, Tensor]:
        """{"h": h'}, [B, H]."""
        return {"h": torch.tanh(self.total(sums_ih, state))}

    def advance(self, gates: dict[str, Tensor], state: RNNState) -> tuple[Tensor, RNNState]:
        """h' [B, H] and (h',)."""
        return gates["h"], RNNState(gates["h"])


@dataclass(frozen=True, eq=False)
class ReluRNN(TanhRNN):
    """The same with relu."""

    name: ClassVar[str] = "rnn_relu"

    def activate(self, sums_ih: Tensor, state: RNNState) -> dict[str, Tensor]:
        """{"h": h'}, [B, H]."""
        return {"h": torch.relu(self.total(sums_ih, state))}
