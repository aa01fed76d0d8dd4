"""Gated recurrent unit (Cho et al. 2014), in cuDNN's and torch's form: the reset gate acts AFTER the recurrent product.

r  = σ(W_ir x + b_ir + W_hr h + b_hr)            how much of the past the new value sees
z  = σ(W_iz x + b_iz + W_hz h + b_hz)            how much to keep
n  = tanh(W_in x + b_in + r * (W_hn h + b_hn))   what is new
h' = (1 - z) * n + z * h

with LayerNorm (Ba, Kiros and Hinton 2016) W_i x + b_i becomes LN(W_i x) * gain_ih + b_i, W_h h + b_h likewise, over all three gates.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from recurra.cells.cell import Steps, sums


class GRUState(NamedTuple):
    """h: output and memory in one, [B, H]."""

    h: Tensor


@dataclass(frozen=True, eq=False)
class GRU(Steps):
    """The GRU's weights: weight_ih [3H, I], weight_hh [3H, H], bias_ih and bias_hh [3H]; rows in the order r z n.

    gain_ih and gain_hh [3H], both or none, normalise.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor
    gain_ih: Tensor | None = None
    gain_hh: Tensor | None = None

    name: ClassVar[str] = "gru"
    gates: ClassVar[tuple[str, ...]] = ("r", "z", "n")
    State: ClassVar[type[GRUState]] = GRUState

    def sums_ih(self, x: Tensor) -> Tensor:
        """The input's part of the gate sums, [..., 3H]."""
        return sums(x, self.weight_ih, self.bias_ih, self.gain_ih)

    def activate(self, sums_ih: Tensor, state: GRUState) -> dict[str, Tensor]:
        """The activated gates r z n, each [B, H]."""
        xr, xz, xn = sums_ih.chunk(3, -1)
        hr, hz, hn = sums(state.h, self.weight_hh, self.bias_hh, self.gain_hh).chunk(3, -1)
        r = torch.sigmoid(xr + hr)
        return {"r": r, "z": torch.sigmoid(xz + hz), "n": torch.tanh(xn + r * hn)}

    def advance(self, gates: dict[str, Tensor], state: GRUState) -> tuple[Tensor, GRUState]:
        """h' [B, H] and (h',) from the gates."""
        h = (1 - gates["z"]) * gates["n"] + gates["z"] * state.h
        return h, GRUState(h)
