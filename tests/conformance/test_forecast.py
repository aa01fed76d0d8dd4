"""Promise 2 for forecasts: streamed, at once, in pieces, alone or among others: the same bits. And no look into the future."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch

import forecasters
from forecasters import CELLS, OUTPUTS, SCALINGS, Kind, alike, same
from recurra.data.series import Chunks
from recurra.errors import StateError
from recurra.runtime import forecast
from recurra.runtime.forecast import Prediction
from recurra.runtime.stream import State
from tolerance import FORECAST_HEAD, error

INPUTS = ("none", "covariates", "calendar")
SEASONS = ((), (4,), (3, 7))

KINDS = [
    Kind(cell, layers, output, scaling, INPUTS[i % 3], SEASONS[i // 3 % 3], values=("positive", "signed")[i % 2])
    for i, (cell, layers, output, scaling) in enumerate(itertools.product(CELLS, (1, 2, 3), OUTPUTS, SCALINGS))
]
KINDS += [Kind(cell, 2, inputs="covariates", attention=window) for cell, window in zip(CELLS, (2, 5, 40), strict=True)]
FEW = [Kind(cell, 2, output, inputs=inputs) for cell, output, inputs in zip(CELLS, OUTPUTS[::-2], INPUTS, strict=True)]
FEW.append(Kind(attention=5))


def name(kind):
    return f"{kind.cell}{kind.layers}-{kind.output}-{kind.scaling}-{kind.inputs}-{len(kind.seasons)}-{kind.attention}"


def whole_pass(model, frame, ids):
    """Series id -> (origins, prediction at each), of the series `ids` of a table, all in one pass."""
    panel = model.read(frame)
    found = {str(panel.ids[i]): (origins, p) for i, _, origins, p in model.backtest(panel, every=True)}
    return {i: found[i] for i in ids}


def at(prediction, j):
    return Prediction(prediction.y_hat[j : j + 1], prediction.quantiles[j : j + 1], prediction.levels)


def predicted(model, frame):
    """predict's answer of a table of one series, as a Prediction."""
    out = model.predict(frame)
    quantiles = (
        np.stack([out[f"q{q:g}"].to_numpy() for q in model.levels], -1) if model.levels else np.zeros((len(out), 0))
    )
    return Prediction(out["y_hat"].to_numpy()[None], quantiles[None], model.levels)


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_every_way_gives_the_same_bits(kind, monkeypatch):
    frame = forecasters.frame_for(kind)
    model = forecasters.player(forecasters.network(kind, frame))
    whole = whole_pass(model, frame, ("s0", "s1", "s2"))
    for i, (origins, every) in whole.items():
        alone = forecasters.one(frame, i)
        stream = forecasters.streamed(model, alone, packed=True)
        assert len(stream) == origins[-1]
        assert len(origins) == len(every.y_hat)
        assert np.isfinite(every.y_hat).all()
        for before in stream[: origins[0] - 1]:
            assert np.isnan(before.y_hat).all(), "a forecast before the first value"
        for j, t in enumerate(origins):
            assert alike(stream[t - 1], at(every, j)), f"series {i}, origin {t}: streamed is not backtest"
    origins, every = whole["s2"]
    alone = forecasters.one(frame, "s2")
    observed = [t for t in origins if alone["y"][int(t) - 1] is not None]
    for t in (observed[0], observed[len(observed) // 2], observed[-1]):
        assert alike(predicted(model, forecasters.until(model, alone, int(t))), at(every, int(t - origins[0]))), (
            f"predict at {t}"
        )
    monkeypatch.setattr(forecast, "FRAMES", 7)
    (*_, last), *_ = model.backtest(model.read(alone), every=False)
    assert alike(last, at(every, len(origins) - 1)), "evaluate's last origin is not backtest's"


@pytest.mark.parametrize("frames", [1, 7, 64])
@pytest.mark.parametrize("kind", FEW, ids=name)
def test_chunking(kind, frames, monkeypatch):
    frame = forecasters.frame_for(kind, (63, 5, 70, 7, 64, 4))
    model = forecasters.player(forecasters.network(kind, frame))
    ids = [f"s{i}" for i in range(6)]
    starts = [
        forecasters.until(model, rows, len(rows) - kind.horizon) for rows in (forecasters.one(frame, i) for i in ids)
    ]
    whole, last = whole_pass(model, frame, ids), [predicted(model, start) for start in starts]
    monkeypatch.setattr(forecast, "FRAMES", frames)
    for i, (origins, every) in whole_pass(model, frame, ids).items():
        assert same(origins, whole[i][0])
        assert alike(every, whole[i][1])
    for start, prediction in zip(starts, last, strict=True):
        assert alike(prediction, predicted(model, start))


@pytest.mark.filterwarnings("ignore:.*are not above 0:UserWarning")
@pytest.mark.parametrize("size", [1e30, 1e300])
@pytest.mark.parametrize("kind", FEW, ids=name)
def test_alone_or_among_63_others(kind, size, monkeypatch):
    frame = forecasters.frame_for(kind, (31,))
    model = forecasters.player(forecasters.network(kind, forecasters.frame_for(kind)))
    lengths = tuple(5 + 7 * i % 53 for i in range(63))
    others = forecasters.table(lengths, seed=9, values="counts", missing=True, inputs=kind.inputs, prefix="other")
    huge = pl.col("unique_id").is_in([f"other{i}" for i in range(0, 63, 5)])
    others = others.with_columns(y=pl.when(huge).then(pl.col("y") * size).otherwise("y"))
    among = pl.concat([others.head(400), frame, others.tail(-400)])
    alone = whole_pass(model, frame, ["s0"])["s0"][1]
    for group in (1, 64):
        monkeypatch.setattr(forecast, "GROUP", group)
        assert alike(whole_pass(model, among, ["s0"])["s0"][1], alone), f"groups of {group}"
    if not model.codec.columns.future:
        rows = model.predict(among).filter(pl.col("unique_id") == "s0")
        assert rows.equals(model.predict(frame))


@pytest.mark.parametrize("kind", FEW, ids=name)
def test_streams_side_by_side(kind):
    """64 streams in one state, moved together, taken apart, reordered and put back: each as if alone."""
    frame = forecasters.table((12,) * 8, seed=3, values="counts", missing=True, inputs=kind.inputs)
    model = forecasters.player(forecasters.network(kind, forecasters.frame_for(kind)))
    rows = [forecasters.observations(model, forecasters.one(frame, f"s{i % 8}")) for i in range(64)]
    alone = [forecasters.streamed(model, forecasters.one(frame, f"s{i}")) for i in range(8)]
    state = model.start(40).append(model.start(24))
    for t in range(9):
        columns = model.codec.columns
        prediction, state = model.step(
            state,
            [np.nan if r[t]["y"] is None else r[t]["y"] for r in rows],
            time=[r[t]["time"] for r in rows],
            covariates={c: [r[t]["covariates"][c][0] for r in rows] for c in columns.covariates},
            future={c: [r[t]["future"][c][0] for r in rows] for c in columns.future},
        )
        for i in range(64):
            assert alike(at(prediction, i), alone[i % 8][t]), f"stream {i}, step {t + 1}"
        if t == 4:  # shuffle and restore
            order = np.random.default_rng(0).permutation(64)
            shuffled = state.take(order)
            state = model.start(64).put(order, shuffled)
        if t == 6:
            state = state.take(list(range(30))).append(state.take(np.arange(30, 64)))


@pytest.mark.parametrize("kind", FEW, ids=name)
def test_peek_and_fork_leave_the_state(kind):
    frame = forecasters.frame_for(kind)
    model = forecasters.player(forecasters.network(kind, frame))
    rows = forecasters.observations(model, forecasters.one(frame, "s0"))
    state = model.start()
    for row in rows[:7]:
        _, state = model.step(state, **row)
    before = state.to_bytes()
    fork = state.copy()
    seen = model.peek(state, **rows[7])
    answer, _ = model.step(state, **rows[7])
    assert alike(seen, answer)
    assert state.to_bytes() == before
    for array in fork.arrays.values():
        array[...] = 0
    assert state.to_bytes() == before, "a fork shares memory with its origin"


def test_state_of_another_model_is_refused():
    frame = forecasters.frame_for(FEW[0])
    task = forecasters.network(FEW[0], frame)
    model, other = forecasters.player(task), forecasters.player(task, "e" * 64)
    state = other.start()
    for act in (
        lambda: model.step(state, 1.0),
        lambda: model.peek(state, 1.0),
        lambda: model.start().append(state),
        lambda: model.start(3).put([1], state),
        lambda: State.from_bytes(state.to_bytes(), model.digest),
    ):
        with pytest.raises(StateError, match=r"belongs to the model (eeee.*, not to dddd|dddd.*, not to eeee)"):
            act()


def test_history_is_the_stream():
    """`observe` of a table leaves the state that streaming the table leaves."""
    frame = forecasters.table((12, 3, 40))
    model = forecasters.player(forecasters.network(Kind(), frame))
    ids, whole = model.observe(frame)
    assert ids == ["s0", "s1", "s2"]
    for i, series in enumerate(ids):
        rows, state = forecasters.one(frame, series), model.start()
        for y, time in zip(rows["y"], rows["ds"].to_numpy(), strict=True):
            _, state = model.step(state, y, time=time)
        for array, found in state.arrays.items():
            assert same(whole.take([i]).arrays[array], found), array


# -- runtime = torch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[::7] + KINDS[-3:] + FEW, ids=name)
def test_runtime_is_torch(kind):
    """The head's raw output, torch's in eval mode from the batches of training against the runtime's, at every origin."""
    frame = forecasters.frame_for(kind, (23, 9, 40))
    task = forecasters.network(kind, frame)
    model = forecasters.player(task)
    panel = model.read(frame)
    heads = []
    inner = model._head
    model._head = lambda *parts: heads.append(inner(*parts)) or heads[-1]
    runs = list(model.backtest(panel, every=True))
    training = Chunks(panel, task.codec, part="train", held_out=0, batch_size=8, chunk=100)
    (batch,) = list(training)
    with torch.no_grad():
        raw, _ = task(batch)
    for row, (_, _, origins, _) in enumerate(runs):
        want = raw[row, origins - 1].numpy()
        assert error(heads[row], want) <= FORECAST_HEAD


# -- no look into the future ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_no_look_into_the_future(output, scaling):
    kind = Kind(output=output, scaling=scaling, inputs="covariates", seasons=(3, 7))
    frame = forecasters.frame_for(kind, (29,))
    model = forecasters.player(forecasters.network(kind, frame))
    base = whole_pass(model, frame, ["s0"])["s0"][1]
    for t in (0, 1, 8, 20, 25, 28):
        here = pl.int_range(pl.len()) == t
        changed = frame.with_columns(
            y=pl.when(here).then(pl.col("y").fill_null(5) * 3 + 7).otherwise("y"),
            wind=pl.when(here).then(pl.lit(99.0)).otherwise("wind"),
        )
        found = whole_pass(model, changed, ["s0"])["s0"][1]
        assert same(found.y_hat[:t], base.y_hat[:t]), f"value {t} reached back"
        assert same(found.quantiles[:t], base.quantiles[:t])
        if t < len(base.y_hat):
            assert found.y_hat[t, 0] != base.y_hat[t, 0], "the newest observation has no effect"


def test_known_future_reaches_no_farther_than_the_horizon():
    kind = Kind(inputs="covariates")
    frame = forecasters.frame_for(kind, (29,), missing=False)
    model = forecasters.player(forecasters.network(kind, frame))
    base = whole_pass(model, frame, ["s0"])["s0"][1]
    changed = frame.with_columns(price=pl.when(pl.int_range(pl.len()) == 20).then(pl.lit(999.0)).otherwise("price"))
    found = whole_pass(model, changed, ["s0"])["s0"][1]
    rows = (found.y_hat != base.y_hat).any(axis=1)
    assert not rows[: 20 - kind.horizon].any()
    assert rows[20 - kind.horizon : 21].all()
