"""
recurra's C++ kernels: recurrent layers over time, forward and backward, and a product whose bits depend on the row alone.
"""

from collections.abc import Sequence
from typing import Annotated, overload

import numpy
from numpy.typing import NDArray


def isa() -> str:
    """
    The instruction set in use: 'avx512', 'avx2' or 'portable'. The environment variable RECURRA_ISA lowers it.
    """

def saved_size(cell: str, rows: int, steps: int, hidden: int, double: bool) -> int:
    """How many numbers `forward` must save for `backward`."""

@overload
def forward(cell: str, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], lengths: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, reset: Annotated[NDArray[numpy.bool_], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, h0: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], c0: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, weight_ih: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], weight_hh: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], bias_ih: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, bias_hh: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, y: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')], cs: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')] | None, hn: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')], cn: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')] | None, saved: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')] | None, threads: int) -> None: ...

@overload
def forward(cell: str, x: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], lengths: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, reset: Annotated[NDArray[numpy.bool_], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, h0: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], c0: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, weight_ih: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], weight_hh: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], bias_ih: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, bias_hh: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, y: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu')], cs: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu')] | None, hn: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], cn: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')] | None, saved: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')] | None, threads: int) -> None:
    """
    One layer over time: fills y, cs, hn, cn and saved. Everything is time first and C-contiguous.
    """

@overload
def backward(cell: str, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], lengths: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, reset: Annotated[NDArray[numpy.bool_], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, h0: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], c0: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, weight_ih: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], weight_hh: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], y: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], cs: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, saved: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], dy: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, dcs: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, dhn: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, dcn: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, dx: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')] | None, dh0: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')], dc0: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')] | None, dweight_ih: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')], dweight_hh: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')], dbias_ih: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')], dbias_hh: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')], threads: int) -> None: ...

@overload
def backward(cell: str, x: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], lengths: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, reset: Annotated[NDArray[numpy.bool_], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, h0: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], c0: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, weight_ih: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], weight_hh: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], y: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], cs: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, saved: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu', writable=False)], dy: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, dcs: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, dhn: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, dcn: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, dx: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None), order='C', device='cpu')] | None, dh0: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], dc0: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')] | None, dweight_ih: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], dweight_hh: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], dbias_ih: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], dbias_hh: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')], threads: int) -> None:
    """
    Gradients of `forward`: fills dx, dh0, dc0 and ADDS to the four of the weights.
    """

class Recursion:
    """
    The level, scale and seasons of series, one causal step after the other.
    """

    def __init__(self, kind: int, logarithm: bool, seasons: Sequence[int], windows: Sequence[int], smoothing: Sequence[float], memory: int, level: int, warmup: int, gain: float, prior: float) -> None: ...

    def encode(self, count: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu')], numbers: Sequence[Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')]], ring: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], profiles: Sequence[Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')]], x: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu', writable=False)], lengths: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], features: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')], level: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], scale: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], anchors: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order='C', device='cpu')] | None) -> None:
        """
        Take x; fill features, level, scale and anchors; the state changes in place.
        """

    def anchors(self, count: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu')], numbers: Sequence[Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')]], ring: Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')], profiles: Sequence[Annotated[NDArray[numpy.float64], dict(shape=(None, None), order='C', device='cpu')]], out: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')]) -> None:
        """Fill the naive answers known now."""

class Bound:
    """
    A stack of recurrent layers bound to x and its state, weights packed once.
    """

    def __init__(self, cell: str, weights: str, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], h: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')], c: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')] | None) -> None: ...

    def add(self, weight_ih: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], weight_hh: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], bias_ih: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, bias_hh: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None) -> None:
        """Put a layer on top."""

    def step(self) -> None:
        """Read x, replace h and c."""

class Stack:
    """A stack of causal recurrent layers, float32, weights packed once."""

    def __init__(self, cell: str) -> None: ...

    def add(self, weight_ih: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], weight_hh: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], bias_ih: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, bias_hh: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None) -> None:
        """Put a layer on top."""

    def run(self, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], lengths: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, h: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)], c: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu', writable=False)] | None, y: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')], hn: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')], cn: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')] | None) -> None:
        """Fill y, hn and cn. A row's bits depend on that row alone."""

class LinearMap:
    """
    y = x @ weight.T + bias in float32, a row's bits depending on that row alone.
    """

    def __init__(self, weight: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], bias: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None) -> None: ...

    def run(self, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], y: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
        """Fill y."""
