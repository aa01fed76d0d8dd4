"""THE TABLE: a row per cell, kernel and layer. The conformance tests run every row; a new cell, kernel or layer is a new row here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from recurra import nn
from recurra.cells import CELLS
from recurra.runtime.layers import COMPILED

needs_core = pytest.mark.skipif(not COMPILED, reason="recurra._core is not built: make setup with a C++20 compiler")


@dataclass(frozen=True)
class CellRow:
    """A cell: its gates in the weights, torch's layer for it, and its name in the runtime."""

    name: str
    gates: int
    oracle: Callable[..., torch.nn.RNNBase]
    runtime: str


@dataclass(frozen=True)
class KernelRow:
    """A kernel and what it covers."""

    name: str
    lengths: bool
    reset: bool
    states: bool
    trace: bool


@dataclass(frozen=True)
class LayerRow:
    """A drop-in layer, torch's, and the options that both take."""

    name: str
    ours: type[Any]
    oracle: type[Any]
    options: dict[str, Any] = field(default_factory=dict)


def _relu(*sizes: int, **options: Any) -> torch.nn.RNN:
    return torch.nn.RNN(*sizes, nonlinearity="relu", **options)


CELL_ROWS = [
    CellRow("rnn_tanh", 1, torch.nn.RNN, "rnn"),
    CellRow("rnn_relu", 1, _relu, "rnn_relu"),
    CellRow("lstm", 4, torch.nn.LSTM, "lstm"),
    CellRow("gru", 3, torch.nn.GRU, "gru"),
]

KERNEL_ROWS = [
    KernelRow("loop", lengths=True, reset=True, states=True, trace=True),
    KernelRow("cpu", lengths=True, reset=True, states=True, trace=False),
    KernelRow("aten", lengths=False, reset=False, states=False, trace=False),
]

LAYER_ROWS = [
    LayerRow("RNN", nn.RNN, torch.nn.RNN),
    LayerRow("RNN-relu", nn.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    LayerRow("LSTM", nn.LSTM, torch.nn.LSTM),
    LayerRow("GRU", nn.GRU, torch.nn.GRU),
]

# T, B, I, H: odd sizes, below, at and above a vector's width
SHAPES = [(1, 1, 1, 1), (7, 3, 1, 7), (5, 31, 7, 16), (63, 7, 5, 63)]


def make_cell(row: CellRow, inputs: int, hidden: int, dtype: torch.dtype, seed: int = 0) -> Any:
    """A cell with random weights of the usual size, all wanting gradients."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(row.gates * hidden, inputs), (row.gates * hidden, hidden), (row.gates * hidden,), (row.gates * hidden,)]
    bound = hidden**-0.5
    weights = [
        ((torch.rand(*s, generator=g, dtype=torch.float64) * 2 - 1) * bound).to(dtype).requires_grad_() for s in shapes
    ]
    return CELLS[row.name](*weights)


def make_state(cell: Any, rows: int, dtype: torch.dtype, seed: int = 1) -> Any:
    """A state that is nowhere zero and nowhere equal."""
    g = torch.Generator().manual_seed(seed)
    hidden = cell.weight_hh.shape[1]
    parts = [
        torch.randn(rows, hidden, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
        for _ in cell.State._fields
    ]
    return cell.State(*parts)


def by(rows: list[Any]) -> dict[str, Any]:
    """Arguments of pytest.mark.parametrize for a table: ids are the names. The kernel `cpu` is skipped where it was not built."""
    marks = [needs_core if isinstance(row, KernelRow) and row.name == "cpu" else () for row in rows]
    values = [pytest.param(row, marks=mark) for row, mark in zip(rows, marks, strict=True)]
    return {"argvalues": values, "ids": [row.name for row in rows]}
