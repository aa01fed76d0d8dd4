"""Training: the loss against a slow loop, what is learnt from and what never, carried state, the same seed, kill -9 and resume."""

import math
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

import forecasters
from forecasters import OUTPUTS, Kind, same
from recurra import Core, Fit, Forecast, Generate, Series, Text, curve, load, modelfile, table, train
from recurra.data.series import Chunks
from recurra.data.streams import Streams
from recurra.errors import DataError, ModelFileError, RecipeError
from recurra.runtime.live import Live
from recurra.tasks.forecast import FAR
from recurra.training.lightning import Training
from recurra.training.prepare import PREPARE
from recurra.training.recipe import Recipe, complete

TINY = Core(hidden=8, layers=1)
ONE = Fit(epochs=1, batch_size=4)
TASK = Forecast(horizon=3, head=8)


@pytest.fixture(scope="module")
def frame():
    return forecasters.table((30, 21, 40, 17, 33), missing=True)


def weights(model_or_path):
    """name -> array of a model folder."""
    return modelfile.read(model_or_path).weights


def equal(a, b):
    return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def once(frame, tmp_path_factory):
    """A model folder, trained for one epoch."""
    out = tmp_path_factory.mktemp("once") / "model"
    train(TASK, Series(frame), core=TINY, fit=ONE, out=out, progress=False)
    return out


def test_a_store_s_number_may_be_a_category(frame, tmp_path):
    """In training, in the model's file, in tables and in streams alike."""
    names = frame["unique_id"].unique(maintain_order=True)
    frame = frame.with_columns(store=pl.col("unique_id").replace_strict(names, range(10, 10 + len(names))))
    data = Series(frame, static=("store",), categorical=("store",))
    train(TASK, data, core=TINY, fit=ONE, out=tmp_path / "model", progress=False)
    model = load(tmp_path / "model")
    assert model.codec.columns.categorical == ("store",)
    assert model.codec.covariates.levels == {"store": tuple(str(10 + i) for i in range(len(names)))}
    frame.write_csv(tmp_path / "data.csv")
    assert model.predict(tmp_path / "data.csv").equals(model.predict(frame))
    answers = [
        Live(model).observe({"unique_id": "x", "ds": "2024-01-01", "y": 1.0, "store": s})[2] for s in (11, "11", 11.0)
    ]
    assert all((answer.y_hat == answers[0].y_hat).all() for answer in answers)
    with pytest.raises(RecipeError, match="names 'shop', which is no covariate"):
        Series(frame, categorical=("shop",)).columns  # noqa: B018


def again(frame, tmp_path, task=TASK, core=TINY, fit=ONE, **data):
    train(task, Series(frame, **data), core=core, fit=fit, out=tmp_path / "model", progress=False)
    return weights(tmp_path / "model")


# -- seeds and what training may see ----------------------------------------------------------------------------------


def test_same_seed_same_weights(frame, once, tmp_path):
    assert equal(again(frame, tmp_path), weights(once))


def test_another_seed_other_weights(frame, once, tmp_path):
    assert not equal(again(frame, tmp_path, fit=replace(ONE, seed=1)), weights(once))


def test_validation_is_never_learnt_from(frame, once, tmp_path):
    """One epoch, so the validation loss decides nothing: other values in the validation part, the same weights."""
    last = pl.len().over("unique_id") - pl.int_range(pl.len()).over("unique_id") <= TASK.horizon
    changed = frame.with_columns(y=pl.when(last).then(pl.lit(123.0)).otherwise("y"))
    assert not changed.equals(frame)
    assert equal(again(changed, tmp_path), weights(once))


def test_what_lies_before_is_learnt_from(frame, once, tmp_path):
    row = pl.len().over("unique_id") - pl.int_range(pl.len()).over("unique_id") == TASK.horizon + 1
    changed = frame.with_columns(y=pl.when(row).then(pl.lit(123.0)).otherwise("y"))
    assert not equal(again(changed, tmp_path), weights(once))


def chunks(frame, part, *, held_out=3, chunk=7, batch_size=4, window=None, skip=0, horizon=3, output="quantiles"):
    kind = Kind(horizon=horizon, seasons=(4,), output=output)
    task = forecasters.network(kind, frame)
    panel = Series(frame).read()
    options = {"held_out": held_out, "batch_size": batch_size, "chunk": chunk, "window": window, "skip": skip}
    return task, panel, Chunks(panel, task.codec, part=part, **options)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("skip", [0, 5])
def test_every_origin_counts_once(frame, chunk, skip):
    task, panel, made = chunks(frame, "train", chunk=chunk, skip=skip)
    count = sum(float(task.loss(task(batch)[0], batch)[1]) for batch in made)
    want = 0
    for i in range(len(panel)):
        y, border = panel.target[panel.series(i)], int(panel.observed_until[i]) - 3
        first_seen = 0
        for t in range(first_seen, border):
            want += sum(t + k < border and bool(np.isfinite(y[t + k])) for k in (1, 2, 3)) * (
                t >= min(skip, border - 2)
            )
    assert count == want * made.rounds


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_validation_is_the_end_of_each_series(frame, chunk):
    task, panel, made = chunks(frame, "validation", chunk=chunk)
    count = sum(float(task.loss(task(batch)[0], batch)[1]) for batch in made)
    want = 0
    for i in range(len(panel)):
        y, border, n = panel.target[panel.series(i)], int(panel.observed_until[i]) - 3, int(panel.observed_until[i])
        want += sum(t + k < n and bool(np.isfinite(y[t + k])) for t in range(n) for k in (1, 2, 3) if t + k >= border)
    assert count == want


def test_a_window_learns_from_pieces_that_start_cold(frame):
    _, _, made = chunks(frame, "train", window=10, chunk=1000)
    for batch in made:
        assert batch.fresh
        assert batch.values.shape[1] <= 10
        assert not batch.weights[:, :, :][
            torch.arange(10)[None, : batch.values.shape[1]] >= batch.lengths[:, None]
        ].any()


# -- the loss ---------------------------------------------------------------------------------------------------------


def slow_loss(task, output, batch):
    """(sum, count), one target at a time, in float64."""
    total = count = 0.0
    levels, kind, df = task.codec.levels, task.config.output, float(task.degrees.detach())
    for at in np.ndindex(*batch.targets.shape):
        z, weight = float(batch.targets[at]), float(batch.weights[at])
        if math.isnan(z) or weight == 0:
            continue
        count += weight
        raw = [float(v) for v in output[at]]
        level, scale = (float(v) for v in batch.units[at[:2]])
        z = min(max(z, -FAR), FAR)
        if kind in ("quantiles", "mean"):
            weight *= scale ** (task.balance * (2 if kind == "mean" else 1))
        if kind == "quantiles":
            each = [2 * (q * (z - r) if z >= r else (1 - q) * (r - z)) for q, r in zip(levels, raw, strict=True)]
            total += weight * sum(each) / len(each)
            continue
        if kind == "mean":
            total += weight * (z - raw[0]) ** 2
            continue
        spread = 1e-3 + math.log1p(math.exp(raw[1]))
        if kind == "gaussian":
            loss = -stats.norm.logpdf(z, raw[0], spread) - 0.5 * math.log(2 * math.pi)
        elif kind == "student_t":
            loss = -stats.t.logpdf(z, df, raw[0], spread)
        else:
            mean, count_seen = (
                math.expm1(min(max(level + scale * raw[0], 1e-3), 30)),
                round(math.expm1(level + scale * z)),
            )
            loss = -stats.nbinom.logpmf(count_seen, 1 / spread, 1 / (1 + spread * mean))
        total += weight * loss
    return total, count


@pytest.mark.parametrize("output", OUTPUTS)
def test_loss_is_the_slow_loop(output):
    frame = forecasters.frame_for(Kind(output=output), (12, 7))
    task, _, made = chunks(frame, "train", output=output)
    batch = next(iter(made))
    batch = replace(batch, weights=batch.weights * torch.rand(batch.weights.shape).round(decimals=1))
    raw = task(batch)[0].detach()
    with torch.no_grad():
        total, count = task.loss(raw, batch)
    want, n = slow_loss(task, raw, batch)
    assert n > 0
    assert float(count) == pytest.approx(n, rel=1e-6)
    assert float(total) == pytest.approx(want, rel=2e-4)  # float32 lgamma; measured 2e-5


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_is_masked_does_not_count(output):
    frame = forecasters.frame_for(Kind(output=output), (12, 7))
    task, _, made = chunks(frame, "train", output=output)
    batch = next(iter(made))
    raw = task(batch)[0].detach()
    before = [v.detach() for v in task.loss(raw, batch)]
    hidden = (batch.weights == 0) | ~torch.isfinite(batch.targets)
    assert hidden.any()
    for junk in (float("nan"), 1e30, -5.0):
        other = replace(batch, targets=torch.where(batch.weights == 0, torch.tensor(junk), batch.targets))
        after = [v.detach() for v in task.loss(raw, other)]
        assert [v.item() for v in after] == [v.item() for v in before]
    raw.requires_grad_()
    task.loss(raw, batch)[0].backward()
    assert torch.isfinite(raw.grad).all()
    assert not raw.grad[hidden].any()


@pytest.mark.parametrize("cell", forecasters.CELLS)
def test_carried_state_is_the_whole_sequence(frame, cell):
    """Chunks of 7 with the state handed on give what one chunk gives (torch, float32)."""
    task = forecasters.network(Kind(cell=cell, layers=2), frame)
    panel = Series(frame).read()
    outputs = {}
    for chunk in (7, 1000):
        made, state, parts = Chunks(panel, task.codec, part="train", held_out=3, batch_size=8, chunk=chunk), None, []
        with torch.no_grad():
            for batch in made:
                raw, state = task(batch, None if batch.fresh else state)
                parts.append(torch.where(batch.weights.any(-1)[..., None, None], raw, 0.0))
        outputs[chunk] = torch.cat(parts, 1)
    torch.testing.assert_close(outputs[7], outputs[1000], rtol=1e-5, atol=1e-5)


def test_it_overfits_eight_series():
    frame = forecasters.table((24,) * 8, values="signed", dates=False)
    recipe = Recipe(
        replace(TASK, head=64, seasons=()), Series(frame, validation=0), Core(hidden=48, layers=1, dropout=0.0)
    )
    prepared = PREPARE["forecast"](complete(recipe))
    (batch, *_) = prepared.train
    task, optimiser = prepared.task, torch.optim.Adam(prepared.task.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        total, count = task.loss(task(batch)[0], batch)
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
        losses.append(float(total.detach() / count))
    assert losses[-1] < 0.2 * losses[0], f"{losses[0]:.3f} -> {losses[-1]:.3f}"


def test_random_walks(tmp_path):
    """Of a random walk nothing can be known but its last value: the error of step k is sqrt(k) steps, learnt or not."""
    walks = np.random.default_rng(0).normal(0, 1, (44, 160)).cumsum(1)
    frame = pl.DataFrame(
        {"unique_id": np.repeat(np.arange(44), 160), "ds": np.tile(np.arange(160), 44), "y": walks.ravel()}
    )
    fit = Fit(epochs=2, batch_size=8, learning_rate=2e-3)
    model = train(
        Forecast(horizon=4, head=16),
        Series(frame.head(24 * 160)),
        core=TINY,
        fit=fit,
        out=tmp_path / "model",
        progress=False,
    )
    panel = model.read(frame.tail(20 * 160))
    errors = [
        np.lib.stride_tricks.sliding_window_view(y, 4)[origins] - prediction.y_hat
        for _, y, origins, prediction in model.backtest(panel)
    ]
    rmse = np.sqrt((np.concatenate([e[10:] for e in errors]) ** 2).mean(axis=0))
    np.testing.assert_allclose(rmse / np.sqrt([1, 2, 3, 4]), 1.0, rtol=0.1)


# -- what training refuses, writes and leaves ----------------------------------------------------------------------------


def test_out_is_never_overwritten_unasked(frame, once, tmp_path):
    with pytest.raises(ModelFileError, match="already holds a model"):
        train(TASK, Series(frame), core=TINY, fit=ONE, out=once, progress=False)
    other = tmp_path / "mine"
    other.mkdir()
    with pytest.raises(ModelFileError, match="never overwritten"):
        train(TASK, Series(frame), core=TINY, fit=ONE, out=other, overwrite=True, progress=False)
    assert os.listdir(other) == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fit": Fit(epochs=1, window=3)}, "window = 3 leaves nothing to learn"),
        ({"validation": 60}, "set validation = 0"),
        ({"task": Forecast(horizon=50)}, "set validation = 0"),
        ({"task": Forecast(horizon=3, output="negative_binomial")}, "needs counts"),
    ],
)
def test_what_can_not_be_trained(frame, tmp_path, options, text):
    with pytest.raises(DataError, match=text):
        again(frame, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"validation": 0},
        {"core": Core(cell="gru", hidden=8, layers=2)},
        {"core": Core(cell="rnn", hidden=8, layers=1)},
        {"fit": Fit(epochs=1, window=12, average=0)},
        {"task": Forecast(horizon=3, head=8, output="student_t", scaling="frozen", calendar=True)},
        {"task": Forecast(horizon=3, head=8, output="mean", scaling="running")},
        {"task": Forecast(horizon=3, head=8, output="gaussian")},
    ],
    ids=str,
)
def test_options_train_and_play(frame, tmp_path, options):
    again(frame, tmp_path, **options)
    model = load(tmp_path / "model")
    ends = frame.filter(pl.col("y").is_not_null())
    assert ends.height < frame.height
    assert np.isfinite(model.predict(frame)["y_hat"].to_numpy()).all()
    assert sorted(os.listdir(tmp_path)) == ["model"]
    assert (tmp_path / "model" / "metrics.json").exists() == (options.get("validation") != 0)


def test_counts_train_and_play(tmp_path):
    frame = forecasters.table(values="counts")
    again(frame, tmp_path, task=Forecast(horizon=3, head=8, output="negative_binomial"))
    out = load(tmp_path / "model").predict(frame)
    assert (out["q0.9"] == out["q0.9"].round()).all()


def test_an_interrupted_write_leaves_the_checkpoint_and_nothing_else(frame, once, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(modelfile, "_rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        again(frame, tmp_path)
    assert os.listdir(tmp_path) == ["model.training"]
    monkeypatch.undo()
    train(TASK, Series(frame), core=TINY, fit=ONE, out=tmp_path / "model", resume=True, progress=False)
    assert equal(weights(tmp_path / "model"), weights(once))
    assert os.listdir(tmp_path) == ["model"]


LONG = Fit(epochs=4, batch_size=4)
KILLED = """
import sys, time
from recurra import Core, Fit, Forecast, Series, train
from recurra.training.lightning import Training

def hang(self, batch, index):
    if self.current_epoch == 2 and index == 11:
        print("hangs", flush=True)
        time.sleep(600)

Training.on_train_batch_start = hang
source, out = sys.argv[1:]
train(Forecast(horizon=3, head=8), Series(source), core=Core(hidden=8, layers=1, dropout=0.1),
      fit=Fit(epochs=4, batch_size=4), out=out, progress=False)
"""


def test_kill_and_resume(frame, tmp_path):
    """kill -9 in the midst of the third epoch: no model; resumed, the weights of a run that nothing happened to."""
    source, out = tmp_path / "data.parquet", tmp_path / "model"
    table.write(frame, source)
    last = tmp_path / "model.training" / "last.ckpt"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(source), str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "hangs\n"
        assert last.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert sorted(os.listdir(tmp_path)) == ["data.parquet", "model.training"], "no model, whole or in part"
    core = Core(hidden=8, layers=1, dropout=0.1)
    for other in (
        {"fit": replace(LONG, seed=7)},
        {"core": replace(core, hidden=9)},
        {"task": Forecast(horizon=4, head=8)},
        {"data": Series(frame.head(len(frame) - 1))},
    ):
        parts = {"task": TASK, "data": Series(source), "core": core, "fit": LONG} | other
        with pytest.raises(RecipeError, match=r"can't resume .* differs"):
            train(
                parts["task"], parts["data"], core=parts["core"], fit=parts["fit"], out=out, resume=True, progress=False
            )
    assert last.exists()
    started = time.monotonic()
    train(TASK, Series(source), core=core, fit=LONG, out=out, resume=True, progress=False)
    assert time.monotonic() - started < 60
    train(TASK, Series(source), core=core, fit=LONG, out=tmp_path / "calm", progress=False)
    assert equal(weights(out), weights(tmp_path / "calm"))
    resumed, calm = (
        [{k: v for k, v in row.items() if k != "seconds"} for row in load(path).manifest["training"]["history"]]
        for path in (out, tmp_path / "calm")
    )
    assert resumed == calm
    assert [row["epoch"] for row in resumed] == [1, 2, 3, 4]
    assert not last.exists()


def test_a_resumed_run_has_the_rates_of_the_plateaus_before(tmp_path, monkeypatch):
    """The checkpoint of an epoch holds what the schedule made of its validation loss."""
    (tmp_path / "text.txt").write_text("so it is and so it was\n" * 200)
    fit = Fit(epochs=6, batch_size=4, chunk=20, optimiser="sgd", schedule="plateau", learning_rate=30.0)

    def trained(name, resume=False):
        out = tmp_path / name
        train(
            Generate(vary=True), Text(tmp_path / "text.txt"), core=TINY, fit=fit, out=out, resume=resume, progress=False
        )
        return [row["learning_rate"] for row in load(out).manifest["training"]["history"]]

    def interrupted(self, batch, index):
        if self.current_epoch == 3 and index == 3:
            raise KeyboardInterrupt
        start(self, batch, index)

    calm, start = trained("calm"), Training.on_train_batch_start
    assert len(set(calm)) > 2
    monkeypatch.setattr(Training, "on_train_batch_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained("model")
    monkeypatch.undo()
    assert trained("model", resume=True) == calm
    assert equal(weights(tmp_path / "model"), weights(tmp_path / "calm"))


@pytest.mark.parametrize("schedule", ["constant", "cycle", "plateau", "divide 2 after 1"])
def test_a_chunk_of_random_length_scales_its_learning_rate(tmp_path, monkeypatch, schedule):
    """Each step is taken at the schedule's rate times the batch's scale; the schedule itself, and the history, see none of it."""
    (tmp_path / "text.txt").write_text("so it is and so it was\n" * 200)
    fit = Fit(epochs=3, batch_size=4, chunk=20, optimiser="sgd", schedule=schedule, learning_rate=0.5)
    whole = Streams.__iter__

    def trained(scaled):
        rates, scales = [], []

        def watched(self, closure=None):  # and nothing learnt, so that plateau sees the same losses in both runs
            closure()
            rates.append(self.param_groups[0]["lr"])

        def batches(self):
            for batch in whole(self):
                if self.vary:
                    scales.append(batch.scale)
                yield batch if scaled else replace(batch, scale=1.0)

        monkeypatch.setattr(torch.optim.SGD, "step", watched)
        monkeypatch.setattr(Streams, "__iter__", batches)
        out = tmp_path / str(scaled)
        model = train(Generate(vary=True), Text(tmp_path / "text.txt"), core=TINY, fit=fit, out=out, progress=False)
        return rates, scales, [row["learning_rate"] for row in model.manifest["training"]["history"]]

    planned, scales, epochs = trained(scaled=False)
    rates, *same = trained(scaled=True)
    assert same == [scales, epochs]
    assert len(set(scales)) > 5
    assert len(set(planned)) > 1 or schedule == "constant"
    assert rates == [rate * scale for rate, scale in zip(planned, scales[: len(planned)], strict=True)]


@pytest.mark.parametrize("validation", [None, 0])
def test_the_model_keeps_the_history_of_its_training(frame, tmp_path, capfd, validation):
    """And with progress=False nothing is printed; nor does the history decide what the model's states are bound to."""
    fit = Fit(epochs=3, batch_size=4, schedule="divide 4 after 2")
    model = train(TASK, Series(frame, validation=validation), core=TINY, fit=fit, out=tmp_path / "m", progress=False)
    assert capfd.readouterr() == ("", "")
    history = model.manifest["training"]["history"]
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["learning_rate"] for row in history] == [4e-3, 4e-3, 1e-3]
    assert all(row["seconds"] > 0 for row in history)
    assert history[0]["loss"] > history[-1]["loss"] > 0
    for name in ("validation_loss", "validation_error"):
        assert all((row[name] is None) == (validation == 0) for row in history), name
    file = modelfile.read(tmp_path / "m")
    other = {key: file.manifest[key] for key in ("task", "codec", "layers", "config", "data")}
    assert modelfile.write(tmp_path / "other", other, file.weights).digest == file.digest
    page = curve.section(model.manifest)
    ET.fromstring(page[page.index("<svg") : page.index("<p class")])
    assert page.count("<circle") == 3 * (1 + (validation is None))
    assert curve.section(other) == "", "a model of before there was a history"


def test_the_mean_of_the_best_checkpoints_is_kept(frame, tmp_path):
    def run(name, **options):
        fit = replace(ONE, schedule="constant", learning_rate=1e-3, **{"average": 0.0} | options)
        model = train(TASK, Series(frame), core=TINY, fit=fit, out=tmp_path / name, progress=False)
        return weights(tmp_path / name), [row["validation_error"] for row in model.manifest["training"]["history"]]

    (first, _), (second, errors), (mean, _) = run("a"), run("b", epochs=2), run("c", epochs=2, average=2)
    assert errors[1] < errors[0]
    for name, value in mean.items():
        np.testing.assert_allclose(value, (first[name] + second[name]) / 2, rtol=1e-6, atol=1e-7)
    assert not equal(first, mean)
    assert not equal(second, mean)
    assert run("d", epochs=2, average=9)[0].keys() == mean.keys()  # fewer epochs than asked for
    with pytest.raises(RecipeError, match="average = 2: the best epochs are told by a validation part"):
        train(TASK, Series(frame, validation=0), core=TINY, fit=replace(ONE, average=2), out=tmp_path / "f")
    with pytest.raises(RecipeError, match=r"a whole number of epochs from 2 on, not 1\.5"):
        Fit(average=1.5)


def test_nothing_to_resume(frame, tmp_path):
    with pytest.raises(RecipeError, match="nothing to resume"):
        train(TASK, Series(frame), core=TINY, fit=ONE, out=tmp_path / "model", resume=True, progress=False)
    assert list(tmp_path.iterdir()) == []
