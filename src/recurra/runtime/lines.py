"""Lines in, lines out: one observation a line to a `Live`, one forecast a line back, in the format that came in."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from recurra.errors import DataError, RecurraError
from recurra.runtime.live import Live
from recurra.runtime.prediction import Prediction
from recurra.timestep import show


def serve(live: Live, lines: Iterable[str], out: TextIO, state: Path, save_every: int) -> int:
    """Feed `lines` to `live` until they end or the process is told to stop; returns how many were refused.

    A refused line is named on standard error and changes nothing. The state file is written every `save_every` lines and at the end,
    whatever ends it.
    """
    refused, writer = 0, None
    try:
        for number, row in rows(lines, live.model.codec.columns.time):
            try:
                if isinstance(row, RecurraError):
                    raise row
                name, stamp, prediction = live.observe(row)
            except RecurraError as error:
                refused += 1
                print(f"recurra: line {number}: {error}", file=sys.stderr)
                continue
            writer = writer or (CsvWriter(live, out) if isinstance(row, CsvRow) else JsonWriter(live, out))
            writer.write(name, stamp, prediction)
            if number % save_every == 0:
                live.save(state)
    except KeyboardInterrupt:
        pass
    except UnicodeDecodeError:
        raise DataError("the input is not UTF-8 text: save it as UTF-8") from None
    finally:
        if live.states or state.exists():
            live.save(state)
    return refused


class CsvRow(dict[str, Any]):
    """A row that came as CSV."""


def rows(lines: Iterable[str], time: str) -> Iterator[tuple[int, Any]]:
    """(line number, column -> value, or the error of a broken line). The first line tells JSON Lines from CSV.

    Raises DataError where it is neither: a CSV header must name the column `time`.
    """
    header, first = None, True
    for number, line in enumerate(lines, start=1):
        text = line.strip().removeprefix("\ufeff")
        if not text:
            continue
        opening, first = first, False
        if opening and not text.startswith("{"):
            header = [name.strip() for name in next(csv.reader([text]))]
            if time not in header:
                raise DataError(
                    f"line {number}: the stream must be JSON objects, or CSV whose header names '{time}', not '{text[:60]}'"
                )
            continue
        if header is not None:
            try:
                cells = next(csv.reader([text]))
            except csv.Error as error:
                yield number, DataError(f"not valid CSV: {error}")
                continue
            fits = len(cells) == len(header)
            yield (
                number,
                CsvRow(zip(header, cells, strict=True))
                if fits
                else DataError(f"{len(cells)} fields, but the header has {len(header)}"),
            )
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:  # numbers of 5,000 digits, brackets of 5,000 levels
            yield number, DataError(f"not valid JSON: {getattr(error, 'msg', error)}")
        else:
            yield number, row if isinstance(row, dict) else DataError(f"must be a JSON object, not {text[:40]}")


class JsonWriter:
    """{"unique_id": ..., "ds": ..., "y_hat": [...], "q0.1": [...], ...} a line; ds is the time of the observation."""

    def __init__(self, live: Live, out: TextIO) -> None:
        self.codec, self.out = live.model.codec, out

    def names(self, name: str, stamp: Any) -> dict[str, Any]:
        """The id and the time stamp, named as in the training data."""
        columns = self.codec.columns
        named: dict[str, Any] = {} if columns.series is None else {columns.series: name}
        return {**named, columns.time: show(stamp) if self.codec.step.dates else int(stamp)}

    def write(self, name: str, stamp: Any, prediction: Prediction) -> None:
        """One line, flushed."""
        row = {**self.names(name, stamp), "y_hat": _values(prediction.y_hat[0])}
        for q, level in enumerate(prediction.levels):
            row[f"q{level:g}"] = _values(prediction.quantiles[0, :, q])
        print(json.dumps(row), file=self.out, flush=True)


class CsvWriter(JsonWriter):
    """The same as CSV: id, time, y_hat_1 ... y_hat_h, q0.1_1 ...; the first line is the header."""

    def __init__(self, live: Live, out: TextIO) -> None:
        super().__init__(live, out)
        self.csv = csv.writer(out, lineterminator="\n")
        self.fresh = True

    def write(self, name: str, stamp: Any, prediction: Prediction) -> None:
        """One line, flushed."""
        named = self.names(name, stamp)
        columns = [("y_hat", prediction.y_hat[0])]
        columns += [(f"q{level:g}", prediction.quantiles[0, :, q]) for q, level in enumerate(prediction.levels)]
        if self.fresh:
            self.csv.writerow(
                [*named, *(f"{column}_{k + 1}" for column, values in columns for k in range(len(values)))]
            )
            self.fresh = False
        cells = ["" if v is None else repr(v) for _, values in columns for v in _values(values)]
        self.csv.writerow([*named.values(), *cells])
        self.out.flush()


def _values(values: np.ndarray) -> list[float | None]:
    """Numbers as a line writes them: what is not known yet is null."""
    return [None if np.isnan(v) else float(v) for v in values]
