"""What a caller of recurra.nn's layers can get wrong, and what he is told."""

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from recurra.errors import DataError, RecipeError, UnsupportedError
from recurra.nn import GRU, LSTM
from zoo import LAYER_ROWS, by


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_is_torchs_kin_and_shows_itself_like_it(row):
    layer = row.ours(5, 7, 2, **row.options)
    assert isinstance(layer, row.oracle)
    assert repr(layer) == repr(row.oracle(5, 7, 2, **row.options))
    layer.flatten_parameters()


def test_packed_sequences_say_what_to_pass():
    with pytest.raises(UnsupportedError, match="lengths="):
        LSTM(5, 7)(pack_sequence([torch.zeros(3, 5)]))


def test_no_projection_yet():
    with pytest.raises(UnsupportedError, match="proj_size=3"):
        LSTM(5, 7, proj_size=3)


def test_kernel_by_name():
    with pytest.raises(RecipeError, match="did you mean 'cpu'"):
        GRU(5, 7, kernel="cpi")
    with pytest.raises(UnsupportedError, match="can't run this"):
        GRU(5, 7, kernel="aten")(torch.zeros(4, 2, 5), lengths=[4, 2])


@pytest.mark.parametrize("lengths", [[5, 1], [-1, 2], [1, 2, 3], [1.0, 2.0]])
def test_wrong_lengths(lengths):
    with pytest.raises(DataError, match="lengths must be"):
        GRU(5, 7)(torch.zeros(4, 2, 5), lengths=lengths)


def test_torchs_own_checks_stay():
    layer = LSTM(5, 7, batch_first=True)
    with pytest.raises(RuntimeError, match=r"input\.size"):
        layer(torch.zeros(2, 4, 6))
    with pytest.raises(RuntimeError, match="Expected hidden"):
        layer(torch.zeros(2, 4, 5), (torch.zeros(1, 3, 7), torch.zeros(1, 3, 7)))
    with pytest.raises(ValueError, match="dtype"):
        layer(torch.zeros(2, 4, 5, dtype=torch.float64))
    with pytest.raises(DataError, match=r"\[T, B, I\]"):
        layer(torch.zeros(5))


def test_an_empty_batch_passes():
    output, (h, _) = LSTM(5, 7)(torch.zeros(4, 0, 5))
    assert output.shape == (4, 0, 7)
    assert h.shape == (1, 0, 7)
    output.sum().backward()
