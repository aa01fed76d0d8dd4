"""Covariates and the calendar as numbers: standardised, one-hot, with a column that says what is missing.

A numeric column becomes two: (value - mean) / standard deviation, and 1 where it was observed (missing: 0, 0).
A categorical column becomes one 0/1 column a level (missing: all 0). The calendar becomes sine and cosine of each
cycle that is longer than the time step, read from a table by phase, so that equal phases give equal bits.
"""

import re

import numpy as np
from pydantic import BaseModel, ConfigDict

from recurra.errors import DataError, nearest
from recurra.table import MISSING, WHOLE, Panel, Step

CYCLES = {"hour": 24, "weekday": 7, "monthday": 31, "month": 12, "week": 53}  # name -> phases
CLIP = 8.0  # standard deviations


class Covariates(BaseModel):
    """Which covariates a model reads, and the means and deviations of its training part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    static: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    levels: dict[str, tuple[str, ...]] = {}
    moments: dict[str, tuple[float, float]] = {}
    cycles: tuple[str, ...] = ()

    @classmethod
    def fit(cls, panel: Panel, calendar: bool) -> "Covariates":
        """Means, deviations and categories of `panel` (the training part)."""
        moments = {}
        for name, values in {**panel.numeric, **panel.static_numeric}.items():
            seen = values[np.isfinite(values)]
            deviation = float(seen.std()) if seen.size else 1.0
            moments[name] = (float(seen.mean()) if seen.size else 0.0, deviation if deviation > 0 else 1.0)
        columns = panel.columns
        return cls(
            static=columns.static,
            past=columns.past,
            future=columns.future,
            levels=panel.levels,
            moments=moments,
            cycles=calendar_cycles(panel.step) if calendar else (),
        )

    def width(self, names: tuple[str, ...]) -> int:
        """How many numbers the columns `names` become."""
        return sum(len(self.levels[name]) if name in self.levels else 2 for name in names)

    @property
    def known_width(self) -> int:
        """Numbers a step that are known ahead: the future-known columns and the calendar."""
        return self.width(self.future) + 2 * len(self.cycles)

    @property
    def input_width(self) -> int:
        """Numbers a step beside the target: static, past, and those known ahead."""
        return self.width(self.static) + self.width(self.past) + self.known_width

    def column(self, name: str, values: np.ndarray) -> np.ndarray:
        """[...] raw values (category codes, -1 = missing, or floats, NaN = missing) -> [..., width] float32."""
        if name in self.levels:
            codes = np.asarray(values)[..., None]
            return (codes == np.arange(len(self.levels[name]))).astype(np.float32)
        mean, deviation = self.moments[name]
        z = (np.asarray(values, np.float64) - mean) / deviation
        seen = np.isfinite(z)
        scaled = np.clip(np.where(seen, z, 0.0), -CLIP, CLIP)
        return np.stack([scaled, seen], axis=-1).astype(np.float32)

    def block(self, names: tuple[str, ...], raw: dict[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        """The columns `names` of `raw`, each of `shape`, side by side: [*shape, width] float32."""
        parts = [self.column(name, raw[name]) for name in names]
        return np.concatenate(parts, axis=-1) if parts else np.zeros((*shape, 0), np.float32)

    def known(self, raw: dict[str, np.ndarray], times: np.ndarray) -> np.ndarray:
        """What is known ahead at `times` [...]: the future-known columns of `raw` [...] and the calendar."""
        parts = [self.block(self.future, raw, times.shape)]
        parts += [calendar(cycle, times) for cycle in self.cycles]
        return np.concatenate(parts, axis=-1)

    def code(self, name: str, value: object) -> float:
        """One raw value of a stream's observation as the number that `column` takes. Raises DataError."""
        if name not in self.levels:
            return number(name, value)
        text = str(value).lower() if isinstance(value, bool | np.bool_) else str(value)
        if text in self.levels[name]:
            return self.levels[name].index(text)
        if text.lower() in ("true", "false") and text.lower() in self.levels[name]:
            return self.levels[name].index(text.lower())
        if value is None or text.strip() in MISSING:
            return -1
        if isinstance(value, float | np.floating) and float(value).is_integer() and abs(value) < 2**53:
            text = str(int(value))
        text = re.sub(WHOLE, r"\1", text.strip())  # 12, 12.0 and "12.0" are the category "12", as in tables
        if text in self.levels[name]:
            return self.levels[name].index(text)
        raise DataError(f"column '{name}': unknown category '{text}'; {nearest(text, self.levels[name])}")


def number(column: str, value: object) -> float:
    """A finite number, or NaN for what is missing (None, or as tables write it: "", NA, NaN ...). Raises DataError."""
    if value is None or (isinstance(value, str) and value.strip() in MISSING):
        return float("nan")
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"column '{column}': '{str(value)[:60]}' is not a number") from None
    if np.isinf(found):
        raise DataError(f"column '{column}': {value} is infinite: leave it empty where it is unknown")
    return found


def calendar_cycles(step: Step) -> tuple[str, ...]:
    """The calendar's cycles that a series of this time step moves through."""
    if step.unit == "int":
        raise DataError("calendar features need dates, but the time column holds integers; set calendar = false")
    if step.unit == "month":
        return ("month",) if step.n < 12 else ()
    day = 86_400_000_000
    cycles = ("hour",) if step.n < day else ()
    if step.n < 7 * day:
        cycles += ("weekday", "monthday")
    return (*cycles, "month") if step.n < 7 * day else (*cycles, "week")


def calendar(cycle: str, times: np.ndarray) -> np.ndarray:
    """Sine and cosine of `cycle` at `times` (datetime64): [..., 2] float32."""
    days = times.astype("datetime64[D]")
    months = times.astype("datetime64[M]")
    if cycle == "hour":
        phase = (times - days).astype("timedelta64[h]").astype(np.int64)
    elif cycle == "weekday":
        phase = (days.astype(np.int64) + 3) % 7
    elif cycle == "monthday":
        phase = (days - months.astype("datetime64[D]")).astype(np.int64)
    elif cycle == "month":
        phase = months.astype(np.int64) % 12
    else:
        phase = (days - times.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) // 7
    angle = 2.0 * np.pi * np.arange(CYCLES[cycle]) / CYCLES[cycle]
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)[phase]
