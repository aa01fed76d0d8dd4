"""The recursion of scaling.py in numpy: what csrc/series.cpp does, for an install without the C++ kernels (slower).

Elementwise over the series and step by step, so that a series' bits depend on that series alone.
"""

from typing import Any

import numpy as np

Scaling = Any  # recurra.codec.scaling.Scaling, which knows this module and is not known here
State = dict[str, np.ndarray]

CLIP = 10.0  # features are held to this many scales
FAR = 1e6  # anchors to this many: a strictly periodic series moves a thousand scales in a day
NOTHING = 1e-100  # the scale of a series of zeros
TINY = 1e-4  # smallest scale of a logarithm; of plain values it is this share of their size, squared


def observe(scaling: Scaling, state: State, x: np.ndarray) -> np.ndarray:
    """Take the next value x [N] (NaN = missing) of each series; the arrays of `state` change in place.

    Returns the features of this step, [N, features] float32. A series is cold until its first value: all zeros.
    A missing value moves nothing but time: the ring takes the last round of the longest season known, or the
    last value, in its place, and the network is told.
    """
    ring, count = state["ring"], state["count"]
    before, level_before = ring[:, -1].copy(), state["level"].copy()
    warm = count > 0
    seen = np.isfinite(x)
    expected = before
    for m in scaling.seasons:
        expected = np.where(count >= m, ring[:, -m], expected)
    value = np.where(seen, x, expected)
    lags = [ring[:, -m].copy() for m in scaling.seasons]
    ring[:, :-1] = ring[:, 1:]
    ring[:, -1] = value
    live = seen | warm
    count += live
    n = np.maximum(count, 1)

    step = value - before
    lag_known = [count > m for m in scaling.seasons]
    change = np.where(lag_known[0], value - lags[0], step) if scaling.seasons else step
    _rescale(scaling, state, value, change, seen, warm)
    level, scale = state["level"], state["scale"]

    deviation = np.abs(value - level)
    pace = np.maximum(1.0 / n, 1.0 / max(scaling.level, scaling.memory // 4, 8))
    state["amplitude"] += np.where(seen, pace * (deviation - state["amplitude"]), 0.0)
    amplitude = np.maximum(state["amplitude"], 0.1 * scale)

    columns = [
        seen.astype(np.float64),
        (value - level) / amplitude,
        np.where(warm, step, 0.0) / scale,
        np.where(warm, level - level_before, 0.0) / scale,
        np.log(scale) / 2.0 + 1.0 if scaling.transform != "identity" else np.zeros_like(scale),
        np.log(amplitude / scale),
    ]
    for w in scaling.windows:
        columns.append((value - _mean(ring, n, w)) / scale)
    for m, lag, known, gamma in zip(scaling.seasons, lags, lag_known, scaling.smoothing, strict=True):
        columns.append(known.astype(np.float64))
        columns.append(np.where(known, value - lag, 0.0) / scale)
        profile = state[f"profile{m}"]
        residual, old = value - _mean(ring, n, m), profile[:, 0].copy()
        rounds = (count - live) // m
        pace = np.maximum(gamma, 1.0 / (rounds + 1))
        new = np.where(seen | (rounds == 0), old + pace * (residual - old), old)
        profile[:, :-1] = profile[:, 1:]
        profile[:, -1] = new
        columns.append(np.where(known, residual - old, 0.0) / scale)
    features = np.stack(columns, axis=-1)
    features[:, 1:] = np.where(seen[:, None], np.clip(features[:, 1:], -CLIP, CLIP), 0.0)
    return features.astype(np.float32)


def _rescale(
    scaling: Scaling, state: State, value: np.ndarray, change: np.ndarray, seen: np.ndarray, warm: np.ndarray
) -> None:
    """Move level and scale (see the module's head)."""
    n = np.maximum(state["count"], 1)
    taken = state["weight"] + 1.0  # values, this one included; n counts the missing ones too
    moving = seen & (taken <= scaling.warmup) if scaling.kind == "frozen" else seen
    if scaling.kind == "seasonal":
        level = _mean(state["ring"], n, scaling.level)
        state["level"][...] = np.where(seen | warm, level, state["level"])
        deviation = np.abs(change)
    else:
        pace = np.maximum(1.0 / taken, scaling.gain)
        state["level"][...] = np.where(moving, state["level"] + pace * (value - state["level"]), state["level"])
        deviation = np.abs(value - state["level"])
    size = np.abs(value) if scaling.transform == "identity" else 1.0
    deviation = np.where(warm, deviation, scaling.prior * size)
    state["weight"] += moving
    pace = np.maximum(1.0 / np.maximum(state["weight"], 1.0), scaling.gain)
    state["spread"] += np.where(moving, pace * (deviation - state["spread"]), 0.0)
    smallest = TINY * TINY * np.abs(state["level"]) + NOTHING if scaling.transform == "identity" else TINY
    known = state["weight"] > 0
    state["scale"][...] = np.where(known, np.maximum(state["spread"], smallest), 1.0)


def _mean(ring: np.ndarray, n: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values, or of the n that there are."""
    if window == 1:
        return ring[:, -1].copy()
    return ring[:, -window:].sum(axis=1) / np.minimum(n, window)


def anchors(scaling: Scaling, state: State, horizon: int) -> np.ndarray:
    """The naive answers of each series for 1..horizon steps ahead, in z: [N, horizon, choices] float32.

    Where a season's round is not complete yet, the next shorter season stands in its place, and at last the level (0).
    """
    ring, count = state["ring"], state["count"]
    level, scale = state["level"][:, None], state["scale"][:, None]
    n = np.maximum(count, 1)
    ahead = np.arange(horizon)
    out = np.zeros((len(count), horizon, scaling.choices))
    out[:, :, 0] = (ring[:, -1:] - level) / scale
    for i, m in enumerate(scaling.seasons):
        phase = ahead % m
        known = count[:, None] >= m - phase
        last = ring[:, scaling.memory - m + phase]
        smooth = state[f"profile{m}"][:, phase] + _mean(ring, n, m)[:, None]
        shorter = out[:, :, 1 + 2 * i]  # of the season before; for the first the level, 0
        out[:, :, 2 + 2 * i] = np.where(known, (last - level) / scale, shorter)
        out[:, :, 3 + 2 * i] = np.where(known, (smooth - level) / scale, shorter)
    return np.clip(out, -FAR, FAR).astype(np.float32)
