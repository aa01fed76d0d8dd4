"""The runtime's layers: what they refuse, and what they say. Their numbers are in conformance/test_runtime_bits.py."""

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


def test_empty_batches_and_no_frames():
    stack = layers.Recurrent("lstm", weights(), layers=1)
    assert stack(np.zeros((0, 3, 5)), stack.start(0))[0].shape == (0, 3, 7)
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


@pytest.mark.parametrize("name", ["gain_ih_l0", "peephole_l0", "weight_hr_l0", "weight_ih_l1", "weight_ih_l0_reverse"])
def test_a_weight_that_would_be_dropped_is_refused(name):
    with pytest.raises(ModelFileError, match=f"plays no weight '{name}'"):
        layers.Recurrent("lstm", weights() | {name: np.zeros((28, 7), np.float32)}, layers=1)


def test_both_directions_refuse_what_they_would_drop():
    both = weights() | {f"{name}_reverse": value for name, value in weights().items()}
    layers.Bidirectional("lstm", both, layers=1)
    with pytest.raises(ModelFileError, match="plays no weight 'gain_hh_l0_reverse'"):
        layers.Bidirectional("lstm", both | {"gain_hh_l0_reverse": np.zeros(28, np.float32)}, layers=1)


def test_arguments_of_a_wrong_kind_are_one_line():
    stack = layers.Recurrent("lstm", weights(), layers=1)
    x, state = np.zeros((2, 3, 5)), stack.start(2)
    for wrong, error, text in (
        (lambda: layers.Recurrent("lstm", weights(), layers="2"), ModelFileError, "not '2'"),  # type: ignore[arg-type]
        (lambda: layers.Bidirectional("lstm", weights(), layers=None), ModelFileError, "not None"),  # type: ignore[arg-type]
        (lambda: stack.start(-1), DataError, "not -1"),
        (lambda: stack.start(2.0), DataError, "not 2.0"),  # type: ignore[arg-type]
        (lambda: stack("abc", state), DataError, "must be numbers"),  # type: ignore[arg-type]
        (lambda: stack(x, None), StateError, r"\(h, c\), not NoneType"),  # type: ignore[arg-type]
        (lambda: stack(x, ("h", "c")), StateError, r"state h must be \[1, 2, 7\]"),  # type: ignore[arg-type]
        (lambda: stack(x, state, np.array([1.5, 2.0])), DataError, r"2 whole numbers between 0 and 3, not \[1.5"),
        (lambda: stack(x, state, np.array([1])), DataError, r"2 whole numbers between 0 and 3, not \[1\]"),
    ):
        with pytest.raises(error, match=text) as caught:
            wrong()
        assert "\n" not in str(caught.value)
