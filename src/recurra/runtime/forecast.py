"""Play a forecaster: step by step, from a table, or at every origin of one. The equations are those of tasks/forecast.py.

Everything goes through `_advance` (codec, then core) and `_head`, frame by frame or in blocks of frames, so a forecast
has the same bits however its series came in: at once, in pieces, one value at a time, alone or among others.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from recurra import table
from recurra.codec.series import NEAR, Block, SeriesCodec
from recurra.errors import DataError, StateError
from recurra.runtime.layers import Linear, Recurrent, relu
from recurra.runtime.lookback import LookBack
from recurra.runtime.observation import NO_TIME, known_ahead, next_stamps
from recurra.runtime.prediction import Backtest, Prediction
from recurra.runtime.scores import Scores, score
from recurra.runtime.stream import State
from recurra.runtime.weights import under, unplayable
from recurra.table import Panel

GROUP = 128  # series side by side
FRAMES = 256  # frames of them at a time
SAMPLES = 200  # trajectories of a series beyond the trained horizon


class ForecastModel:
    """A trained forecaster. `start`, `step` and `peek` for streams; `predict`, `observe` and `evaluate` for tables."""

    def __init__(
        self,
        manifest: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        digest: str,
        files: Mapping[str, str],
    ) -> None:
        self.manifest, self.digest = dict(manifest), digest
        try:
            self.codec = SeriesCodec.model_validate(manifest["codec"])
            layers = {layer["name"]: layer for layer in manifest["layers"]}
            core = layers["core"]
            self._core = Recurrent(core["kind"], under(weights, "core"), layers=core["layers"])
            look = layers.get("lookback")
            self._lookback = look and LookBack(look, under(weights, "lookback"), self._core.hidden)
            self._read, self._correct, self._gate = (
                Linear(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in ("read", "correct", "gate")
            )
            self._df = float(weights["df"][0])
            self._fits(weights)
            self._blank = self.start(0)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise unplayable("forecaster", error) from None

    def _fits(self, weights: Mapping[str, np.ndarray]) -> None:
        """Raises ValueError where the head's weights are not of the codec's sizes."""
        codec, width = self.codec, len(weights["read.bias"])
        want = {
            "read": (width, self._remembered + codec.context),
            "correct": (codec.horizon * codec.parameters, width),
            "gate": (codec.horizon * codec.scaling.choices, width),
        }
        for name, shape in want.items():
            if weights[f"{name}.weight"].shape != shape:
                raise ValueError(f"{name}.weight must be {shape}, not {weights[f'{name}.weight'].shape}")
        if self._core.inputs != codec.features or 0.5 not in codec.levels:
            raise ValueError(f"core and codec differ: {self._core.inputs} inputs for {codec.features} features")

    @property
    def _remembered(self) -> int:
        """Numbers that the head reads of the past."""
        return (2 if self._lookback else 1) * self._core.hidden

    @property
    def horizon(self) -> int:
        """Steps ahead that one state answers for."""
        return self.codec.horizon

    @property
    def levels(self) -> tuple[float, ...]:
        """Probabilities of the quantiles; none where the mean alone was learnt."""
        return () if self.codec.output == "mean" else self.codec.levels

    streams = True
    """Whether the model can take its input step by step."""

    # -- streams -------------------------------------------------------------------------------------------------

    def start(self, rows: int = 1) -> State:
        """The state of `rows` streams of which nothing has been seen."""
        core = dict(zip(self._core.state_names, self._core.start(rows), strict=True))
        arrays = {f"codec.{name}": array for name, array in self.codec.start(rows).items()}
        arrays |= {f"core.{name}": np.ascontiguousarray(np.moveaxis(array, 0, 1)) for name, array in core.items()}
        if self._lookback:
            arrays |= {f"lookback.{name}": array for name, array in self._lookback.start(rows).items()}
        return State(self.digest, arrays | {"time": np.full(rows, NO_TIME, np.int64)})

    def step(
        self,
        state: State,
        y: float | Sequence[float] | np.ndarray | None,
        *,
        time: Any = None,
        covariates: Mapping[str, Any] | None = None,
        future: Mapping[str, Any] | None = None,
    ) -> tuple[Prediction, State]:
        """One observation of every stream in, the forecast of the next `horizon` steps out. `state` is left as it was.

        A stream that has had no value yet has no forecast: NaN.

        y: [rows] (or one number, for one row), NaN or None = missing. time: [rows] time stamps (needed where the model
        reads the calendar); where given they must be the next of each stream. covariates: column -> [rows] values at
        this step. future: column -> [rows, horizon] values of the next steps. Raises DataError (inf, unknown column or
        category), StateError (another model's state, out of order).
        """
        state.check_like(self._blank)
        rows = state.rows
        if not rows:
            raise StateError("this state holds no stream: begin with start(1), or more")
        try:
            values = np.atleast_1d(np.asarray(np.nan if y is None else y, np.float64))
        except (TypeError, ValueError):
            raise DataError(f"y must be numbers (NaN or None where missing), not {str(y)[:60]!r}") from None
        if values.shape != (rows,):
            raise DataError(f"y must hold {rows} value(s), one a stream, not {list(values.shape)}")
        if np.isinf(values).any():
            raise DataError(f"y holds {values[np.isinf(values)][0]}: leave it missing (NaN) where it is unknown")
        stamps = next_stamps(self.codec.step, state.arrays["time"], time)
        known, inputs = known_ahead(self.codec, rows, stamps, covariates or {}, future or {})
        new = state.copy()
        memory, anchors = self._advance(new, values[:, None], inputs[:, None], np.ones(rows, np.int64))
        new.arrays["time"][:] = stamps
        raw = self._head(memory[:, -1], anchors, known)
        return self._answer(raw, new), new

    def peek(
        self,
        state: State,
        y: float | Sequence[float] | np.ndarray | None,
        *,
        time: Any = None,
        covariates: Mapping[str, Any] | None = None,
        future: Mapping[str, Any] | None = None,
    ) -> Prediction:
        """What `step` would answer, without a new state."""
        return self.step(state, y, time=time, covariates=covariates, future=future)[0]

    def observe(self, source: Any) -> tuple[list[str], State]:
        """Read the history of every series in a table: their ids, and the state from which streams go on."""
        panel = self.read(source)
        parts = [(rows, state) for rows, state, _ in self._replay(panel)]
        whole = self.start(len(panel))
        for rows, state in parts:
            for name, array in state.arrays.items():
                whole.arrays[name][rows] = array
        return [str(name) for name in panel.ids], whole

    # -- tables --------------------------------------------------------------------------------------------------

    def read(self, source: Any) -> Panel:
        """A table with the columns, categories and time step of the training data. Raises DataError.

        Warns where a model that learnt positive values alone meets others: they are taken as missing.
        """
        codec = self.codec
        panel = table.read(source, codec.columns, levels=codec.covariates.levels, step=codec.step)
        strange = int((panel.target <= 0).sum()) if codec.scaling.transform == "log" else 0
        if strange:
            warnings.warn(
                f"{strange} value(s) of '{codec.columns.target}' are not above 0, but this model learnt positive values "
                "alone: they are taken as missing",
                stacklevel=2,
            )
        return panel

    def predict(self, source: Any, horizon: int | None = None, *, seed: int = 0) -> pl.DataFrame:
        """Forecast every series of a table (or Panel) from its last observed row.

        Returns a long frame: the id and time columns named as in the training data, y_hat, and q0.1 ... for each quantile. Beyond the
        trained horizon: quantiles of sampled trajectories, whose future covariates the table must hold. Raises DataError.
        """
        panel = source if isinstance(source, Panel) else self.read(source)
        steps = self.horizon if horizon is None else horizon
        if steps < 1:
            raise DataError(f"horizon {steps}: must be at least 1")
        if seed < 0:
            raise DataError(f"seed {seed}: must be at least 0")
        columns = self.codec.columns
        y_hat = np.zeros((len(panel), steps))
        quantiles = np.zeros((len(panel), steps, len(self.levels)))
        for rows, state, raw in self._replay(panel, ahead=steps):
            answer = self._answer(raw, state)
            first = min(steps, self.horizon)
            y_hat[rows, :first], quantiles[rows, :first] = answer.y_hat[:, :first], answer.quantiles[:, :first]
            if steps > self.horizon:
                for j, i in enumerate(rows):
                    y_hat[i, first:], quantiles[i, first:] = self._beyond(
                        panel, int(i), state.take([j]), raw[j], steps, seed
                    )
        times = [panel.step.next(panel.start[i], panel.observed_until[i] + np.arange(steps)) for i in range(len(panel))]
        out: dict[str, Any] = {} if columns.series is None else {columns.series: np.repeat(panel.ids, steps)}
        out[columns.time] = np.concatenate(times) if times else np.zeros(0)
        out["y_hat"] = y_hat.ravel()
        for q, level in enumerate(self.levels):
            out[f"q{level:g}"] = quantiles[..., q].ravel()
        return pl.DataFrame(out)

    def evaluate(self, source: Any, *, origins: str = "last", season: int | None = None) -> Scores:
        """Score the forecasts of a table (or Panel) beside the naive floors.

        origins "last": the last `horizon` rows of each series are forecast from the row before them, as in M4. "all": every origin with a
        whole horizon after it, in one pass; the same numbers as `predict` at each. season: m of MASE and of the seasonal naive; None: as in
        M4 (24 hourly, 12 monthly, 4 quarterly, else 1). Raises DataError.
        """
        panel = source if isinstance(source, Panel) else self.read(source)
        if origins not in ("last", "all"):
            raise DataError(f"origins '{origins}': must be 'last' or 'all'")
        if season is not None and season < 1:
            raise DataError(f"season {season}: must be at least 1")
        ends = panel.observed_until - self.horizon
        known = [bool(np.isfinite(panel.target[panel.series(i)][: max(end, 0)]).any()) for i, end in enumerate(ends)]
        long_enough = np.flatnonzero(known)
        if not len(long_enough):
            raise DataError(
                f"no series has a value before its last {self.horizon} rows: an evaluation needs the horizon, and something before it"
            )
        forecasts = self.backtest(panel.take(long_enough), every=origins == "all")
        m = m4_season(self.codec) if season is None else season
        return score(forecasts, self.levels, m, skipped=len(panel) - len(long_enough), naive2=origins == "last")

    def backtest(self, panel: Panel, *, every: bool = True) -> Iterator[Backtest]:
        """The forecasts of each series of `panel` that has a value before its last `horizon` rows, the longest first.

        One forward pass over each series gives all origins. `every` False: only the last with a whole horizon after it.
        """
        ends = panel.observed_until - self.horizon
        for rows, block, lengths in self._blocks(panel, ends):
            state, memories, anchors, levels, scales = self.start(len(rows)), [], [], [], []
            for t0 in range(0, int(lengths[0]), FRAMES):
                frames = np.clip(lengths - t0, 0, FRAMES)
                width = int(frames[0])
                memory, encoded = self._run(
                    state, block.y[:, t0 : t0 + width], block.inputs[:, t0 : t0 + width], frames, every
                )
                memories.append(memory)
                levels.append(encoded.level)
                scales.append(encoded.scale)
                anchors.append(encoded.anchors)
            memory, level, scale = np.concatenate(memories, 1), np.concatenate(levels, 1), np.concatenate(scales, 1)
            known = np.lib.stride_tricks.sliding_window_view(block.known[:, 1:], self.horizon, axis=1)
            final = None if every else self.codec.scaling.anchors(state.part("codec"), self.horizon)
            for j, i in enumerate(rows):
                first = int(np.argmax(np.isfinite(block.y[j])))  # no forecast before the first value
                at = np.arange(first, lengths[j])[0 if every else -1 :]
                if not len(at):
                    continue
                some = np.concatenate([part[j] for part in anchors])[at] if every else final[j : j + 1]  # type: ignore[index]
                raw = self._head(memory[j, at], some, np.moveaxis(known[j, at], -1, -2))
                prediction = self._decode(raw, level[j, at], scale[j, at])
                values = panel.target[panel.series(int(i))][: int(panel.observed_until[i])]
                yield Backtest(int(i), values, at + 1, prediction)

    # -- inside --------------------------------------------------------------------------------------------------

    def _run(
        self, state: State, y: np.ndarray, inputs: np.ndarray, lengths: np.ndarray, anchors: bool
    ) -> tuple[np.ndarray, Any]:
        """Codec, core and attention over y [N, T]; the arrays of `state` change in place. lengths [N] must not grow along N."""
        encoded = self.codec.encode(state.part("codec"), y, lengths, anchors=anchors)
        values = np.concatenate([encoded.features, inputs], axis=-1)
        names = [f"core.{name}" for name in self._core.state_names]
        before = tuple(np.ascontiguousarray(np.moveaxis(state.arrays[name], 1, 0)) for name in names)
        memory, after = self._core(values, before, lengths)
        for name, array in zip(names, after, strict=True):
            state.arrays[name][...] = np.moveaxis(array, 0, 1)
        if self._lookback:
            memory = np.concatenate([memory, self._lookback(state.part("lookback"), memory, lengths)], -1)
        return memory, encoded

    def _advance(
        self, state: State, y: np.ndarray, inputs: np.ndarray, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        memory, _ = self._run(state, y, inputs, lengths, anchors=False)
        return memory, self.codec.scaling.anchors(state.part("codec"), self.horizon)

    def _head(self, memory: np.ndarray, anchors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """memory [N, H], anchors [N, h, A], known ahead [N, h, K] -> raw [N, h, P] (tasks/forecast.py's equations)."""
        near = np.clip(anchors, -NEAR, NEAR) * np.float32(0.25)
        hidden = relu(self._read(np.concatenate([memory, self.codec.head_context(near, known)], axis=-1)))
        raw = self._correct(hidden).reshape(len(memory), self.horizon, self.codec.parameters)
        logits = np.ascontiguousarray(np.moveaxis(self._gate(hidden).reshape(anchors.shape), -1, 0))
        choices = np.ascontiguousarray(np.moveaxis(anchors, -1, 0))  # summed one after the other: a fixed order
        weights = np.exp(logits - logits.max(axis=0))
        total, base = weights[0].copy(), weights[0] * choices[0]
        for weight, choice in zip(weights[1:], choices[1:], strict=True):
            total += weight
            base += weight * choice
        base /= total
        if self.codec.output == "quantiles":
            return raw + base[..., None]
        raw[..., 0] += base
        return raw

    def _answer(self, raw: np.ndarray, state: State) -> Prediction:
        answer = self._decode(raw, state.arrays["codec.level"], state.arrays["codec.scale"])
        cold = state.arrays["codec.count"] == 0
        if not cold.any():
            return answer
        y_hat, quantiles = np.array(answer.y_hat, np.float64), np.array(answer.quantiles, np.float64)
        y_hat[cold], quantiles[cold] = np.nan, np.nan
        return Prediction(y_hat, quantiles, answer.levels)

    def _decode(self, raw: np.ndarray, level: np.ndarray, scale: np.ndarray) -> Prediction:
        quantiles = self.codec.decode(raw, level, scale, np.asarray(self.levels), self._df)
        if self.codec.output == "quantiles":
            return Prediction(quantiles[..., self.levels.index(0.5)], quantiles, self.levels)
        return Prediction(self.codec.point(raw, level, scale, self._df), quantiles, self.levels)

    def _blocks(self, panel: Panel, ends: np.ndarray) -> Iterator[tuple[np.ndarray, Block, np.ndarray]]:
        """Groups of series, the longest first, each to its row ends[i]."""
        order = np.argsort(-ends, kind="stable")
        for i in range(0, len(order), GROUP):
            rows = order[i : i + GROUP]
            yield rows, self.codec.block(panel, rows, np.zeros(len(rows), np.int64), ends[rows]), ends[rows]

    def _replay(self, panel: Panel, ahead: int | None = None) -> Iterator[tuple[np.ndarray, State, np.ndarray]]:
        """(series, their state, raw output) after all observed rows, group by group. `ahead`: steps to be forecast."""
        if ahead is not None:
            self._check_future(panel, ahead)
        for rows, block, lengths in self._blocks(panel, panel.observed_until):
            state = self.start(len(rows))
            last = np.zeros((len(rows), self._remembered), np.float32)
            for t0 in range(0, int(lengths[0]), FRAMES):
                frames = np.clip(lengths - t0, 0, FRAMES)
                width = int(frames[0])
                memory, _ = self._run(
                    state, block.y[:, t0 : t0 + width], block.inputs[:, t0 : t0 + width], frames, False
                )
                here = frames > 0
                last[here] = memory[here, frames[here] - 1]
            stamps = panel.step.next(panel.start[rows], lengths - 1).astype(np.int64)
            state.arrays["time"][:] = stamps
            known = np.stack([block.known[j, n : n + self.horizon] for j, n in enumerate(lengths)])
            anchors = self.codec.scaling.anchors(state.part("codec"), self.horizon)
            yield rows, state, self._head(last, anchors, known)

    def _check_future(self, panel: Panel, steps: int) -> None:
        if not self.codec.columns.future:
            return
        short = np.flatnonzero(panel.lengths - panel.observed_until < steps)
        if len(short):
            i = int(short[0])
            raise DataError(
                f"series '{panel.ids[i]}' has {panel.lengths[i] - panel.observed_until[i]} rows after its last "
                f"'{panel.columns.target}', but a forecast of {steps} steps needs the known future of "
                f"{', '.join(panel.columns.future)} in {steps}: append them, target empty"
            )

    def _beyond(
        self, panel: Panel, i: int, state: State, raw: np.ndarray, steps: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Point forecast and quantiles of steps horizon+1 .. steps of series i, from sampled trajectories.

        A trajectory goes a whole horizon at a time: its normal scores are a random walk W_k / sqrt(k), so that each step has the forecast
        distribution and neighbours go together; then it is fed back as if observed, and the next horizon is drawn from the state after it.
        """
        h, codec = self.horizon, self.codec
        samples = 1 if codec.output == "mean" else SAMPLES
        rng = np.random.default_rng(seed)
        first = int(panel.observed_until[i])
        state, raws = state.take(np.zeros(samples, np.int64)), np.repeat(raw[None], samples, axis=0)
        paths = np.zeros((samples, 0))
        rows = np.full(samples, i)
        while True:
            scores = rng.standard_normal((samples, h)).cumsum(axis=1) / np.sqrt(np.arange(1, h + 1))
            level, scale = state.arrays["codec.level"], state.arrays["codec.scale"]
            block = codec.decode_scores(raws, level, scale, scores[..., None] * (samples > 1), self._df)[..., 0]
            paths = np.concatenate([paths, block], axis=1)
            if paths.shape[1] >= steps:
                break
            covered = codec.block(panel, rows[:1], np.array([first]), np.array([h]))
            inputs = np.repeat(covered.inputs, samples, axis=0)
            memory, anchors = self._advance(state, block, inputs, np.full(samples, h))
            known = np.repeat(covered.known[:, h : 2 * h], samples, axis=0)
            raws = self._head(memory[:, -1], anchors, known)
            first += h
        tail = paths[:, h:steps]
        if samples == 1:
            return tail[0], np.zeros((steps - h, 0))
        counts = codec.output == "negative_binomial"  # their point forecast is the mean, and their quantiles are counts
        method = "inverted_cdf" if counts else "linear"
        quantiles = np.quantile(tail, np.asarray(self.levels), axis=0, method=method).T
        return tail.mean(axis=0) if counts else np.quantile(tail, 0.5, axis=0), quantiles


def m4_season(codec: SeriesCodec) -> int:
    """m of MASE by M4: the steps of a day below a day, of a year from a month on, else 1."""
    step = codec.step
    if step.unit == "month":
        return max(1, 12 // step.n)
    return max(1, 86_400_000_000 // step.n) if step.unit == "us" else 1
