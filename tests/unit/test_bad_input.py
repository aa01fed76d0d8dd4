"""Bad input at the command line: exit code 2, one line on standard error, no traceback, nothing written."""

import json
import shutil
import subprocess
import sys

import pytest

import forecasters
from forecasters import Kind, command
from recurra import table

HOURS = [f"2024-01-01T{h:02d}:00" for h in range(24)]
GOOD = "unique_id,ds,y\n" + "".join(f"a,{t},{1 + i % 5}\n" for i, t in enumerate(HOURS))
LINE = {i: f"a,{t},{1 + i % 5}\n" for i, t in enumerate(HOURS)}
TRAIN = ["--horizon", 2, "--hidden", 4, "--layers", 1, "--head", 4, "--epochs", 1, "--seasons", ""]


def refused(ran, *texts):
    """One line, code 2, that says each of `texts`."""
    assert ran.code == 2, (ran.code, ran.out, ran.err)
    assert len(ran.err) == 1, ran.err
    assert ran.out == ""
    (line,) = ran.err
    assert line.startswith("recurra: ")
    assert len(line) < 400
    for text in texts:
        assert text in line, line


def listing(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.fixture
def room(tmp_path):
    (tmp_path / "load.csv").write_text(GOOD)
    return tmp_path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A random model with covariates on hourly series, and its table."""
    folder = tmp_path_factory.mktemp("saved")
    kind = Kind(inputs="covariates")
    frame = forecasters.frame_for(kind, missing=False)
    forecasters.save(folder / "model", forecasters.network(kind, frame))
    forecasters.save(folder / "twin", forecasters.network(kind, frame, seed=1))
    table.write(frame, folder / "data.csv")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A random model of integer time without covariates."""
    folder = tmp_path_factory.mktemp("plain")
    return forecasters.save(folder / "model", forecasters.network(Kind(), forecasters.table(dates=False)))


def test_the_good_table_trains(room):
    assert command("train", "forecast", room / "load.csv", *TRAIN, "--out", room / "m").code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", ["is empty"]),
        (b"unique_id,ds,y\n", ["header and no rows"]),
        (GOOD.replace("a,", "\xe4,").encode("latin-1"), ["not UTF-8"]),
        (GOOD + LINE[23], ["'a'", "two rows for 2024-01-01T23:00"]),
        (GOOD + LINE[3], ["'a'", "not sorted", "2024-01-01T03:00"]),
        (GOOD.replace(LINE[7], ""), ["'a'", "gap", "2024-01-01T06:00", "fill"]),
        (GOOD.replace(LINE[7], f"a,{HOURS[7]},hello\n"), ["line 9", "'hello'", "not a number"]),
        (GOOD.replace(LINE[7], f"a,{HOURS[7]},inf\n"), ["line 9", "inf"]),
        (GOOD.replace(LINE[7], "a,noon,3\n"), ["line 9", "'noon'"]),
        ("unique_id,ds,y\n" + "".join(f"a,{t},7\n" for t in HOURS), ["constant", "7"]),
        ("unique_id,ds,y\n" + "".join(f"a,{t},\n" for t in HOURS), ["'y'", "no value at all"]),
        (GOOD.replace("unique_id,ds,y", "unique_id,ds,sales"), ["no column 'y'", "sales"]),
        (GOOD.replace("unique_id,ds,y", "uniqe_id,ds,y"), ["no column 'unique_id'", "did you mean 'uniqe_id'"]),
        ("unique_id,ds,y\na,2024-01-01,3\n", ["one row"]),
        ("unique_id,ds,y\na,2024-01-01,3\na,2024-01-02,4\n", ["long enough"]),
    ],
)
def test_tables(room, text, says):
    (room / "load.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = listing(room)
    refused(command("train", "forecast", room / "load.csv", *TRAIN, "--out", room / "m"), *says)
    assert listing(room) == before


def test_no_such_file(room):
    refused(
        command("train", "forecast", room / "laod.csv", *TRAIN, "--out", room / "m"),
        "no such file",
        "did you mean 'load.csv'",
    )
    assert listing(room) == ["load.csv"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--cell", "lstn"], ["cell", "'lstn'", "'lstm'"]),
        (["--output", "quantile"], ["output", "'quantiles'"]),
        (["--horizon", "0"], ["horizon", "0", "1"]),
        (["--horizon", "two"], ["--horizon"]),
        (["--quantiles", "0.1,0.9"], ["0.5"]),
        (["--quantiles", "0.1,half"], ["--quantiles"]),
        (["--quantiles", "0.5,1.5"], ["quantile"]),
        (["--quantiles", ""], ["quantile"]),
        (["--seasons", "99"], ["season 99"]),
        (["--dropout", "1"], ["dropout"]),
        (["--learning-rate", "nan"], ["learning_rate"]),
        (["--learning-rate", "inf"], ["learning_rate"]),
        (["--hiden", "3"], ["--hiden", "--hidden"]),
        (["--target", "sales"], ["no column 'sales'"]),
        (["--past", "y"], ["'y'", "two roles"]),
        (["--output", "negative_binomial", "--target", "ds"], ["ds"]),
        (["--resume"], ["nothing to resume"]),
        (["--validation", "40"], ["validation = 0"]),
    ],
)
def test_options(room, options, says):
    refused(command("train", "forecast", room / "load.csv", *TRAIN, *options, "--out", room / "m"), *says)
    assert listing(room) == ["load.csv"]


def test_missing_options(room):
    refused(command("train", "forecast", room / "load.csv", "--out", room / "m"), "--horizon")
    refused(command("train", "forecast", room / "load.csv", "--horizon", 2), "--out")
    refused(command("train", "forcast", room / "load.csv"), "no task 'forcast'", "did you mean 'forecast'")
    refused(command("recipe", "forcast"), "no task 'forcast'", "did you mean 'forecast'")
    refused(command("evalute", "m", "d"), "'evalute'", "'evaluate'")


TOML = '[task]\nname = "forecast"\nhorizon = 2\n[data]\nsource = "load.csv"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TOML + "[core]\nhiden = 3\n", ["no option 'hiden'", "did you mean 'hidden'"]),
        (TOML + '[core]\nhidden = "big"\n', ["hidden", "'big'"]),
        (TOML + "[fit]\nepochs = 1.5\n", ["epochs", "1.5"]),
        (TOML + "[fitt]\nepochs = 1\n", ["[fitt]", "did you mean 'fit'"]),
        (TOML.replace('"forecast"', '"forecat"'), ["no task 'forecat'", "did you mean 'forecast'"]),
        (TOML.replace('name = "forecast"\n', ""), ["which task"]),
        (TOML.replace("horizon = 2\n", ""), ["needs the option 'horizon'"]),
        (TOML.replace('source = "load.csv"\n', ""), ["needs the option 'source'"]),
        (TOML.replace('"load.csv"', '"laod.csv"'), ["did you mean 'load.csv'"]),
        (TOML.replace('"load.csv"', "3"), ["a table is a path", "not int"]),
        ("core = 3\n" + TOML, ["core", "table"]),
        ("data = 3\n", ["data", "table"]),
        ("[task]\nname = 3\n", ["task"]),
        (TOML + "[core\n", ["not valid TOML"]),
        (TOML.encode() + b"# \xe4", ["not UTF-8"]),
    ],
)
def test_recipes(room, text, says):
    (room / "mine.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(command("train", room / "mine.toml", "--out", room / "m"), *says)
    refused(command("train", room / "mien.toml", "--out", room / "m"), "no recipe file", "did you mean 'mine.toml'")
    assert listing(room) == ["load.csv", "mine.toml"]


def test_out_exists(saved, room):
    shutil.copytree(saved / "model", room / "m")
    (room / "dir").mkdir()
    before = listing(room), (room / "m" / "model.json").read_bytes()
    refused(
        command("train", "forecast", room / "load.csv", *TRAIN, "--out", room / "m"),
        "already holds a model",
        "overwrite",
    )
    refused(
        command("train", "forecast", room / "load.csv", *TRAIN, "--out", room / "dir", "--overwrite"), "no model folder"
    )
    assert before == (listing(room), (room / "m" / "model.json").read_bytes())


# -- models ---------------------------------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda m: cut(m / "weights.safetensors"), "truncated"),
        (lambda m: cut(m / "model.json"), "not valid JSON"),
        (lambda m: edit(m / "model.json", created="today"), "edited"),
        (lambda m: edit(m / "model.json", format=99), "format 99"),
        (lambda m: (m / "model.json").unlink(), "no model folder"),
        (lambda m: (m / "weights.safetensors").unlink(), "lacks its file"),
        (shutil.rmtree, "no such model folder"),
        (lambda m: [shutil.rmtree(m), m.write_text("x")], "is a file"),
    ],
)
def test_models(saved, tmp_path, harm, says):
    shutil.copytree(saved / "model", tmp_path / "model")
    harm(tmp_path / "model")
    before = listing(tmp_path)
    data = saved / "data.csv"
    refused(command("predict", tmp_path / "model", data, "--out", tmp_path / "f.csv"), says)
    refused(command("evaluate", tmp_path / "model", data), says)
    refused(command("info", tmp_path / "model"), says)
    refused(command("stream", tmp_path / "model", "--state", tmp_path / "s"), says)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("task", ["detect", "forecast"])
def test_a_model_of_another_task(saved, tmp_path, task):
    """A task that this command is not for, and a "forecast" whose parts are not a forecaster's."""
    from recurra import modelfile

    manifest = {"task": task, "codec": {"a": 1}, "layers": [], "config": {}, "data": ""}
    modelfile.write(tmp_path / "model", manifest, {})
    refused(command("predict", tmp_path / "model", saved / "data.csv", "--out", tmp_path / "f.csv"), task)
    assert listing(tmp_path) == ["model", "model/model.json", "model/weights.safetensors"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.replace("north", "nort"), ["'nort'", "did you mean 'north'"]),
        (lambda t: t.replace("wind", "wint"), ["no column 'wind'", "did you mean 'wint'"]),
        (lambda t: "\n".join(t.splitlines()[:1]), ["no rows"]),
        (lambda t: t.replace("2024-01-30T21:00:00", "2024-01-30T20:59:00", 1), ["'s0'"]),
        (lambda t: t.replace("2024-01-", "01/").replace("2024-02-", "02/"), ["time stamp"]),
        (lambda t: t, ["known future", "price"]),
    ],
)
def test_tables_at_prediction(saved, tmp_path, change, says):
    (tmp_path / "data.csv").write_text(change((saved / "data.csv").read_text()))
    refused(command("predict", saved / "model", tmp_path / "data.csv", "--out", tmp_path / "f.csv"), *says)
    assert listing(tmp_path) == ["data.csv"]


def test_other_words_at_prediction(saved, plain, tmp_path):
    data = saved / "data.csv"
    refused(command("evaluate", saved / "model", data, "--origins", "first"), "origins", "'first'", "'last' or 'all'")
    refused(command("evaluate", saved / "model", data, "--season", "0"), "season")
    (tmp_path / "one.csv").write_text("unique_id,ds,y\na,1,3\n")
    one = tmp_path / "one.csv"
    refused(command("predict", plain, one, "--out", tmp_path / "f.xls"), ".xls", ".csv")
    refused(command("predict", plain, one, "--out", tmp_path / "no" / "f.csv"), "no such folder")
    refused(command("predict", plain, one, "--out", tmp_path / "f.csv", "--horizon", "0"), "horizon 0")
    refused(command("predict", plain, one, "--out", tmp_path / "f.csv", "--seed", "-1"), "seed -1")
    refused(command("evaluate", plain, one), "no series has a value before its last 3 rows")
    refused(command("predict", plain, data, "--out", tmp_path / "f.csv"), "integers")
    assert listing(tmp_path) == ["one.csv"]


# -- streams --------------------------------------------------------------------------------------------------------


def line(time, y=1.0, **more):
    return json.dumps({"unique_id": "a", "ds": time, "y": y, **more})


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (line(2), ["repeated or out of order", "the next is 3"]),
        (line(1), ["repeated or out of order"]),
        (line(9), ["gap", "the next is 3"]),
        (line(3, yy=1.0), ["unknown column 'yy'", "did you mean 'y'"]),
        (line(3, future={"price": [1]}), ["price"]),
        (line(3, future=3), ["future"]),
        (line(3, future="{"), ["future"]),
        (line(3, "hello"), ["'hello'", "not a number"]),
        (line(3, True), ["not a number"]),
        (line(3, [1]), ["not a number"]),
        (line(3, 1e999), ["infinite"]),
        (line("noon"), ["noon"]),
        (line(3.5), ["3.5"]),
        (line(None), ["'ds' is missing"]),
        (line(3)[:-4], ["not valid JSON"]),
        ("[1, 2]", ["JSON object"]),
        ('{"unique_id": null, "ds": 3, "y": 1}', ["'unique_id' is missing"]),
    ],
)
def test_a_refused_line_changes_nothing(plain, tmp_path, bad, says):
    good = [line(1), line(2), line(3)]
    ran = command("stream", plain, "--state", tmp_path / "s", stdin="\n".join([*good[:2], bad, good[2]]))
    assert ran.code == 2
    assert len(ran.err) == 1
    assert ran.err[0].startswith("recurra: line 3: ")
    for text in says:
        assert text in ran.err[0]
    calm = command("stream", plain, "--state", tmp_path / "calm", stdin="\n".join(good))
    assert ran.out == calm.out
    assert (tmp_path / "s").read_bytes() == (tmp_path / "calm").read_bytes()


def test_csv_streams(plain, tmp_path):
    refused(command("stream", plain, "--state", tmp_path / "s", stdin="unique_id,day,y\na,1,2\n"), "header names 'ds'")
    ran = command("stream", plain, "--state", tmp_path / "t", stdin="unique_id,ds,y\na,1,2\na,2\na,2,3\n")
    assert (ran.code, len(ran.err), len(ran.out.splitlines())) == (2, 1, 3)
    assert "line 3: 2 fields, but the header has 3" in ran.err[0]


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda blob: blob[:-9], "truncated"),
        (lambda blob: blob[:5], "truncated"),
        (lambda blob: b"", "truncated"),
        (lambda blob: b"hello, I am no state at all", "truncated"),
    ],
)
def test_broken_state_files(plain, tmp_path, harm, says):
    assert command("stream", plain, "--state", tmp_path / "s", stdin=line(1)).code == 0
    (tmp_path / "s").write_bytes(harm((tmp_path / "s").read_bytes()))
    before = (tmp_path / "s").read_bytes()
    refused(command("stream", plain, "--state", tmp_path / "s", stdin=line(2)), says)
    assert (tmp_path / "s").read_bytes() == before


def test_states_of_others(saved, plain, tmp_path):
    from recurra import load

    assert command("stream", plain, "--state", tmp_path / "s", stdin=line(1)).code == 0
    before = (tmp_path / "s").read_bytes()
    refused(command("stream", saved / "model", "--state", tmp_path / "s", stdin=line(2)), "belongs to the model")
    (tmp_path / "t").write_bytes(load(plain).start().to_bytes())
    refused(command("stream", plain, "--state", tmp_path / "t", stdin=line(2)), "single step")
    assert (tmp_path / "s").read_bytes() == before
    refused(command("stream", plain, "--state", tmp_path / "no" / "s"), "no folder")
    refused(command("stream", plain, "--state", tmp_path), str(tmp_path))
    refused(command("stream", plain, "--state", tmp_path / "u", "--input", tmp_path / "nope"), "nope", "no such file")
    assert listing(tmp_path) == ["s", "t"]


def test_as_a_process(saved):
    """Nothing of the above comes from running in the test's own process: no traceback, one line, code 2."""
    words = ["predict", saved / "modell", saved / "data.csv", "--out", saved / "f.csv"]
    ran = subprocess.run(
        [sys.executable, "-m", "recurra", *map(str, words)], capture_output=True, text=True, timeout=120
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1
    assert "did you mean 'model'" in ran.stderr
    assert not (saved / "f.csv").exists()
