"""THE TABLE: a row per cell, kernel and layer. The conformance tests run every row; a new cell, kernel or layer is a new row here."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
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
    """A kernel and what it covers. Options: the names of OPTION_ROWS, or None for all."""

    name: str
    lengths: bool
    reset: bool
    states: bool
    trace: bool
    options: tuple[str, ...] | None = None


@dataclass(frozen=True)
class OptionRow:
    """What a scan can be asked for beside time: further weights, by the cells that have them, and keywords."""

    name: str
    weights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keywords: dict[str, Any] = field(default_factory=dict)

    def covers(self, cell: str) -> bool:
        """Whether the cell has it."""
        return (not self.weights or cell in self.weights) and ("zoneout_c" not in self.keywords or cell == "lstm")


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

ATEN_OPTIONS = ("gates again", "every 3 again")
KERNEL_ROWS = [
    KernelRow("loop", lengths=True, reset=True, states=True, trace=True),
    KernelRow("cpu", lengths=True, reset=True, states=True, trace=False),
    KernelRow("aten", lengths=False, reset=False, states=False, trace=False, options=ATEN_OPTIONS),
]

NORM = dict.fromkeys(("rnn_tanh", "rnn_relu", "gru"), ("gain_ih", "gain_hh")) | {
    "lstm": ("gain_ih", "gain_hh", "gain_c", "bias_c")
}
ZONEOUT = {"zoneout_h": 0.3, "zoneout_c": 0.2}
OPTION_ROWS = [
    OptionRow("projection", {"lstm": ("weight_hr",)}),
    OptionRow("peepholes", {"lstm": ("peephole",)}),
    OptionRow("layer_norm", NORM),
    OptionRow("recurrent_dropout", keywords={"recurrent_dropout": 0.4, "training": True}),
    OptionRow("zoneout", keywords={**ZONEOUT, "training": True}),
    OptionRow("zoneout_h", keywords={"zoneout_h": 0.3, "training": True}),
    OptionRow("zoneout evaluated", keywords=ZONEOUT),
    OptionRow("zoneout_h evaluated", keywords={"zoneout_h": 0.3}),
    OptionRow("gates again", keywords={"checkpoint": "gates"}),
    OptionRow("every 3 again", keywords={"checkpoint": "every 3"}),
    OptionRow(
        "all of the LSTM's",
        {"lstm": ("weight_hr", "peephole", *NORM["lstm"])},
        {"recurrent_dropout": 0.4, **ZONEOUT, "training": True, "checkpoint": "every 3"},
    ),
    OptionRow(
        "all of a cell with h alone",
        {name: NORM[name] for name in ("rnn_tanh", "rnn_relu", "gru")},
        {"recurrent_dropout": 0.4, "zoneout_h": 0.3, "training": True, "checkpoint": "gates"},
    ),
]

LAYER_ROWS = [
    LayerRow("RNN", nn.RNN, torch.nn.RNN),
    LayerRow("RNN-relu", nn.RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    LayerRow("LSTM", nn.LSTM, torch.nn.LSTM),
    LayerRow("GRU", nn.GRU, torch.nn.GRU),
]

# T, B, I, H: odd sizes, below, at and above a vector's width
SHAPES = [(1, 1, 1, 1), (7, 3, 1, 7), (5, 31, 7, 16), (63, 7, 5, 63)]


def make_cell(
    row: CellRow, inputs: int, hidden: int, dtype: torch.dtype, seed: int = 0, further: tuple[str, ...] = ()
) -> Any:
    """A cell with random weights of the usual size, those named in `further` among them, all wanting gradients."""
    g = torch.Generator().manual_seed(seed)
    gates = row.gates * hidden
    width = projected(hidden) if "weight_hr" in further else hidden
    shapes: dict[str, tuple[int, ...]] = {
        "weight_ih": (gates, inputs),
        "weight_hh": (gates, width),
        "bias_ih": (gates,),
        "bias_hh": (gates,),
        "weight_hr": (width, hidden),
        "peephole": (3 * hidden,),
        "gain_ih": (gates,),
        "gain_hh": (gates,),
        "gain_c": (hidden,),
        "bias_c": (hidden,),
    }
    weights: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        if name in further or name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            values = (torch.rand(*shape, generator=g, dtype=torch.float64) * 2 - 1) * hidden**-0.5
            weights[name] = (values + 1.0 * name.startswith("gain")).to(dtype).requires_grad_()
    return CELLS[row.name](**weights)


def projected(hidden: int) -> int:
    """The width of h with a projection of a cell of this size."""
    return max(1, hidden // 2)


def weights_of(cell: Any) -> dict[str, torch.Tensor]:
    """A cell's weights by name, those that are there."""
    return {f.name: weight for f in fields(cell) if (weight := getattr(cell, f.name)) is not None}


def make_state(cell: Any, rows: int, dtype: torch.dtype, seed: int = 1) -> Any:
    """A state that is nowhere zero and nowhere equal."""
    g = torch.Generator().manual_seed(seed)
    widths = (cell.weight_hh.shape[1], cell.weight_hh.shape[0] // len(cell.gates))
    parts = [
        torch.randn(rows, width, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
        for _, width in zip(cell.State._fields, widths, strict=False)
    ]
    return cell.State(*parts)


def by(rows: list[Any]) -> dict[str, Any]:
    """Arguments of pytest.mark.parametrize for a table: ids are the names. The kernel `cpu` is skipped where it was not built."""
    marks = [needs_core if isinstance(row, KernelRow) and row.name == "cpu" else () for row in rows]
    values = [pytest.param(row, marks=mark) for row, mark in zip(rows, marks, strict=True)]
    return {"argvalues": values, "ids": [row.name for row in rows]}
