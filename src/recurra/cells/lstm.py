"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000).

i  = σ(W_ii x + b_ii + W_hi h + b_hi)       what to let in
f  = σ(W_if x + b_if + W_hf h + b_hf)       what to keep
g  = tanh(W_ig x + b_ig + W_hg h + b_hg)    what is new
o  = σ(W_io x + b_io + W_ho h + b_ho)       what to show
c' = f * c + i * g
h' = o * tanh(c')
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear


class LSTMState(NamedTuple):
    """h: the output, c: the memory; each [B, H]."""

    h: Tensor
    c: Tensor


@dataclass(frozen=True, eq=False)
class LSTM:
    """The LSTM's weights: weight_ih [4H, I], weight_hh [4H, H], bias_ih and bias_hh [4H]; rows in the order i f g o."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    name: ClassVar[str] = "lstm"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    State: ClassVar[type[LSTMState]] = LSTMState

    def named_gates(self, x: Tensor, state: LSTMState) -> dict[str, Tensor]:
        """The activated gates i f g o, each [B, H], for x [B, I]."""
        i, f, g, o = (linear(x, self.weight_ih, self.bias_ih) + linear(state.h, self.weight_hh, self.bias_hh)).chunk(
            4, -1
        )
        return {"i": torch.sigmoid(i), "f": torch.sigmoid(f), "g": torch.tanh(g), "o": torch.sigmoid(o)}

    def advance(self, gates: dict[str, Tensor], state: LSTMState) -> tuple[Tensor, LSTMState]:
        """h' [B, H] and (h', c') from the gates."""
        c = gates["f"] * state.c + gates["i"] * gates["g"]
        h = gates["o"] * torch.tanh(c)
        return h, LSTMState(h, c)

    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """One step: x [B, I], state -> h' [B, H], (h', c')."""
        return self.advance(self.named_gates(x, state), state)
