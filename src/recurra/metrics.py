"""Scores of forecasts and the naive floors that they must beat, by the definitions of their sources.

Every function takes one series (or one vector of numbers) and gives a float or a vector; average over series
afterwards, as M4 does. Missing actuals (NaN) are left out; a score of nothing is NaN. A forecast may not be NaN where
the actual is known: the score is then NaN.

[M4]: Makridakis, Spiliotis, Assimakopoulos (2020), The M4 Competition, and the organisers' R code, "Benchmarks and
Evaluation.R".
[GluonTS]: Alexandrov et al. (2020), JMLR 21(116); quantile_loss and mean weighted quantile loss of its evaluation.
"""

from collections.abc import Mapping, Sequence
from math import erf, exp, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike

from recurra.errors import DataError

# m of each M4 group [M4]
SEASONALITY = {"yearly": 1, "quarterly": 4, "monthly": 12, "weekly": 1, "daily": 1, "hourly": 24}


def _pair(y: ArrayLike, f: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Actuals and forecasts as float64 without the missing actuals."""
    actual, forecast = np.asarray(y, dtype=np.float64), np.asarray(f, dtype=np.float64)
    if actual.shape != forecast.shape:
        raise DataError(
            f"actuals {actual.shape} and forecasts {forecast.shape} have different shapes: score the same steps"
        )
    known = ~np.isnan(actual)
    return actual[known], forecast[known]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _ratio(top: float, bottom: float) -> float:
    if bottom > 0 or np.isnan(bottom) or np.isnan(top):
        return top / bottom
    return 0.0 if top == 0 else float("inf")


def mae(y: ArrayLike, f: ArrayLike) -> float:
    """Mean |y - f|, in the unit of y. Shapes equal, any."""
    actual, forecast = _pair(y, f)
    return _mean(np.abs(actual - forecast))


def mse(y: ArrayLike, f: ArrayLike) -> float:
    """Mean (y - f)^2, in the squared unit of y. Shapes equal, any."""
    actual, forecast = _pair(y, f)
    return _mean((actual - forecast) ** 2)


def smape(y: ArrayLike, f: ArrayLike) -> float:
    """Symmetric MAPE in percent, 0 to 200: mean of 200 |y - f| / (|y| + |f|); 0/0 counts 0. [M4]

    Some libraries give half of this, or a fraction instead of percent.
    """
    actual, forecast = _pair(y, f)
    top, bottom = 200 * np.abs(actual - forecast), np.abs(actual) + np.abs(forecast)
    return _mean(np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0))


def scale(insample: ArrayLike, m: int) -> float:
    """MASE's denominator: mean |x_t - x_{t-m}| over the training part, in its unit; NaN if it has no such pair. [M4]"""
    x = np.asarray(insample, dtype=np.float64)
    if m < 1:
        raise DataError(f"m is the season's length in steps, at least 1, not {m}")
    d = np.abs(x[m:] - x[:-m]) if len(x) > m else np.zeros(0)
    return _mean(d[~np.isnan(d)])


def mase(y: ArrayLike, f: ArrayLike, insample: ArrayLike, m: int) -> float:
    """Mean |y - f| over `scale(insample, m)`: 1 is the in-sample error of the seasonal naive forecast. [M4]

    y, f: [h].  insample: [T], the training part.  m: the season in steps.  A constant insample gives 0 for exact
    forecasts, else inf.
    """
    return _ratio(mae(y, f), scale(insample, m))


def owa(smape_: float, mase_: float, naive2_smape: float, naive2_mase: float) -> float:
    """Overall weighted average: half the sum of both scores' ratios to Naive2's. [M4]

    All four numbers are averages over the series of a group.
    """
    return (_ratio(smape_, naive2_smape) + _ratio(mase_, naive2_mase)) / 2


def _history(insample: ArrayLike, h: int) -> np.ndarray:
    x = np.asarray(insample, dtype=np.float64)
    if x.ndim != 1 or not len(x) or np.isnan(x).all():
        raise DataError(f"a naive forecast needs a vector with at least one known value, not shape {x.shape}")
    if h < 1:
        raise DataError(f"the horizon is at least 1 step, not {h}")
    return x


def naive(insample: ArrayLike, h: int) -> np.ndarray:
    """The last known value of insample [T], h times: [h]. [M4]"""
    x = _history(insample, h)
    return np.full(h, x[~np.isnan(x)][-1])


def seasonal_naive(insample: ArrayLike, h: int, m: int) -> np.ndarray:
    """The last season of insample [T], repeated: [h]; with less than one season, or m = 1, the naive forecast. [M4]

    Where the value one season ago is missing, the last known value at that place of the season stands in, or else the
    naive one.
    """
    x = _history(insample, h)
    if m <= 1 or len(x) < m:
        return naive(x, h)
    season = np.empty(m)
    for place in range(m):
        column = x[len(x) - m + place :: -m]
        known = column[~np.isnan(column)]
        season[place] = known[0] if len(known) else naive(x, 1)[0]
    return np.resize(season, h)


def is_seasonal(insample: ArrayLike, m: int) -> bool:
    """M4's SeasonalityTest: |r_m| > 1.645 sqrt((1 + 2 sum_{k<m} r_k^2) / n), at least three seasons of data. [M4]

    As in R's acf(), lags above 10 log10(n) are not computed; a season that long counts as no season.
    """
    x = np.asarray(insample, dtype=np.float64)
    n = len(x)
    if m <= 1 or n < 3 * m or m > min(int(10 * np.log10(n)), n - 1) or np.isnan(x).any():
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

    insample: [T].  Not seasonal by `is_seasonal`, not positive throughout, or with missing values: the naive forecast.
    """
    x = _history(insample, h)
    if not is_seasonal(x, m) or (x <= 0).any():
        return naive(x, h)
    indices = seasonal_indices(x, m)
    places = np.arange(len(x), len(x) + h) % m
    return x[-1] / indices[(len(x) - 1) % m] * indices[places]


def pinball(y: ArrayLike, f: ArrayLike, q: float) -> float:
    """Mean quantile loss max(q (y - f), (q - 1)(y - f)) of the forecast f of quantile q, in the unit of y. Koenker,
    Bassett (1978).
    """
    if not 0 < q < 1:
        raise DataError(f"a quantile level lies between 0 and 1, not {q}")
    actual, forecast = _pair(y, f)
    d = actual - forecast
    return _mean(np.maximum(q * d, (q - 1) * d))


def _levels(y: ArrayLike, quantiles: Mapping[float, ArrayLike]) -> list[float]:
    """2 x pinball of each level."""
    if not quantiles:
        raise DataError("no quantiles to score: give at least one level")
    return [2 * pinball(y, f, q) for q, f in quantiles.items()]


def weighted_quantile_loss(y: ArrayLike, quantiles: Mapping[float, ArrayLike]) -> float:
    """Mean over the levels of sum(2 pinball) / sum |y|. [GluonTS]

    y: any shape; give all series at once (concatenated), for sums run over all of them.  quantiles: level ->
    forecasts of y's shape.
    """
    actual = np.asarray(y, dtype=np.float64)
    return _ratio(float(np.mean(_levels(y, quantiles))), _mean(np.abs(actual[~np.isnan(actual)])))


def crps_from_quantiles(y: ArrayLike, quantiles: Mapping[float, ArrayLike]) -> float:
    """The usual approximation of the CRPS, in the unit of y: mean over the levels of 2 x pinball.

    It tends to the CRPS as the levels grow dense and even in (0, 1); with a few levels it is a different number.
    Gneiting, Ranjan (2011).
    """
    return float(np.mean(_levels(y, quantiles)))


def crps_from_samples(y: ArrayLike, samples: ArrayLike) -> float:
    """Mean CRPS of the empirical distribution of samples [S, *y.shape]: E|X - y| - E|X - X'| / 2. Gneiting, Raftery
    (2007), eq. 21.
    """
    actual, drawn = np.asarray(y, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    if drawn.shape[1:] != actual.shape or not len(drawn):
        raise DataError(f"samples {drawn.shape} must be [S, {', '.join(map(str, actual.shape))}] with S >= 1")
    known = ~np.isnan(actual)
    actual, drawn = actual[known], np.sort(drawn[:, known], axis=0)
    n = len(drawn)
    weights = (2 * np.arange(1, n + 1) - n - 1)[:, None]  # sum over pairs |a - b| of sorted numbers
    return _mean(np.abs(drawn - actual).mean(axis=0) - (weights * drawn).sum(axis=0) / n**2)


def crps_gaussian(y: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> float:
    """Mean exact CRPS of normal forecasts, in the unit of y. Gneiting, Raftery (2007).

    With z = (y - mean) / sd it is sd (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)). All shapes equal.
    """
    actual, centre = _pair(y, mean)
    spread = _pair(y, sd)[1]
    if (spread <= 0).any():
        raise DataError(f"a standard deviation is positive, not {spread.min()}")
    z = (actual - centre) / spread
    parts = [v * erf(v / sqrt(2)) + 2 * exp(-v * v / 2) / sqrt(2 * pi) - 1 / sqrt(pi) for v in z.tolist()]
    return _mean(spread * np.array(parts))


def coverage(y: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """The share of actuals with low <= y <= high, 0 to 1; a calibrated 80 % interval covers 0.8."""
    actual, bottom = _pair(y, low)
    return _mean(((actual >= bottom) & (actual <= _pair(y, high)[1])).astype(np.float64))


def average(scores: Sequence[float]) -> float:
    """The mean over series, as M4 averages, leaving out NaN (a series with nothing to score); NaN if none is left."""
    values = np.asarray(scores, dtype=np.float64)
    return _mean(values[~np.isnan(values)])
