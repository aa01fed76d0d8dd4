"""The codec of numeric series: standardised by what is known, missing values flagged, broken ones refused."""

import numpy as np
import pytest

from recurra.codec import values
from recurra.errors import DataError


def test_channels_are_standardised_over_all_steps():
    rng = np.random.default_rng(0)
    rows = [rng.normal([5.0, -1e6], [2.0, 1e3], (n, 2)) for n in (3, 70, 400)]
    codec = values.fit(rows)
    together = np.concatenate([codec.encode(row) for row in rows])
    assert (codec.channels, codec.features) == (2, 2)
    assert np.abs(together.mean(0)).max() < 1e-3
    assert np.abs(together.std(0) - 1).max() < 1e-3


def test_missing_values_are_the_mean_and_a_flag():
    codec = values.fit([np.array([1.0, np.nan, 3.0]), np.array([2.0])])
    assert codec.flags
    assert np.array_equal(codec.encode([np.nan, 2.0, 3.0]), np.float32([[0, 1], [0, 0], [np.sqrt(1.5), 0]]))
    whole = values.fit([np.array([1.0, 3.0])])
    assert not whole.flags
    assert np.array_equal(whole.encode([np.nan, 3.0]), [[0], [1]])


def test_odd_series():
    constant = values.fit([np.full(5, 7.0), np.full(3, 7.0)])
    assert np.array_equal(constant.encode([7.0, 8.0]), [[0], [1]])
    unknown = values.fit([np.full((4, 2), np.nan)])
    assert np.array_equal(unknown.encode(np.full((1, 2), np.nan)), [[0, 0, 1, 1]])
    assert np.abs(constant.encode([1e300])).max() == values.FAR
    assert constant.encode(np.zeros((0, 1))).shape == (0, 1)


def test_steps_side_by_side_in_a_frame():
    rows = [np.arange(14.0).reshape(7, 2), np.full((3, 2), np.nan)]
    step, frame = values.fit(rows), values.fit(rows, frames=3)
    assert (frame.together, frame.features) == (3, 12)
    alone, together = step.encode(rows[0]), frame.encode(rows[0])
    assert np.array_equal(together[:2].reshape(6, 4), alone[:6])
    assert np.array_equal(together[2].reshape(3, 4), alone[[6, 6, 6]])
    assert frame.encode(np.stack([rows[0][:3]] * 2)).shape == (2, 1, 12)
    assert frame.encode(np.zeros((0, 2))).shape == (0, 12)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no series"),
        ([[1.0, np.inf]], "holds inf"),
        ([["a"]], "must be numbers"),
        ([1.0], "must be a list"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], "series 2 has 1 value"),
    ],
)
def test_broken_series_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        values.fit(rows)


def test_another_number_of_channels_is_refused():
    with pytest.raises(DataError, match=r"a step has 2 value\(s\), not 1"):
        values.fit([np.zeros((3, 2))]).encode(np.zeros(3))
