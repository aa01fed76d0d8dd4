"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000).

i  = σ(W_ii x + b_ii + W_hi h + b_hi)       what to let in
f  = σ(W_if x + b_if + W_hf h + b_hf)       what to keep
g  = tanh(W_ig x + b_ig + W_hg h + b_hg)    what is new
o  = σ(W_io x + b_io + W_ho h + b_ho)       what to show
c' = f * c + i * g
h' = o * tanh(c')

and where asked for, each alone or with the others:

projection  h' = W_hr (o * tanh(c'))                                        Sak et al. 2014; h is P wide, c is H wide
peepholes   + p_i * c and + p_f * c in the sums of i and f, + p_o * c' in that of o        Gers and Schmidhuber 2000
LayerNorm   the sums are LN(W_i x) * gain_ih + b_i + LN(W_h h) * gain_hh + b_h, and h' = o * tanh(LN(c') * gain_c + b_c)
            Ba, Kiros and Hinton 2016; the first two LN run over the sums of all four gates
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from recurra.cells.cell import Steps, normed, sums


class LSTMState(NamedTuple):
    """h: the output, [B, P]; c: the memory, [B, H]. P = H but for a projection."""

    h: Tensor
    c: Tensor


@dataclass(frozen=True, eq=False)
class LSTM(Steps):
    """The LSTM's weights: weight_ih [4H, I], weight_hh [4H, P], bias_ih and bias_hh [4H]; rows in the order i f g o.

    weight_hr [P, H] projects; peephole [3H], rows i f o; gain_ih, gain_hh [4H], gain_c and bias_c [H], all four or none, normalise.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    weight_hr: Tensor | None = None
    peephole: Tensor | None = None
    gain_ih: Tensor | None = None
    gain_hh: Tensor | None = None
    gain_c: Tensor | None = None
    bias_c: Tensor | None = None

    name: ClassVar[str] = "lstm"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    State: ClassVar[type[LSTMState]] = LSTMState

    def sums_ih(self, x: Tensor) -> Tensor:
        """The input's part of the gate sums, [..., 4H]."""
        return sums(x, self.weight_ih, self.bias_ih, self.gain_ih)

    def activate(self, sums_ih: Tensor, state: LSTMState) -> dict[str, Tensor]:
        """The activated gates i f g o, each [B, H]."""
        total = sums_ih + sums(state.h, self.weight_hh, self.bias_hh, self.gain_hh)
        i, f, g, o = total.chunk(4, -1)
        if self.peephole is not None:
            p_i, p_f, p_o = self.peephole.chunk(3)
            i, f = i + p_i * state.c, f + p_f * state.c
            o = o + p_o * (torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g))
        return {"i": torch.sigmoid(i), "f": torch.sigmoid(f), "g": torch.tanh(g), "o": torch.sigmoid(o)}

    def advance(self, gates: dict[str, Tensor], state: LSTMState) -> tuple[Tensor, LSTMState]:
        """h' [B, P] and (h', c') from the gates."""
        c = gates["f"] * state.c + gates["i"] * gates["g"]
        shown = c if self.gain_c is None or self.bias_c is None else normed(c, self.gain_c, self.bias_c)
        h = gates["o"] * torch.tanh(shown)
        if self.weight_hr is not None:
            h = linear(h, self.weight_hr)
        return h, LSTMState(h, c)
