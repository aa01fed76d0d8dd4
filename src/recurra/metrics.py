"""Scores of forecasts and the naive floors that they must beat, by the definitions of their sources.

A function takes one series: y and f of any shape, or, for the forecasts from many origins at once, y and f [O, h], the
whole series x [T] and `at` [O], how many of its rows had been seen at each origin. Average over series afterwards, as M4
does. Missing actuals (NaN) are left out. What is not defined is NaN (no actual; a constant history has no MASE) and is
left out of averages. A forecast may not be NaN where the actual is known: the score is then NaN.

[M4]: Makridakis, Spiliotis, Assimakopoulos (2020), The M4 Competition, and the organisers' R code, "Benchmarks and
Evaluation.R".
[GluonTS]: Alexandrov et al. (2020), JMLR 21(116); quantile_loss and mean weighted quantile loss of its evaluation.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from recurra.errors import DataError


def _pair(y: ArrayLike, f: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Actuals and forecasts as float64."""
    actual, forecast = np.asarray(y, dtype=np.float64), np.asarray(f, dtype=np.float64)
    if actual.shape != forecast.shape:
        raise DataError(
            f"actuals {actual.shape} and forecasts {forecast.shape} have different shapes: score the same steps"
        )
    return actual, forecast


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def smape(y: ArrayLike, f: ArrayLike) -> float:
    """Symmetric MAPE in percent, 0 to 200: mean of 200 |y - f| / (|y| + |f|); 0/0 counts 0. [M4]

    Some libraries give half of this, or a fraction instead of percent.
    """
    actual, forecast = _pair(y, f)
    known = ~np.isnan(actual)
    actual, forecast = actual[known], forecast[known]
    top, bottom = 200 * np.abs(actual - forecast), np.abs(actual) + np.abs(forecast)
    return _mean(np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0))


def scales(x: ArrayLike, m: int) -> np.ndarray:
    """MASE's denominator at every row of x [T], in its unit: mean |x_t - x_{t-m}| of the rows up to it; NaN before there
    is one. [M4]
    """
    x = np.asarray(x, dtype=np.float64)
    if m < 1:
        raise DataError(f"m is the season's length in steps, at least 1, not {m}")
    step = np.full(len(x), np.nan)
    step[m:] = np.abs(x[m:] - x[:-m]) if len(x) > m else 0.0
    known = ~np.isnan(step)
    total, n = np.cumsum(np.where(known, step, 0.0)), np.cumsum(known)
    return np.divide(total, n, out=np.full(len(x), np.nan), where=n > 0)


def scaled_errors(y: ArrayLike, f: ArrayLike, x: ArrayLike, m: int, at: np.ndarray | None = None) -> np.ndarray:
    """|y - f| in units of `scales(x, m)`, in y's shape; NaN where y is missing, or the scale is, or is 0. [M4]

    x: the training part; or, with `at` [O], the whole series, of which y and f [O, h] follow the first at[o] rows.
    """
    actual, forecast = _pair(y, f)
    unit = _units(x, m, at)
    error = np.abs(actual - forecast)
    return np.divide(error, unit, out=np.full(error.shape, np.nan), where=unit > 0)


def _units(x: ArrayLike, m: int, at: np.ndarray | None) -> np.ndarray:
    unit = scales(x, m)
    return unit[-1:] if at is None else unit[at - 1][:, None]


def mase(y: ArrayLike, f: ArrayLike, x: ArrayLike, m: int, at: np.ndarray | None = None) -> float:
    """Mean of `scaled_errors`: 1 is the in-sample error of the seasonal naive forecast. [M4]

    NaN where x is constant or shorter than m + 1: it has no scale.
    """
    errors = scaled_errors(y, f, x, m, at)
    return _mean(errors[~np.isnan(np.asarray(y, dtype=np.float64)) & (_units(x, m, at) > 0)])


def owa(smape_: float, mase_: float, naive2_smape: float, naive2_mase: float) -> float:
    """Overall weighted average: half the sum of both scores' ratios to Naive2's; NaN where Naive2's are 0. [M4]

    All four numbers are averages over the series of a group.
    """
    if not (naive2_smape > 0 and naive2_mase > 0):
        return float("nan")
    return (smape_ / naive2_smape + mase_ / naive2_mase) / 2


def _history(x: ArrayLike, h: int) -> np.ndarray:
    """x with its gaps closed by the last value known."""
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 1 or not len(x) or np.isnan(x).all():
        raise DataError(f"a naive forecast needs a vector with at least one known value, not shape {x.shape}")
    if h < 1:
        raise DataError(f"the horizon is at least 1 step, not {h}")
    return x[np.maximum.accumulate(np.where(np.isnan(x), 0, np.arange(len(x))))]


def naive(x: ArrayLike, h: int, at: np.ndarray | None = None) -> np.ndarray:
    """The last known value of x [T], h times: [h]; with `at` [O], of its first at[o] rows: [O, h]. [M4]"""
    x = _history(x, h)
    rows = np.repeat(x[(np.array([len(x)]) if at is None else at) - 1][:, None], h, axis=1)
    return rows[0] if at is None else rows


def seasonal_naive(x: ArrayLike, h: int, m: int, at: np.ndarray | None = None) -> np.ndarray:
    """The last season of x [T], repeated: [h]; with `at` [O], of its first at[o] rows: [O, h]. [M4]

    With less than one season, or m = 1, the naive forecast. For a missing value stands the last one known before it, or,
    where there is none, the naive forecast.
    """
    x = _history(x, h)
    seen = np.array([len(x)]) if at is None else at
    last = naive(x, h, seen)
    steps = np.arange(h)
    place = seen[:, None] + steps - m * (steps // m + 1)
    season = x[np.maximum(place, 0)]
    rows = np.where((seen[:, None] >= m) & ~np.isnan(season), season, last)
    return rows[0] if at is None else rows


def is_seasonal(insample: ArrayLike, m: int) -> bool:
    """M4's SeasonalityTest: |r_m| > 1.645 sqrt((1 + 2 sum_{k<m} r_k^2) / n), at least three seasons of data. [M4]

    As in R's acf(), lags above 10 log10(n) are not computed; a season that long counts as no season.
    """
    x = np.asarray(insample, dtype=np.float64)
    n = len(x)
    if m <= 1 or n < 3 * m or m > min(int(10 * np.log10(n)), n - 1):
        return False
    d = x - x.mean()
    variance = float(np.sum(d * d))
    if variance == 0:
        return False
    r = np.array([np.sum(d[k:] * d[:-k]) for k in range(1, m + 1)]) / variance
    limit = 1.645 * np.sqrt((1 + 2 * np.sum(r[:-1] ** 2)) / n)
    return bool(abs(r[-1]) > limit)


def seasonal_indices(insample: ArrayLike, m: int) -> np.ndarray:
    """Indices [m] of the classical multiplicative decomposition (R's decompose): index i belongs to x[i], x[i + m], ...

    Mean ratio to a centred moving average over one season, normalised to mean 1. insample: [T], T >= 2m, positive,
    nothing missing.
    """
    x = np.asarray(insample, dtype=np.float64)
    if len(x) < 2 * m:
        raise DataError(f"seasonal indices need two seasons of {m} steps, not {len(x)} values")
    weights = np.r_[0.5, np.ones(m - 1), 0.5] / m if m % 2 == 0 else np.ones(m) / m
    half = len(weights) // 2
    trend = np.full(len(x), np.nan)
    trend[half : len(x) - half] = np.convolve(x, weights, mode="valid")
    ratio = x / trend
    indices = np.array([np.nanmean(ratio[i::m]) for i in range(m)])
    return indices / indices.mean()


def naive2(insample: ArrayLike, h: int, m: int) -> np.ndarray:
    """M4's floor: naive on the seasonally adjusted series, times the seasonal indices: [h]. [M4]

    insample: [T].  Not seasonal by `is_seasonal`, not positive throughout: the naive forecast. A missing value
    counts as the last one known before it; what lies before the first is left out.
    """
    x = _history(insample, h)
    x = x[~np.isnan(x)]
    if not is_seasonal(x, m) or (x <= 0).any():
        return naive(x, h)
    indices = seasonal_indices(x, m)
    places = np.arange(len(x), len(x) + h) % m
    return x[-1] / indices[(len(x) - 1) % m] * indices[places]


def quantile_losses(y: ArrayLike, f: ArrayLike, levels: Sequence[float]) -> np.ndarray:
    """2 max(q (y - f), (q - 1)(y - f)) of the forecasts f [..., Q] of the quantiles q, in the unit of y: [..., Q]; NaN where
    y [...] is missing. Koenker, Bassett (1978).
    """
    q = np.asarray(levels, dtype=np.float64)
    if not ((q > 0) & (q < 1)).all():
        raise DataError(f"a quantile level lies between 0 and 1, unlike those in {list(levels)}")
    error = np.asarray(y, dtype=np.float64)[..., None] - np.asarray(f, dtype=np.float64)
    return 2.0 * np.maximum(q * error, (q - 1.0) * error)


class QuantileScores:
    """The scores of the quantile forecasts of many series together, one series (or piece of it) after the other."""

    def __init__(self, levels: Sequence[float]) -> None:
        """levels: probabilities, ascending; none: every score is NaN."""
        self.levels = tuple(levels)
        self._loss, self._size, self._inside, self._count = np.zeros(len(self.levels)), 0.0, 0, 0

    def add(self, y: ArrayLike, quantiles: ArrayLike) -> None:
        """Take the actuals y [...] and their forecasts [..., Q]."""
        actual, found = np.asarray(y, dtype=np.float64), np.asarray(quantiles, dtype=np.float64)
        if not self.levels:
            return
        known = ~np.isnan(actual)
        actual, found = actual[known], found[known]
        self._loss += quantile_losses(actual, found, self.levels).sum(axis=0)
        self._size += float(np.abs(actual).sum())
        self._inside += int(((actual >= found[:, 0]) & (actual <= found[:, -1])).sum())
        self._count += len(actual)

    @property
    def wql(self) -> float:
        """Mean over the levels of sum(`quantile_losses`) / sum |y|. [GluonTS]"""
        return float(np.mean(self._loss / self._size)) if self._size > 0 else float("nan")

    @property
    def crps(self) -> float:
        """The usual approximation of the CRPS, in the unit of y: mean over the levels of the mean `quantile_losses`.

        It tends to the CRPS as the levels grow dense and even in (0, 1); with a few levels it is a different number.
        Gneiting, Ranjan (2011).
        """
        return float(np.mean(self._loss / self._count)) if self._count else float("nan")

    @property
    def nominal(self) -> float:
        """The share that should lie between the first and the last quantile, 0 to 1."""
        return self.levels[-1] - self.levels[0] if len(self.levels) > 1 else float("nan")

    @property
    def coverage(self) -> float:
        """The share that does lie between them, bounds included."""
        return self._inside / self._count if len(self.levels) > 1 and self._count else float("nan")


def average(scores: Sequence[float]) -> float:
    """The mean over series, as M4 averages, leaving out NaN (a series with nothing to score); NaN if none is left."""
    values = np.asarray(scores, dtype=np.float64)
    return _mean(values[~np.isnan(values)])
