"""Edges where something was once lost, invented or answered with a traceback."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

import forecasters
import recurra
from forecasters import Kind
from recurra.errors import DataError, RecipeError, StateError
from recurra.runtime.live import Live
from recurra.table import Columns, read
from recurra.training.recipe import build, from_tables

TINY = {"core": recurra.Core(hidden=4), "fit": recurra.Fit(epochs=1), "progress": False}


def train(frame, out, **options):
    return recurra.train(recurra.Forecast(horizon=3, head=8), recurra.Series(frame), out=out, **(TINY | options))


def frame_of(**series):
    parts = [pl.DataFrame({"unique_id": k, "ds": range(len(v)), "y": np.array(v, float)}) for k, v in series.items()]
    return pl.concat(parts).with_columns(pl.col("y").fill_nan(None))


WAVE = list(5 + np.sin(np.arange(40.0)))


def test_a_series_that_begins_in_the_held_out_part_loses_no_model(tmp_path):
    frame = frame_of(a=WAVE, late=[np.nan] * 38 + [4.0, 5.0])
    model = train(frame, tmp_path / "m")
    assert json.loads((tmp_path / "m" / "metrics.json").read_text())["series"] == 1
    assert model.evaluate(frame).skipped == 1


def test_what_lies_in_the_way_of_the_checkpoints_stays(tmp_path):
    (tmp_path / "m.training").mkdir()
    (tmp_path / "m.training" / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="in the way"):
        train(frame_of(a=WAVE), tmp_path / "m", overwrite=True)
    assert (tmp_path / "m.training" / "notes.txt").read_text() == "mine"


def test_an_interrupted_run_is_not_thrown_away_unasked(tmp_path):
    work = tmp_path / "m.training"
    work.mkdir()
    (work / "run.json").write_text("[]")
    (work / "last.ckpt").write_bytes(b"torn")
    with pytest.raises(RecipeError, match="--resume"):
        train(frame_of(a=WAVE), tmp_path / "m")
    with pytest.raises(RecipeError, match="can't be resumed"):
        train(frame_of(a=WAVE), tmp_path / "m", resume=True)
    train(frame_of(a=WAVE), tmp_path / "m", overwrite=True)
    assert not work.exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_says_so_and_goes_on(sign, tmp_path):
    frame_of(a=WAVE, b=WAVE[::-1]).write_csv(tmp_path / "d.csv")
    options = [tmp_path / "d.csv", "--horizon", 3, "--hidden", 4, "--head", 8, "--out", tmp_path / "m"]
    start = [sys.executable, "-m", "recurra", "train", "forecast", *map(str, options), "--epochs"]
    run = subprocess.Popen([*start, "2000"], stderr=subprocess.PIPE, text=True)
    last, until = tmp_path / "m.training" / "last.ckpt", time.monotonic() + 120
    while not last.exists() and time.monotonic() < until:
        time.sleep(0.1)
    run.send_signal(sign)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 130
    assert said.strip().splitlines()[-1] == "recurra: interrupted; go on with --resume"
    assert last.exists()
    assert not (tmp_path / "m").exists()


def test_more_devices_than_there_are(tmp_path):
    with pytest.raises(RecipeError, match=r"devices = 4096: this machine has \d+"):
        train(frame_of(a=WAVE), tmp_path / "m", fit=recurra.Fit(epochs=1), devices=4096)


@pytest.mark.parametrize(
    ("task", "data", "text"),
    [
        (recurra.Series("x.csv"), recurra.Forecast(3), r"the task must be one of Forecast, .*not Series"),
        (recurra.Forecast(3), {"source": "x.csv"}, "data must be a Series, not dict"),
    ],
)
def test_parts_of_another_kind(task, data, text, tmp_path):
    with pytest.raises(RecipeError, match=text):
        recurra.train(task, data, out=tmp_path / "m")


def test_none_in_a_recipe_file():
    assert build(recurra.Series, {"source": "x.csv", "series": "none"}).series is None
    made = from_tables({"task": {"name": "forecast", "horizon": 3}, "data": {"source": "x.csv", "validation": "none"}})
    assert made.data.validation is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unique_id,ds,y,y\na,1,2,3\n", "names the column 'y' twice"),
        ("unique_id,ds,y\na,1,2\na,2,3,4\n", "line 3 has 4 fields, but the header has 3"),
    ],
)
def test_lines_of_another_width(text, says, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        read(tmp_path / "t.csv", Columns())


def test_counts_beyond_the_horizon_are_counts():
    kind = Kind(output="negative_binomial", values="counts")
    frame = forecasters.frame_for(kind)
    model = forecasters.player(forecasters.network(kind, frame))
    quantiles = model.predict(frame, 3 * model.horizon).select(pl.col("^q.*$")).to_numpy()
    assert (quantiles == np.round(quantiles)).all()


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_the_unit_of_y_is_nothing_to_the_forecast(unit, tmp_path):
    y = np.sin(np.arange(60.0) + 1) * 3
    kind = Kind(values="signed")
    codecs = [forecasters.network(kind, frame_of(a=y * u, b=-y * u)).codec for u in (1.0, unit)]
    features = [
        c.encode(c.start(1), y[None] * u, np.array([60]), anchors=True)
        for c, u in zip(codecs, (1.0, unit), strict=True)
    ]
    np.testing.assert_allclose(features[1].features, features[0].features, atol=1e-4)
    np.testing.assert_allclose(features[1].scale / unit, features[0].scale, rtol=1e-6)


def test_steps_that_are_none(tmp_path):
    model = train(frame_of(a=WAVE), tmp_path / "m")
    with pytest.raises(DataError, match="y must be numbers"):
        model.step(model.start(), "abc")
    with pytest.raises(StateError, match="holds no stream"):
        model.step(model.start(0), [])


def test_streams_read_what_tables_read(tmp_path):
    quarters = [f"{1990 + i // 4}Q{i % 4 + 1}" for i in range(40)]
    frame = pl.DataFrame({"unique_id": "a", "ds": quarters, "y": WAVE, "open": [True, False] * 20})
    data = recurra.Series(frame, past=("open",))
    model = recurra.train(recurra.Forecast(horizon=3, head=8), data, out=tmp_path / "m", **TINY)
    want = model.predict(frame)["y_hat"].to_numpy()
    live = Live(model)
    for i, (ds, y) in enumerate(zip(quarters, WAVE, strict=True)):
        is_open = (True, "True", "true")[i % 3] if i % 2 == 0 else (False, "False", "false")[i % 3]
        _, _, last = live.observe({"unique_id": "a", "ds": ds, "y": y, "open": is_open})
    assert np.array_equal(last.y_hat[0], want)


def test_lines_that_would_stop_a_stream(tmp_path):
    from recurra.runtime.lines import rows

    hostile = ['{"ds": ' + "9" * 5000 + "}", "[" * 100_000, '{"ds": 1, "y": 2']
    assert [type(row) for _, row in rows(hostile, "ds")] == [DataError] * 3
    assert isinstance(next(iter(rows(["{" + '"a":{' * 50_000], "ds")))[1], DataError)
    long = ["unique_id,ds,y", "a,1," + "9" * 200_000]
    assert isinstance(next(iter(rows(long, "ds")))[1], DataError)
    live = Live(train(frame_of(a=WAVE), tmp_path / "m"))
    for y in (10**400, "1" * 400):
        with pytest.raises(DataError):
            live.observe({"unique_id": "a", "ds": 1, "y": y})
    assert not live.states


@pytest.mark.parametrize("value", [1e308, -1e308])
def test_the_largest_float_does_not_poison_a_stream(value, tmp_path):
    model = train(frame_of(a=list(np.sin(np.arange(40.0)))), tmp_path / "m")
    state = model.start()
    for y in (1.0, value, 1.0, 0.5, 1.0):
        answer, state = model.step(state, y)
    assert np.isfinite(answer.y_hat).all()


def test_scores_without_intervals_are_json(tmp_path):
    task = recurra.Forecast(horizon=3, head=8, output="mean")
    model = recurra.train(task, recurra.Series(frame_of(a=WAVE)), out=tmp_path / "m", **TINY)
    found = json.dumps(model.evaluate(frame_of(a=WAVE)).to_json(), allow_nan=False)
    assert json.loads(found)["nominal"] is None


def test_more_seasons_than_there_is_room_for(tmp_path):
    task = recurra.Forecast(horizon=3, seasons=tuple(range(2, 11)))
    with pytest.raises(DataError, match="seasons 2, 3, 4, 5, 6, 7, 8, 9, 10: at most 8"):
        recurra.train(task, recurra.Series(frame_of(a=WAVE)), out=tmp_path / "m", **TINY)


def test_nodes_without_a_cluster(tmp_path, monkeypatch):
    for name in ("MASTER_ADDR", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RecipeError, match="nodes = 2: start it on every machine"):
        train(frame_of(a=WAVE), tmp_path / "m", fit=recurra.Fit(epochs=1), nodes=2)


def test_a_refused_restart_keeps_the_checkpoints(tmp_path):
    work = tmp_path / "m.training"
    work.mkdir()
    (work / "run.json").write_text("{}")
    (work / "last.ckpt").write_bytes(b"weeks of work")
    with pytest.raises(RecipeError, match="devices"):
        train(frame_of(a=WAVE), tmp_path / "m", overwrite=True, fit=recurra.Fit(epochs=1), devices=4096)
    assert (work / "last.ckpt").read_bytes() == b"weeks of work"


def test_ids_of_streams_are_those_of_tables(tmp_path):
    live = Live(train(frame_of(**{"1": WAVE}), tmp_path / "m"))
    for i, name in enumerate(("1", 1, 1.0)):
        live.observe({"unique_id": name, "ds": i, "y": 5.0})
    assert list(live.states) == ["1"]
    with pytest.raises(DataError, match="an id must be text or a number"):
        live.observe({"unique_id": [1], "ds": 4, "y": 5.0})


def test_values_that_a_positive_model_can_t_take_are_said(tmp_path):
    model = train(frame_of(a=WAVE), tmp_path / "m")
    with pytest.warns(UserWarning, match=r"2 value\(s\) of 'y' are not above 0"):
        found = model.predict(frame_of(a=[*WAVE, 0.0, -1.0, 5.0]))
    want = model.predict(frame_of(a=[*WAVE, np.nan, np.nan, 5.0]))
    assert found.equals(want)
