"""A raw long table (one row per series and time stamp) -> Panel. Time is checked here and then dropped."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from recurra.errors import DataError, nearest
from recurra.panel import Columns, Panel
from recurra.tablefile import MISSING, Source, broken, open_table, write
from recurra.timestep import Step, positions, word

__all__ = ["Columns", "Panel", "Step", "read", "write"]

WHOLE = r"^([+-]?[0-9]+)\.0+$"  # a number without a fraction, written as one with
SAMPLE = 10_000  # rows of a CSV file that decide whether a covariate is numeric
FORMATS = tuple(
    f"%Y-%m-%d{mark}{clock}{zone}" for zone in ("", "%z") for mark in "T " for clock in ("%H:%M:%S%.f", "%H:%M")
)


def read(
    source: Any,
    columns: Columns,
    *,
    levels: Mapping[str, tuple[str, ...]] | None = None,
    step: Step | None = None,
) -> Panel:
    """Read a long table: a path (.csv, .tsv, .jsonl, each with .gz or without; .parquet) or a pandas, Polars or pyarrow frame.

    levels, step: those of the trained model, when predicting: unknown categories and another step are refused.
    Raises DataError: one line with the file, the series, row or value, and the way out. Series may be interleaved in
    the table; within a series time must increase.
    """
    table = open_table(source, columns.names)
    schema = dict(table.frame.collect_schema())
    for name in columns.names:
        if name not in schema:
            raise DataError(
                f"{table.where} has no column '{name}': {nearest(name, (word(n)[1:-1] for n in table.names or schema))}"
            )
        _check_type(table, name, schema[name], columns)
    raw = _collect(table, columns, schema, levels)
    codes = raw.pop("_series", np.zeros(len(raw["_time"]), dtype=np.uint32))
    names = raw.pop("_names", ["0"])
    order, heads, offsets = _group(codes)
    del codes
    ids = np.array([names[code] for code in heads], dtype=np.str_)
    if order is not None:
        for name in raw:
            raw[name] = raw[name][order] if isinstance(raw[name], np.ndarray) else raw[name]
        del order
    dates = raw.pop("_dates")
    found = raw.pop("_levels")
    time = raw.pop("_time")
    step, place = positions(time, offsets, ids, dates=dates, step=step, gaps=columns.gaps, where=table.where)
    start = time[offsets[:-1]].copy()
    del time
    static = {name: _constant(raw.pop(name), offsets, ids, name, table.where) for name in columns.static}
    if place is not None:
        old, lengths = offsets, place[offsets[1:] - 1] + 1
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.repeat(offsets[:-1], np.diff(old)) + place
        for name in raw:
            full = np.full(offsets[-1], -1 if name in found else np.nan, dtype=raw[name].dtype)
            full[rows] = raw[name]
            raw[name] = full
    target = raw.pop("_target")
    observed = _observed(target, offsets)
    if (observed == 0).any():
        if not observed.any():
            raise DataError(f"{table.where}: column '{columns.target}' has no value at all: a model needs some")
        raise DataError(
            f"{table.where}: series {word(ids[int(np.argmin(observed))])} has no value of '{columns.target}': leave it out"
        )
    return Panel(
        columns=columns,
        step=step,
        ids=ids,
        offsets=offsets,
        start=start.view("datetime64[us]") if dates else start,
        target=target,
        numeric={k: v for k, v in raw.items() if k not in found},
        categorical={k: v for k, v in raw.items() if k in found},
        static_numeric={k: v for k, v in static.items() if k not in found},
        static_categorical={k: v.astype(np.int32) for k, v in static.items() if k in found},
        levels=found,
        observed_until=observed if columns.future else np.diff(offsets),
    )


def _collect(
    table: Source, columns: Columns, schema: dict[str, pl.DataType], levels: Mapping[str, tuple[str, ...]] | None
) -> dict[str, Any]:
    """The columns as arrays in the table's row order: _series codes with their _names, _time, _dates, _target,
    covariates, _levels.
    """
    frame, where = table.frame, table.where
    try:
        head = frame.select(columns.names).head(SAMPLE).collect()
        if head.height == 0:
            raise DataError(f"{where} has a header and no rows: a table needs rows")
        categorical = {
            n
            for n in columns.covariates
            if (n in levels if levels is not None else n in columns.categorical or _categorical(head[n], table.text))
        }
        time, dates = _time(head[columns.time], columns.time, table)
        wanted = {"_time": time}
        if columns.series is not None:
            wanted["_series"] = pl.col(columns.series).cast(pl.String).cast(pl.Categorical)
        wanted["_target"] = _number(columns.target, schema[columns.target])
        for name in columns.covariates:
            if name not in categorical:
                wanted[name] = _number(name, schema[name])
            else:
                column = _declared(name, schema[name]) if name in columns.categorical else pl.col(name).cast(pl.String)
                wanted[name] = _category(column, table.text)
        data = frame.select(**wanted).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise broken(where, error) from error
    keep = _keep(table, columns, data)
    if keep is not None:
        data = data.filter(keep)
    for name, expression in wanted.items():
        if name != "_series" and name not in categorical:
            original = {"_time": columns.time, "_target": columns.target}.get(name, name)
            _check(table, data[name], expression, original, columns, schema)
    out: dict[str, Any] = {"_dates": dates, "_levels": {}}
    if "_series" in data.columns:
        column = data.drop_in_place("_series")
        out["_series"] = column.to_physical().to_numpy()
        unique = column.unique()
        out["_names"] = dict(zip(unique.to_physical().to_list(), unique.cast(pl.String).to_list(), strict=True))
    out["_time"] = data.drop_in_place("_time").to_numpy()
    out["_target"] = _floats(data.drop_in_place("_target"))
    for name in columns.covariates:
        column = data.drop_in_place(name)
        if name in categorical:
            out[name], out["_levels"][name] = _codes(column, name, levels, where)
        else:
            out[name] = _floats(column)
    return out


def _check_type(table: Source, name: str, dtype: pl.DataType, columns: Columns) -> None:
    """Refuse lists, structs and objects anywhere, and dates and durations outside the time column."""
    if name == columns.time:
        return
    if dtype.is_nested() or dtype in (pl.Object, pl.Binary) or (dtype.is_temporal() and name != columns.series):
        use = (
            "text or integers" if name == columns.series else "numbers" if name == columns.target else "numbers or text"
        )
        raise DataError(f"{table.where}: column '{name}' holds {dtype}: use {use}")


def _number(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name).str.strip_chars() if dtype == pl.String else pl.col(name)
    return column.cast(pl.Float64, strict=False)


def _declared(name: str, dtype: pl.DataType) -> pl.Expr:
    """The text of a column declared categorical: 12, 12.0 and "12.0" are "12" (as in codec/covariates.py)."""
    column = pl.col(name)
    text = column.cast(pl.String).str.strip_chars().str.replace(WHOLE, "$1")
    if dtype.is_float():
        whole = (column == column.floor()) & (column.abs() < 2**53)
        text = pl.when(whole).then(column.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(text)
    return pl.when(text.is_in(MISSING)).then(None).otherwise(text)


def _category(column: pl.Expr, text: bool) -> pl.Expr:
    if text:  # pandas writes booleans as True, polars as true
        column = column.replace({"True": "true", "False": "false", "TRUE": "true", "FALSE": "false"})
    return column.cast(pl.Categorical)


def _categorical(sample: pl.Series, text: bool) -> bool:
    """Whether a covariate is categorical: by its type, or in a CSV file if some value of the sample is not a number."""
    if not text:
        return not (sample.dtype.is_numeric() or sample.dtype == pl.Null)
    known = sample.drop_nulls().str.strip_chars()
    return bool((known.cast(pl.Float64, strict=False).is_null() & ~known.is_in(MISSING)).any())


def _time(sample: pl.Series, name: str, table: Source) -> tuple[pl.Expr, bool]:
    """The expression that turns the time column into int64 (dates: microseconds, UTC; null: not understood), and
    whether it holds dates.
    """
    column, dtype = pl.col(name), sample.dtype
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False), False
    if isinstance(dtype, pl.Datetime):
        return column.dt.timestamp("us"), True  # of the instant, so a time zone is already UTC
    if dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.timestamp("us"), True
    known = sample.drop_nulls()
    if dtype != pl.String or known.is_empty():
        raise DataError(f"{table.where}: time column '{name}' holds {dtype}: use integers, dates or date-times")
    column, first = column.str.strip_chars(), str(known[0]).strip()
    one = pl.Series([first])
    if first.lstrip("+-").isdigit():
        return column.cast(pl.Int64, strict=False), False
    if first[:4].isdigit() and first[4:].lstrip("-").upper() in ("Q1", "Q2", "Q3", "Q4"):
        month = (column.str.slice(-1).cast(pl.Int32, strict=False) * 3 - 2).cast(pl.String).str.zfill(2)
        return _stamp(column.str.slice(0, 4) + "-" + month + "-01", "%Y-%m-%d"), True
    if len(first) == 7 and _understood(one + "-01", "%Y-%m-%d"):
        return _stamp(column + "-01", "%Y-%m-%d"), True
    if first.endswith("Z"):
        column, one = column.str.replace("Z$", "+00:00"), one.str.replace("Z$", "+00:00")
    for form in ("%Y-%m-%d", *FORMATS):
        if _understood(one, form):
            return _stamp(column, form), True
    raise _bad_time(table, name, first, int(sample.is_not_null().arg_true()[0]))


def _stamp(text: pl.Expr, form: str) -> pl.Expr:
    return text.str.to_datetime(form, time_unit="us", strict=False).dt.timestamp("us")


def _understood(text: pl.Series, form: str) -> bool:
    return text.str.to_datetime(form, time_unit="us", strict=False).null_count() == 0


def _bad_time(table: Source, name: str, value: str, row: int) -> DataError:
    return DataError(
        f"{table.where}, {table.row(row)}: time stamp {word(value)} of column '{name}' is not understood: write integers, "
        "or ISO dates as 2020-01-31, 2020-01-31T13:00:00 or 2020-01, all in one form"
    )


def _keep(table: Source, columns: Columns, data: pl.DataFrame) -> pl.Series | None:
    """Which rows to keep (None: all): blank lines of a text file go; another row without a series id is refused."""
    ids = data["_series"].is_null() if columns.series is not None else data["_time"].is_null()
    if not ids.any():
        return None
    blank = data.select(pl.all_horizontal(pl.all().is_null() & table.text)).to_series()
    bad = (ids & ~blank).arg_true()
    if len(bad) and columns.series is not None:
        raise DataError(
            f"{table.where}, {table.row(bad[0])}: no series id in column '{columns.series}': give every row one"
        )
    return ~blank


def _check(
    table: Source, values: pl.Series, parse: pl.Expr, name: str, columns: Columns, schema: dict[str, pl.DataType]
) -> None:
    """Refuse a value that is present but was not understood, infinity, and a missing time stamp; names the first."""
    is_time = values.name == "_time"
    infinite = not is_time and bool(values.is_infinite().any())
    if not values.null_count() and not infinite:
        return
    if infinite:
        bad = parse.is_infinite()
    elif is_time:  # blank lines of a text file are no rows
        bad = parse.is_null()
        if table.text:
            bad &= pl.any_horizontal(pl.col(columns.names).is_not_null())
    else:
        bad = parse.is_null() & pl.col(name).is_not_null()
        if schema[name] == pl.String:
            bad &= ~pl.col(name).str.strip_chars().is_in(MISSING)
    raw = table.frame.with_row_index("__row__").filter(bad).select("__row__", name).head(1).collect(engine="streaming")
    if raw.is_empty():
        return
    row, value = int(raw["__row__"][0]), raw[name][0]
    place = f"{table.where}, {table.row(row)}"
    if infinite:
        raise DataError(f"{place}: column '{name}' holds {value}: leave a missing value empty")
    if not is_time:
        raise DataError(
            f"{place}: column '{name}' holds {word(value)}, which is not a number: correct it or leave it empty"
        )
    if value is None:
        raise DataError(f"{place}: no time stamp in column '{name}': give every row one")
    raise _bad_time(table, name, str(value), row)


def _floats(column: pl.Series) -> np.ndarray:
    return column.fill_null(np.nan).to_numpy()


def _codes(
    column: pl.Series, name: str, levels: Mapping[str, tuple[str, ...]] | None, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes int32 [R] of a categorical column into its levels (given, or its sorted values), -1 = missing."""
    present = sorted(column.drop_nulls().unique().cast(pl.String).to_list())
    known = tuple(levels[name]) if levels is not None else tuple(present)
    for value in present:
        if value not in known:
            raise DataError(
                f"{where}: column '{name}' holds {word(value)}, which the model has never seen: {nearest(value, known)}"
            )
    if not known:
        return np.full(len(column), -1, dtype=np.int32), known
    codes = column.cast(pl.Enum(list(known))).to_physical().cast(pl.Int32).fill_null(-1)
    return codes.to_numpy(), known


def _group(codes: np.ndarray) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """Rows of one code together, codes by first appearance: (order of the rows or None if they are so, code of each
    group, offsets).
    """
    bounds = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    bounds = np.concatenate([[0], bounds, [len(codes)]]).astype(np.int64)
    runs = codes[bounds[:-1]]
    first = np.full(int(codes.max()) + 1, -1, dtype=np.int64)
    first[runs[::-1]] = np.arange(len(runs))[::-1]  # the last write is the first appearance
    heads = runs[np.sort(first[first >= 0])]
    if len(heads) == len(runs):
        return None, heads, bounds
    rank = np.full(len(first), -1, dtype=np.int32)
    rank[heads] = np.arange(len(heads), dtype=np.int32)
    ranked = rank[codes]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(ranked, minlength=len(heads)))]).astype(np.int64)
    return np.argsort(ranked, kind="stable"), heads, offsets


def _constant(values: np.ndarray, offsets: np.ndarray, ids: np.ndarray, name: str, where: str) -> np.ndarray:
    """The one value of a static column in each series, [N], as float64 or int32 codes; DataError where it varies."""
    codes = values.dtype == np.int32
    wide = np.where(values < 0, np.nan, values) if codes else values
    low, high = np.fmin.reduceat(wide, offsets[:-1]), np.fmax.reduceat(wide, offsets[:-1])
    varies = low < high
    if varies.any():
        at = ids[int(np.argmax(varies))]
        raise DataError(
            f"{where}: static column '{name}' changes within series {word(at)}: name it under past or future"
        )
    return np.nan_to_num(low, nan=-1).astype(np.int32) if codes else low


def _observed(target: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Rows of each series up to its last known target, int64 [N]."""
    last = np.where(np.isnan(target), -1, np.arange(len(target)))
    return np.maximum(np.maximum.reduceat(last, offsets[:-1]) + 1 - offsets[:-1], 0)
