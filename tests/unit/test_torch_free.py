"""The torch-free wing: a fresh interpreter in which torch and lightning can't be imported loads, predicts, evaluates and streams."""

import json
import subprocess
import sys

import numpy as np
import pytest

import forecasters
from forecasters import Kind
from recurra import load, table

FREE = """
import sys
sys.modules["torch"] = sys.modules["lightning"] = sys.modules["lightning.pytorch"] = None
import json, pathlib, recurra
folder = pathlib.Path(sys.argv[1])
model = recurra.load(folder / "model")
frame = model.predict(folder / "data.csv", 8)
scores = model.evaluate(folder / "data.csv", origins="all")
answer, state = model.step(model.start(), 2.0)
state = recurra.State.from_bytes(state.to_bytes(), model.digest)
answer, state = model.step(state, 3.0)
from recurra.runtime.live import Live
live = Live(model)
name, stamp, last = live.observe({"unique_id": "a", "ds": 5, "y": 2.0})
live = Live.from_bytes(model, live.to_bytes())
name, stamp, last = live.observe({"unique_id": "a", "ds": 6, "y": 3.0})
assert (last.y_hat == answer.y_hat).all()
from recurra import cli
sys.argv = ["recurra", "predict", str(folder / "model"), str(folder / "data.csv"), "--out", str(folder / "out.parquet")]
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
loaded = [name for name in sys.modules if name.split(".")[0] in ("torch", "lightning") and sys.modules[name] is not None]
print(json.dumps({"predict": frame["y_hat"].to_list(), "step": answer.y_hat[0].tolist(), "rows": sorted(scores.rows), "loaded": loaded}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("free")
    frame = forecasters.table(dates=False)
    forecasters.save(path / "model", forecasters.network(Kind(cell="gru", layers=2), frame))
    table.write(frame, path / "data.csv")
    return path


def fresh(code, *words):
    """Run `code` in a fresh interpreter; its standard output."""
    ran = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_without_torch(folder):
    found = json.loads(fresh(FREE, folder).splitlines()[-1])
    assert found["loaded"] == []
    assert "naive" in found["rows"]
    model = load(folder / "model")
    assert found["predict"] == model.predict(folder / "data.csv", 8)["y_hat"].to_list()
    _, state = model.step(model.start(), 2.0)
    assert found["step"] == np.asarray(model.peek(state, 3.0).y_hat[0]).tolist()
    assert (folder / "out.parquet").exists()


def test_importing_recurra_imports_nothing_heavy():
    heavy = ("torch", "lightning", "polars", "pydantic", "numpy", "typer", "pandas")
    seconds, names = fresh(
        "import sys, time; t = time.perf_counter(); import recurra; t = time.perf_counter() - t\n"
        f"print(t, [n for n in {heavy} if n in sys.modules])"
    ).split(" ", 1)
    assert names.strip() == "[]"
    assert float(seconds) < 0.3


def test_the_command_line_imports_no_torch_before_it_trains():
    out = fresh(
        "import sys\nfrom recurra import cli\nsys.argv = ['recurra', 'predict', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules)"
    )
    assert out.splitlines()[-1] == "False"
