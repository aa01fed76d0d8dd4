"""Pairs of texts from files, as a stream: two files of plain text, line by line, or a table with two columns.

Neither side is held in memory as a whole. Messages name the file, and the line or row.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from recurra import documenttable, textfile
from recurra.errors import DataError
from recurra.tablefile import ENDINGS, check_file, open_table

Rows = Iterator[tuple[str, str]]
Place = Callable[[int, int], str]  # row from 0 and side, 0 or 1 -> how a message names it


class Pair(NamedTuple):
    """A text, and what it becomes: a sentence and its translation, a document and its summary."""

    source: str
    target: str


def pairs(
    source: Any,
    target: Any = None,
    *,
    source_column: str = "source",
    target_column: str = "target",
    encoding: str = "utf-8",
    quiet: bool = False,
) -> Iterator[Pair]:
    """The pairs of two files of plain text in `encoding` (line i of `target` belongs to line i of `source`), or, without `target`,
    of two columns of a table: a CSV, TSV, Parquet or JSON Lines file (UTF-8), or a frame of pandas, Polars or pyarrow.

    White space around a text is left out, and so are pairs with an empty side: in the end one warning names their number and the
    first of them, but for `quiet`.
    Raises DataError: no such file or column, files of unequal length, no text in this encoding, no pair at all.
    """
    if target is None:
        rows, place, where = _of_table(source, source_column, target_column)
    else:
        rows, place, where = _of_files(source, target, encoding)
    count, first = 0, None
    row = -1
    for row, (a, b) in enumerate(rows):
        if a and b:
            yield Pair(a, b)
        else:
            first = first or place(row, 1 if a else 0)
            count += 1
    if count == row + 1:
        raise DataError(f"{where}: no pair has a text on both sides: give each source its target")
    if count and not quiet:
        warnings.warn(
            f"{count} pair(s) with an empty side are left out, the first: {first}", RuntimeWarning, stacklevel=2
        )


def sources(source: Any, *, source_column: str, encoding: str = "utf-8") -> Iterator[str]:
    """The texts to read alone: each line of a file of plain text, or a column of a table (as in `pairs`), row by row; "" where a cell is
    empty. Raises DataError: no such file or column, no text in this encoding.
    """
    if isinstance(source, (str, os.PathLike)) and not _is_table(Path(source)):
        yield from (line.strip() for line in textfile.lines(Path(source), encoding))
        return
    table = open_table(source, (source_column,))
    yield from ((text or "").strip() for (text,) in documenttable.texts(table, (source_column,)))


def _of_files(source: Any, target: Any, encoding: str) -> tuple[Rows, Place, str]:
    paths = []
    for side in (source, target):
        if not isinstance(side, (str, os.PathLike)) or _is_table(Path(side)):
            name = side if isinstance(side, (str, os.PathLike)) else "a frame"
            raise DataError(
                f"{name} is a table, which holds both sides: give it as the source alone and name its two columns, or give two "
                "files of plain text"
            )
        paths.append(Path(side))
    return _lines(paths, encoding), lambda row, side: f"{paths[side]}, line {row + 1}", f"{paths[0]} and {paths[1]}"


def _lines(paths: list[Path], encoding: str) -> Rows:
    """Line after line of both files. Raises DataError where one ends before the other."""
    number = 0
    counts: list[int | None] = [None, None]
    for number, both in enumerate(zip_longest(*(textfile.lines(path, encoding) for path in paths)), start=1):
        ended = [side for side in (0, 1) if both[side] is None]
        if not ended:
            yield both[0].strip(), both[1].strip()
        elif counts[ended[0]] is None:
            counts[ended[0]] = number - 1
    for short, lines in enumerate(counts):
        if lines is not None:
            raise DataError(
                f"{paths[short]} ends at line {lines}, but {paths[1 - short]} has {number} lines: line by line one is to be the "
                "other's translation; mend the files where they part"
            )


def _of_table(source: Any, *columns: str) -> tuple[Rows, Place, str]:
    if isinstance(source, (str, os.PathLike)) and not _is_table(Path(source)):
        check_file(Path(source))
        raise DataError(
            f"{source} is plain text, one side of the pairs: name the file of the other as its target, or give a table "
            f"({', '.join(ENDINGS)})"
        )
    table = open_table(source, columns)
    rows = (((a or "").strip(), (b or "").strip()) for a, b in documenttable.texts(table, columns))
    return rows, lambda row, side: f"{documenttable.place_of(table, row)}, column '{columns[side]}'", table.where


def _is_table(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)
