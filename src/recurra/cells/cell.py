"""What a cell is: the equations of ONE step.

A cell is a small frozen dataclass of weight tensors. `step(x, state)` gives `(output, state)`; the state is a NamedTuple of
tensors `[B, H]`, so h and c can't be swapped. It knows no time, batch, kernel or task. Letters, gate order and the two biases are
torch's, so weights load both ways and `torch.nn` is a free oracle.

A step in its three parts, which a kernel may spread over time:

    sums  = sums_ih(x)                   the input's part of the gate sums; it needs no state, so a kernel does all steps at once
    gates = activate(sums, state)        with the recurrent part, through the nonlinearities
    output, state = advance(gates, state)
"""

from typing import Any, Protocol

from torch import Tensor
from torch.nn.functional import layer_norm, linear

EPS = 1e-5  # of every LayerNorm here, as in torch.nn.LayerNorm


class Cell(Protocol):
    """The contract. `name` is the key in `recurra.cells.CELLS`; `gates` names the G blocks of H rows in each weight, in order.

    A cell may have more weights, each None where not wanted: see `recurra.cells.LSTM` for all of them.
    """

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
        """[G*H, P]: last output to gates; P = H but for a projection."""
        ...

    @property
    def bias_ih(self) -> Tensor:
        """[G*H]"""
        ...

    @property
    def bias_hh(self) -> Tensor:
        """[G*H]"""
        ...

    @property
    def gain_ih(self) -> Tensor | None:
        """[G*H]: with it the input's part of the sums is normalised, and scaled by this."""
        ...

    @property
    def gain_hh(self) -> Tensor | None:
        """[G*H]: likewise for the recurrent part; both gains or none."""
        ...

    def sums_ih(self, x: Tensor) -> Tensor:
        """The input's part of the gate sums, [..., G*H], for x [..., I]."""
        ...

    def activate(self, sums: Tensor, state: Any) -> dict[str, Tensor]:
        """The activated gates by name, each [B, H], from the input's part of the sums [B, G*H] and the state."""
        ...

    def advance(self, gates: dict[str, Tensor], state: Any) -> tuple[Tensor, Any]:
        """The rest of a step: the output [B, P] and the next state."""
        ...

    def named_gates(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        """The activated gates of one step by name, each [B, H], for x [B, I]: `activate(sums_ih(x), state)`."""
        ...

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step: x [B, I] and state (each [B, H]) -> output and the next state: `advance(named_gates(x, state), state)`."""
        ...


class Steps:
    """`named_gates` and `step` of any cell, from its three parts."""

    def named_gates(self: Cell, x: Tensor, state: Any) -> dict[str, Tensor]:
        """The activated gates by name, each [B, H], for x [B, I]."""
        return self.activate(self.sums_ih(x), state)

    def step(self: Cell, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step: x [B, I], state -> output, next state."""
        return self.advance(self.named_gates(x, state), state)


def normed(values: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """LN(values) * gain + bias over the last dimension (Ba et al. 2016; the variance is the biased one)."""
    return layer_norm(values, values.shape[-1:], gain, bias, EPS)


def sums(values: Tensor, weight: Tensor, bias: Tensor, gain: Tensor | None) -> Tensor:
    """W v + b, or with a gain LN(W v) * gain + b."""
    return linear(values, weight, bias) if gain is None else normed(linear(values, weight), gain, bias)
