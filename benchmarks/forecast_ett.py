"""ETTh1, lookback 96: mean squared error over every test window, horizon and channel, in standardised units.

    RECURRA_DATA=... python benchmarks/forecast_ett.py --horizons 96 192 --seeds 0 1 2

Informer's protocol: rows in time order, 8640 to train, 2880 to validate, 2880 to test; each channel standardised with the
mean and deviation of its training rows; windows at stride 1, whose 96 observed rows may reach into the part before. One
model for the seven channels, each a series; at every test window its state starts from nothing and sees the 96 rows alone.
No window is dropped (the drop_last trap). Floors: the last value, and the last day again.
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

LOOKBACK, TRAIN, HELD_OUT = 96, 8640, 2880


def channels() -> tuple[list[str], np.ndarray]:
    """Names and standardised values [7, 14400] of the first 20 months."""
    with gzip.open(Path(os.environ["RECURRA_DATA"]) / "ett" / "ETTh1.csv.gz", "rt") as file:
        rows = list(csv.reader(file))
    values = np.array([[float(v) for v in row[1:]] for row in rows[1 : 1 + TRAIN + 2 * HELD_OUT]]).T
    mean, deviation = values[:, :TRAIN].mean(1, keepdims=True), values[:, :TRAIN].std(1, keepdims=True)
    return rows[0][1:], (values - mean) / deviation


def long(ids: list[str], values: np.ndarray) -> pl.DataFrame:
    """[N, T] values as a long table with integer time."""
    n, t = values.shape
    return pl.DataFrame({"unique_id": np.repeat(ids, t), "ds": np.tile(np.arange(t), n), "y": values.ravel()})


def windows(values: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """What is observed [W, 7, 96] and what follows [W, 7, horizon] at every test window."""
    test = values[:, -HELD_OUT - LOOKBACK :]
    both = np.lib.stride_tricks.sliding_window_view(test, LOOKBACK + horizon, axis=1).transpose(1, 0, 2)
    return both[..., :LOOKBACK], both[..., LOOKBACK:]


def run(horizon: int, seed: int, out: Path, epochs: int) -> dict[str, float]:
    """Train one model and score it on every test window."""
    import recurra

    names, values = channels()
    started = time.monotonic()
    model = recurra.train(
        recurra.Forecast(horizon=horizon, output="mean", seasons=(24,), balance=1, skip=LOOKBACK - 24),
        recurra.Series(long(names, values[:, :-HELD_OUT]), validation=HELD_OUT),
        core=recurra.Core(hidden=64, layers=1, dropout=0.1),
        fit=recurra.Fit(seed=seed, epochs=epochs, window=LOOKBACK, batch_size=64, learning_rate=1e-3),
        out=out / f"ETTh1-{horizon}-{seed}",
        overwrite=True,
        progress=False,
    )
    seconds = time.monotonic() - started
    seen, actual = windows(values, horizon)
    n = len(seen)
    ids = [f"{i:05d}/{name}" for i in range(n) for name in names]
    frame = model.predict(long(ids, seen.reshape(-1, LOOKBACK)))
    forecast = frame["y_hat"].to_numpy().reshape(n, len(names), horizon)
    day = np.tile(seen[..., -24:], (1, 1, -(-horizon // 24)))[..., :horizon]
    floors = {"last value": np.broadcast_to(seen[..., -1:], actual.shape), "last day": day}
    row = {"horizon": horizon, "seed": seed, "seconds": round(seconds), "windows": n}
    for name, guess in {"model": forecast, **floors}.items():
        row |= {
            f"{name} mse": float(((guess - actual) ** 2).mean()),
            f"{name} mae": float(np.abs(guess - actual).mean()),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--horizons", nargs="+", type=int, default=[96, 192])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("/tmp/recurra-ett"))
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    for horizon in options.horizons:
        rows = []
        for seed in options.seeds:
            rows.append(run(horizon, seed, options.out, options.epochs))
            print(json.dumps(rows[-1]), flush=True)
        mse = [row["model mse"] for row in rows]
        print(f"ETTh1 {horizon}: MSE {np.mean(mse):.4f} +- {np.std(mse):.4f} over {len(mse)} seeds", flush=True)


if __name__ == "__main__":
    main()
