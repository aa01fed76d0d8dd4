"""A table of labelled documents -> Document after Document: a text or a numeric series a row. Streamed, in blocks of rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recurra.errors import DataError, nearest
from recurra.tablefile import MISSING, Source, broken, open_table
from recurra.timestep import word

ROWS = 1_000  # that are held at once


@dataclass(frozen=True)
class Document:
    """A text, or a numeric series `values` [T, channels] float64 (NaN = missing); its labels, None where they are not read."""

    text: str | None
    values: np.ndarray | None
    labels: tuple[str, ...] | None


def from_table(
    source: Any,
    *,
    text: str | None,
    label: str | None,
    separator: str | None,
    values: Sequence[str],
    label_until: str | None,
    labelled: bool,
) -> Iterator[Document]:
    """The rows of a table as documents; the options are those of textfile.documents. Raises DataError."""
    every = "*" in values
    known = (*values, *((text,) if text and not values else ()), *((label,) if label else ()))
    table = open_table(source, None if every else known)
    schema = dict(table.frame.collect_schema())
    if not values and text is None:
        raise DataError(f"{table.where}: name the column of the text, or those of the values")
    wanted = [name for name in schema if name != label] if every else list(values or (str(text),))
    labels = label if labelled else None
    check_columns(table, wanted, [*wanted, *([labels] if labels else [])], text=not values)
    read = _series if values else _cells
    row = 0
    try:
        frame = table.frame.select(list(dict.fromkeys([*wanted, *([labels] if labels else [])])))
        for block in frame.collect_batches(chunk_size=ROWS):
            names = block[labels].to_list() if labels else [None] * block.height
            blank = block.select(pl.all_horizontal(pl.all().is_null() & table.text)).to_series().to_list()
            for i, content in enumerate(read(table, block.select(wanted), row)):
                if blank[i]:  # a blank line of a text file is no row
                    continue
                place = place_of(table, row + i)
                found = _labels(names[i], separator, label_until, place, labels) if labels else None
                if isinstance(content, np.ndarray):
                    yield Document(None, trimmed(content, place), found)
                elif content is None or not content.strip():
                    raise DataError(f"{place}: no text in column '{text}': leave the row out, or give it a text")
                else:
                    yield Document(content, None, found)
            row += block.height
    except pl.exceptions.PolarsError as error:
        raise broken(table.where, error) from error
    if not row:
        raise DataError(f"{table.where} has a header and no rows: a table needs rows")


def place_of(table: Source, row: int) -> str:
    """A row, from 0, as a message names it. A text in a CSV file may go over several lines, so lines can't be counted there."""
    return f"{table.where}, " + (table.row(row) if table.first_line == 1 else f"row {row + 1}")


def texts(table: Source, columns: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
    """The texts in some columns, row by row; None where a cell is empty. Raises DataError."""
    check_columns(table, columns, columns, text=True)
    try:
        for block in table.frame.select(columns).collect_batches(chunk_size=ROWS):
            yield from block.cast(pl.String).iter_rows()
    except pl.exceptions.PolarsError as error:
        raise broken(table.where, error) from error


def check_columns(table: Source, typed: Sequence[str], needed: Sequence[str], *, text: bool) -> None:
    """Raises DataError where one of the columns `needed` is absent, or one of `typed` holds no text (text False: no numbers)."""
    schema = dict(table.frame.collect_schema())
    for name in needed:
        if name not in schema:
            raise DataError(f"{table.where} has no column '{name}': {nearest(name, table.names or schema)}")
    for name in typed:
        dtype = inner = schema[name]
        while isinstance(inner, pl.List | pl.Array) and not text:
            inner = inner.inner
        strings = isinstance(inner, pl.String | pl.Categorical | pl.Enum | pl.Null)
        if text and not strings:
            raise DataError(f"{table.where}: column '{name}' holds {dtype}, not text: name the column of the text")
        if not text and not (inner.is_numeric() or inner == pl.Null or (strings and dtype == inner)):
            raise DataError(f"{table.where}: column '{name}' holds {dtype}, not numbers: leave it out of the values")


def _cells(table: Source, block: pl.DataFrame, first: int) -> list[str | None]:
    return block.to_series().cast(pl.String).to_list()


def _series(table: Source, block: pl.DataFrame, first: int) -> Iterator[np.ndarray]:
    """[T, channels] of each row: the columns are its steps, or, where they hold lists, its channels."""
    if not any(dtype.is_nested() for dtype in block.dtypes):
        yield from _numbers(table, block, first)[..., None]
        return
    for i, cells in enumerate(block.iter_rows()):
        try:
            channels = [np.asarray(cell if cell is not None else [], np.float64) for cell in cells]
            yield channels[0] if len(cells) == 1 and channels[0].ndim == 2 else np.stack(channels, axis=-1)
        except (ValueError, TypeError):
            lengths = [len(cell) if isinstance(cell, list) else 1 for cell in cells]
            raise DataError(
                f"{place_of(table, first + i)}: the lists of {block.columns} have {lengths} values, but a step needs one of each"
            ) from None


def _numbers(table: Source, block: pl.DataFrame, first: int) -> np.ndarray:
    """[rows, columns] float64."""
    text = block.with_columns(pl.col(pl.String).str.strip_chars())
    numbers = text.select(pl.all().cast(pl.Float64, strict=False))
    for name in block.columns:
        bad = text[name].is_not_null() & numbers[name].is_null()
        if text[name].dtype == pl.String:
            bad &= ~text[name].is_in(list(MISSING))
        if bad.any():
            i = int(bad.arg_true()[0])
            raise DataError(
                f"{place_of(table, first + i)}: column '{name}' holds {word(block[name][i])}, which is not a number: correct it or "
                "leave it empty"
            )
    return numbers.select(pl.all().fill_null(float("nan"))).to_numpy()


def trimmed(series: np.ndarray, place: str) -> np.ndarray:
    """A series without the missing steps at its end."""
    seen = np.flatnonzero(~np.isnan(series).all(axis=1))
    if not len(seen):
        raise DataError(f"{place}: the series has no value: leave it out")
    if np.isinf(series).any():
        raise DataError(f"{place}: the series holds {series[np.isinf(series)][0]}: leave a missing value empty")
    return series[: seen[-1] + 1]


def _labels(cell: Any, separator: str | None, until: str | None, place: str, column: str) -> tuple[str, ...]:
    several = isinstance(cell, list) or separator is not None
    if isinstance(cell, list):
        cells = cell
    else:
        text = "" if cell is None else label_name(cell)
        cells = text.split(separator) if separator else [text]
    names = [label_name(one) for one in cells if one is not None]
    names = [name.split(until)[0].strip() if until else name for name in names]
    found = tuple(dict.fromkeys(name for name in names if name))
    if not found and not several:
        raise DataError(f"{place}: no label in column '{column}': leave the row out, or give it a label")
    return found


def label_name(cell: Any) -> str:
    """A label as text: 1.0 is "1", True is "true"."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
