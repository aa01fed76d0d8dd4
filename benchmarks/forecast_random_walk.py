"""Does step 1 of the forecast see the newest observation? Gaussian random walks, where the truth is known.

    python benchmarks/forecast_random_walk.py [--seeds 0 1 2] [--rivals benchmarks/rivals/.venv/bin/python] [--epochs N]

The best forecast of a walk is its last value, and its error k steps on is exactly sqrt(k). A network that makes step k from
a state that has not seen the newest observations pays the whole horizon's error from step 1 on; one that has learnt nothing
false comes near the naive forecast. Trained on 200 walks of 300 steps with horizon 12 and no seasons; scored on 2,000 fresh
ones, the same for all. Writes benchmarks/results/forecast_random_walk.json.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

HORIZON, SERIES, LENGTH, FRESH = 12, 200, 300, 2000
SHOWN = (1, 3, 6, 12)
RESULT = Path(__file__).parent / "results" / "forecast_random_walk.json"
RIVALS = ("neuralforecast_lstm", "neuralforecast_lstm_recurrent")


def walks(count: int, length: int, seed: int) -> np.ndarray:
    """`count` walks of standard normal steps, [count, length]."""
    return np.random.default_rng(seed).standard_normal((count, length)).cumsum(axis=1)


def long(values: np.ndarray, name: str) -> pl.DataFrame:
    count, length = values.shape
    ids = np.repeat([f"{name}{i}" for i in range(count)], length)
    return pl.DataFrame({"unique_id": ids, "ds": np.tile(np.arange(length), count), "y": values.ravel()})


def rmse(forecast: np.ndarray, actual: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in np.sqrt(((forecast - actual) ** 2).mean(axis=0))]


def ours(
    train: np.ndarray, history: np.ndarray, seed: int, epochs: int | None, out: Path
) -> tuple[np.ndarray, np.ndarray, float]:
    """Point forecasts [M, h], the 10 % and 90 % quantiles [M, h, 2], and the seconds of training."""
    import recurra

    fit = recurra.Fit(seed=seed) if epochs is None else recurra.Fit(seed=seed, epochs=epochs)
    started = time.monotonic()
    model = recurra.train(
        recurra.Forecast(horizon=HORIZON, seasons=()),
        recurra.Series(long(train, "t")),
        fit=fit,
        out=out,
        overwrite=True,
        progress=False,
    )
    seconds = time.monotonic() - started
    frame = model.predict(long(history, "w"))
    order = frame["unique_id"].unique(maintain_order=True).to_list()
    place = np.array([int(name[1:]) for name in order])
    forecast, band = np.zeros((len(history), HORIZON)), np.zeros((len(history), HORIZON, 2))
    forecast[place] = frame["y_hat"].to_numpy().reshape(-1, HORIZON)
    band[place] = np.stack([frame[q].to_numpy().reshape(-1, HORIZON) for q in ("q0.1", "q0.9")], axis=-1)
    return forecast, band, seconds


def rival(
    python: str, model: str, train: np.ndarray, history: np.ndarray, seed: int, seconds: float, work: Path
) -> dict[str, Any]:
    """What rivals.py gives, its forecasts as [M, h]."""
    table, out = work / "walks.npz", work / f"{model}.json"
    np.savez(table, train=train, history=history, horizon=HORIZON)
    script = Path(__file__).parent / "rivals" / "rivals.py"
    command = [python, str(script), "--walks", str(table), "--model", model, "--seed", str(seed), "--out", str(out)]
    done = subprocess.run([*command, "--max-seconds", str(seconds)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{model} failed:\n{done.stderr[-2000:]}")
    result = json.loads(out.read_text())
    result["forecasts"] = np.array([result["forecasts"][f"w{i}"] for i in range(len(history))])
    return result


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="default: that of recurra.Fit")
    parser.add_argument("--rivals", help="python of benchmarks/rivals/.venv: also neuralforecast's LSTM")
    parser.add_argument("--rival-models", nargs="+", default=list(RIVALS))
    parser.add_argument(
        "--max-seconds", type=float, default=300, help="cap on a rival's training, seconds of processor time"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    import torch

    import recurra

    torch.set_num_threads(1)
    fresh = walks(FRESH, LENGTH, 10_000)
    history, actual = fresh[:, :-HORIZON], fresh[:, -HORIZON:]
    rows: dict[str, dict[str, Any]] = {
        "truth, sqrt(k)": {"rmse": [round(float(np.sqrt(k)), 4) for k in range(1, HORIZON + 1)]},
        "naive": {"rmse": rmse(np.repeat(history[:, -1:], HORIZON, axis=1), actual)},
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for seed in options.seeds:
            train = walks(SERIES, LENGTH, seed)
            forecast, band, seconds = ours(train, history, seed, options.epochs, work / "model")
            inside = ((actual >= band[..., 0]) & (actual <= band[..., 1])).mean(axis=0)
            rows[f"recurra, seed {seed}"] = {
                "rmse": rmse(forecast, actual),
                "coverage_80": [round(float(v), 3) for v in inside],
                "seconds": round(seconds, 1),
            }
        for model in options.rival_models if options.rivals else ():
            train = walks(SERIES, LENGTH, options.seeds[0])
            result = rival(options.rivals, model, train, history, options.seeds[0], options.max_seconds, work)
            kept = ("train_seconds", "max_seconds", "capped", "steps", "settings", "versions")
            rows[model] = {"rmse": rmse(result["forecasts"], actual), **{k: result[k] for k in kept}}
    print(f"RMSE on {FRESH} fresh random walks, by step; {SERIES} walks of {LENGTH} to learn from")
    print(f"{'step':34}" + "".join(f"{k:>8}" for k in SHOWN) + f"{'train s':>9}")
    for name, row in rows.items():
        seconds = row.get("seconds", row.get("train_seconds", ""))
        capped = f" (capped: {row['steps']} steps)" if row.get("capped") else ""
        print(f"{name:34}" + "".join(f"{row['rmse'][k - 1]:8.3f}" for k in SHOWN) + f"{seconds:>9}{capped}")
        if "coverage_80" in row:
            print(f"{'  its 80 % interval covers':34}" + "".join(f"{row['coverage_80'][k - 1]:8.3f}" for k in SHOWN))
    report = {
        "rows": rows,
        "walks": {"train": SERIES, "length": LENGTH, "fresh": FRESH, "horizon": HORIZON},
        "versions": {"recurra": recurra.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "cores": os.cpu_count(),
        "threads": 1,
        "date": datetime.date.today().isoformat(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
