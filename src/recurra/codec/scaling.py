"""The scale of a series as a causal recursion: one observation in, level and scale moved, nothing of the future seen.

With x = log y (or log1p y, or y) every kind keeps a level l and a scale s, and the network reads and writes in
z = (x - l) / s. The state of one series is a ring of its last values and a few numbers, so a stream carries it exactly.

    frozen    l, s: mean and mean absolute deviation of the first `warmup` values, then fixed
    running   l, s: the same, but always moving with gain max(1/n, `gain`)
    seasonal  l: mean of the last (shortest) season, or the last value; s: running mean of |x_t - x_{t-m}|
              (MASE's denominator); and for every season m a profile p of x - mean_m, smoothed phase by phase,
              p <- p + max(1/round, smoothing) (x - mean_m - p): the level and seasonality of Holt-Winters and of ES-RNN
              (Smyl, 2020) as a causal filter, with the network left to learn the rest

`anchors` are the naive answers known at the newest state, from which a forecast is a correction: the last value, the
level (0 in z), and for every season its last round and its smoothed profile.
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

State = dict[str, np.ndarray]

CLIP = 10.0  # features are held to this many scales
FAR = 1e6  # anchors to this many: a strictly periodic series moves a thousand scales in a day
TINY = 1e-4  # smallest scale of a logarithm; of plain values it is this share of their size, squared


class Scaling(BaseModel):
    """How a series is brought to the network's units. `start`, `observe` and `anchors` are its recursion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["seasonal", "running", "frozen"] = "seasonal"
    transform: Literal["identity", "log", "log1p"] = "identity"
    floor: float = 0.0  # smallest x that a logarithm takes; a value below it is lifted to it
    positive: bool = False  # no training value was below 0: no forecast is
    seasons: tuple[int, ...] = ()  # in time steps, ascending
    windows: tuple[int, ...] = ()  # lengths of trailing means that the network sees
    level: int = 1  # seasonal: length of the trailing mean that is the level; 1 = the last value
    smoothing: tuple[float, ...] = ()  # gain of each season's profile
    gain: float = Field(default=0.0, ge=0, lt=1)  # smallest gain of the running averages; 0 = plain means
    warmup: int = 24  # frozen: how many values set the scale
    prior: float = 1.0  # scale of a series of which one value is known: of x (logarithms), or a share of |x|

    @property
    def memory(self) -> int:
        """How many past values a series' ring holds."""
        return max((*self.seasons, *self.windows, self.level, 2))

    @property
    def features(self) -> int:
        """Numbers that `observe` gives a step."""
        return 6 + len(self.windows) + 3 * len(self.seasons)

    @property
    def choices(self) -> int:
        """Anchors a horizon."""
        return 2 + 2 * len(self.seasons)

    def start(self, rows: int) -> State:
        """The state of `rows` series of which nothing is known yet."""
        state: State = {"count": np.zeros(rows, np.int64), "ring": np.zeros((rows, self.memory))}
        for name in ("level", "spread", "weight", "amplitude"):
            state[name] = np.zeros(rows)
        state["scale"] = np.ones(rows)
        for m in self.seasons:
            state[f"profile{m}"] = np.zeros((rows, m))
        return state

    def forward(self, y: np.ndarray) -> np.ndarray:
        """y -> x, elementwise; NaN stays NaN."""
        if self.transform == "identity":
            return np.array(y, np.float64)
        logarithm = np.log if self.transform == "log" else np.log1p
        lowest = self.floor if self.transform == "log" else 0.0
        return logarithm(np.maximum(np.array(y, np.float64), lowest))

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """x -> y, elementwise."""
        if self.transform == "log":
            return np.exp(np.minimum(x, 700.0))
        y = np.expm1(np.minimum(x, 700.0)) if self.transform == "log1p" else x
        return np.maximum(y, 0.0) if self.positive else y

    def observe(self, state: State, x: np.ndarray) -> np.ndarray:
        """Take the next value x [N] (NaN = missing) of each series; the arrays of `state` change in place.

        Returns the features of this step, [N, features] float32. A series is cold until its first value: all zeros.
        A missing value moves nothing but time: the ring takes the last round of the longest season known, or the
        last value, in its place, and the network is told.
        """
        ring, count = state["ring"], state["count"]
        before, level_before = ring[:, -1].copy(), state["level"].copy()
        seen, warm = np.isfinite(x), count > 0
        expected = before
        for m in self.seasons:
            expected = np.where(count >= m, ring[:, -m], expected)
        value = np.where(seen, x, expected)
        lags = [ring[:, -m].copy() for m in self.seasons]
        ring[:, :-1] = ring[:, 1:]
        ring[:, -1] = value
        live = seen | warm
        count += live
        n = np.maximum(count, 1)

        step = value - before
        lag_known = [count > m for m in self.seasons]
        change = np.where(lag_known[0], value - lags[0], step) if self.seasons else step
        self._rescale(state, value, change, seen, warm)
        level, scale = state["level"], state["scale"]

        deviation = np.abs(value - level)
        pace = np.maximum(1.0 / n, 1.0 / max(self.level, self.memory // 4, 8))
        state["amplitude"] += np.where(seen, pace * (deviation - state["amplitude"]), 0.0)
        amplitude = np.maximum(state["amplitude"], 0.1 * scale)

        columns = [
            seen.astype(np.float64),
            (value - level) / amplitude,
            np.where(warm, step, 0.0) / scale,
            np.where(warm, level - level_before, 0.0) / scale,
            np.log(scale) / 2.0 + 1.0 if self.transform != "identity" else np.zeros_like(scale),
            np.log(amplitude / scale),
        ]
        for w in self.windows:
            columns.append((value - self._mean(ring, n, w)) / scale)
        for m, lag, known, gamma in zip(self.seasons, lags, lag_known, self.smoothing, strict=True):
            columns.append(known.astype(np.float64))
            columns.append(np.where(known, value - lag, 0.0) / scale)
            profile = state[f"profile{m}"]
            residual, old = value - self._mean(ring, n, m), profile[:, 0].copy()
            rounds = (count - live) // m
            pace = np.maximum(gamma, 1.0 / (rounds + 1))
            new = np.where(seen | (rounds == 0), old + pace * (residual - old), old)
            profile[:, :-1] = profile[:, 1:]
            profile[:, -1] = new
            columns.append(np.where(known, residual - old, 0.0) / scale)
        features = np.stack(columns, axis=-1)
        features[:, 1:] = np.where(seen[:, None], np.clip(features[:, 1:], -CLIP, CLIP), 0.0)
        return features.astype(np.float32)

    def _rescale(self, state: State, value: np.ndarray, change: np.ndarray, seen: np.ndarray, warm: np.ndarray) -> None:
        """Move level and scale (see the module's head)."""
        n = np.maximum(state["count"], 1)
        taken = state["weight"] + 1.0  # values, this one included; n counts the missing ones too
        moving = seen & (taken <= self.warmup) if self.kind == "frozen" else seen
        if self.kind == "seasonal":
            level = self._mean(state["ring"], n, self.level)
            state["level"][...] = np.where(seen | warm, level, state["level"])
            deviation = np.abs(change)
        else:
            pace = np.maximum(1.0 / taken, self.gain)
            state["level"][...] = np.where(moving, state["level"] + pace * (value - state["level"]), state["level"])
            deviation = np.abs(value - state["level"])
        size = np.abs(value) if self.transform == "identity" else 1.0
        deviation = np.where(warm, deviation, self.prior * size)
        state["weight"] += moving
        pace = np.maximum(1.0 / np.maximum(state["weight"], 1.0), self.gain)
        state["spread"] += np.where(moving, pace * (deviation - state["spread"]), 0.0)
        smallest = TINY * TINY * np.abs(state["level"]) + 1e-9 if self.transform == "identity" else TINY
        known = state["weight"] > 0
        state["scale"][...] = np.where(known, np.maximum(state["spread"], smallest), 1.0)

    def _mean(self, ring: np.ndarray, n: np.ndarray, window: int) -> np.ndarray:
        """Mean of the last `window` values, or of the n that there are."""
        if window == 1:
            return ring[:, -1].copy()
        return ring[:, -window:].sum(axis=1) / np.minimum(n, window)

    def anchors(self, state: State, horizon: int) -> np.ndarray:
        """The naive answers of each series for 1..horizon steps ahead, in z: [N, horizon, choices] float32.

        Where a season's round is not complete yet, the next shorter season stands in its place, and at last the level (0).
        """
        ring, count = state["ring"], state["count"]
        level, scale = state["level"][:, None], state["scale"][:, None]
        n = np.maximum(count, 1)
        ahead = np.arange(horizon)
        out = np.zeros((len(count), horizon, self.choices))
        out[:, :, 0] = (ring[:, -1:] - level) / scale
        for i, m in enumerate(self.seasons):
            phase = ahead % m
            known = count[:, None] >= m - phase
            last = ring[:, self.memory - m + phase]
            smooth = state[f"profile{m}"][:, phase] + self._mean(ring, n, m)[:, None]
            shorter = out[:, :, 1 + 2 * i]  # of the season before; for the first the level, 0
            out[:, :, 2 + 2 * i] = np.where(known, (last - level) / scale, shorter)
            out[:, :, 3 + 2 * i] = np.where(known, (smooth - level) / scale, shorter)
        return np.clip(out, -FAR, FAR).astype(np.float32)
