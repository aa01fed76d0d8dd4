"""The runtime's layers: what they refuse, and what they say. Their numbers are in conformance/test_runtime_bits.py."""

import re
import subprocess
import sys

import numpy as np
import pytest

from recurra.errors import DataError, ModelFileError, StateError, UnsupportedError
from recurra.runtime import layers, plain


def weights(inputs=5, hidden=7, gates=4):
    shapes = {"weight_ih": (gates * hidden, inputs), "weight_hh": (gates * hidden, hidden)}
    shapes |= {"bias_ih": (gates * hidden,), "bias_hh": (gates * hidden,)}
    rng = np.random.default_rng(0)
    return {f"{name}_l0": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_start_is_zeros_by_name():
    stack = layers.Recurrent("lstm", weights(), layers=1)
    assert stack.state_names == ("h", "c")
    assert [part.shape for part in stack.start(3)] == [(1, 3, 7)] * 2
    assert layers.Recurrent("gru", weights(gates=3), layers=1).state_names == ("h",)


def test_biases_may_be_absent():
    given = weights()
    without = {name: value for name, value in given.items() if name.startswith("weight")}
    zeros = without | {name: np.zeros_like(value) for name, value in given.items() if name.startswith("bias")}
    x = np.ones((2, 3, 5), np.float32)
    a, b = (layers.Recurrent("lstm", w, layers=1) for w in (without, zeros))
    assert np.array_equal(a(x, a.start(2))[0], b(x, b.start(2))[0])


def test_refusals_say_the_rule_and_the_value():
    with pytest.raises(UnsupportedError, match="not 'transformer'"):
        layers.Recurrent("transformer", weights(), layers=1)
    with pytest.raises(ModelFileError, match="weight_ih_l1 is missing"):
        layers.Recurrent("lstm", weights(), layers=2)
    with pytest.raises(ModelFileError, match=r"must have shape \(28, 5\)|must have shape \(21, 5\)"):
        layers.Recurrent("gru", weights(), layers=1)
    stack = layers.Recurrent("lstm", weights(), layers=1)
    with pytest.raises(DataError, match=r"\[rows, frames, 5\], not \[2, 3, 4\]"):
        stack(np.zeros((2, 3, 4)), stack.start(2))
    with pytest.raises(StateError, match=r"state h must be \[1, 2, 7\]"):
        stack(np.zeros((2, 3, 5)), stack.start(3))
    with pytest.raises(StateError, match=r"\(h, c\), not 1 arrays"):
        stack(np.zeros((2, 3, 5)), stack.start(2)[:1])
    with pytest.raises(DataError, match="between 0 and 3"):
        stack(np.zeros((2, 3, 5)), stack.start(2), np.array([1, 4]))
    with pytest.raises(DataError, match=r"\[..., 3\], not \[2\]"):
        layers.Linear(np.zeros((4, 3)), None)(np.zeros(2))
    with pytest.raises(ModelFileError, match="bias"):
        layers.Linear(np.zeros((4, 3)), np.zeros(3))


LSTM = weights()
REVERSE = {f"{name}_reverse": value for name, value in LSTM.items()}
SECOND = {name.replace("_l0", "_l1"): value for name, value in weights(inputs=7).items()}


@pytest.mark.parametrize(
    ("further", "name", "way"),
    [
        ({"gain_ih_l0": np.ones(28)}, "gain_ih_l0", "layer_norm"),
        ({"bias_c_l0": np.ones(7)}, "bias_c_l0", "layer_norm"),
        ({"weight_peephole_l0": np.ones(21)}, "weight_peephole_l0", "peepholes"),
        ({"weight_hr_l0": np.ones((3, 7))}, "weight_hr_l0", "proj_size"),
        (SECOND, "bias_hh_l1", "layers=2"),
        (REVERSE, "bias_hh_l0_reverse", "Bidirectional"),
        ({"": np.ones(1)}, " among", "without the option"),
    ],
)
def test_a_weight_that_would_not_be_played_is_refused(further, name, way):
    with pytest.raises(ModelFileError, match=f"no place for the weight {name}.*{way}"):
        layers.Recurrent("lstm", LSTM | further, layers=1)


def test_a_bidirectional_stack_refuses_a_weight_that_would_not_be_played():
    with pytest.raises(ModelFileError, match=r"no place for the weight bias_hh_l1 .*layers=2"):
        layers.Bidirectional("lstm", LSTM | REVERSE | SECOND, layers=1)
    with pytest.raises(ModelFileError, match="no place for the weight gain_hh_l0"):
        layers.Bidirectional("lstm", LSTM | REVERSE | {"gain_hh_l0": np.ones(28)}, layers=1)


def test_a_weight_is_of_numbers():
    with pytest.raises(ModelFileError, match="weight_ih_l0 must hold numbers, not <U1"):
        layers.Recurrent("lstm", LSTM | {"weight_ih_l0": np.full((28, 5), "a")}, layers=1)


@pytest.mark.parametrize("made", [layers.Recurrent, layers.Bidirectional])
@pytest.mark.parametrize("count", ["2", 1.0, True, None, 0, -1])
def test_layers_is_a_whole_number(made, count):
    with pytest.raises(ModelFileError, match=re.escape(f"at least 1, not {count!r}")):
        made("lstm", LSTM | (REVERSE if made is layers.Bidirectional else {}), layers=count)


@pytest.mark.parametrize("rows", [-1, 2.0, "2", True, None])
def test_rows_is_a_whole_number(rows):
    with pytest.raises(DataError, match=re.escape(f"from 0 on, not {rows!r}")):
        layers.Recurrent("lstm", LSTM, layers=1).start(rows)


@pytest.mark.parametrize("x", ["abc", [[["a"] * 5] * 3] * 2, np.zeros((2, 3, 5), complex), None, [[1.0], [1.0, 2.0]]])
def test_x_is_of_numbers(x):
    stack = layers.Recurrent("lstm", LSTM, layers=1)
    for play in (
        lambda: stack(x, stack.start(2)),
        lambda: layers.Bidirectional("lstm", LSTM | REVERSE, layers=1)(x),
        lambda: layers.Linear(np.zeros((4, 5)), None)(x),
    ):
        with pytest.raises(DataError, match="x must be an array of numbers, not"):
            play()


@pytest.mark.parametrize(
    "lengths", [[1.9, 2.5], [2.0, 3.0], [True, False], "abc", [1, 2, 3], [[1], [2]], 2, [[1], [1, 2]], [-1, 2], [1, 4]]
)
def test_lengths_are_whole_numbers(lengths):
    stack = layers.Recurrent("lstm", LSTM, layers=1)
    both = layers.Bidirectional("lstm", LSTM | REVERSE, layers=1)
    x = np.zeros((2, 3, 5))
    for play in (lambda: stack(x, stack.start(2), lengths), lambda: both(x, lengths)):
        with pytest.raises(DataError, match=r"^lengths must be 2 whole number\(s\) between 0 and 3, not .+$"):
            play()


def test_a_state_is_arrays_of_numbers():
    stack = layers.Recurrent("lstm", LSTM, layers=1)
    x = np.zeros((2, 3, 5))
    for state in (None, 3, "hc", {"h": 1, "c": 2}):
        with pytest.raises(StateError, match=r"the state of lstm is \(h, c\), not \w+: begin with start\(rows\)"):
            stack(x, state)
    with pytest.raises(StateError, match="state c must be an array of numbers, not of <U1"):
        stack(x, (stack.start(2)[0], "a"))
    h, c = stack.start(2)
    assert np.array_equal(stack(x, (h.tolist(), c.tolist()))[0], stack(x, (h, c))[0])


def test_empty_batches_and_no_frames():
    stack = layers.Recurrent("lstm", weights(), layers=1)
    assert stack(np.zeros((0, 3, 5)), stack.start(0), [])[0].shape == (0, 3, 7)
    state = tuple(np.ones_like(part) for part in stack.start(2))
    y, new = stack(np.zeros((2, 0, 5)), state)
    assert y.shape == (2, 0, 7)
    assert all(np.array_equal(a, b) for a, b in zip(new, state, strict=True))
    assert layers.Linear(np.zeros((4, 3)), None)(np.zeros((0, 3))).shape == (0, 4)


def test_without_core_it_warns_once_a_model(monkeypatch):
    monkeypatch.setattr(layers, "_core", None)
    with pytest.warns(RuntimeWarning, match="reinstall with a C"):
        layers.Recurrent("lstm", weights(), layers=1)


def test_activations_are_exact_to_a_few_ulp_and_saturate():
    x = np.linspace(-30, 30, 100_001, dtype=np.float32)
    exact = x.astype(np.float64)
    # measured: sigmoid 1.6 ulp, tanh 2.1 ulp of the result
    for got, want in [(plain.sigmoid(x), 1 / (1 + np.exp(-exact))), (plain.tanh(x), np.tanh(exact))]:
        assert np.abs(got - want).max() < 3e-7
    extreme = np.array([-np.inf, -1e30, 0, 1e30, np.inf, np.nan], np.float32)
    assert np.array_equal(plain.tanh(extreme), [-1, -1, 0, 1, 1, np.nan], equal_nan=True)
    assert np.allclose(plain.sigmoid(extreme), [0, 0, 0.5, 1, 1, np.nan], atol=1e-30, equal_nan=True)


def test_relu():
    assert np.array_equal(layers.relu(np.array([-1, 0, 2, np.nan], np.float32)), [0, 0, 2, np.nan], equal_nan=True)


def test_no_torch_is_imported():
    code = "import sys; sys.modules['torch'] = None; import recurra.runtime.layers as l; print(l.COMPILED)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() in (
        "True",
        "False",
    )
