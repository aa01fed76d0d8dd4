"""What the documents and the demo show runs: the demo, README's Python, the tutorial, the recipe."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import recurra
from recurra.training.recipe import WHOLE, from_toml

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> str:
    """All Python blocks of a document, end to end."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL))


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(f"docs/tutorials/{p.name}" for p in ROOT.glob("docs/tutorials/*"))]
)
def test_python_of_the_documents_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks(page)
    assert code
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "document"})


@pytest.mark.parametrize("task", ["forecast", "classify", "tag", "generate", "translate", "summarise"])
def test_recipe_trains(task: str, tmp_path: Path) -> None:
    recipe = from_toml(ROOT / "recipes" / f"{task}.toml")
    assert recipe.name == task
    fit = replace(recipe.fit, epochs=1, batch_size=64)
    small = replace(recipe.core, hidden=4, layers=1), fit if task in WHOLE else replace(fit, chunk=200)
    data = replace(recipe.data, pattern="config.py") if task == "generate" else recipe.data
    model = recurra.train(recipe.task, data, core=small[0], fit=small[1], out=tmp_path / "model", progress=False)
    assert model.manifest["task"] == task


def test_paths_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([\w./-]+)\)", text) + re.findall(r"`((?:tests|docs|src|recipes)/[\w./-]+)", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_split_holds_back_the_last_rows_of_every_series() -> None:
    from recurra import demo

    table, history = demo._split(ROOT / "src" / "recurra" / "series" / "demo.csv")
    for (name,), whole in table.group_by("unique_id"):
        kept = history.filter(history["unique_id"] == name)
        assert kept.equals(whole.head(len(whole) - demo.HELD_BACK))


@pytest.mark.slow
def test_demo_streams_the_bits_of_the_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from recurra.demo import main

    assert main(["--out", str(tmp_path), "--epochs", "1", "--hidden", "8", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "streamed 216 observations of 6 series: every forecast equals the batch forecast, bit for bit" in shown
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "model" / "model.json").exists()
