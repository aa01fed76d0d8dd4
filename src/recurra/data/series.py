"""Series: a long table, and its way to batches of chunks with carried state.

A group of series runs side by side from start to end, chunk by chunk; the codec's state goes on from chunk to chunk
here, the network's in the training loop (truncated backpropagation through time). Every step of every chunk is an
origin: nothing is cut into windows, and no more than one group is ever in memory beside the table itself.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError

from recurra.codec.series import SeriesCodec
from recurra.config import config, explain
from recurra.data.batch import Batch, Batches, rank
from recurra.errors import DataError, RecipeError
from recurra.table import Columns, Panel, read

HUGE = 1e30  # levels and scales beyond are held to this: a float32 ends at 3.4e38


@config
class Series:
    """A long table: one row a series and time stamp."""

    source: Any = Field(description="CSV, Parquet or JSON Lines file, or a pandas, Polars or pyarrow frame")
    target: str = Field(default="y", description="column to forecast")
    time: str = Field(default="ds", description="column of time stamps: integers, dates or date-times")
    series: str | None = Field(default="unique_id", description="column of series ids; none: the table is one series")
    static: tuple[str, ...] = Field(default=(), description="covariates with one value a series")
    past: tuple[str, ...] = Field(default=(), description="covariates known up to the present")
    future: tuple[str, ...] = Field(default=(), description="covariates known for the future too")
    categorical: tuple[str, ...] = Field(
        default=(), description="covariates to be taken as categories though they look like numbers"
    )
    gaps: Literal["refuse", "fill"] = Field(
        default="refuse", description="missing time stamps: refuse, or fill with missing rows"
    )
    validation: int | None = Field(
        default=None, ge=0, description="last steps of each series kept for early stopping; none: the horizon; 0: none"
    )

    @property
    def columns(self) -> Columns:
        """What the columns mean. Raises RecipeError where one column has two roles, or categorical names no covariate."""
        try:
            return Columns(
                target=self.target,
                time=self.time,
                series=self.series,
                static=self.static,
                past=self.past,
                future=self.future,
                categorical=self.categorical,
                gaps=self.gaps,
            )
        except ValidationError as error:
            raise RecipeError(explain(error, Series)) from None

    def read(self) -> Panel:
        """The table, checked. Raises DataError."""
        return read(self.source, self.columns)


class Chunks(Batches):
    """The batches of one part of a panel: `part` "train" learns what lies before the last `held_out` steps of each
    series, "validation" scores what lies in them.

    batch_size: series side by side. chunk: steps a batch. window: where given, a training sequence is a random piece of
    that many steps that starts cold, so that a few long series make many sequences; else it is the whole series.
    min_steps: batches an epoch at least (a small table is gone through again).
    """

    def __init__(
        self,
        panel: Panel,
        codec: SeriesCodec,
        *,
        part: Literal["train", "validation"],
        held_out: int,
        batch_size: int,
        chunk: int,
        window: int | None = None,
        skip: int = 0,
        min_steps: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.panel, self.codec, self.part = panel, codec, part
        self.batch_size, self.chunk, self.window, self.skip, self.seed = batch_size, chunk, window, skip, seed
        observed = panel.observed_until
        self.borders = np.where(observed > held_out + 1, observed - held_out, observed if part == "train" else 0)
        self.ends = self.borders if part == "train" else observed
        self.series = np.flatnonzero((self.borders >= 2) if part == "train" else (self.borders > 0))
        if part == "train" and not len(self.series):
            raise DataError(
                f"no series is long enough to learn from: the longest has {int(observed.max())} observed rows, and a forecast "
                "is learnt from at least 2"
            )
        self.rounds = 1
        self.rounds = max(1, round(min_steps / max(1, self.steps(0))))

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        return sum(-(-int(lengths[0]) // self.chunk) for _, _, lengths in self._groups(epoch))

    def _groups(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Series, first frames and lengths of each group, the longest first."""
        rng = np.random.default_rng((self.seed, epoch))
        place, ranks = rank()
        ends, train = self.ends, self.part == "train"
        for _ in range(self.rounds):
            if self.window is not None:
                rows, begin, lengths = self._pieces(rng, self.window)
            else:
                rows, lengths, begin = self.series, ends[self.series], np.zeros(len(self.series), np.int64)
            # similar lengths side by side, but not the same neighbours each time
            key = lengths * rng.uniform(0.9, 1.1, len(rows)) if train else lengths
            order = np.argsort(-key, kind="stable")
            groups = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
            if train:
                rng.shuffle(groups)
            for group in groups:
                group = group[np.argsort(-lengths[group], kind="stable")]
                if ranks > 1:  # every process takes its share of each group, so that all make the same number of steps
                    group = group[[0, *range(place + 1, len(group), ranks)]]
                yield rows[group], begin[group], lengths[group]

    def _pieces(self, rng: np.random.Generator, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Series, first frames and lengths of cold pieces: at random in training, half overlapping in validation."""
        ends = self.ends
        if self.part == "train":
            counts = np.maximum(1, np.round(ends[self.series] / window)).astype(np.int64)
            rows = np.repeat(self.series, counts)
            lengths = np.minimum(ends[rows], window)
            return rows, rng.integers(0, ends[rows] - lengths + 1), lengths
        hop = max(1, window // 2)
        places = [np.arange(max(0, self.borders[i] - window), max(1, ends[i] - window), hop) for i in self.series]
        rows = np.repeat(self.series, [len(p) for p in places])
        begin = np.concatenate(places)
        return rows, begin, np.minimum(window, ends[rows] - begin)

    def __iter__(self) -> Iterator[Batch]:
        for rows, begin, lengths in self._groups(self.epoch):
            yield from self._group(rows, begin, lengths)

    def _group(self, rows: np.ndarray, begin: np.ndarray, lengths: np.ndarray) -> Iterator[Batch]:
        codec, h = self.codec, self.codec.horizon
        block = codec.block(self.panel, rows, begin, lengths)
        border = self.borders[rows] - begin
        state = codec.start(len(rows))
        last = int(lengths[0])
        for t0 in range(0, last, self.chunk):
            t1 = min(t0 + self.chunk, last)
            frames = np.clip(lengths - t0, 0, t1 - t0)
            if self.part == "validation" and (t1 + h <= border).all():
                enc = codec.encode(state, block.y[:, t0:t1], frames, anchors=False)
                anchors = np.zeros((*enc.level.shape, h, codec.scaling.choices), np.float32)
            else:
                enc = codec.encode(state, block.y[:, t0:t1], frames, anchors=True)
                assert enc.anchors is not None
                anchors = enc.anchors
            targets = codec.targets(block.y[:, t0 : t1 + h], enc.level, enc.scale)
            at = np.arange(t0, t1)[None, :, None] + np.arange(1, h + 1)
            wanted = at < border[:, None, None] if self.part == "train" else at >= border[:, None, None]
            valid = np.arange(t0, t1)[None, :] < lengths[:, None]
            if self.part == "train" or self.window is not None:
                valid &= np.arange(t0, t1)[None, :] >= np.minimum(self.skip, lengths - 2)[:, None]
            known = np.lib.stride_tricks.sliding_window_view(block.known[:, t0 + 1 : t1 + h], h, axis=1)
            context = codec.head_context(anchors, np.moveaxis(known, -1, -2))
            yield Batch(
                values=torch.from_numpy(np.concatenate([enc.features, block.inputs[:, t0:t1]], axis=-1)),
                lengths=torch.from_numpy(frames),
                targets=torch.from_numpy(targets),
                weights=torch.from_numpy((wanted & valid[..., None]).astype(np.float32)),
                context=torch.from_numpy(context),
                units=torch.from_numpy(np.stack([enc.level, enc.scale], axis=-1).clip(-HUGE, HUGE).astype(np.float32)),
                fresh=t0 == 0,
            )
