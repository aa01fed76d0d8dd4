"""What is said of a model: the score table, the facts of `recurra info`, and the HTML report that opens offline.

Torch-free. rich and plotly are imported where they are used.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recurra import metrics, modelfile, scorepage
from recurra.page import Drawn, Evidence, render, score_caption, score_rows, score_titles, step_words
from recurra.runtime.forecast import ForecastModel, m4_season
from recurra.runtime.prediction import Backtest
from recurra.runtime.scored import Scored
from recurra.runtime.scores import Scores, floors, score

if TYPE_CHECKING:
    from rich.table import Table

    from recurra.panel import Panel

PLOTTED = 12  # series drawn
SAMPLED = 200  # series at most behind the scores and curves of a report


def score_table(scores: Scores | Scored) -> "Table":
    """The model's scores with the floors below, as a table for the terminal."""
    from rich import box
    from rich.table import Table

    if isinstance(scores, Scored):
        caption, titles = scores.caption, scores.titles
        rows = [(name, scores.cells(name)) for name in scores.rows]
    else:
        caption, titles, rows = score_caption(scores), score_titles(scores), list(score_rows(scores))
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    table.add_column("")
    for title in titles:
        table.add_column(title, justify="right")
    for name, cells in rows:
        table.add_row(name, *cells, style="bold" if name == "model" else None)
    return table


def stored_scores(path: str | os.PathLike[str]) -> "Table | None":
    """The score table in the model folder `path` (its metrics.json); None where it was trained without a validation part.

    Raises ModelFileError.
    """
    found, scores = _stored(path), stored(path)
    if found is None or scores is None:
        return None
    table = score_table(scores)
    table.title = f"Scores on the {found.get('part', 'validation')} part"
    return table


def describe(path: str | os.PathLike[str], model: Any) -> dict[str, Any]:
    """What the model in the folder `path` is, as JSON-able data: the facts of `recurra info`. Raises ModelFileError."""
    manifest = model.manifest
    core, training = manifest["config"]["core"], manifest.get("training", {})
    return {
        "task": manifest["task"],
        **(_forecaster(model) if isinstance(model, ForecastModel) else model.facts()),
        "cell": core["cell"],
        "layers": core["layers"],
        "hidden": core["hidden"],
        "parameters": training.get("parameters"),
        "trained on": {k: v for k, v in training.items() if k not in ("parameters", "history")},
        "format": manifest["format"],
        "library": manifest["library"],
        "created": manifest["created"],
        "data digest": manifest["data"],
        "digest": model.digest,
        "bytes": sum(file.stat().st_size for file in Path(path).iterdir() if file.is_file()),
        "state bytes": model.start().nbytes if model.streams else None,
        "scores": _stored(path),
    }


def _forecaster(model: ForecastModel) -> dict[str, Any]:
    codec = model.codec
    columns = codec.columns
    return {
        "horizon": codec.horizon,
        "output": codec.output,
        "quantiles": list(model.levels),
        "target": columns.target,
        "time": columns.time,
        "series id": columns.series,
        "static": list(columns.static),
        "past": list(columns.past),
        "future": list(columns.future),
        "calendar": list(codec.covariates.cycles),
        "time step": step_words(codec.step),
        "seasons": list(codec.scaling.seasons),
        "scaling": f"{codec.scaling.kind}, {codec.scaling.transform}",
    }


def write_report(path: str | os.PathLike[str], model: ForecastModel, source: Any, *, last: int | None = None) -> None:
    """Write one HTML file about `model` on a table (or Panel): scores and floors, forecasts, calibration, error by step.

    It holds all that it needs and opens offline. last: only origins from the last `last` rows of each series on count, e.g. the rows that
    training has not seen; None: every origin. The file appears whole or not at all. Raises DataError.
    """
    panel = model.read(source) if not hasattr(source, "offsets") else source
    evidence = _gather(model, panel, last)
    _write(Path(path), render(model, panel, evidence, last))


def write_score_report(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], model: Any, scored: Scored
) -> None:
    """Write one HTML file about the model of a text task in `folder`: its scores beside the floors, what lies behind them,
    its facts. It opens offline; it appears whole or not at all.
    """
    _write(Path(path), scorepage.render(model.manifest, describe(folder, model), scored))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


# -- numbers -------------------------------------------------------------------------------------------------------


def _gather(model: ForecastModel, panel: "Panel", last: int | None) -> Evidence:
    """One backtest of the panel (an even sample of a large one), read in three ways."""
    usable = np.flatnonzero(panel.observed_until > model.horizon)
    if not len(usable):
        model.evaluate(panel)  # says in its own words why that can't be
    usable = usable[:: -(-len(usable) // SAMPLED)]
    m, h = m4_season(model.codec), model.horizon
    drawn: list[Drawn] = []
    below, known = np.zeros(len(model.levels)), 0
    errors: dict[str, list[np.ndarray]] = {}

    def watched() -> Iterator[Backtest]:
        nonlocal below, known
        for whole in model.backtest(panel.take(usable)):
            found = whole if last is None else whole.last(max(last, h))
            i, y, at = usable[found.series], found.values, found.origins
            y_hat, quantiles = found.prediction.y_hat, found.prediction.quantiles
            naive = floors(y, at, h, m)
            if len(drawn) < PLOTTED:
                drawn.append(Drawn(int(i), y, int(at[-1]), y_hat[-1], quantiles[-1], naive["seasonal naive"][-1]))
            actual = y[at[:, None] + np.arange(h)]
            seen = np.isfinite(actual)
            below = below + ((actual[..., None] <= quantiles) & seen[..., None]).sum(axis=(0, 1))
            known += int(seen.sum())
            for name, forecast in ({"model": y_hat} | naive).items():
                errors.setdefault(name, []).append(_mean_rows(metrics.scaled_errors(actual, forecast, y, m, at)))
            yield found

    scores = score(watched(), model.levels, m, skipped=len(panel) - len(usable), naive2=False)
    drawn.sort(key=lambda one: one.series)
    by_step = {name: _mean_rows(np.stack(rows)) for name, rows in errors.items()}
    return Evidence(scores, drawn, below / max(known, 1), by_step)


def _mean_rows(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total, n = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def _stored(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    file = modelfile.read(path)
    return json.loads(file.read_text(modelfile.METRICS)) if modelfile.METRICS in file.manifest["files"] else None


def stored(path: str | os.PathLike[str]) -> Any:
    """The scores in the model folder `path`: Scores of a forecaster, Scored of a text task; None where it was trained without
    a validation part. Raises ModelFileError.
    """
    found = _stored(path)
    if found is None:
        return None
    if "caption" in found:
        return Scored.from_json(found)
    nan = float("nan")
    rows = {
        name: {key: nan if v is None else float(v) for key, v in row.items()} for name, row in found["rows"].items()
    }
    nominal = nan if found["nominal"] is None else float(found["nominal"])
    return Scores(rows, found["season"], nominal, found["series"], found["origins"], found["skipped"])
