"""
recurra's C++ kernels: recurrent layers over time, forward and backward, and a product whose bits depend on the row alone.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray
import torch


def isa() -> str:
    """
    The instruction set in use: 'avx512', 'avx2' or 'portable'. The environment variable RECURRA_ISA lowers it.
    """

class Call:
    """
    One layer and direction over one batch. Memory is passed as addresses; 0: none.
    """

    def __init__(self, cell: str, inputs: int, hidden: int, outputs: int, projected: bool, peephole: bool, norm: bool, rows: int, steps: int, lengths: int, threads: int, double: bool) -> None: ...

    def batch_sizes(self, sizes: int) -> None:
        """x is packed: rows at each of the steps, int64."""

    @property
    def frames_step(self) -> int:
        """Frames from one time to the next."""

    @frames_step.setter
    def frames_step(self, arg: int, /) -> None: ...

    @property
    def frames_row(self) -> int:
        """Frames from one row to the next."""

    @frames_row.setter
    def frames_row(self, arg: int, /) -> None: ...

    @property
    def reverse(self) -> bool: ...

    @reverse.setter
    def reverse(self, arg: bool, /) -> None: ...

    @property
    def every(self) -> int:
        """0: gates are saved; k: the cells before every k-th step."""

    @every.setter
    def every(self, arg: int, /) -> None: ...

    def zoneout(self, h: float, c: float, training: bool, seed: int, stream: int) -> None: ...

    def saved(self) -> int:
        """How many numbers `forward` saves for `backward`."""

    def forward(self, x: int, reset: int, h0: int, c0: int, y: int, cells: int, hn: int, cn: int, h_mask: int, saved: int, weight_ih: int, weight_hh: int, bias_ih: int, bias_hh: int, weight_hr: int, peephole: int, gain_ih: int, gain_hh: int, gain_c: int, bias_c: int) -> None:
        """
        Fills y, cells, hn, cn and saved; frames beyond a row's length are left alone.
        """

    def backward(self, x: int, reset: int, h0: int, c0: int, y: int, h_mask: int, saved: int, weight_ih: int, weight_hh: int, bias_ih: int, bias_hh: int, weight_hr: int, peephole: int, gain_ih: int, gain_hh: int, gain_c: int, bias_c: int, dy: int, dcells: int, dhn: int, dcn: int, dx: int, dh0: int, dc0: int, dweight_ih: int, dweight_hh: int, dbias_ih: int, dbias_hh: int, dweight_hr: int, dpeephole: int, dgain_ih: int, dgain_hh: int, dgain_c: int, dbias_c: int) -> None:
        """
        Gradients of `forward`: fills dx, dh0, dc0; ADDS to those of the weights.
        """

def saved_memory(numbers: int, double: bool) -> torch.Tensor:
    """A torch tensor for `saved`, on memory that is used again."""

def release_saved_memory() -> None:
    """
    Give the system back what saved_memory holds for the next training step.
    """

def mask_apply(x: int, y: int, steps: int, rows: int, units: int, p: float, seed: int, stream: int, double: bool) -> None:
    """
    y = x / (1 - p) where kernels/masks.py's mask of [steps, rows, units] keeps it, else 0.
    """

def use_host_pool(parallel: int, id: int, size: int) -> None:
    """
    Work on the threads of GCC's OpenMP: addresses of GOMP_parallel, omp_get_thread_num, omp_get_num_threads.
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

def attend(query: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], keys: list, values: list, of: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], v: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, scale: float, past: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, cover: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None, weights: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')], context: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
    """
    Fill weights and context: each query put to the memory of its number. A row's bits depend on that row alone.
    """

def log_softmax(x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], y: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
    """Fill y with x - log sum e^x of each row."""

class LinearMap:
    """
    y = x @ weight.T + bias in float32, a row's bits depending on that row alone.
    """

    def __init__(self, weight: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], bias: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None) -> None: ...

    def run(self, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], y: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu')]) -> None:
        """Fill y."""
