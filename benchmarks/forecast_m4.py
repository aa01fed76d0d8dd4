"""M4 Hourly and Weekly: one recipe, one single model a frequency, learnt from the training files alone.

    RECURRA_DATA=... python benchmarks/forecast_m4.py --frequency Hourly Weekly --seeds 0 1 2

The last `horizon` values of each training series are not learnt from and pick the best epoch; the test file is read
once, for the scores. Prints a row a seed, mean and spread, beside the floors; benchmarks/results/forecast_m4.json holds a run.
"""

import argparse
import csv
import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import polars as pl

SETS = {"Hourly": {"horizon": 48, "seasons": (24, 168), "m": 24}, "Weekly": {"horizon": 13, "seasons": (52,), "m": 1}}


def series(frequency: str, part: str) -> dict[str, np.ndarray]:
    """id -> values of M4's file of this part ("train" or "test")."""
    folder = Path(os.environ["RECURRA_DATA"]) / "m4_hourly_weekly"
    with gzip.open(folder / f"{frequency}-{part}.csv.gz", "rt") as file:
        rows = csv.reader(file)
        next(rows)
        return {row[0]: np.array([float(v) for v in row[1:] if v not in ("", "NA")]) for row in rows}


def long(parts: dict[str, np.ndarray]) -> pl.DataFrame:
    """The series as a long table with integer time."""
    ids = np.repeat(list(parts), [len(v) for v in parts.values()])
    time = np.concatenate([np.arange(len(v)) for v in parts.values()])
    return pl.DataFrame({"unique_id": ids, "ds": time, "y": np.concatenate(list(parts.values()))})


def run(frequency: str, seed: int, out: Path, epochs: int | None, attention: int) -> dict[str, float]:
    """Train one model and score it on the test file."""
    import recurra

    s = SETS[frequency]
    train, test = series(frequency, "train"), series(frequency, "test")
    fit = recurra.Fit(seed=seed) if epochs is None else recurra.Fit(seed=seed, epochs=epochs)
    started = time.monotonic()
    model = recurra.train(
        recurra.Forecast(horizon=s["horizon"], seasons=s["seasons"], attention=attention),
        recurra.Series(long(train)),
        fit=fit,
        out=out / f"{frequency}-{seed}",
        overwrite=True,
        progress=False,
    )
    seconds = time.monotonic() - started
    whole = {name: np.concatenate([values, test[name][: s["horizon"]]]) for name, values in train.items()}
    scores = model.evaluate(long(whole), season=s["m"])
    row = {
        "frequency": frequency,
        "seed": seed,
        "attention": attention,
        "seconds": round(seconds),
        **scores.rows["model"],
    }
    for floor in ("naive", "seasonal naive", "naive2"):
        row[f"{floor} owa"] = scores.rows[floor]["owa"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frequency", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--attention", type=int, default=0, help="newest states that the top looks back at")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("/tmp/recurra-m4"))
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    rows = []
    for frequency in options.frequency:
        for seed in options.seeds:
            rows.append(run(frequency, seed, options.out, options.epochs, options.attention))
            print(json.dumps(rows[-1]), flush=True)
        owa = [row["owa"] for row in rows if row["frequency"] == frequency]
        print(f"{frequency}: OWA {np.mean(owa):.4f} +- {np.std(owa):.4f} over {len(owa)} seeds", flush=True)


if __name__ == "__main__":
    main()
