"""What a kernel is asked for and what it gives back."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from recurra.cells import Cell


@dataclass(frozen=True, eq=False)
class Request:
    """One scan. x [T, B, I] time first; state: the cell's State, each [B, H]; lengths [B] int64; reset [B, T] bool."""

    cell: Cell
    x: Tensor
    state: Any
    lengths: Tensor | None = None
    reset: Tensor | None = None
    states: bool = False
    trace: bool = False

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything a gradient may flow to: x, the state, the four weights."""
        c = self.cell
        return (self.x, *self.state, c.weight_ih, c.weight_hh, c.bias_ih, c.bias_hh)


class Scan(NamedTuple):
    """The answer. Beyond a row's length outputs, states and gates are 0, and `state` is the one at its own last valid step."""

    outputs: Tensor
    """[T, B, H]"""
    state: Any
    """The final state, of the cell's State type, each [B, H]."""
    states: Any | None
    """Every state, of the cell's State type, each [T, B, H]; where asked for."""
    trace: dict[str, Tensor] | None
    """The activated gates by name, each [T, B, H]; where asked for."""
    kernel: str
    """Which kernel ran."""
    why: str
    """Why that one."""
