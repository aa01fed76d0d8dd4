"""What a kernel is asked for and what it gives back."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from recurra.cells import Cell

WEIGHTS = (
    "weight_ih",
    "weight_hh",
    "bias_ih",
    "bias_hh",
    "weight_hr",
    "peephole",
    "gain_ih",
    "gain_hh",
    "gain_c",
    "bias_c",
)
"""A cell's weights by name, in the order in which kernels take them; those from weight_hr on may be None or not there."""


@dataclass(frozen=True, eq=False)
class Request:
    """One scan: a cell over x from a state. P is the width of h: H, or that of the projection."""

    cell: Cell
    x: Tensor
    """[T, B, I], time first; packed [N, I]"""
    state: Any
    """The cell's State: h [B, P] and, of an LSTM, c [B, H]."""
    lengths: Tensor | None = None
    """[B] whole numbers"""
    reset: Tensor | None = None
    """[B, T]"""
    states: bool = False
    trace: bool = False
    batch_sizes: Tensor | None = None
    """[T] int64 on the CPU: x is packed, as a PackedSequence has it, rows in order of falling length."""
    reverse: bool = False
    """Each row from its last valid step to its first. What belongs to step t stays at t. A reset before step t parts t - 1 from t."""
    recurrent_dropout: float = 0.0
    """One mask a row for all steps, on the h that weight_hh sees (Gal and Ghahramani 2016)."""
    zoneout_h: float = 0.0
    zoneout_c: float = 0.0
    """Probability that a unit keeps its old value (Krueger et al. 2017); not in training: the mean of old and new."""
    training: bool = False
    seed: Tensor | None = None
    """int64 scalar: what every mask is drawn from, see masks.py."""
    stream: int = 0
    """8 * (layer * directions + direction): the first of this scan's streams of masks."""
    checkpoint: int = -1
    """For the backward pass, -1: gates and c are kept; 0: c; k >= 1: c of each k-th step."""

    @property
    def named(self) -> dict[str, Tensor]:
        """Everything a gradient may flow to, by name: x, the state, the weights that are there."""
        named = {"x": self.x, **dict(zip(self.state._fields, self.state, strict=True))}
        for name in WEIGHTS:
            weight = getattr(self.cell, name, None)
            if weight is not None:
                named[name] = weight
        return named

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of `named`."""
        return tuple(self.named.values())

    @property
    def rows(self) -> int:
        """B"""
        return self.state[0].shape[0]


class Scan(NamedTuple):
    """The answer. Beyond a row's length outputs, states and gates are 0, and `state` is the one at its own last valid step."""

    outputs: Tensor
    """[T, B, P]; packed [N, P], as are states and trace"""
    state: Any
    """The final state, of the cell's State type: h [B, P], c [B, H]."""
    states: Any | None
    """Every state, of the cell's State type: h [T, B, P], c [T, B, H]; where asked for. No memory is shared with outputs or state."""
    trace: dict[str, Tensor] | None
    """The activated gates by name, each [T, B, H]; where asked for."""
    kernel: str
    """Which kernel ran."""
    why: str
    """Why that one."""
