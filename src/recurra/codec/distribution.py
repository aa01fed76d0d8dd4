"""What a forecast head's numbers mean: from raw outputs to quantiles, mean and samples, without torch.

Every head speaks in the codec's units z = (x - level) / scale. `raw` has shape [..., P], P parameters a horizon:

    quantiles           P = len(levels)   z at each level, sorted here so that quantiles never cross
    mean                P = 1             z of the mean; no intervals
    gaussian            P = 2             location, softplus^-1 of the spread
    student_t           P = 2             the same, with one number of degrees of freedom for the whole model
    negative_binomial   P = 2             log1p of the mean count (in z), softplus^-1 of the dispersion alpha:
                                          variance = mean + alpha mean^2 (Salinas et al., DeepAR, 2017, eq. 4)
"""

from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

Output = Literal["quantiles", "mean", "gaussian", "student_t", "negative_binomial"]

MIN_SPREAD = 1e-3  # in units of z: a spread of zero would make the likelihood infinite
MAX_COUNT_EXACT = 300.0  # above this mean, a negative binomial quantile is taken from the gamma that has its variance


def parameters(output: Output, levels: tuple[float, ...]) -> int:
    """How many numbers a horizon the head puts out."""
    return {"quantiles": len(levels), "mean": 1}.get(output, 2)


def softplus(a: np.ndarray) -> np.ndarray:
    """log(1 + e^a), without overflow."""
    return np.maximum(a, 0.0) + np.log1p(np.exp(-np.abs(a)))


def normal_quantile(p: np.ndarray) -> np.ndarray:
    """The standard normal's quantile at each p in (0, 1)."""
    inverse = NormalDist().inv_cdf
    return np.array([inverse(float(v)) for v in np.ravel(p)]).reshape(np.shape(p))


def normal_probability(scores: np.ndarray) -> np.ndarray:
    """The standard normal's distribution function, read from a table between -8 and 8 (error below 1e-6)."""
    return np.interp(scores, _SCORES, _PROBABILITIES)


_SCORES = np.linspace(-8.0, 8.0, 8001)
_PROBABILITIES = np.array([NormalDist().cdf(float(v)) for v in _SCORES])


def student_t_quantile(scores: np.ndarray, df: float) -> np.ndarray:
    """Student t's quantile where the normal's is `scores`."""
    t, upper = _student_t(df)
    return np.sign(scores) * np.interp(normal_probability(np.abs(scores)), upper, t)


@lru_cache(maxsize=8)
def _student_t(df: float) -> tuple[np.ndarray, np.ndarray]:
    """Points t >= 0 and the distribution function there: the density integrated on a sinh-spaced grid."""
    t = np.sinh(np.linspace(0.0, 9.0, 20001))
    density = (1.0 + t * t / df) ** (-(df + 1.0) / 2.0) * np.sqrt(1.0 + t * t)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)])
    return t, 0.5 + 0.5 * mass / mass[-1]


def negative_binomial_quantile(p: np.ndarray, mean: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The smallest count whose distribution function reaches p. All arguments broadcast together.

    Exact (the probabilities summed) up to a mean of MAX_COUNT_EXACT; beyond, the Wilson-Hilferty quantile of the gamma
    distribution with the same mean and variance.
    """
    p, mean, alpha = np.broadcast_arrays(np.asarray(p, np.float64), mean, alpha)
    shape = 1.0 / (alpha + 1.0 / np.maximum(mean, 1e-9))
    cube = 1.0 - 1.0 / (9.0 * shape) + normal_quantile(p) / (3.0 * np.sqrt(shape))
    count = np.maximum(np.round(mean * np.maximum(cube, 0.0) ** 3), 0.0)
    exact = mean <= MAX_COUNT_EXACT
    if exact.any():
        q, m, a = p[exact], mean[exact], alpha[exact]
        size = 1.0 / a
        probability = np.exp(-size * np.log1p(a * m))  # of the count 0
        ratio = a * m / (1.0 + a * m)
        total, k, found = probability.copy(), 0.0, np.zeros(m.shape)
        reached = total >= q
        while not reached.all() and k < 100 * MAX_COUNT_EXACT:
            probability = probability * ratio * (k + size) / (k + 1.0)
            total = total + probability
            k += 1.0
            found = np.where(reached, found, k)
            reached = reached | (total >= q)
        count[exact] = found
    return count


def at_scores(output: Output, raw: np.ndarray, levels: tuple[float, ...], scores: np.ndarray, df: float) -> np.ndarray:
    """z where the standard normal stands at `scores` [..., W], from `raw` [..., P]: [..., W]. Not for negative_binomial.

    Between the trained levels of `quantiles` it goes straight (in normal scores); beyond the outermost two it goes on at
    their slope, so that samples have tails. With one level, or `mean`, there is no spread to go by.
    """
    raw = np.asarray(raw, np.float64)
    if output == "mean" or (output == "quantiles" and len(levels) == 1):
        return raw[..., :1] + 0.0 * scores
    if output == "quantiles":
        known, at = np.sort(raw, axis=-1), normal_quantile(np.asarray(levels))
        left = np.clip(np.searchsorted(at, scores, side="right") - 1, 0, len(levels) - 2)
        share = (scores - at[left]) / (at[left + 1] - at[left])
        shape = np.broadcast_shapes(raw.shape[:-1], scores.shape[:-1])
        known = np.broadcast_to(known, (*shape, known.shape[-1]))
        left = np.broadcast_to(left, (*shape, scores.shape[-1]))
        below, above = np.take_along_axis(known, left, -1), np.take_along_axis(known, left + 1, -1)
        return np.where(share == 0.0, below, np.where(share == 1.0, above, below + share * (above - below)))
    unit = scores if output == "gaussian" else student_t_quantile(scores, df)
    return raw[..., 0:1] + (MIN_SPREAD + softplus(raw[..., 1:2])) * unit
