"""Live streams by name: every series its own state, saved together in one file, written beside and then renamed."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from recurra.codec.covariates import number
from recurra.errors import DataError, StateError, nearest
from recurra.runtime.forecast import ForecastModel
from recurra.runtime.observation import NO_TIME
from recurra.runtime.prediction import Prediction
from recurra.runtime.stream import State, store
from recurra.timestep import show

MAX_GAP = 10_000  # steps that are filled as missing at once, where the model fills gaps


class Live:
    """Streams of one model: `observe` takes one observation of one series and gives its forecast."""

    def __init__(self, model: ForecastModel, states: Mapping[str, State] | None = None) -> None:
        self.model = model
        self.states = dict(states or {})

    def observe(self, row: Mapping[str, Any]) -> tuple[str, Any, Prediction]:
        """Take one observation, column -> value; a new id starts cold. Returns its id, its time stamp, and the forecast.

        Columns known ahead come twice: the value now under their name, and a list of the next `horizon` under "future",
        e.g. {"unique_id": "a", "ds": "2024-01-01", "y": 3.1, "price": 2.0, "future": {"price": [2.0, 2.5]}}. Where the
        observation is refused (out of order, repeated, after a gap, broken) nothing changes: StateError, DataError.
        """
        columns = self.model.codec.columns
        wanted = (*columns.names, "future")
        for name in row:
            if name not in wanted:
                raise DataError(f"unknown column '{name}': {nearest(str(name), wanted)}")
        if columns.time not in row or row[columns.time] in (None, ""):
            raise DataError(f"the time column '{columns.time}' is missing")
        if columns.series is not None and row.get(columns.series) in (None, ""):
            raise DataError(f"the id column '{columns.series}' is missing")
        name = _name(row[columns.series]) if columns.series is not None else "0"
        try:
            stamp, prediction, state = self._step(self.states.get(name) or self.model.start(), row)
        except (DataError, StateError) as error:
            raise type(error)(f"series '{name}': {error}") from None
        self.states[name] = state
        return name, stamp, prediction

    def _step(self, state: State, row: Mapping[str, Any]) -> tuple[Any, Prediction, State]:
        codec = self.model.codec
        columns = codec.columns
        stamp = parse_time(row[columns.time], codec.step.dates)
        y = number(columns.target, row.get(columns.target))
        covariates = {name: row.get(name) for name in columns.covariates}
        future = row.get("future") or {}
        if isinstance(future, str):
            try:
                future = json.loads(future)
            except (ValueError, RecursionError) as error:
                raise DataError(f"'future' is not valid JSON: {getattr(error, 'msg', error)}") from None
        if not isinstance(future, Mapping):
            raise DataError(f"'future' must be an object, column -> list of the next values, not {str(future)[:40]}")
        if columns.gaps == "fill" and state.arrays["time"][0] != NO_TIME:
            kind = "datetime64[us]" if codec.step.dates else np.int64
            last = state.arrays["time"].view(kind)[0]
            missing = int(codec.step.count(last, stamp)) - 1
            if missing > MAX_GAP:
                raise StateError(
                    f"time {show(stamp)} comes {missing} steps after {show(last)}, more than the {MAX_GAP} that are filled at once"
                )
            empty = {name: [[None] * self.model.horizon] for name in columns.future}
            for _ in range(missing):
                unknown = {name: covariates[name] if name in columns.static else None for name in covariates}
                _, state = self.model.step(state, None, covariates=unknown, future=empty)
        ahead = {name: [values] for name, values in future.items()}
        prediction, state = self.model.step(state, y, time=stamp, covariates=covariates, future=ahead)
        return stamp, prediction, state

    def to_bytes(self) -> bytes:
        """All streams, as one State with the ids as JSON in `ids`."""
        names = sorted(self.states)
        whole = self.model.start(0)
        for key in whole.arrays:
            parts = [self.states[name].arrays[key] for name in names]
            whole.arrays[key] = np.concatenate(parts) if parts else whole.arrays[key]
        whole.arrays["ids"] = np.frombuffer(json.dumps(names).encode(), np.uint8)
        return whole.to_bytes()

    @classmethod
    def from_bytes(cls, model: ForecastModel, data: bytes) -> "Live":
        """Read what `to_bytes` wrote. Raises StateError: truncated, or of another model."""
        whole = State.from_bytes(data, model.digest)
        ids = whole.arrays.pop("ids", None)
        if ids is None:
            raise StateError("this is the state of a single step, not a file of live streams")
        whole.check_like(model.start(0))
        try:
            names = json.loads(ids.tobytes())
        except ValueError:
            names = None
        if not isinstance(names, list) or len(names) != whole.rows:
            raise StateError("this state is broken at 'ids': it was edited; start a new one")
        return cls(model, {str(name): whole.take([i]) for i, name in enumerate(names)})

    def save(self, path: str | Path) -> None:
        """Write the state file, whole or not at all."""
        store(path, self.to_bytes())


def _name(value: Any) -> str:
    """A series id as tables write it: 1 and 1.0 are one. Raises DataError."""
    if isinstance(value, bool | list | dict):
        raise DataError(f"an id must be text or a number, not {str(value)[:40]}")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def parse_time(value: Any, dates: bool) -> Any:
    """A time stamp from text or number: int64, or datetime64[us] (a time zone is taken to UTC). Raises DataError."""
    try:
        if not dates:
            if isinstance(value, str) or float(value) == int(value):
                return np.int64(int(value))
            raise ValueError
        text = str(value).strip().replace(" ", "T")
        quarter = re.fullmatch(r"(\d{4})-?[Qq]([1-4])", text)
        if quarter:
            text = f"{quarter[1]}-{3 * int(quarter[2]) - 2:02d}"
        if not re.match(r"\d{4}-\d\d", text):  # numpy would take "now", "NaT" and 20240131 (a year)
            raise ValueError
        if re.search(r"T.*(Z|[+-]\d\d:?\d\d)$", text):
            return np.datetime64(datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None), "us")
        return np.datetime64(text, "us")
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"'{value}' is no {'date or date-time' if dates else 'integer'} time stamp") from None
