"""The demo, `python -m recurra.demo`: train a forecaster on the bundled monthly series, score it on the years that it
has not seen, write model and report, and stream those years through the saved model, bit for bit what the batch says.
"""

import argparse
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from recurra.panel import Panel
    from recurra.runtime.forecast import ForecastModel
    from recurra.runtime.scores import Scores

HORIZON = 12  # months ahead
HELD_BACK = 36  # last months of each series that training never sees


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 where every streamed forecast equals the batch forecast, bit for bit, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m recurra.demo", description="Train, score, report and stream, in a minute or two."
    )
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder to write (default: demo-out)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the data (default: 10)")
    parser.add_argument("--hidden", type=int, default=64, help="units a layer (default: 64)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the training run (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    with resources.as_file(resources.files("recurra") / "series" / "demo.csv") as source:
        return _run(source, options)


def _run(source: Path, options: argparse.Namespace) -> int:
    import torch
    from rich.console import Console

    import recurra
    from recurra.report import score_table, write_report

    console = Console(highlight=False, soft_wrap=True)
    folder = options.out / "model"
    table, history = _split(source)
    console.print(
        f"[bold]1. Train[/] an LSTM on {history['unique_id'].n_unique()} monthly series ({len(history)} rows, "
        f"the last {HELD_BACK // 12} years of each held back), {HORIZON} months ahead"
    )
    torch.set_num_threads(1)  # the batches are small: on a busy machine more threads spend their time waiting
    started = time.perf_counter()
    recurra.train(
        recurra.Forecast(horizon=HORIZON, head=64),
        recurra.Series(history),
        core=recurra.Core(hidden=options.hidden),
        fit=recurra.Fit(epochs=options.epochs, window=120, seed=options.seed),
        out=folder,
        overwrite=True,
        progress=not options.quiet,
    )
    console.print(f"   {time.perf_counter() - started:.0f} s\n")

    model = recurra.load(folder)
    panel = model.read(table)
    console.print("[bold]2. Score[/] it on the years held back: every origin in them, beside the naive floors")
    scores = _scores(model, panel)
    console.print(score_table(scores))
    mase = {name: row["mase"] for name, row in scores.rows.items()}
    less = 100.0 * (1.0 - mase["model"] / mase["seasonal naive"])
    console.print(
        f"   The model's error (MASE) is {abs(less):.0f} % {'below' if less >= 0 else 'ABOVE'} the seasonal naive's.\n"
    )

    report = options.out / "report.html"
    write_report(report, model, panel, last=HELD_BACK)
    console.print(
        f"[bold]3. Files[/]\n   {folder}: the model, {_size(folder)}; no pickle in it"
        f"\n   {report}: {_size(report)}; opens offline\n"
    )

    console.print("[bold]4. Stream[/] the years held back through the saved model, one observation at a time")
    steps, different, seconds = _stream(model, panel, history)
    verdict = (
        "every forecast equals the batch forecast, bit for bit"
        if not different
        else f"{different} forecasts DIFFER from the batch forecasts"
    )
    console.print(f"   streamed {steps} observations of {len(panel)} series: {verdict}")
    console.print(f"   {1e6 * seconds / steps:.0f} microseconds an observation\n")
    console.print("[bold]Next[/]")
    for command in (
        f"recurra info {folder}",
        f"recurra predict {folder} {source} --out {options.out / 'forecasts.csv'}   # the commands lie in .venv/bin",
        "recurra recipe forecast > mine.toml   # edit it, then: recurra train mine.toml --out mine",
    ):
        console.print(f"   {command}", soft_wrap=True)
    return 1 if different else 0


def _split(source: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The table, and its rows before the last HELD_BACK of each series."""
    table = pl.read_csv(source, try_parse_dates=True, infer_schema_length=None)
    left = pl.len().over("unique_id") - pl.int_range(pl.len()).over("unique_id")
    return table, table.filter(left > HELD_BACK)


def _scores(model: "ForecastModel", panel: "Panel") -> "Scores":
    """The scores of all origins in the last HELD_BACK rows, i.e. of values that training has not seen."""
    from recurra.runtime.forecast import m4_season
    from recurra.runtime.scores import score

    unseen = (found.last(HELD_BACK) for found in model.backtest(panel))
    return score(unseen, model.levels, m4_season(model.codec), skipped=0, naive2=True)


def _stream(model: "ForecastModel", panel: "Panel", history: pl.DataFrame) -> tuple[int, int, float]:
    """Feed the last HELD_BACK rows to the state after `history`: (observations, forecasts that differ, seconds)."""
    first = panel.lengths - HELD_BACK
    _, whole = model.observe(history)
    answers, seconds = [], 0.0
    for i in range(len(panel)):
        state, values = whole.take([i]), panel.target[panel.series(i)][int(first[i]) :]
        started = time.perf_counter()
        for y in values:
            prediction, state = model.step(state, float(y))
            answers.append((i, prediction))
        seconds += time.perf_counter() - started
    names = [f"q{level:g}" for level in model.levels]
    batch = [model.predict(panel.cut(first + step + 1)) for step in range(HELD_BACK)]
    different = 0
    for n, (i, prediction) in enumerate(answers):
        rows = batch[n % HELD_BACK][i * model.horizon : (i + 1) * model.horizon]
        same = prediction.y_hat[0].tobytes() == rows["y_hat"].to_numpy().tobytes()
        same &= prediction.quantiles[0].tobytes() == np.ascontiguousarray(rows.select(names).to_numpy()).tobytes()
        different += not same
    return len(answers), different, seconds


def _size(path: Path) -> str:
    size = sum(p.stat().st_size for p in path.rglob("*")) if path.is_dir() else path.stat().st_size
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    raise SystemExit(main())
