"""Promise 2: the same bits. A row of the runtime depends on that row alone, however it is cut, stepped or batched."""

import numpy as np
import pytest
import torch

from recurra.runtime import layers, plain
from tolerance import PLAIN, RUNTIME, error
from zoo import CELL_ROWS, by, needs_core

DEPTHS = [1, 2, 3]
HIDDEN = [1, 7, 63, 64]


@pytest.fixture(params=[pytest.param("core", marks=needs_core), "numpy"])
def backend(request, monkeypatch):
    """The C++ runtime and its numpy stand-in: the promise holds for both."""
    if request.param == "numpy":
        monkeypatch.setattr(layers, "_core", None)
    return request.param


def make(row, inputs, hidden, depth):
    """The runtime's stack and torch's, float64, with the same weights."""
    torch.manual_seed(hidden * 10 + depth)
    oracle = row.oracle(inputs, hidden, depth, batch_first=True)
    weights = {name: value.detach().numpy() for name, value in oracle.state_dict().items()}
    return layers.Recurrent(row.runtime, weights, layers=depth), oracle.double()


def data(stack, rows, frames, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, frames, stack.inputs)).astype(np.float32)
    return x, tuple(rng.standard_normal(part.shape).astype(np.float32) for part in stack.start(rows))


def same(a, b):
    """Bit for bit, NaN and the sign of zero included."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def rows_of(state, rows):
    return tuple(part[:, rows] for part in state)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_runtime_is_torch(backend, row, hidden, depth):
    stack, oracle = make(row, 5, hidden, depth)
    x, state = data(stack, 3, 20)
    y, new = stack(x, state)
    hx = tuple(torch.from_numpy(part).double() for part in state)
    want, last = oracle(torch.from_numpy(x).double(), hx if len(hx) > 1 else hx[0])
    assert error(y, want) <= RUNTIME
    for a, b in zip(new, last if isinstance(last, tuple) else (last,), strict=True):
        assert error(a, b) <= RUNTIME


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_whole_is_any_chunking_is_one_step_at_a_time_is_alone(backend, row, hidden, depth):
    stack, _ = make(row, 5, hidden, depth)
    x, state = data(stack, 64, 11)
    x[::3] = np.nan  # neighbours of row 1 and 4
    whole, last = stack(x, state)
    for b in (1, 4, 64 - 2):
        one, start = x[b : b + 1], rows_of(state, slice(b, b + 1))
        for cut in ([11], [4, 7], [1] * 11, [2, 1, 8]):
            at, memory, parts = 0, start, []
            for width in cut:
                y, memory = stack(one[:, at : at + width], memory)
                parts.append(y)
                at += width
            assert same(np.concatenate(parts, 1), whole[b : b + 1]), f"row {b} cut into {cut}"
            assert all(same(m, r) for m, r in zip(memory, rows_of(last, slice(b, b + 1)), strict=True))
    for batch in ([1, 4], [4, 62, 1], list(range(1, 64, 2))):
        y, memory = stack(x[batch], rows_of(state, batch))
        assert same(y, whole[batch]), f"rows {batch}"
        assert all(same(m, r) for m, r in zip(memory, rows_of(last, batch), strict=True))


@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_padding_is_not_there(backend, row):
    stack, _ = make(row, 5, 7, 2)
    x, state = data(stack, 4, 9)
    lengths = np.array([9, 0, 5, 1])
    for b, length in enumerate(lengths):
        x[b, length:] = np.nan
    before = [x.copy(), *(part.copy() for part in state)]
    y, new = stack(x, state, lengths)
    assert all(same(a, b) for a, b in zip(before, [x, *state], strict=True)), "the inputs were changed"
    for b, length in enumerate(lengths):
        alone, last = stack(x[b : b + 1, :length], rows_of(state, slice(b, b + 1)))
        assert same(y[b : b + 1, :length], alone)
        assert (y[b, length:] == 0).all()
        assert all(same(m[:, b : b + 1], r) for m, r in zip(new, last, strict=True))


@pytest.mark.parametrize("outputs", [1, 7, 63, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_rows(backend, outputs, bias):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, 63)).astype(np.float32)
    offset = rng.standard_normal(outputs).astype(np.float32) if bias else None
    linear = layers.Linear(weight, offset)
    x = rng.standard_normal((5, 64, 63)).astype(np.float32)
    x[0] = np.nan
    whole = linear(x)
    assert whole.shape == (5, 64, outputs)
    want = x.astype(np.float64) @ weight.T.astype(np.float64) + (0 if offset is None else offset)
    assert error(whole[1:], want[1:]) <= RUNTIME
    for rows in (1, 2, 3, 7, 64):
        assert same(linear(x[2, :rows]), whole[2, :rows])
    assert same(linear(x[3, 5]), whole[3, 5])


@needs_core
@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_numpy_stands_in_for_core(row):
    stack, _ = make(row, 5, 63, 2)
    twin = plain.Stack("rnn_tanh" if row.runtime == "rnn" else row.runtime)
    x, state = data(stack, 3, 20)
    weights = make(row, 5, 63, 2)[1].float().state_dict()
    for k in range(2):
        twin.add(*(weights[f"{name}_l{k}"].numpy() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")))
    y, new = stack(x, state)
    other, out = np.empty_like(y), [np.empty_like(part) for part in new]
    twin.run(x, None, state[0], state[1] if len(state) > 1 else None, other, out[0], out[1] if len(out) > 1 else None)
    assert error(y, other) <= PLAIN
    assert all(error(a, b) <= PLAIN for a, b in zip(new, out, strict=True))
