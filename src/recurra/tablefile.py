"""Open and write long tables: CSV, Parquet and JSON Lines files, and frames of pandas, Polars or pyarrow."""

import csv
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl

from recurra.errors import DataError, nearest
from recurra.timestep import word

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".jsonl", ".jsonl.gz")
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None")  # how text files write a missing number


class Source(NamedTuple):
    """An opened table, not yet read."""

    frame: pl.LazyFrame
    where: str  # how messages name it: the path, or "the table"
    text: bool  # all columns are strings, as they stand in a CSV file
    first_line: int | None  # line of the first row in the file; None: count rows from 1
    names: tuple[str, ...] = ()  # all columns that the source has, where `frame` was narrowed

    def row(self, index: int) -> str:
        """A row as a message names it: "line 7" of a text file, "row 6" otherwise."""
        return f"row {index + 1}" if self.first_line is None else f"line {index + self.first_line}"


def short(error: BaseException) -> str:
    """The first line of another library's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def open_table(source: Any, columns: Sequence[str] | None) -> Source:
    """Open `source` (a path or a frame), narrowed to `columns` where it has them (None: all); reads little or nothing.

    Raises DataError: no such file, unknown ending, empty, not UTF-8, broken, or not a frame that narwhals understands.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_file(Path(source))
    if isinstance(source, (pl.DataFrame, pl.LazyFrame)):
        return Source(source.lazy(), "the table", False, None)
    try:
        frame = nw.from_native(source, eager_only=True)
    except TypeError:
        kind = type(source).__name__
        raise DataError(f"a table is a path or a pandas, Polars or pyarrow frame, not {kind}: convert it") from None
    used = frame if columns is None else frame.select([name for name in columns if name in frame.columns])
    try:
        return Source(used.to_polars().lazy(), "the table", False, None, tuple(map(str, frame.columns)))
    except Exception as error:  # pandas object columns of mixed types fail in pyarrow, in many ways
        raise _mixed(used, error) from error


def _mixed(frame: nw.DataFrame[Any], error: Exception) -> DataError:
    """Names the column of a pandas frame that holds values of several types, and the first that differs."""
    for name in frame.columns:
        try:
            frame.select(name).to_polars()
        except Exception:
            values = frame[name].to_list()
            kinds = [type(value) for value in values]
            odd = next((row for row, kind in enumerate(kinds) if kind is not kinds[0]), 0)
            return DataError(
                f"the table, row {odd + 1}: column '{name}' holds {word(values[odd])} ({kinds[odd].__name__}) after "
                f"{kinds[0].__name__} values: give the column one type"
            )
    return DataError(f"the table can't be read: {short(error)}")


def ending_of(path: Path) -> str:
    """The ending of a table's file, one of ENDINGS. Raises DataError for any other."""
    name = path.name.lower()
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if name.endswith(ending):
            return ending
    raise DataError(f"{path}: unknown ending '{path.suffix}': use one of {', '.join(ENDINGS)}")


def check_out(path: Path) -> str:
    """The ending of a table's file that can be written. Raises DataError: an unknown ending or .tsv, no such folder."""
    ending = ending_of(path)
    if ending.startswith(".tsv"):
        raise DataError(f"{path}: tab-separated text can't hold every text: write a .csv file")
    check_folder(path)
    return ending


def check_folder(path: Path) -> None:
    """Raises DataError where `path` is a folder, or its own is missing."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise DataError(f"no such folder: {path.parent}: make it first")


def check_file(path: Path) -> None:
    """Raises DataError where `path` is no file, with the nearest name in its folder."""
    if not path.is_file():
        if path.is_dir():
            raise DataError(f"{path} is a folder: give the path of a file in it")
        folder = path.parent
        if not folder.is_dir():
            raise DataError(f"no such file: {path} (and no such folder: {folder})")
        raise DataError(
            f"no such file: {path}: {nearest(path.name, (p.name for p in folder.iterdir() if p.is_file()))}"
        )


def _open_file(path: Path) -> Source:
    check_file(path)
    ending, where = ending_of(path).removesuffix(".gz"), str(path)
    if path.stat().st_size == 0:
        raise DataError(f"{where} is empty: a table has a header line and rows")
    try:
        if ending == ".parquet":
            source = Source(pl.scan_parquet(path), where, False, None)
        elif ending == ".jsonl":
            source = Source(pl.scan_ndjson(path, infer_schema_length=None), where, False, 1)
        else:  # tab-separated text has no quotes: a quotation mark is one
            mark, quote = ("\t", None) if ending == ".tsv" else (_separator(path), '"')
            scan = pl.scan_csv(path, infer_schema=False, separator=mark, quote_char=quote)
            source = Source(scan, where, True, 2)
        source.frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise broken(path, error) from error
    return source


def _separator(path: Path) -> str:
    """The one of , ; tab | that the header line has most of. Raises DataError where a name stands twice in it."""
    try:
        with open_bytes(path) as file:
            header = file.readline(65536)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is not a gzip file: {short(error)}") from None
    mark = max(",;\t|", key=lambda mark: header.count(mark.encode()))
    names = next(csv.reader([header.decode("utf-8", "replace").strip("\ufeff\r\n")], delimiter=mark), [])
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: the header names the column '{twice[0]}' twice: rename one")
    return mark


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file; of what is in it, where it is a .gz file."""
    return gzip.open(path) if path.name.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def undecodable(path: Path, encoding: str) -> tuple[int, int] | None:
    """The first line, counted from 1, that is no text in `encoding`, and its first bad byte; None where lines don't show it."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                return number, line[error.start]
    return None


def _too_long(path: Path) -> str:
    """Which line has more fields than the header, in words."""
    mark = _separator(path)
    with open_bytes(path) as file:
        lines = csv.reader((line.decode("utf-8", "replace") for line in file), delimiter=mark)
        width = len(next(lines))
        for row in lines:
            if len(row) > width:
                return f"line {lines.line_num} has {len(row)} fields, but the header has {width}"
    return "a line has more fields than the header"


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def broken(where: Path | str, error: BaseException) -> DataError:
    """The DataError for a file that its reader can't read."""
    path, message = Path(where), short(error)
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if "utf" in message.lower():
        found = undecodable(path, "utf-8") if path.is_file() else None
        at = f" (line {found[0]})" if found else ""
        return DataError(f"{where} is not UTF-8 text{at}: save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')")
    if isinstance(error, pl.exceptions.NoDataError):
        return DataError(f"{where} is empty: a table has a header line and rows")
    if ending == ".parquet":
        return DataError(f"{where} is broken or no Parquet file ({message}): write it again")
    if ending == ".jsonl" and path.is_file():
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                try:
                    good = not line.strip() or isinstance(json.loads(line, parse_constant=_no_constant), dict)
                except ValueError:
                    good = False
                if not good:
                    return DataError(
                        f"{where}: line {number} is not a JSON object: write one object a line, a missing value as null"
                    )
    if "more fields" in message and path.is_file():
        return DataError(f"{where}: {_too_long(path)}: mend it, or put quotes around text that holds the separator")
    return DataError(f"{where} can't be read: {message}")


def write(frame: dict[str, np.ndarray] | pl.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table, its form by the path's ending: beside the path first, then renamed, so no half-written file is
    ever seen.

    frame: columns of one length; datetime64 columns are written as ISO dates, or date-times if any is not at
    midnight.  NaN: empty in CSV, null in JSON.
    Raises DataError: an unknown ending or .tsv, no such folder, columns of different lengths.
    """
    path = Path(path)
    ending = check_out(path)
    if isinstance(frame, dict):
        lengths = {name: len(values) for name, values in frame.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"the columns have different lengths: {lengths}")
        frame = pl.DataFrame({name: _column(values) for name, values in frame.items()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if ending == ".parquet":
            frame.write_parquet(temporary)
        else:
            with cast(
                IO[bytes], gzip.open(temporary, "wb") if ending.endswith(".gz") else temporary.open("wb")
            ) as file:
                if ending.startswith(".jsonl"):
                    _plain(frame).write_ndjson(file)
                else:
                    _plain(frame).write_csv(file)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _column(values: np.ndarray) -> pl.Series:
    values = np.asarray(values)
    return pl.Series(values.tolist() if values.dtype == object else values)


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame for a text file: dates as ISO strings, NaN as null."""
    out = []
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pl.Datetime):
            stamps = column.dt.cast_time_unit("us")
            midnight = bool((stamps.dt.truncate("1d") == stamps).all())
            whole = bool((stamps.dt.truncate("1s") == stamps).all())
            column = stamps.dt.strftime(
                "%Y-%m-%d" if midnight else "%Y-%m-%dT%H:%M:%S" if whole else "%Y-%m-%dT%H:%M:%S%.6f"
            )
        elif column.dtype.is_float():
            column = column.fill_nan(None)
        out.append(column.alias(name))
    return pl.DataFrame(out)
