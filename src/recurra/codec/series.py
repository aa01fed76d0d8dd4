"""A table of series <-> what a forecaster's network reads and writes.

`Block` holds the raw numbers of N series side by side; `SeriesCodec` turns them into features step by step (scaling.py:
a causal recursion), sets covariates and calendar beside them (covariates.py), and turns the head's output back into
values of y (distribution.py). The whole of it is saved with the model, and is the same code in training and in service.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from recurra.codec import distribution
from recurra.codec.covariates import Covariates
from recurra.codec.scaling import MAX_SEASONS, Encoded, Scaling, State
from recurra.errors import DataError
from recurra.table import Columns, Panel, Step

DAY = 86_400_000_000  # microseconds
NEAR = 30.0  # the head reads anchors up to this many scales, a quarter of their size
FAST, SLOW = 0.3, 0.15  # gains of the longest season's profile, of which few rounds are seen, and of the shorter ones
MIN_ROUNDS = 2.0  # a season counts where the typical series is at least this many of its rounds long


@dataclass(frozen=True)
class Block:
    """N series side by side, the longest first. Frames beyond a series' length are missing.

    y [N, T + horizon] float64 (NaN = missing; what follows a series' last frame is there for targets only);
    inputs [N, T, I] float32: covariates and calendar at each step;
    known [N, T + horizon, K] float32: what is known ahead; lengths [N] int64.
    """

    y: np.ndarray
    inputs: np.ndarray
    known: np.ndarray
    lengths: np.ndarray


class SeriesCodec(BaseModel):
    """Everything fitted on the training part, and nothing learnt by gradient."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: Columns
    step: Step
    horizon: int
    output: distribution.Output
    levels: tuple[float, ...]
    scaling: Scaling
    covariates: Covariates

    @property
    def features(self) -> int:
        """Numbers a step that go into the network."""
        return self.scaling.features + self.covariates.input_width

    @property
    def context(self) -> int:
        """Numbers that the head reads beside the network's state: the anchors, and what is known ahead."""
        return self.horizon * self.scaling.choices + self.known

    @property
    def known(self) -> int:
        """Numbers of the context that are known ahead."""
        return self.horizon * self.covariates.known_width

    @property
    def parameters(self) -> int:
        """Numbers a horizon that the head puts out."""
        return distribution.parameters(self.output, self.levels)

    # -- raw numbers ---------------------------------------------------------------------------------------------

    def block(self, panel: Panel, rows: np.ndarray, begin: np.ndarray, lengths: np.ndarray) -> Block:
        """Frames begin[j] .. begin[j] + lengths[j] of the series rows[j]; `lengths` must not grow along j."""
        n, longest, h = len(rows), int(lengths[0]), self.horizon
        cov = self.covariates
        y = np.full((n, longest + h), np.nan)
        inputs = np.zeros((n, longest, cov.input_width), np.float32)
        known = np.zeros((n, longest + h, cov.known_width), np.float32)
        for j, (i, first, length) in enumerate(zip(rows, begin, lengths, strict=True)):
            start, end = (
                int(panel.offsets[i] + first),
                int(panel.offsets[i + 1]),
            )  # frames may lie beyond the series' end
            here = slice(start, max(start, min(start + int(length), end)))
            ahead = slice(start, max(start, min(start + int(length) + h, end)))
            y[j, : ahead.stop - ahead.start] = panel.target[ahead]
            if not cov.input_width:
                continue
            times = panel.step.next(panel.start[i], np.arange(first, first + length + h))
            known[j, : length + h] = cov.known(_columns(panel, cov.future, ahead, int(length) + h), times)
            past = _columns(panel, cov.past, here, int(length))
            static = {
                name: np.full(
                    int(length),
                    panel.static_categorical[name][i] if name in cov.levels else panel.static_numeric[name][i],
                )
                for name in cov.static
            }
            shape = (int(length),)
            inputs[j, :length] = np.concatenate(
                [cov.block(cov.static, static, shape), cov.block(cov.past, past, shape), known[j, :length]], axis=-1
            )
        return Block(y, inputs, known, np.asarray(lengths, np.int64))

    # -- the recursion -------------------------------------------------------------------------------------------

    def start(self, rows: int) -> State:
        """The codec's part of the state of `rows` new series."""
        return self.scaling.start(rows)

    def encode(self, state: State, y: np.ndarray, lengths: np.ndarray, *, anchors: bool) -> Encoded:
        """Run the recursion over y [N, T]; `lengths` [N] must not grow; the arrays of `state` change in place.

        Each step touches the series that still run and no other, so every series ends at its own last frame.
        """
        return self.scaling.encode(state, self.scaling.forward(y), lengths, self.horizon if anchors else 0)

    def head_context(self, anchors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """anchors [..., h, A] and known [..., h, K], flat, side by side: [..., context] float32."""
        parts = (
            anchors.reshape(*anchors.shape[:-2], anchors.shape[-2] * anchors.shape[-1]),
            known.reshape(*known.shape[:-2], self.known),
        )
        return np.concatenate(parts, axis=-1)

    def targets(self, y: np.ndarray, level: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """z of the `horizon` values after each frame: y [N, T + h], level and scale [N, T] -> [N, T, h] float32, NaN = unknown."""
        x = self.scaling.forward(y)
        ahead = np.lib.stride_tricks.sliding_window_view(x[:, 1:], self.horizon, axis=1)[:, : level.shape[1]]
        with np.errstate(over="ignore", invalid="ignore"):  # a value near the largest float is no target
            return ((ahead - level[..., None]) / scale[..., None]).astype(np.float32)

    # -- back to values ------------------------------------------------------------------------------------------

    def decode(
        self, raw: np.ndarray, level: np.ndarray, scale: np.ndarray, wanted: np.ndarray, df: float
    ) -> np.ndarray:
        """The head's output raw [..., h, P] as values of y at the probabilities `wanted` [W]: [..., h, W]."""
        if self.output == "quantiles" and tuple(wanted) == self.levels:
            z = np.sort(np.asarray(raw, np.float64), axis=-1)
            return self.scaling.inverse(level[..., None, None] + scale[..., None, None] * z)
        return self.decode_scores(raw, level, scale, distribution.normal_quantile(wanted), df)

    def decode_scores(
        self, raw: np.ndarray, level: np.ndarray, scale: np.ndarray, scores: np.ndarray, df: float
    ) -> np.ndarray:
        """The same at normal scores [..., W] (a sample is a score drawn at random)."""
        level, scale = level[..., None, None], scale[..., None, None]
        if self.output == "negative_binomial":
            mean, alpha = self._counts(raw, level, scale)
            return distribution.negative_binomial_quantile(distribution.normal_probability(scores), mean, alpha)
        z = distribution.at_scores(self.output, raw, self.levels, scores, df)
        return self.scaling.inverse(level + scale * z)

    def point(self, raw: np.ndarray, level: np.ndarray, scale: np.ndarray, df: float) -> np.ndarray:
        """The point forecast [..., h]: the median; for counts and for `mean`, the mean."""
        if self.output == "negative_binomial":
            return self._counts(raw, level[..., None, None], scale[..., None, None])[0][..., 0]
        return self.decode(raw, level, scale, np.array([0.5]), df)[..., 0]

    def _counts(self, raw: np.ndarray, level: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raw = np.asarray(raw, np.float64)
        mean = np.expm1(np.clip(level + scale * raw[..., :1], 1e-3, 30.0))
        return mean, distribution.MIN_SPREAD + distribution.softplus(raw[..., 1:2])


def fit(
    panel: Panel,
    *,
    horizon: int,
    output: distribution.Output,
    levels: tuple[float, ...],
    scaling: str,
    seasons: tuple[int, ...] | None,
    calendar: bool,
) -> SeriesCodec:
    """The codec of `panel`, the training part. `seasons` None: those usual for its time step.

    Raises DataError: nothing to learn (every series constant), negative or broken counts for negative_binomial, a season that no series
    is long enough for.
    """
    y = panel.target
    seen = y[np.isfinite(y)]
    lowest = float(seen.min())
    whole = bool((seen == np.round(seen)).all())
    if output == "negative_binomial" and (lowest < 0 or not whole):
        bad = float(seen[(seen < 0) | (seen != np.round(seen))][0])
        raise DataError(
            f"output negative_binomial needs counts (0, 1, 2, ...), but column '{panel.columns.target}' holds {bad:g}"
        )
    if float(seen.max()) == lowest:
        raise DataError(
            f"column '{panel.columns.target}' is constant (every value is {lowest:g}): there is nothing to learn from this table"
        )
    if output == "negative_binomial" or (lowest == 0 and whole):
        transform = "log1p"
    else:
        transform = "log" if lowest > 0 else "identity"
    lengths = np.diff(panel.offsets)
    chosen = _seasons(panel.step, lengths) if seasons is None else tuple(sorted(set(seasons)))
    if len(chosen) > MAX_SEASONS:
        raise DataError(f"seasons {', '.join(map(str, chosen))}: at most {MAX_SEASONS}")
    for m in chosen:
        if m < 2 or m >= lengths.max():
            raise DataError(f"season {m}: must be at least 2 and below the longest series ({int(lengths.max())} rows)")
    level = chosen[0] if chosen and chosen[0] <= horizon else 1
    windows = tuple(sorted({w for w in (4, 8, 26) if not chosen or w < chosen[0]} | set(chosen)))
    first = Scaling(
        kind=scaling,  # type: ignore[arg-type]
        transform=transform,
        positive=lowest >= 0,
        seasons=chosen,
        windows=windows,
        level=level,
        smoothing=tuple(FAST if i + 1 == len(chosen) else SLOW for i in range(len(chosen))),
        gain=0.01 if scaling == "running" else 0.001,
        warmup=2 * (chosen[0] if chosen else 12),
    )
    return SeriesCodec(
        columns=panel.columns,
        step=panel.step,
        horizon=horizon,
        output=output,
        levels=levels,
        scaling=first.model_copy(update={"prior": _prior(panel, first)}),
        covariates=Covariates.fit(panel, calendar),
    )


def _seasons(step: Step, lengths: np.ndarray) -> tuple[int, ...]:
    """The seasons usual for a time step, of which the typical series sees a few rounds."""
    if step.unit == "int":
        return ()
    if step.unit == "month":
        usual: tuple[float, ...] = (12 / step.n,)
    elif step.n < DAY:
        usual = (DAY / step.n, 7 * DAY / step.n)
    elif step.n < 7 * DAY:
        usual = (7 * DAY / step.n,)
    else:
        usual = (364 * DAY / step.n,)
    typical = float(np.median(lengths))
    return tuple(int(m) for m in usual if m == int(m) and m >= 2 and m * MIN_ROUNDS <= typical)


def _prior(panel: Panel, scaling: Scaling) -> float:
    """The typical scale of a series: of x, or as a share of |y|; what a series starts with whose first value alone is known."""
    shares = []
    for i in range(min(len(panel), 500)):
        x = scaling.forward(panel.target[panel.series(i)])
        x = x[np.isfinite(x)]
        if len(x) > 1:
            size = 1.0 if scaling.transform != "identity" else float(np.abs(x).mean()) or 1.0
            shares.append(float(np.abs(np.diff(x)).mean()) / size)
    return max(float(np.median(shares)), 1e-3) if shares else 0.1


def _columns(panel: Panel, names: tuple[str, ...], rows: slice, length: int) -> dict[str, np.ndarray]:
    """The rows of covariates, with missing values up to `length` where the table ends before."""
    out = {}
    for name in names:
        values = panel.categorical[name] if name in panel.levels else panel.numeric[name]
        full = np.full(length, -1 if name in panel.levels else np.nan, np.float64)
        part = values[rows]
        full[: len(part)] = part
        out[name] = full
    return out
