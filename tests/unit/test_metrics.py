"""Scores against numbers worked out by hand, and M4's floors against the official table."""

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from recurra import metrics as m
from recurra.codec.distribution import normal_quantile
from recurra.errors import DataError
from recurra.runtime.prediction import Backtest, Prediction
from recurra.runtime.scores import score

nan = float("nan")


def test_smape_by_hand():
    assert m.smape([1.0, 2.0], [3.0, 2.0]) == pytest.approx((200 * 2 / 4 + 0) / 2)
    assert m.smape([0.0, 1.0], [0.0, 0.0]) == pytest.approx(100.0)  # 0/0 counts 0, 1 against 0 counts 200
    assert m.smape([-1.0], [1.0]) == pytest.approx(200.0)


def test_mase_by_hand():
    insample = [1.0, 5.0, 2.0, 7.0]  # |2-1|, |7-5| -> 1.5
    assert m.mase([3.0, 4.0], [2.0, 6.0], insample, 2) == pytest.approx(1.0)
    assert m.scales(insample, 2) == pytest.approx([nan, nan, 1.0, 1.5], nan_ok=True)
    assert m.scaled_errors([3.0, nan], [2.0, 6.0], insample, 2) == pytest.approx([1 / 1.5, nan], nan_ok=True)


def test_what_is_not_defined_is_nan_and_left_out_of_averages():
    for constant in ([3.0, 3.0], [3.0], [3.0, nan, 3.0]):
        assert np.isnan(m.mase([1.0], [1.0], constant, 1))
        assert np.isnan(m.mase([1.0], [2.0], constant, 1))
    assert np.isnan(m.owa(1.0, 1.0, 0.0, 1.0))
    assert np.isnan(m.owa(1.0, 1.0, 1.0, nan))
    assert m.average([1.0, nan, 3.0]) == 2.0
    assert np.isnan(m.average([nan]))


def test_owa_by_hand():
    assert m.owa(5.0, 2.0, 10.0, 2.0) == pytest.approx(0.75)
    assert m.owa(10.0, 2.0, 10.0, 2.0) == 1.0


@pytest.mark.parametrize("score", [m.smape, lambda y, f: m.mase(y, f, [1.0, 2.0, 5.0], 1)])
def test_missing_actuals_are_left_out(score):
    assert score([1.0, nan, 3.0], [2.0, 9.0, 5.0]) == score([1.0, 3.0], [2.0, 5.0])
    assert np.isnan(score([nan], [1.0]))
    assert np.isnan(score([1.0], [nan]))  # a missing forecast is never hidden


def test_shapes_must_agree():
    with pytest.raises(DataError, match="different shapes"):
        m.smape([1.0, 2.0], [1.0])


def test_quantile_losses_by_hand():
    assert m.quantile_losses([3.0], [[1.0]], [0.9]).tolist() == [[pytest.approx(3.6)]]
    assert m.quantile_losses([1.0], [[3.0]], [0.9]).tolist() == [[pytest.approx(0.4)]]
    with pytest.raises(DataError, match="between 0 and 1"):
        m.quantile_losses([1.0], [[1.0]], [90])


def test_quantile_scores_by_hand():
    y, quantiles = [3.0, nan, 1.0], [[1.0, 3.0], [7.0, 7.0], [1.0, 3.0]]
    # q .5: 2*(1+0) = 2    q .9: 2*(0+.2) = .4    sum |y| = 4
    whole, pieces = m.QuantileScores((0.5, 0.9)), m.QuantileScores((0.5, 0.9))
    whole.add(y, quantiles)
    for i in range(3):
        pieces.add(y[i : i + 1], quantiles[i : i + 1])
    for found in (whole, pieces):
        assert found.wql == pytest.approx((0.5 + 0.1) / 2)
        assert found.crps == pytest.approx((1.0 + 0.2) / 2)
        assert found.coverage == 1.0
        assert found.nominal == pytest.approx(0.4)
    assert np.isnan([m.QuantileScores(levels).wql for levels in ((), (0.5,))]).all()


def test_crps_of_dense_quantiles_is_that_of_the_normal():
    levels = tuple(((np.arange(999) + 0.5) / 999).tolist())
    found = m.QuantileScores(levels)
    found.add([0.0], normal_quantile(np.asarray(levels))[None])
    # at the mean, Gneiting and Raftery (2007): 2 phi(0) - 1/sqrt(pi)
    assert found.crps == pytest.approx((2**0.5 - 1) / np.pi**0.5, rel=5e-3)


def test_coverage_by_hand():
    found = m.QuantileScores((0.1, 0.9))
    found.add([1.0, 2.0, nan, 3.0], [[0.0, 1.0], [2.0, 3.0], [0.0, 0.0], [4.0, 5.0]])
    assert found.coverage == pytest.approx(2 / 3)


def test_naive_forecasts_by_hand():
    assert m.naive([1.0, 2.0, nan], 2).tolist() == [2.0, 2.0]
    assert m.seasonal_naive([9.0, 1.0, 2.0, 3.0], 4, 3).tolist() == [1.0, 2.0, 3.0, 1.0]
    assert m.seasonal_naive([1.0, 2.0], 3, 3).tolist() == [2.0, 2.0, 2.0]
    assert m.seasonal_naive([7.0, 5.0, nan, 6.0], 2, 2).tolist() == [5.0, 6.0]
    assert m.seasonal_naive([nan, nan, nan, 6.0], 2, 2).tolist() == [6.0, 6.0]
    with pytest.raises(DataError, match="at least one known value"):
        m.naive([nan], 1)


def test_all_origins_at_once_are_each_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    x[[0, 1, 9, 20, 21, 22]] = nan
    at, h = np.arange(3, 36), 4
    y, f = x[at[:, None] + np.arange(h)], rng.normal(size=(len(at), h))
    for season in (1, 3, 7):
        naive, seasonal = m.naive(x, h, at), m.seasonal_naive(x, h, season, at)
        errors = m.scaled_errors(y, f, x, season, at)
        for o, t in enumerate(at):
            assert naive[o].tolist() == m.naive(x[:t], h).tolist()
            assert seasonal[o].tolist() == m.seasonal_naive(x[:t], h, season).tolist()
            np.testing.assert_array_equal(errors[o], m.scaled_errors(y[o], f[o], x[:t], season))
        assert m.mase(y, f, x, season, at) == pytest.approx(np.nanmean(errors))


def test_scores_are_those_of_the_metrics():
    """A table of two series, one with a constant history: it has no MASE and counts in all the rest."""
    moving, constant = np.array([1.0, 5.0, 2.0, 7.0, 4.0, 3.0]), np.array([3.0, 3.0, 3.0, 3.0, 4.0, 5.0])
    at, y_hat = np.array([4]), np.array([[3.0, 6.0]])
    answer = Prediction(y_hat, np.stack([y_hat - 1, y_hat, y_hat + 2], -1), (0.1, 0.5, 0.9))
    tests = [Backtest(i, y, at, answer) for i, y in enumerate((moving, constant))]
    found = score(tests, answer.levels, 1, skipped=0, naive2=True)
    assert found.series == 2
    assert found.rows["model"]["mase"] == m.mase(moving[4:], y_hat[0], moving[:4], 1)
    assert found.rows["model"]["smape"] == np.mean([m.smape(y[4:], y_hat[0]) for y in (moving, constant)])
    assert found.rows["naive"]["mase"] == m.mase(moving[4:], m.naive(moving[:4], 2), moving[:4], 1)
    assert found.rows["model"]["coverage"] == 0.75
    only = score(tests[1:], answer.levels, 1, skipped=0, naive2=True)
    assert np.isnan(only.rows["model"]["mase"])
    assert only.to_json()["rows"]["model"]["mase"] is None
    assert only.to_json()["rows"]["model"]["owa"] is None


def test_seasonal_indices_by_hand():
    # a constant level times (0.5, 1.5): the centred average is the level, so the indices come back
    x = 10 * np.tile([0.5, 1.5], 6)
    assert m.seasonal_indices(x, 2) == pytest.approx([0.5, 1.5])
    assert m.seasonal_indices(10 * np.tile([0.5, 1.0, 1.5], 6), 3) == pytest.approx([0.5, 1.0, 1.5])


def test_naive2_by_hand():
    x = 10 * np.tile([0.5, 1.0, 1.5], 8)
    assert m.is_seasonal(x, 3)
    assert m.naive2(x, 4, 3) == pytest.approx([5.0, 10.0, 15.0, 5.0])
    assert m.naive2(x[:-1], 4, 3) == pytest.approx([15.0, 5.0, 10.0, 15.0], rel=1e-12)
    assert m.naive2(-x, 4, 3).tolist() == [-15.0] * 4  # not positive
    assert m.naive2(x[:8], 2, 3).tolist() == [10.0, 10.0]  # fewer than three seasons
    assert not m.is_seasonal(np.ones(30), 3)
    assert not m.is_seasonal(np.arange(40.0), 30)


def _m4(folder: Path, name: str) -> list[np.ndarray]:
    with gzip.open(folder / f"{name}.csv.gz", "rt") as file:
        rows = list(csv.reader(file))[1:]
    return [np.array([float(v) for v in row[1:] if v]) for row in rows]


@pytest.mark.parametrize(
    ("group", "season", "horizon", "snaive", "naive2"),
    [("Hourly", 24, 48, (13.912, 1.193), (18.383, 2.395)), ("Weekly", 1, 13, (9.161, 2.777), (9.161, 2.777))],
)
def test_m4_official_table(group, season, horizon, snaive, naive2):
    data = os.environ.get("RECURRA_DATA")
    if not data:
        pytest.skip("RECURRA_DATA is not set: it names the folder that holds m4_hourly_weekly")
    folder = Path(data) / "m4_hourly_weekly"
    train, test = _m4(folder, f"{group}-train"), _m4(folder, f"{group}-test")
    for method, expected in ((m.seasonal_naive, snaive), (m.naive2, naive2)):
        forecasts = [method(x, horizon, season) for x in train]
        smape = m.average([m.smape(y, f) for y, f in zip(test, forecasts, strict=True)])
        mase = m.average([m.mase(y, f, x, season) for y, f, x in zip(test, forecasts, train, strict=True)])
        assert (round(smape, 3), round(mase, 3)) == expected
