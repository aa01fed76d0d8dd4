"""The command line is the Python interface in other words: the same weights, the same numbers, every option."""

import csv
import json
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import forecasters
from forecasters import Kind, command, same
from recurra import Core, Fit, Forecast, Series, load, modelfile, table, train
from recurra.config import fields
from recurra.training.recipe import filled, from_toml, parts, template

OPTIONS = "--horizon 3 --head 8 --quantiles 0.1,0.5,0.9 --hidden 8 --layers 1 --epochs 1 --batch-size 4 --seed 5 --season-none"
OPTIONS = OPTIONS.removesuffix(" --season-none").split()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with data.csv and a model trained on it from Python."""
    folder = tmp_path_factory.mktemp("cli")
    table.write(
        forecasters.table((30, 21, 26), missing=True).rename({"unique_id": "shop", "ds": "when"}), folder / "data.csv"
    )
    train(
        Forecast(horizon=3, head=8, quantiles=(0.1, 0.5, 0.9)),
        Series(folder / "data.csv", series="shop", time="when"),
        core=Core(hidden=8, layers=1),
        fit=Fit(epochs=1, batch_size=4, seed=5),
        out=folder / "model",
        progress=False,
    )
    return folder


def weights(path):
    return modelfile.read(path).weights


def equal(a, b):
    return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)


def test_train_is_train(here, tmp_path):
    ran = command(
        "train", "forecast", here / "data.csv", "--series", "shop", "--time", "when", *OPTIONS, "--out", tmp_path / "m"
    )
    assert ran.code == 0, ran.err
    assert ran.err[-1] == f"model -> {tmp_path / 'm'}"
    assert "model" in ran.out, "the scores"
    assert "naive" in ran.out, "and their floors"
    assert equal(weights(tmp_path / "m"), weights(here / "model"))
    written = load(tmp_path / "m"), load(here / "model")
    assert written[0].digest == written[1].digest


def test_recipe_file_is_train(here, tmp_path):
    (here / "recipe.toml").write_text(
        '[task]\nname = "forecast"\nhorizon = 3\nhead = 8\nquantiles = [0.1, 0.5, 0.9]\n'
        '[data]\nsource = "data.csv"\nseries = "shop"\ntime = "when"\n'
        "[core]\nhidden = 8\nlayers = 1\n[fit]\nepochs = 1\nbatch_size = 4\nseed = 5\n"
    )
    ran = command("train", here / "recipe.toml", "--out", tmp_path / "m", "--report", tmp_path / "report.html")
    assert ran.code == 0, ran.err
    assert equal(weights(tmp_path / "m"), weights(here / "model"))
    assert "<html" in (tmp_path / "report.html").read_text()[:500]


def test_the_printed_recipe_trains(here, tmp_path):
    ran = command("recipe", "forecast")
    assert ran.code == 0
    assert ran.out == template("forecast")
    tables = tomllib.loads(ran.out)
    assert tables["task"] == {"name": "forecast", "horizon": 24}
    assert tables["data"] == {"source": "data.csv"}
    filled = ran.out.replace("horizon = 24", "horizon = 3").replace('"data.csv"', json.dumps(str(here / "data.csv")))
    for name, value in {
        "series": '"shop"',
        "time": '"when"',
        "hidden": "8",
        "layers": "1",
        "epochs": "1",
        "head": "8",
    }.items():
        (line,) = [part for part in filled.splitlines() if part.startswith(f"# {name} = ")]
        filled = filled.replace(line, f"{name} = {value}")
    (tmp_path / "mine.toml").write_text(filled)
    assert command("train", tmp_path / "mine.toml", "--out", tmp_path / "m").code == 0


def test_every_default_of_the_printed_recipe_is_the_default(here, tmp_path):
    lines = []
    for line in template("forecast").splitlines():
        value = line.removeprefix("# ").partition(" = ")[2].partition("  # ")[0]
        lines.append(line.removeprefix("# ") if line.startswith("# ") and value not in ("", "...") else line)
    (tmp_path / "all.toml").write_text("\n".join(lines))
    recipe = from_toml(tmp_path / "all.toml")
    assert recipe.core == filled(Core(), "forecast")
    assert recipe.fit == filled(Fit(), "forecast")
    assert recipe.task == Forecast(horizon=24)
    assert recipe.data == Series(str(tmp_path / "data.csv"))


def test_every_option_has_its_help():
    ran = command("train", "forecast", "--help")
    assert ran.code == 0
    for part, cls in parts("forecast").items():
        for name, field in fields(cls).items():
            assert field.description, f"{cls.__name__}.{name} has no description"
            if name != "source":
                assert f"--{name.replace('_', '-')} " in ran.out, f"[{part}] {name}"
    for word in ("evaluate", "predict", "stream", "info", "recipe", "train"):
        ran = command(word, "--help")
        assert ran.code == 0
        assert "--help" in ran.out


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_predict_writes_the_same_numbers(here, tmp_path, ending):
    out = tmp_path / f"forecast.{ending}"
    ran = command("predict", here / "model", here / "data.csv", "--out", out)
    assert (ran.code, ran.err) == (0, [f"9 rows -> {out}"])
    want = load(here / "model").predict(here / "data.csv")
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "jsonl": pl.read_ndjson}[ending](out)
    assert read.columns == ["shop", "when", "y_hat", "q0.1", "q0.5", "q0.9"]
    assert read["shop"].to_list() == want["shop"].to_list()
    for column in ("y_hat", "q0.1", "q0.5", "q0.9"):
        assert same(read[column].to_numpy(), want[column].to_numpy())
    assert str(read["when"][0])[:13].replace(" ", "T") == "2024-02-01T03"


def test_predict_farther(here, tmp_path):
    outs = [tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.csv"]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        assert (
            command("predict", here / "model", here / "data.csv", "--out", out, "--horizon", 8, "--seed", seed).code
            == 0
        )
    assert outs[0].read_text() == outs[1].read_text() != outs[2].read_text()


def test_evaluate_is_predict(here):
    """What the scores of all origins are made of, is what predict says at each."""
    ran = command("evaluate", here / "model", here / "data.csv", "--origins", "all", "--season", 1, "--json")
    assert ran.code == 0, ran.err
    scores = json.loads(ran.out)
    model, frame = load(here / "model"), table.read(here / "data.csv", load(here / "model").codec.columns)
    smape = []
    for i in range(len(frame)):
        y, h, errors = frame.target[frame.series(i)], 3, []
        for t in range(1, len(y) - h + 1):
            y_hat = model.predict(frame.take([i]).cut(t))["y_hat"].to_numpy()
            if np.isfinite(y[t : t + h]).any():
                errors.append(200 * np.abs(y[t : t + h] - y_hat) / (np.abs(y[t : t + h]) + np.abs(y_hat)))
        smape.append(np.nanmean(np.concatenate(errors)))
    assert scores["rows"]["model"]["smape"] == pytest.approx(float(np.mean(smape)), rel=1e-12)
    assert {"model", "naive", "seasonal naive"} <= scores["rows"].keys()
    first = [int(np.argmax(np.isfinite(frame.target[frame.series(i)]))) for i in range(3)]
    assert scores["origins"] == sum(len(frame.target[frame.series(i)]) - 3 - first[i] for i in range(3))
    assert command("evaluate", here / "model", here / "data.csv").code == 0


def test_info(here):
    ran = command("info", here / "model", "--json")
    assert ran.code == 0, ran.err
    assert load(here / "model").digest in ran.out
    assert command("info", here / "model").code == 0


# -- stream -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A random model with covariates, and the rows of three interleaved series."""
    folder = tmp_path_factory.mktemp("live")
    frame = forecasters.frame_for(Kind(inputs="covariates"), (14, 14, 14))
    task = forecasters.network(Kind(inputs="covariates"), frame)
    forecasters.save(folder / "model", task)
    model = load(folder / "model")
    rows = []
    for i in range(3):
        alone = forecasters.one(frame, f"s{i}")
        for seen, row in zip(forecasters.observations(model, alone), alone.to_dicts(), strict=False):
            future = {name: values[0] for name, values in seen["future"].items()}
            rows.append({**row, "ds": row["ds"].isoformat(), "future": future})
    rows.sort(key=lambda row: row["ds"])
    return folder / "model", model, frame, rows


def as_jsonl(rows):
    return [json.dumps(row) for row in rows]


def as_csv(rows):
    lines = [list(rows[0])]
    lines += [["" if v is None else json.dumps(v) if isinstance(v, dict) else v for v in row.values()] for row in rows]
    return [",".join('"' + str(v).replace('"', '""') + '"' for v in line) for line in lines]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_stream_is_step(live, tmp_path, form):
    path, model, frame, rows = live
    lines = as_jsonl(rows) if form == "jsonl" else as_csv(rows)
    ran = command("stream", path, "--state", tmp_path / "s", stdin="\n".join(lines) + "\n")
    assert (ran.code, ran.err) == (0, [])
    want = {f"s{i}": iter(forecasters.streamed(model, forecasters.one(frame, f"s{i}"))) for i in range(3)}
    out = ran.out.splitlines()
    if form == "csv":
        found = list(csv.DictReader(out))
    else:
        found = [json.loads(line) for line in out]
    assert len(found) == len(rows)
    for row, answer in zip(rows, found, strict=True):
        prediction = next(want[answer["unique_id"]])
        assert answer["unique_id"] == row["unique_id"]
        assert np.datetime64(answer["ds"]) == np.datetime64(row["ds"])
        y_hat = answer["y_hat"] if form == "jsonl" else [answer[f"y_hat_{k}"] or None for k in (1, 2, 3)]
        q = answer["q0.8"] if form == "jsonl" else [answer[f"q0.8_{k}"] or None for k in (1, 2, 3)]
        assert same(np.array(y_hat, float), prediction.y_hat[0])
        assert same(np.array(q, float), prediction.quantiles[0, :, 2])


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("stop", [0, 1, 7, 20, 32])
def test_stream_stops_and_goes_on_at_any_line(live, tmp_path, form, stop):
    path, _, _, rows = live
    write = as_jsonl if form == "jsonl" else as_csv
    whole = command("stream", path, "--state", tmp_path / "whole", stdin="\n".join(write(rows)))
    first = command(
        "stream",
        path,
        "--state",
        tmp_path / "cut",
        "--save-every",
        3,
        stdin="\n".join(write(rows[:stop])) if stop else "",
    )
    (tmp_path / "rest").write_text("\n".join(write(rows[stop:])))
    second = command("stream", path, "--state", tmp_path / "cut", "--input", tmp_path / "rest")
    assert first.code == second.code == 0
    header = form == "csv" and stop > 0
    assert first.out.splitlines() + second.out.splitlines()[header:] == whole.out.splitlines()
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == ["cut", "rest", "whole"]


def test_stream_goes_on_from_a_history(here, tmp_path):
    model = load(here / "model")
    frame = pl.read_csv(here / "data.csv")
    alone = frame.filter(pl.col("shop") == "s1")
    (tmp_path / "past.csv").write_text(alone.head(15).write_csv())
    lines = "\n".join(json.dumps(row) for row in alone.tail(6).to_dicts())
    ran = command("stream", here / "model", "--state", tmp_path / "s", "--history", tmp_path / "past.csv", stdin=lines)
    assert (ran.code, ran.err) == (0, [])
    last = json.loads(ran.out.splitlines()[-1])
    assert same(np.array(last["y_hat"]), model.predict(alone)["y_hat"].to_numpy())
