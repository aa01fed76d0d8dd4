"""One observation of every stream as arrays: its time stamps, checked for order, and its covariates."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from recurra.codec.covariates import Covariates
from recurra.codec.series import SeriesCodec
from recurra.errors import DataError, StateError, nearest
from recurra.table import Step
from recurra.timestep import show

NO_TIME = np.iinfo(np.int64).min  # a stream of which no time stamp is known


def next_stamps(step: Step, last: np.ndarray, time: Any) -> np.ndarray:
    """The time stamps of this step, int64 [rows], checked against the last ones."""
    known = last != NO_TIME
    kind = "datetime64[us]" if step.dates else np.int64
    following = np.where(known, step.next(np.where(known, last, 0).view(kind), 1).astype(np.int64), NO_TIME)
    if time is None:
        return following
    try:
        stamps = np.atleast_1d(np.asarray(time, kind))
        if step.dates and np.isnat(stamps).any():
            raise ValueError
    except (ValueError, TypeError):
        raise DataError(f"time {time!r} is no {'date' if step.dates else 'integer'} time stamp") from None
    if stamps.shape != last.shape:
        raise DataError(f"time must hold {len(last)} stamp(s), one a stream, not {list(stamps.shape)}")
    wrong = np.flatnonzero(known & (stamps.astype(np.int64) != following))
    if len(wrong):
        i = int(wrong[0])
        late = "comes after a gap" if stamps.astype(np.int64)[i] > following[i] else "is repeated or out of order"
        raise StateError(f"time {show(stamps[i])} {late}: the next is {show(following[i : i + 1].view(kind)[0])}")
    return stamps.astype(np.int64)


def known_ahead(
    codec: SeriesCodec, rows: int, stamps: np.ndarray, covariates: Mapping[str, Any], future: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """What is known ahead [rows, h, K], and the inputs of this step [rows, I]."""
    cov, h = codec.covariates, codec.horizon
    columns = (*cov.static, *cov.past, *cov.future)
    for given, wanted, what in ((covariates, columns, "covariates"), (future, cov.future, "future")):
        for name in given:
            if name not in wanted:
                raise DataError(f"{what}: this model has no such column '{name}': {nearest(name, wanted)}")
        for name in wanted:
            if name not in given:
                raise DataError(f"{what}: the model needs the column '{name}' (None where it is missing)")
    if cov.cycles and (stamps == NO_TIME).any():
        raise DataError("this model reads the calendar: give the time of the first observation of every stream")
    if not cov.input_width:
        return np.zeros((rows, h, 0), np.float32), np.zeros((rows, 0), np.float32)
    now = {name: _codes(cov, name, covariates[name], (rows,)) for name in columns}
    ahead = {name: _codes(cov, name, future[name], (rows, h)) for name in cov.future}
    kind = "datetime64[us]" if codec.step.dates else np.int64
    times = codec.step.next(np.where(stamps == NO_TIME, 0, stamps).view(kind)[:, None], np.arange(h + 1))
    both = {name: np.concatenate([now[name][:, None], ahead[name]], axis=1) for name in cov.future}
    known = cov.known(both, times)
    inputs = [cov.block(cov.static, now, (rows,)), cov.block(cov.past, now, (rows,)), known[:, 0]]
    return known[:, 1:], np.concatenate(inputs, axis=-1)


def _codes(cov: Covariates, name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Raw values of a covariate as numbers of `shape`."""
    flat = np.asarray(values, object).reshape(-1)
    if flat.size != int(np.prod(shape)):
        raise DataError(f"column '{name}' must hold {int(np.prod(shape))} value(s), not {flat.size}")
    return np.array([cov.code(name, value) for value in flat], np.float64).reshape(shape)
