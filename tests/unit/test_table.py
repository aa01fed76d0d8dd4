"""Long tables become panels, the same from every kind of source; each kind of bad input is told in one clear line."""

import datetime as dt
import gzip
from importlib import resources

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recurra.errors import DataError
from recurra.table import Columns, Panel, Step, read, write

HEADER = "unique_id,ds,y\n"
TWO = HEADER + "a,2020-01-01,1\na,2020-01-02,2.5\na,2020-01-03,3\nb,2020-01-05,10\nb,2020-01-06,\n"


def save(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(source, *words, columns=None, **options):
    with pytest.raises(DataError) as caught:
        read(source, columns or Columns(), **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def same(a: Panel, b: Panel) -> bool:
    return a.digest() == b.digest() and a.observed_until.tolist() == b.observed_until.tolist()


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_two_series(tmp_path):
    panel = read(save(tmp_path, TWO), Columns())
    assert panel.ids.tolist() == ["a", "b"]
    assert len(panel) == 2
    assert panel.offsets.tolist() == [0, 3, 5]
    assert panel.lengths.tolist() == [3, 2]
    np.testing.assert_array_equal(panel.target, [1, 2.5, 3, 10, np.nan])
    assert panel.step == Step(unit="us", n=86_400_000_000)
    assert str(panel.step) == "1 day"
    assert panel.start.dtype == "datetime64[us]"
    np.testing.assert_array_equal(panel.times(1), np.array(["2020-01-05", "2020-01-06"], dtype="datetime64[us]"))
    assert panel.target[panel.series(1)][0] == 10
    assert panel.observed_until.tolist() == [3, 2]  # no future columns


def test_every_kind_of_source_gives_the_same_panel(tmp_path):
    path = save(tmp_path, TWO)
    want = read(path, Columns())
    frame = pd.read_csv(path, parse_dates=["ds"])
    table = pl.read_csv(path, try_parse_dates=True)
    for source in (frame, table, table.lazy(), table.to_arrow(), pd.read_csv(path)):
        assert same(read(source, Columns()), want)
    for ending in ("csv", "csv.gz", "parquet", "jsonl"):
        write(table, tmp_path / f"again.{ending}")
        assert same(read(tmp_path / f"again.{ending}", Columns()), want)
    with gzip.open(tmp_path / "own.csv.gz", "wt") as file:
        file.write(TWO)
    assert same(read(str(tmp_path / "own.csv.gz"), Columns()), want)


@pytest.mark.parametrize(
    "text", [TWO.replace(",", ";"), TWO.replace(",", "\t"), "\ufeff" + TWO, TWO.replace("\n", "\r\n"), TWO + "\n\n"]
)
def test_dialects_of_csv(tmp_path, text):
    assert same(read(save(tmp_path, text), Columns()), read(save(tmp_path, TWO, "plain.csv"), Columns()))


def test_blank_line_in_a_single_series(tmp_path):
    panel = read(save(tmp_path, "ds,y\n1,2\n\n2,3\n"), Columns(series=None))
    assert panel.ids.tolist() == ["0"]
    assert panel.target.tolist() == [2, 3]
    assert panel.times(0).tolist() == [1, 2]


def test_interleaved_series_keep_first_appearance(tmp_path):
    text = HEADER + "z,1,10\na,5,20\nz,2,11\nm,7,30\na,6,21\nm,8,31\n"
    panel = read(save(tmp_path, text), Columns())
    assert panel.ids.tolist() == ["z", "a", "m"]
    assert panel.target.tolist() == [10, 11, 20, 21, 30, 31]
    assert panel.start.tolist() == [1, 5, 7]


@pytest.mark.parametrize(
    ("stamps", "step", "third"),
    [
        (["1", "2"], "1", 3),
        (["-10", "0"], "10", 10),
        (["1959", "1960"], "1", 1961),
        (["2020-01-01", "2020-01-08"], "1 week", "2020-01-15"),
        (["2020-01-01T00:30:00", "2020-01-01T01:30:00"], "1 hour", "2020-01-01T02:30"),
        (["2020-01-01 00:00", "2020-01-01 00:15"], "15 minutes", "2020-01-01T00:30"),
        (["2020-01-01 00:00:00.250", "2020-01-01 00:00:00.500"], "250 milliseconds", "2020-01-01T00:00:00.750"),
        (["2020-01-01T01:00:00+01:00", "2020-01-01T02:00:00+01:00"], "1 hour", "2020-01-01T02:00"),
        (["2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z"], "1 hour", "2020-01-01T02:00"),
        (["2020-01", "2020-02"], "1 month", "2020-03-01"),
        (["2020Q1", "2020Q2"], "3 months", "2020-07-01"),
        (["2020-Q4", "2021-Q1"], "3 months", "2021-04-01"),
        (["2020-07-01", "2020-08-01"], "1 month", "2020-09-01"),  # 31 days, twice
        (["2020-01-31", "2020-02-29"], "1 month at the last day of the month", "2020-03-31"),
        (["2020-06-30", "2020-09-30"], "3 months at the last day of the month", "2020-12-31"),
        (["2021-12-31", "2022-12-31"], "1 year at the last day of the month", "2023-12-31"),
        (["2019-03-15", "2020-03-15"], "1 year", "2021-03-15"),
        (["2021-02-28", "2022-02-28"], "1 year", "2023-02-28"),
        (["2021-01-04", "2021-02-01"], "4 weeks", "2021-03-01"),
    ],
)
def test_steps(tmp_path, stamps, step, third):
    panel = read(save(tmp_path, HEADER + "".join(f"a,{s},1\n" for s in stamps)), Columns())
    assert str(panel.step) == step
    following = panel.step.next(panel.times(0)[-1])
    assert following == (third if isinstance(third, int) else np.datetime64(third))
    assert panel.step.count(panel.start[0], following) == 2
    assert Step(**panel.step.model_dump()) == panel.step
    assert Step.model_validate_json(panel.step.model_dump_json()) == panel.step


def test_time_zones_of_frames_become_utc():
    stamps = pd.date_range("2020-03-29", periods=5, freq="h", tz="Europe/Berlin")  # the clocks go forward here
    panel = read(pd.DataFrame({"ds": stamps, "y": range(5)}), Columns(series=None))
    assert str(panel.step) == "1 hour"
    assert panel.start[0] == np.datetime64("2020-03-28T23:00")


def test_step_off_the_grid():
    with pytest.raises(DataError, match="2020-01-01T00:30:00 is not a whole number of steps"):
        Step(unit="us", n=3_600_000_000).count(np.datetime64("2020-01-01"), np.datetime64("2020-01-01T00:30"))
    with pytest.raises(DataError, match="not a whole number"):
        Step(unit="int", n=2).count(0, [2, 3])


@settings(deadline=None, max_examples=50)
@given(
    unit=st.sampled_from(["int", "us", "month", "end"]),
    n=st.integers(1, 40),
    start=st.integers(-40_000, 40_000),
    k=st.integers(3, 60),
)
def test_next_and_count_are_inverse_and_inferred(unit, n, start, k):
    step = (
        Step(unit="month", n=n, end=True)
        if unit == "end"
        else Step(unit=unit, n=n * 3_600_000_000 if unit == "us" else n)
    )
    first = np.int64(start) if unit == "int" else np.datetime64(start, "D").astype("datetime64[us]")
    if unit == "month":
        first = first.astype("datetime64[M]").astype("datetime64[us]")
    if unit == "end":
        first = step.next(first, 0)
    times = step.next(first, np.arange(k))
    np.testing.assert_array_equal(step.count(first, times), np.arange(k))
    panel = read(pl.DataFrame({"ds": times, "y": np.ones(k)}), Columns(series=None))
    np.testing.assert_array_equal(panel.times(0), times)


# ---- covariates ------------------------------------------------------------------------------------------------------

WIDE = (
    "unique_id,ds,y,size,kind,temp,sale,note\n"
    "a,1,1,5,shop,20.5,True,x\na,2,2,5,shop,NA,False,y\na,3,,5,shop,19,True,x\n"
    "b,1,7,6,web,0,False,\nb,2,8,6,web,1,False,z\nb,3,,6,web,2,True,x\nb,4,,6,web,2,,x\n"
)
ROLES = Columns(static=("size", "kind"), past=("temp", "note"), future=("sale",))


def test_covariates(tmp_path):
    panel = read(save(tmp_path, WIDE), ROLES)
    np.testing.assert_array_equal(panel.numeric["temp"], [20.5, np.nan, 19, 0, 1, 2, 2])
    assert panel.levels == {"kind": ("shop", "web"), "note": ("x", "y", "z"), "sale": ("false", "true")}
    assert panel.categorical["note"].tolist() == [0, 1, 0, -1, 2, 0, 0]
    assert panel.categorical["sale"].tolist() == [1, 0, 1, 0, 0, 1, -1]
    assert panel.categorical["sale"].dtype == np.int32
    assert panel.static_numeric["size"].tolist() == [5, 6]
    assert panel.static_categorical["kind"].tolist() == [0, 1]
    assert panel.observed_until.tolist() == [2, 2]
    frame = pl.read_csv(tmp_path / "t.csv", null_values={"temp": "NA"})
    assert frame["sale"].dtype == pl.Boolean
    assert same(read(frame, ROLES), panel)
    assert same(read(frame.with_columns(pl.col("kind").cast(pl.Categorical)), ROLES), panel)
    assert same(read(frame.to_pandas().astype({"kind": "category"}), ROLES), panel)


def test_numbers_declared_categorical(tmp_path):
    text = "unique_id,ds,y,store,week\na,1,1,12,7\na,2,2,12,NA\nb,1,7,2,7.0\nb,2,8,2,007\nb,3,8,2,1.5\n"
    roles = Columns(static=("store",), past=("week",), categorical=("store", "week"))
    panel = read(save(tmp_path, text), roles)
    assert panel.levels == {"store": ("12", "2"), "week": ("007", "1.5", "7")}
    assert panel.static_categorical["store"].tolist() == [0, 1]
    assert panel.categorical["week"].tolist() == [2, -1, 2, 0, 1]
    assert not panel.numeric
    assert not panel.static_numeric
    plain = text.replace("007", "7").replace("1.5", "7").replace("NA", "")
    want = read(save(tmp_path, plain, "plain.csv"), roles)
    assert want.levels == {"store": ("12", "2"), "week": ("7",)}
    frame = pl.read_csv(tmp_path / "plain.csv")
    assert frame["week"].dtype == pl.Float64
    assert frame["store"].dtype == pl.Int64
    for source in (frame, frame.to_pandas(), frame.with_columns(pl.col("store").cast(pl.Float32))):
        assert same(read(source, roles), want)
        assert same(read(source, roles, levels=want.levels, step=want.step), want)
    refused(frame.with_columns(store=3.0), "'3'", "never seen", columns=roles, levels=want.levels, step=want.step)
    with pytest.raises(ValidationError, match=r"names 'stor', which is no covariate.*did you mean 'store'"):
        Columns(static=("store",), categorical=("stor",))


def test_levels_of_the_model(tmp_path):
    panel = read(save(tmp_path, WIDE), ROLES)
    later = WIDE.replace("b,1,7,6,web,0,False,\n", "b,1,7,6,web,0,False,y\n")
    again = read(save(tmp_path, later), ROLES, levels=panel.levels, step=panel.step)
    assert again.categorical["note"].tolist() == [0, 1, 0, 1, 2, 0, 0]
    only = read(
        save(tmp_path, WIDE.splitlines()[0] + "\nc,9,1,5,web,1,True,z\n"), ROLES, levels=panel.levels, step=panel.step
    )
    assert only.static_categorical["kind"].tolist() == [1]
    refused(
        save(tmp_path, WIDE.replace("shop", "shopp")),
        "'kind'",
        "'shopp'",
        "did you mean 'shop'?",
        columns=ROLES,
        levels=panel.levels,
    )
    text = WIDE.replace("19,", "warm,")
    refused(save(tmp_path, text), "line 4", "'temp'", "'warm'", "not a number", columns=ROLES, levels=panel.levels)


def test_static_must_not_vary(tmp_path):
    refused(save(tmp_path, WIDE.replace("b,2,8,6", "b,2,8,66")), "static column 'size'", "series 'b'", columns=ROLES)
    refused(
        save(tmp_path, WIDE.replace("b,2,8,6,web", "b,2,8,6,shop")), "static column 'kind'", "series 'b'", columns=ROLES
    )


def test_take_and_cut(tmp_path):
    panel = read(save(tmp_path, WIDE), ROLES)
    b = panel.take([1])
    assert b.ids.tolist() == ["b"]
    assert b.categorical["note"].tolist() == [-1, 2, 0, 0]
    assert b.static_numeric["size"].tolist() == [6]
    cut = panel.cut(np.array([2, 3]), 1)
    assert cut.offsets.tolist() == [0, 1, 3]
    assert cut.start.tolist() == [2, 2]
    np.testing.assert_array_equal(cut.target, [2, 8, np.nan])
    assert cut.observed_until.tolist() == [1, 1]
    assert same(panel.cut(99), panel)
    with pytest.raises(DataError, match="series 'a' has 3 rows"):
        panel.cut(4, 3)


def test_digest_sees_every_value(tmp_path):
    digests = {
        read(save(tmp_path, t), Columns()).digest()
        for t in (TWO, TWO.replace("2.5", "2.6"), TWO.replace("b,", "c,"), TWO)
    }
    assert len(digests) == 3


# ---- gaps ------------------------------------------------------------------------------------------------------------


def test_gap_is_refused_or_filled(tmp_path):
    a = "a,2020-01-01,1,u,1\na,2020-01-02,2,v,2\na,2020-01-05,3,u,3\n"
    path = save(tmp_path, "unique_id,ds,y,c,x\n" + a + "b,2020-01-01,4,v,4\nb,2020-01-02,5,v,5\n")
    refused(path, "t.csv", "series 'a' has a gap", "after 2020-01-02 comes 2020-01-05", "1 day", 'gaps="fill"')
    panel = read(path, Columns(past=("c", "x"), gaps="fill"))
    np.testing.assert_array_equal(panel.target, [1, 2, np.nan, np.nan, 3, 4, 5])
    np.testing.assert_array_equal(panel.numeric["x"], [1, 2, np.nan, np.nan, 3, 4, 5])
    assert panel.categorical["c"].tolist() == [0, 1, -1, -1, 0, 1, 1]
    assert panel.offsets.tolist() == [0, 5, 7]


def test_gap_of_months(tmp_path):
    path = save(tmp_path, HEADER + "a,2020-01-31,1\na,2020-02-29,2\na,2020-04-30,3\n")
    refused(path, "after 2020-02-29 comes 2020-04-30", "1 month")
    panel = read(path, Columns(gaps="fill"))
    np.testing.assert_array_equal(panel.target, [1, 2, np.nan, 3])
    assert panel.times(0)[2] == np.datetime64("2020-03-31")


def test_filling_has_a_bound(tmp_path):
    rows = "".join(f"a,{i},1\n" for i in (1, 2, 3, 10_000_000))
    refused(save(tmp_path, HEADER + rows), "would make 10000000 rows", columns=Columns(gaps="fill"))


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_no_such_file(tmp_path):
    save(tmp_path, TWO, "load.csv")
    refused(tmp_path / "laod.csv", "no such file", "laod.csv", "did you mean 'load.csv'?")
    refused(tmp_path / "no" / "load.csv", "no such folder")
    refused(tmp_path, "is a folder")


def test_unknown_ending(tmp_path):
    refused(save(tmp_path, TWO, "t.xlsx"), "unknown ending '.xlsx'", ".csv", ".parquet")


def test_not_a_table():
    refused(7, "not int")
    refused([1, 2], "not list")


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_empty_file(tmp_path, ending):
    refused(save(tmp_path, "", f"t.{ending}"), f"t.{ending} is empty")


def test_header_only(tmp_path):
    refused(save(tmp_path, HEADER), "t.csv", "no rows")
    refused(pl.DataFrame({"unique_id": [], "ds": [], "y": []}), "no rows")


def test_not_utf8(tmp_path):
    refused(save(tmp_path, (HEADER + "Zürich,1,2\nZürich,2,2\n").encode("latin-1")), "t.csv", "not UTF-8")


def test_broken_files(tmp_path):
    refused(save(tmp_path, "PAR1 no PAR1 yes", "t.parquet"), "t.parquet is broken")
    good = tmp_path / "good.parquet"
    write(pl.DataFrame({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0]}), good)
    refused(save(tmp_path, good.read_bytes()[:-20], "t.parquet"), "t.parquet is broken")
    refused(save(tmp_path, TWO, "t.csv.gz"), "not a gzip file")
    refused(
        save(tmp_path, '{"unique_id":"a","ds":1,"y":1}\n{"unique_id":', "t.jsonl"),
        "t.jsonl",
        "line 2",
        "not a JSON object",
    )


def test_no_such_column(tmp_path):
    refused(
        save(tmp_path, TWO),
        "t.csv",
        "no column 'unique_di'",
        "did you mean 'unique_id'?",
        columns=Columns(series="unique_di"),
    )
    refused(save(tmp_path, TWO), "no column 'sale'", columns=Columns(future=("sale",)))


def test_messages_are_one_short_line(tmp_path):
    refused(save(tmp_path, TWO.replace("2.5", '"2\n' + "5" * 500 + '"')), "line 3", "'2 555", "...'")
    refused(save(tmp_path, '"uni\nque",ds,y\na,1,1\n'), "no column 'unique_id'", "did you mean 'uni que'?")


def test_a_column_in_two_roles():
    for roles in ({"past": ("x",), "future": ("x",)}, {"static": ("y",)}, {"time": "y"}, {"past": ("x", "x")}):
        with pytest.raises(ValidationError, match="used in two roles"):
            Columns.model_validate(roles)


def test_target_not_numeric(tmp_path):
    refused(save(tmp_path, TWO.replace("2.5", "two")), "t.csv, line 3", "column 'y'", "'two'", "not a number")
    refused(pl.DataFrame({"unique_id": ["a"] * 2, "ds": [1, 2], "y": ["1", "1,5"]}), "row 2", "'1,5'")


def test_columns_of_a_wrong_type():
    good = {"unique_id": ["a", "a"], "ds": [1, 2], "y": [1, 2]}
    refused(pl.DataFrame({**good, "y": [[1], [2]]}), "'y'", "List", "use numbers")
    refused(pl.DataFrame({**good, "y": [{"a": 1}, {"a": 2}]}), "'y'", "Struct", "use numbers")
    refused(pl.DataFrame({**good, "y": [dt.date(2020, 1, 1)] * 2}), "'y'", "Date", "use numbers")
    refused(pl.DataFrame({**good, "unique_id": [[1], [2]]}), "'unique_id'", "List")
    refused(pd.DataFrame({**good, "y": [1, "x"]}), "row 2", "'y'", "'x' (str) after int values")
    refused(pd.DataFrame({**good, "ds": pd.period_range("2020-01", periods=2, freq="M")}), "time column 'ds'", "period")


def test_missing_column_of_a_frame_names_the_nearest():
    refused(pd.DataFrame({"unique_id": ["a"], "date": [1], "y": [1]}), "no column 'ds'", "known: date, unique_id, y")


def test_json_has_no_nan(tmp_path):
    refused(save(tmp_path, '{"unique_id":"a","ds":1,"y":NaN}\n', "t.jsonl"), "line 1 is not a JSON object", "null")


@pytest.mark.parametrize("word", ["inf", "-inf"])
def test_infinity(tmp_path, word):
    refused(save(tmp_path, TWO.replace("2.5", word)), "line 3", "column 'y'", word)


@pytest.mark.parametrize("word", ["", "NA", "NaN", "nan", "null", " "])
def test_missing_words(tmp_path, word):
    assert np.isnan(read(save(tmp_path, TWO.replace("2.5", word)), Columns()).target[1])


def test_duplicated(tmp_path):
    refused(save(tmp_path, TWO.replace("2020-01-06", "2020-01-05")), "series 'b'", "two rows for 2020-01-05")
    refused(save(tmp_path, HEADER + "a,1,1\nb,1,1\na,2,2\nb,1,2\n"), "series 'b'", "two rows for 1")


def test_unsorted(tmp_path):
    refused(
        save(tmp_path, TWO.replace("2020-01-06", "2020-01-04")),
        "series 'b'",
        "2020-01-04 comes after 2020-01-05",
        "sort",
    )


def test_irregular(tmp_path):
    rows = "".join(f"a,2020-01-01 {h:02}:{30 if h == 4 else 0:02}:00,1\n" for h in range(9))
    refused(
        save(tmp_path, HEADER + rows),
        "series 'a' is irregular",
        "2020-01-01T04:30:00",
        "1 hour",
        columns=Columns(gaps="fill"),
    )


@pytest.mark.parametrize("word", ["yesterday", "01/02/2020", "", "2020-13-01"])
def test_time_not_understood(tmp_path, word):
    expected = "no time stamp" if not word else f"'{word}'"
    refused(save(tmp_path, TWO.replace("2020-01-02", word)), "line 3", "'ds'", expected)
    if word:
        refused(save(tmp_path, TWO.replace("2020-01-01", word)), "line 2", "'ds'", expected)


def test_time_of_a_wrong_type():
    refused(pl.DataFrame({"unique_id": ["a"] * 2, "ds": [1.5, 2.5], "y": [1, 2]}), "'ds'", "Float64")


def test_null_ids(tmp_path):
    refused(save(tmp_path, TWO.replace("b,2020-01-05", ",2020-01-05")), "line 5", "no series id", "'unique_id'")
    refused(pd.DataFrame({"unique_id": ["a", None], "ds": [1, 2], "y": [1, 2]}), "row 2", "no series id")


def test_all_missing(tmp_path):
    refused(save(tmp_path, TWO.replace("b,2020-01-05,10", "b,2020-01-05,")), "series 'b' has no value of 'y'")
    refused(save(tmp_path, HEADER + "a,1,\na,2,\n"), "column 'y' has no value at all")


def test_one_row(tmp_path):
    refused(save(tmp_path, HEADER + "a,1,1\nb,1,1\n"), "every series has one row")
    panel = read(save(tmp_path, HEADER + "c,3,1\na,1,1\na,2,1\nb,1,1\n"), Columns())
    assert panel.lengths.tolist() == [1, 2, 1]
    assert read(save(tmp_path, HEADER + "a,1,1\n"), Columns(), step=Step(unit="int", n=1)).lengths.tolist() == [1]


def test_mixed_steps(tmp_path):
    days = "".join(f"d,2020-01-{i:02},1\n" for i in range(1, 6))
    hours = "".join(f"h,2020-01-01 {i:02}:00,1\n" for i in range(5)).replace(" ", "T")
    text = (HEADER + days + hours).replace(",1\n", ",1\n")
    frame = pl.read_csv(text.encode()).with_columns(
        pl.col("ds").str.slice(0, 16).str.replace("^(.{10})$", "${1}T00:00")
    )
    refused(frame, "different steps", "1 hour in 'h'", "1 day in 'd'")


def test_step_of_the_model(tmp_path):
    path = save(tmp_path, TWO)
    refused(path, "integers", step=Step(unit="int", n=1))
    refused(path, "irregular", "1 week", step=Step(unit="us", n=7 * 86_400_000_000))
    refused(path, "gap", "12 hours", step=Step(unit="us", n=43_200_000_000))
    refused(path, "2020-01-01", "1 month", step=Step(unit="month", n=1, end=True))
    refused(
        save(tmp_path, HEADER + "a,2020-01-15,1\n"), "2020-01-15", "last day", step=Step(unit="month", n=1, end=True)
    )


# ---- write -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet", "jsonl"])
def test_write_then_read(tmp_path, ending):
    stamps = np.datetime64("2020-01-01T00:00", "us") + np.arange(4) * np.timedelta64(90, "m")
    frame = {
        "unique_id": np.array(["a"] * 4, dtype=object),
        "ds": stamps,
        "y": np.array([1, np.nan, 0.1 + 0.2, 1e-300]),
    }
    write(frame, tmp_path / f"t.{ending}")
    panel = read(tmp_path / f"t.{ending}", Columns())
    np.testing.assert_array_equal(panel.target, frame["y"])
    np.testing.assert_array_equal(panel.times(0), stamps)
    assert [p.name for p in tmp_path.iterdir()] == [f"t.{ending}"]


def test_write_refuses(tmp_path):
    with pytest.raises(DataError, match=r"unknown ending '\.xls'"):
        write({"y": np.ones(1)}, tmp_path / "t.xls")
    with pytest.raises(DataError, match="no such folder"):
        write({"y": np.ones(1)}, tmp_path / "no" / "t.csv")
    with pytest.raises(DataError, match="different lengths"):
        write({"y": np.ones(1), "x": np.ones(2)}, tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []


# ---- the bundled series ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "step", "count"), [("demo.csv", "1 month", 6), ("yearly.csv", "1 year", 2)])
def test_bundled_series(name, step, count):
    with resources.as_file(resources.files("recurra") / "series" / name) as path:
        panel = read(path, Columns())
        assert path.stat().st_size < 300_000
    assert str(panel.step) == step
    assert len(panel) == count
    assert panel.ids.tolist() == sorted(panel.ids)
