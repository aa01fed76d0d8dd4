"""What a cell is: the equations of ONE step.

A cell is a small frozen dataclass of weight tensors. `step(x, state)` gives `(output, state)`; the state is a NamedTuple of
tensors `[B, H]`, so h and c can't be swapped. It knows no time, batch, kernel or task. Letters, gate order and the two biases are
torch's, so weights load both ways and `torch.nn` is a free oracle.
"""

from typing import Any, Protocol

from torch import Tensor


class Cell(Protocol):
    """The contract. `name` is the key in `recurra.cells.CELLS`; `gates` names the G blocks of H rows in each weight, in order."""

    name: str
    gates: tuple[str, ...]
    State: type[Any]
    """The state's NamedTuple. Its first field, h, is also the output."""

    @property
    def weight_ih(self) -> Tensor:
        """[G*H, I]: input to gates."""
        ...

    @property
    def weight_hh(self) -> Tensor:
        """[G*H, H]: last output to gates."""
        ...

    @property
    def bias_ih(self) -> Tensor:
        """[G*H]"""
        ...

    @property
    def bias_hh(self) -> Tensor:
        """[G*H]"""
        ...

    def named_gates(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        """The activated gates of one step by name, each [B, H], for input x [B, I] and state."""
        ...

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step: x [B, I] and state (each [B, H]) -> output [B, H] and the next state."""
        ...

    def advance(self, gates: dict[str, Tensor], state: Any) -> tuple[Tensor, Any]:
        """The rest of a step, from its gates: `step` is `advance(named_gates(x, state), state)`."""
        ...
