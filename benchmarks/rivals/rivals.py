"""The rivals on M4 Hourly or Weekly, or on random walks: train, forecast, and take the time. Run with rivals/.venv's python.

    RECURRA_DATA=... .venv/bin/python rivals.py --frequency Hourly --model neuralforecast_lstm --seed 0 --out result.json
    .venv/bin/python rivals.py --walks walks.npz --model neuralforecast_lstm --out result.json

Writes each series' forecast, so that recurra's own metrics score all alike. Defaults of the libraries, except: progress bar,
logger and checkpoints off (in their favour), darts' series scaled to 0..1 as its guide says, its window that of neuralforecast
(3 horizons), and a cap on training time, `--max-seconds`, in seconds of processor time, so that other work on the machine
takes nothing from a rival; what was reached by then is in the result ("capped", "steps").
"""

import argparse
import csv
import gzip
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

HORIZON = {"Hourly": 48, "Weekly": 13}
IMPORTS = {
    "neuralforecast": "from neuralforecast import NeuralForecast; from neuralforecast.models import LSTM",
    "darts": "from darts.models import RNNModel; from darts import TimeSeries",
}
MODELS = ("neuralforecast_lstm", "neuralforecast_lstm_recurrent", "darts_rnn_lstm")
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}

Data = dict[str, np.ndarray]


def cap(seconds: float) -> dict[str, object]:
    """Trainer options that stop the training after so much processor time of this process."""
    from pytorch_lightning.callbacks import Callback

    class Cap(Callback):
        def on_train_start(self, trainer: object, module: object) -> None:
            self.began = time.process_time()

        def on_train_batch_end(self, trainer: object, *_: object) -> None:
            if time.process_time() - self.began > seconds:
                trainer.should_stop = True  # type: ignore[attr-defined]

    return {"callbacks": [Cap()]}


def m4(frequency: str) -> Data:
    """id -> values of M4's training file."""
    folder = Path(os.environ["RECURRA_DATA"]) / "m4_hourly_weekly"
    with gzip.open(folder / f"{frequency}-train.csv.gz", "rt") as file:
        rows = csv.reader(file)
        next(rows)
        return {row[0]: np.array([float(v) for v in row[1:] if v not in ("", "NA")]) for row in rows}


class Neuralforecast:
    """neuralforecast's LSTM with its defaults, 1,000 steps."""

    package = "neuralforecast"

    def __init__(self, horizon: int, seed: int, recurrent: bool, max_seconds: float, steps: int) -> None:
        from neuralforecast import NeuralForecast
        from neuralforecast.models import LSTM

        self.steps_wanted = steps
        self.net = LSTM(
            h=horizon,
            max_steps=steps,
            recurrent=recurrent,
            random_seed=seed,
            accelerator="cpu",
            devices=1,
            **QUIET,
            **cap(max_seconds),
        )
        self.forecaster = NeuralForecast([self.net], freq=1)
        self.settings = {"max_steps": steps, "recurrent": recurrent, "input_size": self.net.input_size}

    @staticmethod
    def frame(data: Data) -> object:
        import pandas as pd

        return pd.DataFrame(
            {
                "unique_id": np.repeat(list(data), [len(v) for v in data.values()]),
                "ds": np.concatenate([np.arange(len(v)) for v in data.values()]),
                "y": np.concatenate(list(data.values())),
            }
        )

    def fit(self, data: Data) -> None:
        self.forecaster.fit(self.frame(data), val_size=0)

    @property
    def reached(self) -> dict[str, object]:
        net = self.forecaster.models[0]
        return {"steps": int(net.train_trajectories[-1][0]) + 1 if net.train_trajectories else None}

    @property
    def finished(self) -> bool:
        return (self.reached["steps"] or 0) >= self.steps_wanted  # type: ignore[operator]

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.forecaster.models[0].parameters())

    def predict(self, data: Data) -> Data:
        frame = self.forecaster.predict(df=self.frame(data))
        frame = frame.reset_index() if "unique_id" not in frame.columns else frame
        return {str(name): part.sort_values("ds")["LSTM"].to_numpy() for name, part in frame.groupby("unique_id")}


class Darts:
    """darts' RNNModel (LSTM): its defaults (hidden 25, batch 32), a window of 3 horizons, and epochs until the cap."""

    package = "darts"

    def __init__(self, horizon: int, seed: int, max_seconds: float, epochs: int) -> None:
        from darts.models import RNNModel

        self.horizon, self.epochs = horizon, epochs
        self.net = RNNModel(
            model="LSTM",
            input_chunk_length=3 * horizon,
            training_length=4 * horizon,
            n_epochs=epochs,
            random_state=seed,
            pl_trainer_kwargs={"accelerator": "cpu", **QUIET, **cap(max_seconds)},
        )
        self.settings = {
            "n_epochs": epochs,
            "input_chunk_length": 3 * horizon,
            "training_length": 4 * horizon,
            "hidden_dim": 25,
        }

    @staticmethod
    def scaled(data: Data) -> tuple[list[object], object]:
        from darts import TimeSeries
        from darts.dataprocessing.transformers import Scaler

        scaler = Scaler()
        series = [TimeSeries.from_values(v.astype(np.float32)) for v in data.values()]
        return scaler.fit_transform(series), scaler

    def fit(self, data: Data) -> None:
        self.net.fit(self.scaled(data)[0], verbose=False)

    @property
    def reached(self) -> dict[str, object]:
        trainer = self.net.trainer
        return {
            "steps": int(trainer.global_step),
            "epochs_begun": int(trainer.current_epoch) + (0 if self.finished else 1),
        }

    @property
    def finished(self) -> bool:
        return int(self.net.trainer.current_epoch) >= self.epochs

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.net.model.parameters())

    def predict(self, data: Data) -> Data:
        series, scaler = self.scaled(data)
        forecasts = scaler.inverse_transform(self.net.predict(self.horizon, series=series, verbose=False))
        return {name: part.values()[:, 0] for name, part in zip(data, forecasts, strict=True)}


def import_seconds(package: str) -> float:
    """Median of three fresh processes, after one that fills the disk's cache."""
    code = f"import time; t = time.perf_counter(); {IMPORTS[package]}; print(time.perf_counter() - t)"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    runs = [
        float(
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, check=True
            ).stdout.split()[-1]
        )
        for _ in range(4)
    ]
    return round(float(np.median(runs[1:])), 2)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frequency", choices=list(HORIZON))
    parser.add_argument("--walks", type=Path, help="npz with train [N, T], history [M, T] and horizon, instead of M4")
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000, help="neuralforecast's max_steps (its default: 1,000)")
    parser.add_argument("--epochs", type=int, default=3, help="darts' n_epochs (its default of 100 takes hours)")
    parser.add_argument("--max-seconds", type=float, default=300, help="cap on the training, seconds of processor time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch", "lightning_fabric", "darts"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import torch

    torch.set_num_threads(options.threads)
    if options.walks:
        walks = np.load(options.walks)
        train: Data = {f"t{i}": v for i, v in enumerate(walks["train"])}
        history: Data = {f"w{i}": v for i, v in enumerate(walks["history"])}
        horizon = int(walks["horizon"])
    elif options.frequency:
        train = history = m4(options.frequency)
        horizon = HORIZON[options.frequency]
    else:
        parser.error("give --frequency or --walks")
    if options.model == "darts_rnn_lstm":
        rival: Darts | Neuralforecast = Darts(horizon, options.seed, options.max_seconds, options.epochs)
    else:
        recurrent = options.model.endswith("recurrent")
        rival = Neuralforecast(horizon, options.seed, recurrent, options.max_seconds, options.steps)
    load = os.getloadavg()[0]
    started, worked = time.monotonic(), time.process_time()
    rival.fit(train)
    seconds, processor = time.monotonic() - started, time.process_time() - worked
    reached, finished = rival.reached, rival.finished  # before predicting, which makes new trainers
    forecasts = rival.predict(history)
    first = next(iter(history))
    calls = []
    for _ in range(22):
        begun = time.perf_counter()
        rival.predict({first: history[first]})
        calls.append(time.perf_counter() - begun)
    result = {
        "model": options.model,
        "frequency": options.frequency,
        "seed": options.seed,
        "horizon": horizon,
        "settings": rival.settings,
        "parameters": rival.parameters,
        "train_seconds": round(seconds, 1),
        "train_cpu_seconds": round(processor, 1),
        "max_seconds": options.max_seconds,
        "capped": not finished,
        **reached,
        "predict_ms": round(float(np.median(calls[2:])) * 1e3, 2),
        "import_seconds": import_seconds(rival.package),
        "threads": options.threads,
        "load": round(load, 1),
        "versions": {name: version(name) for name in ("torch", "pytorch-lightning", "numpy", rival.package)},
        "forecasts": {name: [float(v) for v in values] for name, values in forecasts.items()},
    }
    options.out.write_text(json.dumps(result) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "forecasts"}))


if __name__ == "__main__":
    main()
