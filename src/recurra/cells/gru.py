"""Gated recurrent unit (Cho et al. 2014), in cuDNN's and torch's form: the reset gate acts AFTER the recurrent product.

r  = σ(W_ir x + b_ir + W_hr h + b_hr)            how much of the past the new value sees
z  = σ(W_iz x + b_iz + W_hz h + b_hz)            how much to keep
n  = tanh(W_in x + b_in + r * (W_hn h + b_hn))   what is new
h' = (1 - z) * n + z * h
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear


class GRUState(NamedTuple):
    """h: output and memory in one, [B, H]."""

    h: Tensor


@dataclass(frozen=True, eq=False)
class GRU:
    """The GRU's weights: weight_ih [3H, I], weight_hh [3H, H], bias_ih and bias_hh [3H]; rows in the order r z n."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    name: ClassVar[str] = "gru"
    gates: ClassVar[tuple[str, ...]] = ("r", "z", "n")
    State: ClassVar[type[GRUState]] = GRUState

    def named_gates(self, x: Tensor, state: GRUState) -> dict[str, Tensor]:
        """The activated gates r z n, each [B, H], for x [B, I]."""
        xr, xz, xn = linear(x, self.weight_ih, self.bias_ih).chunk(3, -1)
        hr, hz, hn = linear(state.h, self.weight_hh, self.bias_hh).chunk(3, -1)
        r = torch.sigmoid(xr + hr)
        return {"r": r, "z": torch.sigmoid(xz + hz), "n": torch.tanh(xn + r * hn)}

    def advance(self, gates: dict[str, Tensor], state: GRUState) -> tuple[Tensor, GRUState]:
        """h' [B, H] and (h',) from the gates."""
        h = (1 - gates["z"]) * gates["n"] + gates["z"] * state.h
        return h, GRUState(h)

    def step(self, x: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        """One step: x [B, I], state -> h' [B, H], (h',)."""
        return self.advance(self.named_gates(x, state), state)
