"""State and Live: values that can be forked, packed, put together; streams by name, whose refusals change nothing."""

import csv
import io
import json

import numpy as np
import pytest
from safetensors.numpy import save

import forecasters
from forecasters import Kind, alike, same
from recurra import State, load
from recurra.data.series import Series
from recurra.errors import DataError, StateError
from recurra.runtime.lines import rows, serve
from recurra.runtime.live import MAX_GAP, Live, number, parse_time
from recurra.runtime.observation import NO_TIME
from recurra.table import Columns


@pytest.fixture(scope="module")
def model():
    """A random forecaster of integer time."""
    return forecasters.player(forecasters.network(Kind(), forecasters.table(dates=False)))


@pytest.fixture(scope="module")
def hourly():
    """A random forecaster of hours that reads the calendar and covariates."""
    kind = Kind(inputs="calendar")
    return forecasters.player(forecasters.network(kind, forecasters.frame_for(kind)))


def filling():
    """A forecaster whose table has gaps = "fill"."""
    kind = Kind(inputs="covariates")
    task = forecasters.network(kind, forecasters.frame_for(kind))
    columns = task.codec.columns.model_copy(update={"gaps": "fill"})
    task.codec = task.codec.model_copy(update={"columns": columns})
    return forecasters.player(task)


# -- State ------------------------------------------------------------------------------------------------------------


def test_start_knows_nothing(model):
    state = model.start(5)
    assert state.rows == 5
    assert state.nbytes == sum(array.nbytes for array in state.arrays.values())
    assert (state.arrays["time"] == NO_TIME).all()
    assert {"core.h", "core.c", "codec.level", "codec.ring", "time"} <= state.arrays.keys()
    assert state.part("core").keys() == {"h", "c"}
    assert state.arrays["core.h"].shape == (5, 1, 7)


def test_bytes_and_back(model):
    _, state = model.step(model.start(3), [1.0, np.nan, 3.0])
    again = State.from_bytes(state.to_bytes(), model.digest)
    assert again.digest == state.digest
    assert again.arrays.keys() == state.arrays.keys()
    assert all(same(again.arrays[name], state.arrays[name]) for name in state.arrays)
    assert all(again.arrays[name].flags.writeable for name in state.arrays)
    assert again.to_bytes() == state.to_bytes() == state.copy().to_bytes(), "equal states have equal bytes"


def test_take_put_append(model):
    _, state = model.step(model.start(3), [1.0, 2.0, 3.0])
    twice = state.take([2, 0, 2])
    assert twice.rows == 3
    assert alike(model.peek(twice.take([0]), 5.0), model.peek(state.take([2]), 5.0))
    other = state.put([1], state.take([0]))
    assert same(other.take([1]).arrays["codec.level"], state.take([0]).arrays["codec.level"])
    assert not same(other.arrays["codec.level"], state.arrays["codec.level"])
    both = state.take([0]).append(state.take([1, 2]))
    assert both.to_bytes() == state.to_bytes()


def test_no_method_touches_its_own_state(model):
    _, state = model.step(model.start(3), [1.0, 2.0, 3.0])
    before = state.to_bytes()
    for other in (state.copy(), state.take([0, 1, 2]), state.put([0], state.take([2])), state.append(state)):
        for array in other.arrays.values():
            array[...] = 9
    assert state.to_bytes() == before


@pytest.mark.parametrize(
    ("blob", "text"),
    [
        (b"", "truncated"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "not a state|no state"),
        (save({"a": np.zeros(2)}), "no state of recurra"),
        (save({"a": np.zeros(2)}, {"recurra_state": '{"format": 99, "digest": ""}'}), "format 99.*upgrade"),
        (save({"a": np.zeros(2)}, {"recurra_state": "{"}), "not a state"),
    ],
)
def test_what_is_no_state(blob, text):
    with pytest.raises(StateError, match=text) as caught:
        State.from_bytes(blob)
    assert "\n" not in str(caught.value)


def test_truncated_anywhere(model):
    blob = model.start().to_bytes()
    for n in (1, 7, 8, 50, len(blob) // 2, len(blob) - 1):
        with pytest.raises(StateError):
            State.from_bytes(blob[:n], model.digest)


# -- step -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "text"),
    [([1.0, 2.0], "1 value"), (np.inf, "inf"), (-np.inf, "inf"), ([[1.0]], "1 value")],
)
def test_values_that_step_refuses(model, y, text):
    with pytest.raises(DataError, match=text):
        model.step(model.start(), y)


def test_missing_is_none_is_nan(model):
    _, state = model.step(model.start(), 1.0)
    assert alike(model.peek(state, None), model.peek(state, float("nan")))
    assert not alike(model.peek(state, None), model.peek(state, 1.0))
    assert np.isnan(model.peek(model.start(), None).y_hat).all(), "nothing seen, nothing known"


def test_order_of_time(model):
    _, state = model.step(model.start(), 1.0, time=7)
    _, after = model.step(state, 1.0)
    assert after.arrays["time"][0] == 8, "without a time stamp it is the next"
    for time, text in (
        (7, "repeated or out of order: the next is 8"),
        (3, "repeated or out of order"),
        (9, "after a gap: the next is 8"),
    ):
        with pytest.raises(StateError, match=text):
            model.step(state, 1.0, time=time)
    with pytest.raises(DataError, match="no integer time stamp"):
        model.step(state, 1.0, time="noon")
    with pytest.raises(DataError, match="1 stamp"):
        model.step(state, 1.0, time=[8, 9])


def test_covariates_that_step_refuses(hourly):
    rows = forecasters.observations(hourly, forecasters.one(forecasters.frame_for(Kind(inputs="calendar")), "s0"))
    good = rows[0]
    hourly.step(hourly.start(), **good)
    for change, text in (
        ({"time": None}, "reads the calendar"),
        ({"time": "NaT"}, "no date time stamp"),
        ({"time": "soon"}, "no date time stamp"),
        ({"covariates": {}}, "needs the column 'region'"),
        ({"covariates": good["covariates"] | {"winds": [1.0]}}, "no such column 'winds': did you mean 'wind'"),
        ({"covariates": good["covariates"] | {"region": ["nort"]}}, "did you mean 'north'"),
        ({"covariates": good["covariates"] | {"wind": [1.0, 2.0]}}, "1 value"),
        ({"future": {}}, "needs the column 'price'"),
        ({"future": good["future"] | {"price": [1.0]}}, "3 value"),
        ({"future": good["future"] | {"wind": [[1.0] * 3]}}, "no such column 'wind'"),
        ({"covariates": good["covariates"] | {"wind": ["x"]}}, "'x' is not a number"),
    ):
        with pytest.raises(DataError, match=text):
            hourly.step(hourly.start(), **(good | change))


# -- Live -------------------------------------------------------------------------------------------------------------


def test_live_is_step(model):
    live, states = Live(model), {}
    rng = np.random.default_rng(0)
    for t in range(12):
        for name in ("a", "b", "c"):
            y = None if rng.random() < 0.2 else float(rng.normal(20, 5))
            got, stamp, prediction = live.observe({"unique_id": name, "ds": t, "y": y})
            want, states[name] = model.step(states.get(name, model.start()), y, time=t)
            assert (got, stamp) == (name, t)
            assert alike(prediction, want)
            if t % 5 == 4:
                live = Live.from_bytes(model, live.to_bytes())
    assert set(live.states) == {"a", "b", "c"}


def test_live_bytes_hold_any_name_and_none(model):
    live = Live(model)
    assert Live.from_bytes(model, live.to_bytes()).states == {}
    for name in ("ä b", '"', "日本", "a" * 300, "7"):
        live.observe({"unique_id": name, "ds": 1, "y": 1.0})
    again = Live.from_bytes(model, live.to_bytes())
    assert set(again.states) == set(live.states)
    assert again.to_bytes() == live.to_bytes()


def test_live_files_are_refused_for_another_model(model, hourly):
    blob = Live(model).to_bytes()
    other = forecasters.player(forecasters.network(Kind(), forecasters.table(dates=False)), "e" * 64)
    with pytest.raises(StateError, match="belongs to the model"):
        Live.from_bytes(other, blob)
    with pytest.raises(StateError, match="single step"):
        Live.from_bytes(model, model.start().to_bytes())


def test_save_is_whole_or_not_at_all(model, tmp_path, monkeypatch):
    live = Live(model)
    live.observe({"unique_id": "a", "ds": 1, "y": 1.0})
    live.save(tmp_path / "s")
    before = (tmp_path / "s").read_bytes()
    live.observe({"unique_id": "a", "ds": 2, "y": 1.0})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        live.save(tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert (tmp_path / "s").read_bytes() == before


def test_gaps_are_filled_where_the_model_fills_them():
    """A stream with a gap is the table in which the missing rows were inserted."""
    model = filling()
    frame = forecasters.one(forecasters.frame_for(Kind(inputs="covariates"), (20,), missing=False), "s0")
    gapped = frame.filter(~frame["ds"].dt.hour().is_in([2, 3, 7]))
    full = Series(
        gapped, static=forecasters.STATIC, past=forecasters.PAST, future=forecasters.FUTURE, gaps="fill"
    ).read()
    assert len(full.target) == 20
    live, kept = Live(model), {}
    table_rows = gapped.to_dicts()
    future = {name: [None] * 3 for name in forecasters.FUTURE}
    for row in table_rows:
        _, stamp, _ = live.observe({**row, "ds": row["ds"].isoformat(), "future": future})
        kept[stamp] = live.states["s0"]
    _, whole = model.observe(gapped)
    for name, array in whole.arrays.items():
        assert same(array, live.states["s0"].arrays[name]), name
    with pytest.raises(StateError, match=f"more than the {MAX_GAP}"):
        live.observe({**table_rows[-1], "ds": "2034-01-01T00:00:00", "future": future})
    with pytest.raises(StateError, match="repeated or out of order"):
        live.observe({**table_rows[0], "ds": table_rows[0]["ds"].isoformat(), "future": future})


def test_a_model_of_one_series_needs_no_id():
    frame = forecasters.one(forecasters.table(dates=False), "s0").drop("unique_id")
    task = forecasters.network(Kind(), forecasters.table(dates=False))
    task.codec = task.codec.model_copy(update={"columns": Columns(series=None)})
    model = forecasters.player(task)
    live = Live(model)
    for row in frame.to_dicts():
        name, _, last = live.observe(row)
    assert name == "0"
    assert same(model.predict(frame)["y_hat"].to_numpy(), last.y_hat[0])
    with pytest.raises(DataError, match="unknown column 'unique_id'"):
        live.observe({"unique_id": "a", "ds": 99, "y": 1.0})


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2024-01-31", "2024-01-31T00:00"),
        ("2024-01-31 13:05", "2024-01-31T13:05"),
        ("2024-01-31T13:05:06.25", "2024-01-31T13:05:06.25"),
        ("2024-01-31T13:05:00Z", "2024-01-31T13:05"),
        ("2024-01-31T13:05:00+02:00", "2024-01-31T11:05"),
        ("2024-01", "2024-01-01"),
    ],
)
def test_times(text, want):
    assert parse_time(text, True) == np.datetime64(want, "us")


@pytest.mark.parametrize(
    "value", ["", "yesterday", "31.1.2024", None, True, [], "NaT", "now", "today", "20240131", 20240131]
)
def test_what_is_no_date(value):
    with pytest.raises(DataError, match="date"):
        parse_time(value, True)


@pytest.mark.parametrize("value", ["", "1.5", 1.5, None, [], "noon", float("nan"), float("inf")])
def test_what_is_no_integer_time(value):
    with pytest.raises(DataError, match="integer"):
        parse_time(value, False)


def test_numbers():
    assert number("y", "2.5") == number("y", 2.5) == 2.5
    assert all(np.isnan(number("y", v)) for v in (None, "", " ", "NA", "NaN", "nan", "null", float("nan")))
    for value in ("x", [], {}, True, float("inf"), "-inf"):
        with pytest.raises(DataError, match="column 'y'"):
            number("y", value)


# -- lines ------------------------------------------------------------------------------------------------------------


def test_rows_tell_their_format():
    assert next(iter(rows(['{"a": 1}', "", " [2] ", "x"], "ds"))) == (1, {"a": 1})
    kinds = [type(row) for _, row in rows(['{"a": 1}', "", "[2]", "x"], "ds")]
    assert kinds == [dict, DataError, DataError]
    found = list(rows(["\ufeffds,y", '"1","2"', "3", "4,5,6"], "ds"))
    assert found[0] == (2, {"ds": "1", "y": "2"})
    assert [isinstance(row, DataError) for _, row in found] == [False, True, True]
    with pytest.raises(DataError, match="names 'ds'"):
        list(rows(["a,b"], "ds"))


def test_serve_writes_its_state_whatever_ends_it(model, tmp_path):
    def lines():
        yield json.dumps({"unique_id": "a", "ds": 1, "y": 2.0})
        raise KeyboardInterrupt

    out = io.StringIO()
    assert serve(Live(model), lines(), out, tmp_path / "s", 1000) == 0
    assert list(Live.from_bytes(model, (tmp_path / "s").read_bytes()).states) == ["a"]
    assert len(out.getvalue().splitlines()) == 1


def test_csv_out_can_be_read_back(model, tmp_path):
    out = io.StringIO()
    serve(Live(model), ["unique_id,ds,y", '"a,b",1,2', '"a,b",2,3'], out, tmp_path / "s", 1)
    found = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [row["unique_id"] for row in found] == ["a,b", "a,b"]
    prediction, state = model.step(model.start(), 2.0, time=1)
    prediction, _ = model.step(state, 3.0)
    assert [float(found[1][f"q0.1_{k}"]) for k in (1, 2, 3)] == prediction.quantiles[0, :, 0].tolist()


def test_a_saved_model_is_the_same_model(tmp_path):
    task = forecasters.network(Kind(), forecasters.table(dates=False))
    saved = load(forecasters.save(tmp_path / "model", task))
    made = forecasters.player(task)
    assert alike(saved.peek(saved.start(), 3.0), made.peek(made.start(), 3.0))


@pytest.mark.parametrize("name", ["codec.ring", "codec.count", "core.h", "time", "extra"])
def test_an_edited_state_is_refused_and_reaches_no_kernel(model, name):
    _, state = model.step(model.start(2), [1.0, 2.0])
    broken = state.copy()
    old = broken.arrays.get(name, np.zeros((2, 3)))
    for new in (old[:1], np.zeros(old.shape, np.float16), np.zeros((2, 1, 1, 1))):
        broken.arrays[name] = new
        with pytest.raises(StateError, match="this state"):
            model.step(type(state).from_bytes(broken.to_bytes(), model.digest), [1.0, 2.0])
