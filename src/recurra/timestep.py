"""How one time stamp of a series follows the one before it.

Time is int64 for integer time, and microseconds since 1970 (UTC, numpy datetime64[us]) for dates. A step is a number
of integers, of microseconds, or of calendar months; months may be anchored at their last day (2020-01-31, 2020-02-29,
2020-03-31).
"""

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recurra.errors import DataError

DAY = 86_400_000_000  # microseconds


class Step(BaseModel):
    """How one time stamp follows another; `model_dump()` gives the JSON, `Step(**json)` reads it.

    unit: "int" (integer time), "us" (fixed duration in microseconds) or "month" (calendar months).
    n: how many units one step is.  end: months only: stamps are the last day of their month.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Literal["int", "us", "month"]
    n: int = Field(gt=0)
    end: bool = False

    @property
    def dates(self) -> bool:
        """Whether time stamps are dates (datetime64[us]) and not integers."""
        return self.unit != "int"

    def next(self, time: Any, n: Any = 1) -> np.ndarray:
        """The stamps `n` steps after `time` (both broadcast; n may be negative), as int64 or datetime64[us]."""
        n = np.asarray(n, dtype=np.int64) * self.n
        if self.unit == "int":
            return np.asarray(time, dtype=np.int64) + n
        stamp = np.asarray(time, dtype="datetime64[us]")
        if self.unit == "us":
            return stamp + n.astype("timedelta64[us]")
        month = stamp.astype("datetime64[M]")
        day = (stamp.astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)
        clock = stamp - stamp.astype("datetime64[D]").astype("datetime64[us]")
        target = month + n.astype("timedelta64[M]")
        first = target.astype("datetime64[D]")
        last = ((target + 1).astype("datetime64[D]") - first).astype(np.int64) - 1
        day = last if self.end else np.minimum(day, last)
        return (first + day.astype("timedelta64[D]")).astype("datetime64[us]") + clock

    def count(self, start: Any, time: Any) -> np.ndarray:
        """How many steps lead from `start` to `time` (broadcast), int64; DataError where `time` is not on the grid."""
        if self.unit == "month":
            a, b = (
                np.asarray(v, dtype="datetime64[us]").astype("datetime64[M]").astype(np.int64) for v in (start, time)
            )
            steps = (b - a) // self.n
        elif self.unit == "us":
            a, b = np.asarray(start, dtype="datetime64[us]"), np.asarray(time, dtype="datetime64[us]")
            steps = (b - a).astype(np.int64) // self.n
        else:
            steps = (np.asarray(time, dtype=np.int64) - np.asarray(start, dtype=np.int64)) // self.n
        off = np.atleast_1d(
            self.next(start, steps) != np.asarray(time, dtype="datetime64[us]" if self.dates else np.int64)
        )
        if off.any():
            bad = np.broadcast_to(np.atleast_1d(np.asarray(time)), off.shape)[off][0]
            raise DataError(f"time {show(bad)} is not a whole number of steps ({self}) after the start of its series")
        return steps

    def __str__(self) -> str:
        if self.unit == "int":
            return str(self.n)
        if self.unit == "us":
            return duration(self.n)
        n, name = (self.n // 12, "year") if self.n % 12 == 0 else (self.n, "month")
        return f"{n} {name}{'s' if n > 1 else ''}{' at the last day of the month' if self.end else ''}"


def duration(microseconds: int) -> str:
    """A duration in the largest unit that divides it: "1 hour", "90 minutes"."""
    for size, name in (
        (7 * DAY, "week"),
        (DAY, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1000, "millisecond"),
        (1, "microsecond"),
    ):
        if microseconds % size == 0:
            n = microseconds // size
            return f"{n} {name}{'' if n == 1 else 's'}"
    return "0"  # pragma: no cover: 1 divides everything


def show(stamp: Any, dates: bool = False) -> str:
    """A time stamp as an error message writes it; `dates` reads an int64 as microseconds since 1970."""
    if dates:
        stamp = np.int64(stamp).astype("datetime64[us]")
    if not np.issubdtype(np.asarray(stamp).dtype, np.datetime64):
        return str(stamp)
    text = str(np.datetime64(stamp, "us"))
    return text.removesuffix(".000000").removesuffix("T00:00:00")


def word(value: Any) -> str:
    """A name or value as an error message writes it: in quotes, on one line, at most 60 characters."""
    text = " ".join(str(value).split())
    return f"'{text if len(text) <= 60 else text[:57] + '...'}'"


def positions(
    time: np.ndarray, offsets: np.ndarray, ids: np.ndarray, *, dates: bool, step: Step | None, gaps: str, where: str
) -> tuple[Step, np.ndarray | None]:
    """Check the order of every series and find the common step.

    time: int64 [R], series after series (microseconds if `dates`).  offsets: int64 [N+1].
    step: the step to hold to, or None to infer it.
    Returns the step, and None if no row is missing; else int64 [R], each row's place in its series once the gaps are
    filled.
    Raises DataError: duplicated, unsorted, irregular or gapped stamps, steps that differ between series, no step to
    be known.
    """
    at = _Place(time, offsets, ids, dates, where)
    lengths = np.diff(offsets)
    if step is not None and step.dates != dates:
        kinds = ("integers", "dates")
        raise DataError(
            f"{where}: the time stamps are {kinds[dates]}, the model was trained on "
            f"{kinds[step.dates]}: give it such a column"
        )
    if step is not None and step.unit == "month":
        ends = _all_month_ends(time)
        if not ends if step.end else _anchor(time, offsets) is not False:
            raise DataError(
                f"{where}: the time stamps (first: {at.time(0)}) don't follow the model's step of "
                f"{step}: give such stamps"
            )
    if lengths.max() == 1:
        if step is None:
            raise DataError(
                f"{where}: every series has one row, so the time step can't be known: give at least "
                "two rows of one series"
            )
        return step, None
    jumps = _differences(time, offsets)
    if jumps.min() <= 0:
        row = int(np.argmax(jumps <= 0))
        if jumps[row] == 0:
            raise DataError(f"{where}: series {at.id(row)} has two rows for {at.time(row)}: keep one of them")
        raise DataError(
            f"{where}: series {at.id(row)} is not sorted: {at.time(row + 1)} comes after {at.time(row)}: "
            "sort the table by time"
        )
    unit, end = (step.unit, step.end) if step else ("us" if dates else "int", False)
    if step is None and dates and jumps.min() >= 28 * DAY:
        anchor = _anchor(time, offsets)
        if anchor is not None:
            unit, end = "month", anchor
    if unit == "month":
        jumps = _differences(time.view("M8[us]").astype("M8[M]").astype(np.int64), offsets)
    n = step.n if step else _most(jumps, offsets, at, unit, end)
    step = step or Step(unit=unit, n=n, end=end)
    if jumps.min() == n and jumps.max() == n:
        return step, None
    off = jumps % n != 0
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"{where}: series {at.id(row)} is irregular: after {at.time(row)} comes "
            f"{at.time(row + 1)}, the step is {step}: resample it to one step"
        )
    row = int(np.argmax(jumps != n))
    if gaps != "fill":
        raise DataError(
            f"{where}: series {at.id(row)} has a gap: after {at.time(row)} comes {at.time(row + 1)}, "
            f"the step is {step}: "
            'set gaps="fill" to insert the missing rows, or use an integer time column if the gap means nothing'
        )
    place = np.zeros(len(time), dtype=np.int64)
    np.cumsum(jumps // n, out=place[1:])
    place -= np.repeat(place[offsets[:-1]], lengths)
    total = int((place[offsets[1:] - 1] + 1).sum())
    if total > 20 * len(time) + 1_000_000:
        raise DataError(
            f"{where}: filling the gaps would make {total} rows out of {len(time)}: the step of "
            f"{step} (series {at.id(row)}) is too fine: aggregate the table to a longer step"
        )
    return step, place


class _Place:
    """Names a row's series and time in a message."""

    def __init__(self, time: np.ndarray, offsets: np.ndarray, ids: np.ndarray, dates: bool, where: str) -> None:
        self._time, self._offsets, self._ids, self._dates, self.where = time, offsets, ids, dates, where

    def id(self, row: int) -> str:
        return word(self._ids[int(np.searchsorted(self._offsets, row, side="right")) - 1])

    def time(self, row: int) -> str:
        return show(self._time[row], self._dates)


def _differences(time: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Differences within series, int64 [R-1]; where a series ends, its own first difference (or that of a longer one)
    stands in.
    """
    d = np.diff(time)
    ends, firsts = offsets[1:-1] - 1, offsets[:-2]
    longer = np.diff(offsets) > 1
    reference = d[offsets[int(np.argmax(longer))]]
    d[ends] = np.where(longer[:-1], d[firsts], reference)
    return d


def _most(d: np.ndarray, offsets: np.ndarray, at: _Place, unit: str, end: bool) -> int:
    """The step in units: the shortest difference that occurs twice and makes up a twentieth of all.

    Raises DataError if series have different constant steps.
    """
    if d.min() == d.max():
        return int(d[0])
    values, counts = np.unique(d, return_counts=True)
    n = int(values[int(np.argmax(counts >= max(2, len(d) / 20)))])  # argmax is 0, the shortest, if none
    starts = offsets[:-1][np.diff(offsets) > 2]  # two differences at least
    if len(starts):
        lengths = np.diff(offsets)[np.diff(offsets) > 2]
        bounds = np.stack([starts, starts + lengths - 1], axis=1).ravel()
        bounds = bounds[:-1] if bounds[-1] >= len(d) else bounds
        low, high = np.minimum.reduceat(d, bounds)[::2], np.maximum.reduceat(d, bounds)[::2]
        other, own = (low == high) & (low != n), low == n
        if other.any() and own.any():
            a, b = int(starts[np.argmax(own)]), int(starts[np.argmax(other)])
            kind: Any = unit
            steps = Step(unit=kind, n=n, end=end), Step(unit=kind, n=int(d[b]), end=end)
            raise DataError(
                f"{at.where}: series have different steps: {steps[0]} in {at.id(a)}, {steps[1]} in {at.id(b)}: "
                "train one model for each step"
            )
    return n


def _anchor(time: np.ndarray, offsets: np.ndarray) -> bool | None:
    """False: each series keeps its day of the month and its clock; True: all stamps are month ends; None: neither."""
    rest = time - time.view("M8[us]").astype("M8[M]").astype("M8[us]").view(np.int64)
    same = not (rest - np.repeat(rest[offsets[:-1]], np.diff(offsets))).any()
    clock = time % DAY
    steady = not (clock - np.repeat(clock[offsets[:-1]], np.diff(offsets))).any()
    if same and (rest.max() < 28 * DAY):
        return False
    if steady and _all_month_ends(time):
        return True
    return False if same else None


def _all_month_ends(time: np.ndarray) -> bool:
    tomorrow = time.view("M8[us]").astype("M8[D]") + 1
    return bool((tomorrow == tomorrow.astype("M8[M]").astype("M8[D]")).all())
