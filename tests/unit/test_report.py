"""The score table, the facts of `recurra info`, and the report: complete, self-contained, without torch."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recurra
from recurra.errors import DataError
from recurra.report import describe, score_table, stored_scores, write_report

STEPS, HORIZON = 60, 4


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """Two daily series with a week's season; one has a hostile name."""
    t = np.arange(STEPS)
    rng = np.random.default_rng(0)
    rows = [10.0 + 3.0 * np.sin(2 * np.pi * t / 7) + rng.normal(0, 0.3, STEPS) for _ in range(2)]
    ids = np.repeat(["a", "<script>b"], STEPS)
    days = np.datetime64("2024-01-01") + np.tile(t, 2)
    return pl.DataFrame({"unique_id": ids, "ds": days, "y": np.concatenate(rows)})


@pytest.fixture(scope="module")
def folder(table: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "model"
    recurra.train(
        recurra.Forecast(horizon=HORIZON, head=8),
        recurra.Series(table),
        core=recurra.Core(hidden=8, layers=1),
        fit=recurra.Fit(epochs=1),
        out=out,
        progress=False,
    )
    return out


def text(shown: object) -> str:
    """What a rich table prints."""
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(shown)
    return console.export_text()


def test_score_table_has_the_model_first_and_every_floor(table: pl.DataFrame, folder: Path) -> None:
    scores = recurra.load(folder).evaluate(table, season=7)
    lines = [line for line in text(score_table(scores)).splitlines() if line.strip()]
    names = [line.strip() for line in lines if line.strip().startswith(("model", "naive", "seasonal"))]
    assert [re.split(r"\s{2,}", name)[0] for name in names] == ["model", "naive", "seasonal naive", "naive2"]
    assert f"{scores.rows['model']['mase']:.3f}" in names[0]
    assert "coverage of 80 %" in lines[0]
    assert "2 series, 2 origins; m = 7" in lines[-1]


def test_a_metric_that_no_row_has_is_no_column(table: pl.DataFrame, folder: Path) -> None:
    shown = text(score_table(recurra.load(folder).evaluate(table, origins="all")))
    assert "OWA" not in shown
    assert "MASE" in shown


def test_stored_scores_are_those_of_the_model_folder(folder: Path) -> None:
    kept = json.loads((folder / "metrics.json").read_text())
    shown = text(stored_scores(folder))
    assert "validation part" in shown
    assert f"{kept['rows']['model']['mase']:.3f}" in shown


def test_describe_is_json_and_says_what_the_model_is(folder: Path) -> None:
    model = recurra.load(folder)
    facts = json.loads(json.dumps(describe(folder, model), allow_nan=False))
    assert (facts["task"], facts["horizon"], facts["target"], facts["time step"]) == ("forecast", HORIZON, "y", "day")
    assert (facts["cell"], facts["layers"], facts["hidden"], facts["seasons"]) == ("lstm", 1, 8, [7])
    assert facts["digest"] == model.digest
    assert facts["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    assert facts["trained on"]["series"] == 2
    assert facts["scores"]["rows"].keys() == {"model", "naive", "seasonal naive", "naive2"}


@pytest.mark.parametrize("last", [None, 14])
def test_report_is_one_small_file_that_needs_no_network(
    table: pl.DataFrame, folder: Path, tmp_path: Path, last: int | None
) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(path, recurra.load(folder), table, last=last)
    page = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 6_000_000
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert not re.search(r"<script[^>]+src=|<link|@import", page)
    assert page.count("plotly.js v") == 1
    for word in (
        "seasonal naive",
        "Calibration",
        "Error by step ahead",
        "Learning curve",
        "coverage of 80 %",
        "&lt;script&gt;b",
    ):
        assert word in page
    assert "<h3><script>b" not in page


def test_report_draws_the_forecast_made_one_horizon_before_the_end(
    table: pl.DataFrame, folder: Path, tmp_path: Path
) -> None:
    model = recurra.load(folder)
    write_report(tmp_path / "r.html", model, table)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    cut = model.predict(table.filter(pl.int_range(pl.len()).over("unique_id") < STEPS - HORIZON))
    for value in cut["y_hat"]:
        assert f"{value:.6g}" in page


def test_report_of_a_table_that_is_too_short_says_so(table: pl.DataFrame, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no series has a value before its last 4 rows"):
        write_report(tmp_path / "r.html", recurra.load(folder), table.head(HORIZON))
    assert not (tmp_path / "r.html").exists()


def test_report_imports_no_torch(table: pl.DataFrame, folder: Path, tmp_path: Path) -> None:
    table.write_csv(tmp_path / "t.csv")
    code = (
        "import sys; sys.modules['torch'] = None; import recurra; from recurra.report import write_report; "
        f"write_report({str(tmp_path / 'r.html')!r}, recurra.load({str(folder)!r}), {str(tmp_path / 't.csv')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "r.html").exists()
