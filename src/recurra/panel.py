"""Panel: many series on one time step, as checked, dense arrays; and Columns, what a long table's columns mean.

Time is not kept: the first stamp of a series and the common step imply every other.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recurra.errors import DataError, nearest
from recurra.timestep import Step


class Columns(BaseModel):
    """What the columns of a long table mean; saved with the model.

    static: one value per series.  past: known up to now.  future: known ahead, too.
    Covariates are numeric, or categorical: strings, booleans, categoricals; in a CSV file, a column where one of the
    first 10,000 rows is not a number; and those named under `categorical`, whose values are taken as text (12.0 as "12").
    gaps: what to do where a time stamp is missing: refuse the table, or insert rows that are missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str = Field(default="y", description="column to learn")
    time: str = Field(default="ds", description="column of time stamps: integers, dates or date-times")
    series: str | None = Field(default="unique_id", description="column of series ids; None: the table is one series")
    static: tuple[str, ...] = Field(default=(), description="covariates with one value per series")
    past: tuple[str, ...] = Field(default=(), description="covariates known up to the present")
    future: tuple[str, ...] = Field(default=(), description="covariates known for the future, too")
    categorical: tuple[str, ...] = Field(
        default=(), description="covariates to be taken as categories though they look like numbers"
    )
    gaps: Literal["refuse", "fill"] = Field(
        default="refuse", description="a missing time stamp: refuse it, or insert a missing row"
    )

    @model_validator(mode="after")
    def _one_role(self) -> "Columns":
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"column '{name}' is used in two roles: name it once among target, time, series, "
                    "static, past, future"
                )
        for name in self.categorical:
            if name not in self.covariates:
                raise ValueError(
                    f"categorical names '{name}', which is no covariate: name it under static, past or future too; "
                    f"{nearest(name, self.covariates)}"
                )
        return self

    @property
    def covariates(self) -> tuple[str, ...]:
        """static, past and future columns."""
        return self.static + self.past + self.future

    @property
    def names(self) -> tuple[str, ...]:
        """Every column in use."""
        return (*((self.series,) if self.series is not None else ()), self.time, self.target, *self.covariates)


@dataclass(frozen=True)
class Panel:
    """N series on one time step, their R rows end to end. Row r of series i stands at time `step.next(start[i], r -
    offsets[i])`.

    ids: str [N].  offsets: int64 [N+1].  start: int64 or datetime64[us] [N].
    target: float64 [R], NaN = missing.
    numeric: past and future covariates, float64 [R], NaN = missing.
    categorical: past and future covariates, int32 codes [R] into `levels`, -1 = missing.
    static_numeric: float64 [N].  static_categorical: int32 codes [N].
    levels: categorical column -> its sorted values.
    observed_until: int64 [N], rows of each series before its trailing rows whose target is missing (the known future
    of a model with future columns); the series' length if there are no future columns.
    """

    columns: Columns
    step: Step
    ids: np.ndarray
    offsets: np.ndarray
    start: np.ndarray
    target: np.ndarray
    numeric: dict[str, np.ndarray]
    categorical: dict[str, np.ndarray]
    static_numeric: dict[str, np.ndarray]
    static_categorical: dict[str, np.ndarray]
    levels: dict[str, tuple[str, ...]]
    observed_until: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each series, int64 [N]."""
        return np.diff(self.offsets)

    def series(self, i: int) -> slice:
        """The rows of series `i`."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def times(self, i: int) -> np.ndarray:
        """The time stamps of series `i`, int64 or datetime64[us] [its length]."""
        return self.step.next(self.start[i], np.arange(self.offsets[i + 1] - self.offsets[i]))

    def take(self, series: Sequence[int] | np.ndarray) -> "Panel":
        """The panel of these series, in this order."""
        return self._rows(np.asarray(series, dtype=np.int64), None, None)

    def cut(self, stop: int | np.ndarray, begin: int | np.ndarray = 0) -> "Panel":
        """Rows `begin` to `stop` (exclusive) of every series, counted from its start; scalars or int [N], clipped to
        its length.

        Raises DataError: nothing is left of a series.
        """
        last = np.minimum(np.broadcast_to(np.asarray(stop, dtype=np.int64), len(self)), self.lengths)
        first = np.maximum(np.broadcast_to(np.asarray(begin, dtype=np.int64), len(self)), 0)
        if (first >= last).any():
            i = int(np.argmax(first >= last))
            raise DataError(
                f"series '{self.ids[i]}' has {self.lengths[i]} rows, so rows {first[i]} to {last[i]} are none: cut less"
            )
        return self._rows(np.arange(len(self)), first, last)

    def digest(self) -> str:
        """SHA-256 of all that the panel holds, hex."""
        words = [
            self.columns.model_dump_json(),
            self.step.model_dump_json(),
            self.ids.tolist(),
            sorted(self.levels.items()),
        ]
        state = hashlib.sha256(json.dumps(words).encode())
        groups = (self.numeric, self.categorical, self.static_numeric, self.static_categorical)
        arrays = [self.offsets, self.start, self.target, *(group[name] for group in groups for name in sorted(group))]
        for array in arrays:
            state.update(np.ascontiguousarray(array).view(np.uint8).data)
        return state.hexdigest()

    def _rows(self, index: np.ndarray, first: np.ndarray | None, last: np.ndarray | None) -> "Panel":
        first = np.zeros(len(index), dtype=np.int64) if first is None else first
        lengths = (self.lengths[index] if last is None else last) - first
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.repeat(self.offsets[:-1][index] + first - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Panel(
            columns=self.columns,
            step=self.step,
            ids=self.ids[index],
            offsets=offsets,
            start=self.step.next(self.start[index], first),
            target=self.target[rows],
            numeric={k: v[rows] for k, v in self.numeric.items()},
            categorical={k: v[rows] for k, v in self.categorical.items()},
            static_numeric={k: v[index] for k, v in self.static_numeric.items()},
            static_categorical={k: v[index] for k, v in self.static_categorical.items()},
            levels=self.levels,
            observed_until=np.clip(self.observed_until[index] - first, 0, lengths),
        )
