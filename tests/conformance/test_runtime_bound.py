"""A bound step gives the bits of the layers over time; bfloat16 and int8 weights have the error that is said."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from recurra.errors import DataError, UnsupportedError
from recurra.runtime import layers, plain
from tolerance import BOUND, PLAIN, error
from zoo import needs_core

GATES = {"lstm": 4, "gru": 3, "rnn": 1, "rnn_relu": 1}
SMALL = [cell for cell in GATES if cell != "rnn_relu"]  # |h| <= 1


@pytest.fixture(params=[pytest.param("core", marks=needs_core), "numpy"])
def backend(request, monkeypatch):
    """The C++ step and its numpy stand-in: the promise holds for both."""
    if request.param == "numpy":
        monkeypatch.setattr(layers, "_core", None)
    return request.param


def make(cell, inputs, hidden, depth=1, bias=True):
    """A stack with torch's initial weights: uniform, up to 1 / sqrt(H)."""
    rng, rows = np.random.default_rng(hidden * 10 + depth), GATES[cell] * hidden
    weights = {}
    for k in range(depth):
        shapes = {"weight_ih": (rows, hidden if k else inputs), "weight_hh": (rows, hidden)}
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)} if bias else {}
        for name, shape in shapes.items():
            weights[f"{name}_l{k}"] = (rng.uniform(-1, 1, shape) / np.sqrt(hidden)).astype(np.float32)
    return layers.Recurrent(cell, weights, layers=depth)


def data(stack, rows, frames):
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((rows, frames, stack.inputs)).astype(np.float32)
    return x, tuple(rng.uniform(-1, 1, part.shape).astype(np.float32) for part in stack.start(rows))


def restore(bound, state):
    for buffer, saved in zip(bound.state, state, strict=True):
        buffer[:] = saved


def run(bound, x):
    """y [rows, T, H] of the frames, one step after the other."""
    out = []
    for t in range(x.shape[1]):
        bound.x[:] = x[:, t]
        bound.step()
        out.append(bound.y.copy())
    return np.stack(out, 1)


def same(a, b):
    """Bit for bit, NaN and the sign of zero included."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("hidden", [1, 7, 16, 40, 63, 129])
@pytest.mark.parametrize("cell", GATES)
def test_float32_is_the_layers_bit_for_bit(backend, cell, hidden, depth):
    stack = make(cell, 5, hidden, depth)
    for rows in (1, 2, 7, 64):
        x, state = data(stack, rows, 6)
        want, last = stack(x, state)
        bound = stack.bind(rows)
        restore(bound, state)
        assert same(run(bound, x), want), f"{rows} rows"
        assert all(same(a, b) for a, b in zip(bound.state, last, strict=True))
        assert same(bound.y, bound.h[-1])


@needs_core  # the numpy one has no such limit
@pytest.mark.parametrize("cell", GATES)
def test_more_rows_than_are_done_together(cell):
    stack = make(cell, 3, 20, 2, bias=False)
    x, state = data(stack, 200, 4)
    bound = stack.bind(200)
    restore(bound, state)
    assert same(run(bound, x), stack(x, state)[0])


@pytest.mark.parametrize("weights", plain.MATRICES)
@pytest.mark.parametrize("cell", SMALL)
def test_a_row_depends_on_that_row_alone(backend, cell, weights):
    stack = make(cell, 5, 23, 2)
    x, state = data(stack, 64, 5)
    alone = {}
    for b in (1, 4, 62):
        bound = stack.bind(weights=weights)
        restore(bound, [part[:, b : b + 1] for part in state])
        alone[b] = run(bound, x[b : b + 1])[0]
    x[::3], state[0][:, 2] = np.nan, np.nan
    for rows in (range(64), [1, 0, 4, 2, 62, 3, 6], [4, 62, 1]):
        bound = stack.bind(len(rows), weights)
        restore(bound, [part[:, list(rows)] for part in state])
        y = run(bound, x[list(rows)])
        for place, b in enumerate(rows):
            if b in alone:
                assert same(y[place], alone[b]), f"row {b} of {len(rows)}"
            elif b % 3 == 0 or b == 2:
                assert np.isnan(y[place, -1]).all(), "a NaN was lost"


@pytest.mark.parametrize("weights", plain.MATRICES)
def test_save_and_restore(backend, weights):
    stack = make("lstm", 5, 19, 2)
    x, _ = data(stack, 3, 10)
    bound = stack.bind(3, weights)
    assert all((part == 0).all() for part in bound.state)
    first = run(bound, x[:, :4])
    saved = [part.copy() for part in bound.state]
    rest = run(bound, x[:, 4:])
    restore(bound, saved)
    assert same(run(bound, x[:, 4:]), rest)
    other = stack.bind(3, weights)
    restore(other, saved)
    assert same(run(other, x[:, 4:]), rest)
    bound.h[:, 1] = bound.c[:, 1] = 0  # row 1 starts anew
    assert same(run(bound, x)[1, :4], first[1])
    if weights == "float32":  # and the state goes on in the layers themselves
        assert same(stack(x[:, 4:], tuple(saved))[0], rest)


@needs_core
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@pytest.mark.parametrize("cell", SMALL)
@pytest.mark.parametrize("hidden", [64, 128, 256])
def test_error_over_a_long_stream(cell, hidden, weights):
    stack = make(cell, 8, hidden)
    x, state = data(stack, 2, 2000)
    bound = stack.bind(2, weights)
    restore(bound, state)
    assert error(run(bound, x), stack(x, state)[0]) <= BOUND[weights]


@needs_core
@pytest.mark.parametrize("weights", plain.MATRICES)
@pytest.mark.parametrize("cell", SMALL)
def test_numpy_stands_in_for_core(monkeypatch, cell, weights):
    stack = make(cell, 5, 37, 2)
    x, _ = data(stack, 3, 1)
    # on the grid of int8, so that no rounding of h is a close call
    state = tuple(
        (np.random.default_rng(1).integers(-127, 128, s.shape) / 127).astype(np.float32) for s in stack.start(3)
    )
    bound = stack.bind(3, weights)
    monkeypatch.setattr(layers, "_core", None)
    twin = stack.bind(3, weights)
    for each in (bound, twin):
        restore(each, state)
    got, want = run(bound, x), run(twin, x)
    # the layer above rounds an h that came out of the one below, so int8 may differ by one unit there
    assert error(bound.h[0], twin.h[0]) <= PLAIN
    assert error(got, want) <= (BOUND["int8"] if weights == "int8" else PLAIN)


STEP = """
import sys
import numpy as np
from recurra import _core
from recurra.runtime import layers
hidden, rng = 50, np.random.default_rng(0)
weights = {f"{n}_l0": rng.uniform(-1, 1, (4 * hidden, k)).astype(np.float32) for n, k in (("weight_ih", 3), ("weight_hh", hidden))}
for rows in (1, 5):
    bound = layers.Recurrent("lstm", weights, layers=1).bind(rows, sys.argv[1])
    bound.h[:] = rng.integers(-127, 128, bound.h.shape) / 127
    bound.x[:] = rng.standard_normal(bound.x.shape)
    bound.step()
    print(_core.isa(), *bound.y.ravel().tolist())
"""


@needs_core
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_instruction_sets_agree(weights):
    """int8 sums are integers, the same on all; what is left is the rounding of float32."""
    results = {}
    for isa in ("", "avx2", "portable"):
        ran = subprocess.run(
            [sys.executable, "-c", STEP, weights], env=os.environ | {"RECURRA_ISA": isa}, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        lines = [line.split() for line in ran.stdout.splitlines()]
        results[isa] = np.array([float(v) for line in lines for v in line[1:]])
    assert error(results["avx2"], results[""]) <= PLAIN
    assert error(results["portable"], results[""]) <= PLAIN


def test_int8_cuts_h_beyond_one(backend):
    stack = make("rnn", 3, 9)
    x = np.ones((1, 1, 3), np.float32)
    results = []
    for start in (1, 5, 1e30, np.inf):
        bound = stack.bind(weights="int8")
        bound.h[:] = start
        results.append(run(bound, x))
    assert all(same(y, results[0]) for y in results)


@pytest.mark.parametrize("weights", plain.MATRICES)
def test_weights_of_zero_and_almost_zero(backend, weights):
    for size in (0, 1e-45, 1e-38):
        given = {f"weight_{name}_l0": np.full((4, 1), size, np.float32) for name in ("ih", "hh")}
        assert (
            run(layers.Recurrent("lstm", given, layers=1).bind(weights=weights), np.zeros((1, 2, 1), np.float32)) == 0
        ).all()


def test_refusals_say_the_rule_and_the_value(backend):
    stack = make("lstm", 3, 4)
    for rows in (0, -1, 2.0, "2", None, True, [2]):
        with pytest.raises(DataError, match=re.escape(f"from 1 on, not {rows!r}")):
            stack.bind(rows)
    for weights in ("float64", "int4", np.float16, None, ["float32"]):
        with pytest.raises(UnsupportedError, match="one of float32, bfloat16, int8, not"):
            stack.bind(weights=weights)
    with pytest.raises(UnsupportedError, match="rnn_relu does not keep: use bfloat16 or float32"):
        make("rnn_relu", 3, 4).bind(weights="int8")
    weights = {f"weight_{name}_l0": np.full((4, 1), np.nan, np.float32) for name in ("ih", "hh")}
    with pytest.raises(UnsupportedError, match="finite weights"):
        layers.Recurrent("lstm", weights, layers=1).bind(weights="int8")
    bound = stack.bind(2)
    with pytest.raises(AttributeError, match="cannot assign to field 'x'"):
        bound.x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="read-only"):
        bound.y[:] = 0
    with pytest.raises(TypeError):
        bound.step(1)


@needs_core
def test_core_refuses_arrays_that_it_can_not_hold():
    from recurra._core import Bound

    x, h = np.zeros((2, 3), np.float32), np.zeros((1, 2, 4), np.float32)
    with pytest.raises(TypeError):
        Bound("gru", "float32", x.astype(np.float64), h, None)
    with pytest.raises(TypeError):
        Bound("gru", "float32", x, h[:, :, ::2], None)
    for wrong in [
        ("gru", "float32", x[:1], h, None),
        ("gru", "float32", x, h, h.copy()),
        ("lstm", "float32", x, h, None),
        ("lstm", "float32", x, h, np.zeros((1, 2, 5), np.float32)),
        ("gru", "float16", x, h, None),
        ("cell", "float32", x, h, None),
        ("rnn_relu", "int8", x, h, None),
        ("gru", "float32", x[:0], h[:, :0], None),
    ]:
        with pytest.raises(ValueError, match=r"must|needs|not"):
            Bound(*wrong)
    bound = Bound("gru", "float32", x, h, None)
    with pytest.raises(ValueError, match="layer"):
        bound.step()
    with pytest.raises(ValueError, match="weight_ih must be"):
        bound.add(np.zeros((12, 4), np.float32), np.zeros((12, 4), np.float32), None, None)
    bound.add(np.zeros((12, 3), np.float32), np.zeros((12, 4), np.float32), None, None)
    with pytest.raises(ValueError, match="no room"):
        bound.add(np.zeros((12, 4), np.float32), np.zeros((12, 4), np.float32), None, None)


@needs_core
def test_the_buffers_live_as_long_as_the_step():
    stack = make("lstm", 3, 4)
    step = stack.bind().step
    del stack
    for _ in range(100):
        step()
