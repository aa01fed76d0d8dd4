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

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recurra.codec import plain

try:
    from recurra import _core as _built
except ImportError:
    _built = None

_core: Any = _built
State = dict[str, np.ndarray]

MAX_SEASONS, MAX_WINDOWS = 8, 32
LARGEST = 1e150  # larger values are taken for this: their sums and ratios must stay finite
KINDS = ("seasonal", "running", "frozen")  # in the order of csrc/series.hpp
NUMBERS = ("level", "scale", "spread", "weight", "amplitude")  # of a series' state, likewise


@dataclass(frozen=True)
class Encoded:
    """What the network sees of N series over T steps: features [N, T, F]; level, scale [N, T] after each step; anchors
    [N, T, h, A] or None.
    """

    features: np.ndarray
    level: np.ndarray
    scale: np.ndarray
    anchors: np.ndarray | None


class Scaling(BaseModel):
    """How a series is brought to the network's units. `start`, `encode` and `anchors` are its recursion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["seasonal", "running", "frozen"] = "seasonal"
    transform: Literal["identity", "log", "log1p"] = "identity"
    positive: bool = False  # no training value was below 0: no forecast is
    seasons: tuple[int, ...] = ()  # in time steps, ascending
    windows: tuple[int, ...] = ()  # lengths of trailing means that the network sees
    level: int = 1  # seasonal: length of the trailing mean that is the level; 1 = the last value
    smoothing: tuple[float, ...] = ()  # gain of each season's profile
    gain: float = Field(default=0.0, ge=0, lt=1)  # smallest gain of the running averages; 0 = plain means
    warmup: int = 24  # frozen: how many values set the scale
    prior: float = 1.0  # scale of a series of which one value is known: of x (logarithms), or a share of |x|

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (
            len(self.smoothing) != len(self.seasons)
            or len(self.seasons) > MAX_SEASONS
            or len(self.windows) > MAX_WINDOWS
        ):
            raise ValueError(f"at most {MAX_SEASONS} seasons, with a smoothing each, and {MAX_WINDOWS} windows")
        if min((*self.seasons, *self.windows, self.level)) < 1:
            raise ValueError("seasons, windows and level must be at least 1")
        return self

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
        state |= {name: np.zeros(rows) for name in NUMBERS} | {"scale": np.ones(rows)}
        for m in self.seasons:
            state[f"profile{m}"] = np.zeros((rows, m))
        return state

    def forward(self, y: np.ndarray) -> np.ndarray:
        """y -> x, elementwise; NaN stays NaN. A value that has no logarithm is missing: a shop closed, a sensor out."""
        y = np.array(y, np.float64)
        if self.transform == "identity":
            return np.clip(y, -LARGEST, LARGEST)
        if self.transform == "log1p":
            return np.log1p(np.maximum(y, 0.0))
        return np.log(np.where(y > 0, y, np.nan))

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """x -> y, elementwise."""
        if self.transform == "log":
            return np.exp(np.minimum(x, 700.0))
        y = np.expm1(np.minimum(x, 700.0)) if self.transform == "log1p" else x
        return np.maximum(y, 0.0) if self.positive else y

    def encode(self, state: State, x: np.ndarray, lengths: np.ndarray, horizon: int) -> Encoded:
        """Take the values x [N, T] (NaN = missing) of each series, to its own length; `state` changes in place.

        `lengths` [N] must not grow along N. horizon: of the anchors after every step; 0: none.

        A series is cold until its first value: all features zero. A missing value moves nothing but time: the ring takes
        the last round of the longest season known, or the last value, in its place, and the network is told.
        """
        n, frames = x.shape
        features = np.zeros((n, frames, self.features), np.float32)
        level, scale = np.zeros((n, frames)), np.ones((n, frames))
        anchors = np.zeros((n, frames, horizon, self.choices), np.float32) if horizon else None
        if _core is not None:
            x, lengths = np.ascontiguousarray(x), np.ascontiguousarray(lengths, np.int64)
            self._recursion().encode(*self._arrays(state), x, lengths, features, level, scale, anchors)
            return Encoded(features, level, scale, anchors)
        columns = np.ascontiguousarray(x.T)
        running = np.searchsorted(-lengths, -np.arange(frames), side="left")
        for t in range(frames):
            k = int(running[t])
            live = {name: array[:k] for name, array in state.items()}
            features[:k, t] = plain.observe(self, live, columns[t, :k])
            level[:k, t], scale[:k, t] = live["level"], live["scale"]
            if anchors is not None:
                anchors[:k, t] = plain.anchors(self, live, horizon)
        return Encoded(features, level, scale, anchors)

    def observe(self, state: State, x: np.ndarray) -> np.ndarray:
        """The next value x [N] of each series: features of this step, [N, features] float32; `state` changes in place."""
        return self.encode(state, x[:, None], np.ones(len(x), np.int64), 0).features[:, 0]

    def anchors(self, state: State, horizon: int) -> np.ndarray:
        """The naive answers of each series for 1..horizon steps ahead, in z: [N, horizon, choices] float32.

        Where a season's round is not complete yet, the next shorter season stands in its place, and at last the level (0).
        """
        if _core is None:
            return plain.anchors(self, state, horizon)
        out = np.empty((len(state["count"]), horizon, self.choices), np.float32)
        self._recursion().anchors(*self._arrays(state), out)
        return out

    def _arrays(self, state: State) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, list[np.ndarray]]:
        """The state's arrays as csrc takes them."""
        numbers, profiles = [state[name] for name in NUMBERS], [state[f"profile{m}"] for m in self.seasons]
        return state["count"], numbers, state["ring"], profiles

    def _recursion(self) -> Any:
        """The compiled recursion."""
        logarithm, sizes = self.transform != "identity", (self.memory, self.level, self.warmup)
        return _compiled(
            self.kind, logarithm, self.seasons, self.windows, self.smoothing, *sizes, self.gain, self.prior
        )


@lru_cache(maxsize=256)
def _compiled(kind: str, logarithm: bool, *rest: Any) -> Any:
    return _core.Recursion(KINDS.index(kind), logarithm, *rest)
