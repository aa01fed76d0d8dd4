"""One step of each cell: by hand, against torch's cells, and its shape as a contract."""

import math

import pytest
import torch

from recurra.cells import CELLS, LSTM
from zoo import CELL_ROWS, by, make_cell, make_state

TORCH = {
    "rnn_tanh": torch.nn.RNNCell,
    "rnn_relu": lambda i, h, **o: torch.nn.RNNCell(i, h, nonlinearity="relu", **o),
    "lstm": torch.nn.LSTMCell,
    "gru": torch.nn.GRUCell,
}


def test_every_cell_has_a_row():
    assert [row.name for row in CELL_ROWS] == list(CELLS)


@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_step_is_torchs_cell(row):
    cell = make_cell(row, 5, 7, torch.float64)
    oracle = TORCH[row.name](5, 7, dtype=torch.float64)
    with torch.no_grad():
        for name, value in oracle.named_parameters():
            value.copy_(getattr(cell, name))
    x, state = torch.randn(3, 5, dtype=torch.float64), make_state(cell, 3, torch.float64)
    output, new = cell.step(x, state)
    want = oracle(x, tuple(state) if len(state) > 1 else state.h)
    assert torch.allclose(output, new.h)
    for a, b in zip(new, want if isinstance(want, tuple) else (want,), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-14)


def test_lstm_by_hand():
    """One unit, x = 1, h = 0, c = 2; the four sums are 0, so i = f = o = 1/2 and g = 0: c' = 1, h' = tanh(1) / 2."""
    zero = torch.zeros(4, 1)
    cell = LSTM(zero, zero, zero[:, 0], zero[:, 0])
    h, state = cell.step(torch.ones(1, 1), cell.State(torch.zeros(1, 1), torch.full((1, 1), 2.0)))
    assert state.c.item() == 1
    assert math.isclose(h.item(), math.tanh(1) / 2, rel_tol=1e-6)


@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_gates_have_names(row):
    cell = make_cell(row, 5, 7, torch.float64)
    gates = cell.named_gates(torch.zeros(3, 5, dtype=torch.float64), make_state(cell, 3, torch.float64))
    assert tuple(gates) == cell.gates
    assert all(gate.shape == (3, 7) for gate in gates.values())
    assert cell.name == row.name
    assert cell.State._fields[0] == "h"
