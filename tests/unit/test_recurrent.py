"""What a caller of recurra.nn's layers can get wrong, and what he is told."""

import inspect
import re
import warnings

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

from recurra.errors import DataError, RecipeError, StateError, UnsupportedError
from recurra.nn import GRU, LSTM, RNN
from zoo import LAYER_ROWS, by


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_is_torchs_kin_and_shows_itself_like_it(row):
    layer = row.ours(5, 7, 2, **row.options)
    assert isinstance(layer, torch.nn.RNNBase)
    assert not isinstance(layer, torch.nn.LSTM | torch.nn.GRU | torch.nn.RNN), "torch.compile breaks its graph at those"
    assert repr(layer) == repr(row.oracle(5, 7, 2, **row.options))
    layer.flatten_parameters()
    assert [len(group) for group in layer.all_weights] == [4, 4]
    assert layer._flat_weights_names == row.oracle(5, 7, 2, **row.options)._flat_weights_names


def test_options_are_shown_where_set():
    layer = LSTM(5, 7, 2, layer_norm=True, zoneout_c=0.1, checkpoint="every 16", kernel="cpu")
    assert repr(layer) == "LSTM(5, 7, num_layers=2, kernel=cpu, layer_norm=True, checkpoint=every 16, zoneout_c=0.1)"
    assert repr(LSTM(5, 7, proj_size=3, coupled=True)) == "LSTM(5, 7, proj_size=3, coupled=True)"


def test_positional_arguments_are_torchs():
    """RNNBase's order for a GRU and an LSTM; torch's RNN takes the nonlinearity fourth."""
    base = list(inspect.signature(torch.nn.RNNBase.__init__).parameters)[2:]
    for kind in (GRU, LSTM, RNN):
        mine = [n for n, p in inspect.signature(kind).parameters.items() if p.kind is not p.KEYWORD_ONLY]
        assert mine == (base if kind is not RNN else [*base[:3], "nonlinearity", *base[3:]])
    ours = RNN(5, 7, 2, "relu", False, True, 0.5, True, 0, "cpu", torch.float64)
    theirs = torch.nn.RNN(5, 7, 2, "relu", False, True, 0.5, True, 0, "cpu", torch.float64)
    assert repr(ours) == repr(theirs)
    assert ours.mode == theirs.mode
    assert ours.nonlinearity == theirs.nonlinearity
    assert ours.weight_ih_l0.dtype == torch.float64


@pytest.mark.parametrize("kind", [RNN, GRU])
def test_no_projection_but_for_an_lstm(kind):
    with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM, not RNN or GRU"):
        kind(5, 7, proj_size=3)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"hidden_size": 0}, "hidden_size must be greater than zero"),
        ({"num_layers": 0}, "num_layers must be greater than zero"),
        ({"dropout": 1.5}, "dropout should be a number in range"),
        ({"dropout": True}, "dropout should be a number in range"),
        ({"proj_size": -1}, "proj_size should be a positive integer or zero"),
        ({"proj_size": 7}, "proj_size has to be smaller than hidden_size"),
    ],
)
def test_torchs_own_errors_of_construction(arguments, error):
    for kind in (LSTM, torch.nn.LSTM):
        with pytest.raises(ValueError, match=error):
            kind(**{"input_size": 5, "hidden_size": 7, **arguments})
    with pytest.raises(ValueError, match="Unknown nonlinearity 'sine'"):
        RNN(5, 7, nonlinearity="sine")
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        LSTM(5, 7, dropout=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "gpu"}, "kernel 'gpu' is unknown; known: auto, cpu, aten .*cuDNN on a GPU.*, loop"),
        ({"kernel": None}, "kernel None is unknown; known: auto, cpu, aten"),
        ({"kernel": ["cpu"]}, r"kernel \['cpu'\] is unknown; known: auto, cpu, aten"),
        ({"recurrent_dropout": 1.5}, "recurrent_dropout must be a probability between 0 and 1, not 1.5"),
        ({"weight_drop": -0.1}, "weight_drop must be a probability"),
        ({"zoneout_h": True}, "zoneout_h must be a probability between 0 and 1, not True"),
        ({"zoneout_c": "much"}, "zoneout_c must be a probability between 0 and 1, not 'much'"),
        ({"checkpoint": "every 0"}, "checkpoint must be 'none', 'gates' or 'every k' with k >= 1, not 'every 0'"),
        ({"checkpoint": "all"}, "checkpoint must be"),
        ({"coupled": True, "layer_norm": True}, "coupled=True has no layer_norm"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(RecipeError, match=message):
        LSTM(5, 7, **options)


def test_a_kernel_that_can_not_is_said_when_it_is_asked():
    with pytest.raises(UnsupportedError, match="can't run this"):
        GRU(5, 7, kernel="aten")(torch.zeros(4, 2, 5), lengths=[4, 2])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5, 1], "lengths must be between 0 and 4, not 1 to 5"),
        ([-1, 2], "lengths must be between 0 and 4, not -1 to 2"),
        ([1, 2, 3], r"\[2\] whole numbers \(int64\), not \[3\] torch.int64"),
        ([1.0, 2.0], r"\[2\] whole numbers \(int64\), not \[2\] torch.float32"),
        ([True, True], r"\[2\] whole numbers \(int64\), not \[2\] torch.bool"),
        (torch.ones(2, dtype=torch.complex64), "not .* torch.complex64"),
        (np.ones(2, np.uint16), "not .* torch.uint16"),
        (torch.ones(2, dtype=torch.int64, device="meta"), "not a tensor on meta"),
        (3, r"not \[\] torch.int64"),
        ([[1, 2]], r"not \[1, 2\] torch.int64"),
        ([[1], [2, 3]], r"\[2\] whole numbers, not \[\[1\], \[2, 3\]\]"),
        ("12", r"\[2\] whole numbers, not '12'"),
        (["1", "2"], r"\[2\] whole numbers, not \['1', '2'\]"),
        ([None, 2], r"\[2\] whole numbers, not \[None, 2\]"),
        ({1, 2}, r"\[2\] whole numbers, not \{1, 2\}"),
        (np.array([[1, 2]] * 9, object), r"\[2\] whole numbers, not array"),
        ([10**30, 1], r"\[2\] whole numbers, not \[1000"),
    ],
)
def test_wrong_lengths(lengths, message):
    error, text = words(lambda: GRU(5, 7)(torch.zeros(4, 2, 5), lengths=lengths))
    assert error is DataError
    assert re.match(f"lengths must be .*{message.removeprefix('lengths must be ')}", text)
    assert "\n" not in text


@pytest.mark.parametrize("none", [[], (), torch.zeros(0, dtype=torch.int64)], ids=str)
def test_lengths_of_no_rows(none):
    assert GRU(5, 7)(torch.zeros(4, 0, 5), lengths=none)[0].shape == (4, 0, 7)


def test_a_packed_batch_of_floats():
    packed = PackedSequence(torch.zeros(4, 5), torch.tensor([2.0, 2.0]))
    with pytest.raises(DataError, match=r"batch_sizes must be .*, not \[2\] torch.float32 on cpu"):
        GRU(5, 7)(packed)


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        (torch.zeros(4, 2), r"\(batch first\) of True and False, not \[4, 2\] torch.float32"),
        (torch.zeros(2, 4, dtype=torch.complex64), r"\(batch first\) of True and False, not \[2, 4\] torch.complex64"),
        (torch.zeros(2, 4, dtype=torch.bool, device="meta"), "of True and False, not a tensor on meta"),
        ("never", "of True and False, not 'never'"),
        ([None], r"of True and False, not \[None\]"),
    ],
)
def test_wrong_resets(reset, message):
    with pytest.raises(DataError, match=rf"reset must be \[2, 4\] {message}"):
        GRU(5, 7)(torch.zeros(4, 2, 5), reset=reset)


def words(call):
    """The type and text of the error that a call ends with."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_wrong_inputs_and_states_are_said_in_torchs_words(row, batch_first):
    ours, theirs = (kind(5, 7, 2, batch_first=batch_first, **row.options) for kind in (row.ours, row.oracle))
    state = lambda *shape: torch.zeros(shape) if row.name != "LSTM" else (torch.zeros(shape),) * 2  # noqa: E731
    cases = [
        (torch.zeros(5),),
        (torch.zeros(1, 2, 4, 5),),
        (torch.zeros(4, 2, 6),),
        (torch.zeros(4, 2, 5, dtype=torch.float64),),
        (torch.zeros(4, 2, 5), state(2, 3, 7)),
        (torch.zeros(4, 2, 5), state(1, 4, 7)),
        (torch.zeros(4, 2, 5), state(2, 7)),
        (torch.zeros(4, 5), state(2, 1, 7)),
        (torch.zeros(4, 5), state(2, 8)),
        (torch.zeros(2, 0, 5) if batch_first else torch.zeros(0, 2, 5),),
    ]
    for case in cases:
        assert words(lambda case=case: ours(*case)) == words(lambda case=case: theirs(*case))


def test_states_of_another_type_or_number():
    with pytest.raises(RuntimeError, match="Input and hidden tensors are not the same dtype"):
        GRU(5, 7)(torch.zeros(4, 2, 5), torch.zeros(1, 2, 7, dtype=torch.float64))
    with pytest.raises(
        RuntimeError, match="Input and parameter tensors are not at the same device, found input tensor at meta"
    ):
        GRU(5, 7)(torch.zeros(4, 2, 5, device="meta"))


H = torch.zeros(1, 2, 7)


@pytest.mark.parametrize(
    ("layer", "hx", "message"),
    [
        (LSTM, H, r"LSTM is \(h_0, c_0\), two tensors, not Tensor"),
        (LSTM, (H, None), r"LSTM is \(h_0, c_0\), two tensors, not \(Tensor, NoneType\)"),
        (LSTM, (H.numpy(), H.numpy()), r"LSTM is \(h_0, c_0\), two tensors, not \(ndarray, ndarray\)"),
        (LSTM, (H, H, H), r"not \(Tensor, Tensor, Tensor\)"),
        (LSTM, (), r"not \(\)"),
        (LSTM, {"h": H, "c": H}, "not dict"),
        (LSTM, 3, "not int"),
        (GRU, (H,), "GRU is h_0, one tensor, not tuple"),
        (GRU, H.numpy(), "GRU is h_0, one tensor, not ndarray"),
        (RNN, [H], "RNN is h_0, one tensor, not list"),
    ],
)
def test_states_that_are_no_tensors(layer, hx, message):
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(4, 5)] * 2)
    for x in (torch.zeros(4, 2, 5), packed):
        with pytest.raises(StateError, match=f"hx of .*{message}"):
            layer(5, 7)(x, hx)


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (None, "NoneType"),
        (np.zeros((4, 2, 5)), "ndarray"),
        ([[[0.0]]], "list"),
        (torch.zeros(4, 2, 5).to_sparse(), "torch.sparse_coo"),
        (torch.nested.nested_tensor([torch.zeros(4, 5), torch.zeros(3, 5)], layout=torch.jagged), "nested"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_an_input_of_another_kind(x, kind):
    with pytest.raises(DataError, match=rf"input must be a dense tensor \(padded, with lengths=\) .*, not {kind}$"):
        GRU(5, 7)(x)


def test_lengths_and_resets_of_one_sequence():
    layer = GRU(5, 7)
    x = torch.randn(4, 5)
    reset = torch.tensor([False, False, True, False])
    one = layer(x, lengths=3, reset=reset, states=True)
    many = layer(x[:, None], lengths=[3], reset=reset[None], states=True)
    assert torch.equal(one[0], many[0][:, 0])
    assert torch.equal(one[2][0].h, many[2][0].h[:, 0])


def test_construction_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LSTM(5, 7, 2, dropout=0.5, recurrent_dropout=0.1)
