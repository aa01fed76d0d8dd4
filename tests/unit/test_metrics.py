"""Scores against numbers worked out by hand, and M4's floors against the official table."""

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from recurra import metrics as m
from recurra.errors import DataError

nan = float("nan")


def test_smape_by_hand():
    assert m.smape([1.0, 2.0], [3.0, 2.0]) == pytest.approx((200 * 2 / 4 + 0) / 2)
    assert m.smape([0.0, 1.0], [0.0, 0.0]) == pytest.approx(100.0)  # 0/0 counts 0, 1 against 0 counts 200
    assert m.smape([-1.0], [1.0]) == pytest.approx(200.0)


def test_mase_by_hand():
    insample = [1.0, 5.0, 2.0, 7.0]  # |2-1|, |7-5| -> 1.5
    assert m.mase([3.0, 4.0], [2.0, 6.0], insample, 2) == pytest.approx(1.0)
    assert m.mase([1.0], [1.0], [3.0, 3.0], 1) == 0
    assert m.mase([1.0], [2.0], [3.0, 3.0], 1) == float("inf")
    assert np.isnan(m.mase([1.0], [2.0], [3.0], 1))


def test_owa_by_hand():
    assert m.owa(5.0, 2.0, 10.0, 2.0) == pytest.approx(0.75)
    assert m.owa(10.0, 2.0, 10.0, 2.0) == 1.0


def test_mae_mse_by_hand():
    assert m.mae([1.0, 2.0], [2.0, 4.0]) == 1.5
    assert m.mse([1.0, 2.0], [2.0, 4.0]) == 2.5


@pytest.mark.parametrize("score", [m.mae, m.mse, m.smape, lambda y, f: m.pinball(y, f, 0.3)])
def test_missing_actuals_are_left_out(score):
    assert score([1.0, nan, 3.0], [2.0, 9.0, 5.0]) == score([1.0, 3.0], [2.0, 5.0])
    assert np.isnan(score([nan], [1.0]))
    assert np.isnan(score([1.0], [nan]))  # a missing forecast is never hidden


def test_shapes_must_agree():
    with pytest.raises(DataError, match="different shapes"):
        m.mae([1.0, 2.0], [1.0])


def test_pinball_by_hand():
    assert m.pinball([3.0], [1.0], 0.9) == pytest.approx(1.8)
    assert m.pinball([1.0], [3.0], 0.9) == pytest.approx(0.2)
    with pytest.raises(DataError, match="between 0 and 1"):
        m.pinball([1.0], [1.0], 90)


def test_weighted_quantile_loss_by_hand():
    y = [3.0, 1.0]
    quantiles = {0.5: [1.0, 1.0], 0.9: [3.0, 3.0]}
    # q .5: 2*(1+0) / 4 = .5    q .9: 2*(0+.2) / 4 = .1
    assert m.weighted_quantile_loss(y, quantiles) == pytest.approx(0.3)
    assert m.weighted_quantile_loss([3.0, nan, 1.0], {0.5: [1.0, 7.0, 1.0], 0.9: [3.0, 7.0, 3.0]}) == pytest.approx(0.3)
    assert m.crps_from_quantiles(y, quantiles) == pytest.approx((1.0 + 0.2) / 2)


def test_crps_forms_agree():
    rng = np.random.default_rng(0)
    y = np.array([0.3, -1.2, 2.5])
    exact = m.crps_gaussian(y, np.zeros(3), np.full(3, 1.5))
    samples = rng.normal(scale=1.5, size=(200_000, 3))
    assert m.crps_from_samples(y, samples) == pytest.approx(exact, rel=5e-3)
    levels = (np.arange(999) + 0.5) / 999
    quantiles = {float(q): v for q, v in zip(levels, np.quantile(samples, levels, axis=0), strict=True)}
    assert m.crps_from_quantiles(y, quantiles) == pytest.approx(exact, rel=5e-3)
    # at the mean: sd (2 phi(0) - 1/sqrt(pi)) = sd (sqrt(2) - 1) / sqrt(pi)
    assert m.crps_gaussian([1.0], [1.0], [2.0]) == pytest.approx(2 * (2**0.5 - 1) / np.pi**0.5)
    assert m.crps_from_samples([1.0], [[0.0], [2.0]]) == pytest.approx(0.5)


def test_coverage_by_hand():
    assert m.coverage([1.0, 2.0, nan, 3.0], [0.0, 2.0, 0.0, 4.0], [1.0, 3.0, 0.0, 5.0]) == pytest.approx(2 / 3)


def test_naive_forecasts_by_hand():
    assert m.naive([1.0, 2.0, nan], 2).tolist() == [2.0, 2.0]
    assert m.seasonal_naive([9.0, 1.0, 2.0, 3.0], 4, 3).tolist() == [1.0, 2.0, 3.0, 1.0]
    assert m.seasonal_naive([1.0, 2.0], 3, 3).tolist() == [2.0, 2.0, 2.0]
    assert m.seasonal_naive([7.0, 5.0, nan, 6.0], 2, 2).tolist() == [7.0, 6.0]
    assert m.seasonal_naive([nan, 5.0, nan, 6.0], 2, 2).tolist() == [6.0, 6.0]
    with pytest.raises(DataError, match="at least one known value"):
        m.naive([nan], 1)


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
