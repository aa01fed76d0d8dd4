"""Random tables and random forecasters that the tests of forecasting share. Nothing here is trained: weights are drawn, heads included."""

import contextlib
import io
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import torch

from recurra import cli, modelfile
from recurra.codec import series as series_codec
from recurra.config import fields
from recurra.data.series import Series
from recurra.runtime import model as runtime
from recurra.runtime.forecast import ForecastModel, Prediction
from recurra.runtime.stream import State
from recurra.tasks.forecast import Forecast, Forecaster
from recurra.tasks.task import Core

STATIC, PAST, FUTURE = ("region", "size"), ("wind",), ("price", "promo")
CELLS = get_args(fields(Core)["cell"].annotation)
OUTPUTS = get_args(fields(Forecast)["output"].annotation)
SCALINGS = get_args(fields(Forecast)["scaling"].annotation)
START = np.datetime64("2024-01-30T21:00:00", "us")
HOUR = np.timedelta64(3_600_000_000, "us")


@dataclass(frozen=True)
class Kind:
    """What a random forecaster is. inputs: "none", "covariates", or "calendar" (covariates too)."""

    cell: str = "lstm"
    layers: int = 1
    output: str = "quantiles"
    scaling: str = "seasonal"
    inputs: str = "none"
    seasons: tuple[int, ...] = (4,)
    horizon: int = 3
    hidden: int = 7
    values: str = "positive"
    attention: int = 0

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The covariates by role."""
        return {} if self.inputs == "none" else {"static": STATIC, "past": PAST, "future": FUTURE}


def table(
    lengths: tuple[int, ...] = (23, 9, 31),
    *,
    seed: int = 0,
    values: str = "positive",
    missing: bool = False,
    inputs: str = "none",
    dates: bool = True,
    prefix: str = "s",
) -> pl.DataFrame:
    """A long table of hourly series (or integer time), one of each length. values: positive, signed or counts; `missing`
    leaves holes at the start, inside and in the covariates (never in the last value).
    """
    rng = np.random.default_rng(seed)
    parts = []
    for i, n in enumerate(lengths):
        t = np.arange(n)
        y = 20 + 6 * np.sin(t * np.pi / 2 + i) + rng.normal(0, 1.5, n).cumsum()
        y = np.exp(y / 15) if values == "positive" else y - 20 if values == "signed" else np.round(np.abs(y))
        if values == "counts":
            y[rng.random(n) < 0.2] = 0
        if missing and n > 5:
            y[rng.random(n) < 0.2] = np.nan
            y[: i % 3] = np.nan
            y[-1] = 3.0
        columns: dict[str, Any] = {"unique_id": [f"{prefix}{i}"] * n}
        columns["ds"] = START + i * HOUR + t * HOUR if dates else t + 5 * i
        columns["y"] = y
        if inputs != "none":
            holes = np.where(rng.random(n) < 0.2, np.nan, 1.0) if missing else 1.0
            columns["region"] = [("north", "south", "west")[i % 3]] * n
            columns["size"] = np.full(n, 10.0 * i)
            columns["wind"] = rng.normal(5, 2, n) * holes
            columns["price"] = rng.normal(0, 30, n) * holes
            columns["promo"] = rng.choice(["yes", "no", "half"], n)
        parts.append(pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None)))
    return pl.concat(parts)


def frame_for(
    kind: Kind, lengths: tuple[int, ...] = (23, 9, 31), *, seed: int = 0, missing: bool = True
) -> pl.DataFrame:
    """A table that suits `kind`."""
    values = "counts" if kind.output == "negative_binomial" else kind.values
    return table(lengths, seed=seed, values=values, missing=missing, inputs=kind.inputs)


def network(kind: Kind, frame: pl.DataFrame, *, seed: int = 0) -> Forecaster:
    """A forecaster with random weights everywhere, its codec fitted on `frame`."""
    panel = Series(frame, **kind.columns).read()
    config = Forecast(
        horizon=kind.horizon,
        output=kind.output,  # type: ignore[arg-type]
        quantiles=(0.1, 0.5, 0.8),
        scaling=kind.scaling,  # type: ignore[arg-type]
        seasons=kind.seasons,
        calendar=kind.inputs == "calendar",
        head=13,
        attention=kind.attention,
    )
    codec = series_codec.fit(
        panel,
        horizon=config.horizon,
        output=config.output,
        levels=config.quantiles,
        scaling=config.scaling,
        seasons=config.seasons,
        calendar=config.calendar,
    )
    task = Forecaster(config, Core(cell=kind.cell, hidden=kind.hidden, layers=kind.layers, dropout=0.1), codec)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=g) - 0.5)
    return task.eval()


def manifest(task: Forecaster) -> dict[str, Any]:
    """The manifest of a network's model file."""
    return {
        "task": "forecast",
        "codec": task.codec.model_dump(mode="json"),
        "layers": task.export().layers,
        "config": {},
        "data": "0" * 64,
    }


def player(task: Forecaster, digest: str = "d" * 64) -> ForecastModel:
    """The runtime's model of a network, by way of JSON, as from a file."""
    return runtime.make("forecast", json.loads(json.dumps(manifest(task))), task.export().weights, digest, {})


def save(path: Path, task: Forecaster) -> Path:
    """Write a network as a model folder."""
    modelfile.write(path, manifest(task), task.export().weights)
    return path


def one(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows of one series."""
    return frame.filter(pl.col("unique_id") == name)


def until(model: ForecastModel, frame: pl.DataFrame, origin: int) -> pl.DataFrame:
    """One series as it is known after `origin` rows: with what is known ahead, where the model reads it, the target empty."""
    some = frame.head(origin + (model.horizon if model.codec.columns.future else 0)).with_row_index("i")
    return some.with_columns(y=pl.when(pl.col("i") < origin).then("y")).drop("i")


def observations(model: ForecastModel, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The arguments of `step` for each row of one series that has its known future in the table."""
    columns, h = model.codec.columns, model.horizon
    rows = frame.to_dicts()
    stamps = frame["ds"].to_numpy()
    out = []
    for t in range(len(rows) - h):
        out.append(
            {
                "y": rows[t]["y"],
                "time": stamps[t],
                "covariates": {name: [rows[t][name]] for name in columns.covariates},
                "future": {name: [[row[name] for row in rows[t + 1 : t + 1 + h]]] for name in columns.future},
            }
        )
    return out


def streamed(model: ForecastModel, frame: pl.DataFrame, *, packed: bool = False) -> list[Prediction]:
    """The forecast after every row of one series, one value at a time; `packed`: the state goes through its bytes each step."""
    state, out = model.start(), []
    for row in observations(model, frame):
        prediction, state = model.step(state, **row)
        if packed:
            state = State.from_bytes(state.to_bytes(), model.digest)
        out.append(prediction)
    return out


def same(a: Any, b: Any) -> bool:
    """Bit for bit: shape, NaN, and the sign of zero."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def alike(a: Prediction, b: Prediction) -> bool:
    """Whether two predictions have the same bits."""
    return same(a.y_hat, b.y_hat) and same(a.quantiles, b.quantiles) and a.levels == b.levels


@dataclass(frozen=True)
class Ran:
    """What a command line left: exit code, standard output, the lines of standard error."""

    code: int
    out: str
    err: list[str]


def command(*words: object, stdin: str = "") -> Ran:
    """Run `recurra WORDS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, given, handler = sys.argv, sys.stdin, signal.getsignal(signal.SIGTERM)
    sys.argv, sys.stdin = ["recurra", *map(str, words)], io.StringIO(stdin)
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv, sys.stdin = before, given
        signal.signal(signal.SIGTERM, handler)
    return Ran(code if isinstance(code, int) else 0 if code is None else 1, out.getvalue(), err.getvalue().splitlines())
