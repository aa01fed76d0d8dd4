"""Ours and the rivals on M4, one after the other in the same run, scored alike: accuracy, time, start-up and size.

    RECURRA_DATA=... python benchmarks/forecast_rivals.py --frequency Weekly Hourly [--seed 0] [--max-seconds 300]
        [--models ours neuralforecast_lstm darts_rnn_lstm] [--ours Hourly=FOLDER] [--reuse FOLDER]

Needs benchmarks/rivals/.venv (rivals/make_env.sh). Each model runs in a process of its own on one thread; the rivals keep
their defaults (rivals/rivals.py) but for a cap on training (processor seconds), which the table marks. Scores are
recurra.metrics, by M4's definitions. --ours takes models trained before, --reuse the results of an earlier run that lie in
FOLDER. Prints one table, writes benchmarks/results/forecast_rivals.json.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import forecast_m4
import numpy as np

HERE = Path(__file__).parent
RESULT = HERE / "results" / "forecast_rivals.json"
RIVALS = ("neuralforecast_lstm", "neuralforecast_lstm_recurrent", "darts_rnn_lstm")
PACKAGES = {
    "neuralforecast_lstm": "neuralforecast",
    "neuralforecast_lstm_recurrent": "neuralforecast",
    "darts_rnn_lstm": "darts[torch]",
}
FLOORS = ("naive", "seasonal naive", "naive2")


def median_ms(call: Any, calls: int = 20) -> float:
    for _ in range(2):
        call()
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return round(float(np.median(times)) * 1e3, 3)


def ours(frequency: str, seed: int, epochs: int | None, folder: Path, trained: bool) -> dict[str, Any]:
    """What rivals.py gives, of our model: trained as in forecast_m4.py, or (`trained`) read from `folder`."""
    import torch

    import recurra

    torch.set_num_threads(1)
    load, worked = os.getloadavg()[0], None
    if not trained:
        began = time.process_time()
        forecast_m4.run(frequency, seed, folder, epochs)
        worked = round(time.process_time() - began, 1)  # with the scoring that forecast_m4 does
        folder = folder / f"{frequency}-{seed}"
    model = recurra.load(folder)
    train = forecast_m4.series(frequency, "train")
    frame = model.predict(forecast_m4.long(train))
    forecasts = {
        str(name): part["y_hat"].to_list() for (name,), part in frame.group_by("unique_id", maintain_order=True)
    }
    first = next(iter(train))
    one = forecast_m4.long({first: train[first]})
    _, state = model.observe(one)
    fit = model.manifest["config"]["fit"]
    imports = {}
    for what, code in {"import": "import recurra", "load": f"import recurra; recurra.load({str(folder)!r})"}.items():
        program = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-c", program]
        runs = [
            float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout) for _ in range(4)
        ]
        imports[what] = round(float(np.median(runs[1:])), 3)
    return {
        "model": "ours",
        "frequency": frequency,
        "seed": fit["seed"],
        "horizon": model.horizon,
        "settings": model.manifest["config"],
        "parameters": model.manifest["training"]["parameters"],
        "train_seconds": model.manifest["training"]["seconds"],
        "train_cpu_seconds": worked,
        "trained_before": trained,
        "capped": False,
        "epochs": model.manifest["training"]["epochs"],
        "predict_ms": median_ms(lambda: model.predict(one)),
        "step_ms": median_ms(lambda: model.step(state, 100.0), 200),
        "import_seconds": imports["import"],
        "import_and_load_seconds": imports["load"],
        "threads": 1,
        "load": round(load, 1),
        "versions": {"recurra": recurra.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "forecasts": forecasts,
    }


def score(frequency: str, forecasts: dict[str, Any]) -> dict[str, float]:
    """sMAPE, MASE and OWA over all series of M4's test file; a floor's name stands for its own forecasts."""
    from recurra import metrics

    s = forecast_m4.SETS[frequency]
    train, test = forecast_m4.series(frequency, "train"), forecast_m4.series(frequency, "test")
    h, m = s["horizon"], s["m"]
    smape, mase = [], []
    naive2 = {name: metrics.naive2(train[name], h, m) for name in train}
    missing = [name for name in train if name not in forecasts]
    if missing:
        raise SystemExit(f"{frequency}: no forecast of {len(missing)} series, e.g. {missing[0]}")
    rows = []
    for source in (forecasts, naive2):
        smape = metrics.average([metrics.smape(test[n][:h], np.asarray(source[n])) for n in train])
        mase = metrics.average([metrics.mase(test[n][:h], np.asarray(source[n]), train[n], m) for n in train])
        rows.append((smape, mase))
    (smape, mase), (floor_smape, floor_mase) = rows
    return {
        "smape": round(smape, 3),
        "mase": round(mase, 4),
        "owa": round(metrics.owa(smape, mase, floor_smape, floor_mase), 4),
    }


def floors(frequency: str) -> dict[str, dict[str, float]]:
    from recurra import metrics

    s = forecast_m4.SETS[frequency]
    h, m = s["horizon"], s["m"]
    make = {
        "naive": lambda x: metrics.naive(x, h),
        "seasonal naive": lambda x: metrics.seasonal_naive(x, h, m),
        "naive2": lambda x: metrics.naive2(x, h, m),
    }
    train = forecast_m4.series(frequency, "train")
    return {name: score(frequency, {k: make[name](v) for k, v in train.items()}) for name in FLOORS}


def installed(python: str, wanted: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [python, str(HERE / "rivals" / "installed.py"), *wanted], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frequency", nargs="+", default=["Weekly", "Hourly"], choices=list(forecast_m4.SETS))
    parser.add_argument(
        "--models", nargs="+", default=["ours", "neuralforecast_lstm", "darts_rnn_lstm"], choices=["ours", *RIVALS]
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="of ours; default: that of recurra.Fit")
    parser.add_argument("--ours", nargs="*", default=[], metavar="FREQUENCY=FOLDER", help="our models, trained before")
    parser.add_argument("--reuse", type=Path, help="folder of results: read where there, else made and written there")
    parser.add_argument(
        "--rivals", default=str(HERE / "rivals" / ".venv" / "bin" / "python"), help="the rivals' python"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=300, help="cap on a rival's training, seconds of processor time"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    before = dict(item.split("=", 1) for item in options.ours)
    if options.part:
        frequency = options.frequency[0]
        folder = Path(before.get(frequency, tempfile.mkdtemp()))
        Path(options.part).write_text(
            json.dumps(ours(frequency, options.seed, options.epochs, folder, frequency in before))
        )
        return
    work = options.reuse or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    env = {
        **os.environ,
        **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")},
        "POLARS_MAX_THREADS": "1",
    }
    table: list[dict[str, Any]] = []
    for frequency in options.frequency:
        for name in options.models:
            out = work / f"{frequency}-{name}-{options.seed}.json"
            if not out.exists():
                print(f"{frequency}: {name} ...", file=sys.stderr, flush=True)
                common = ["--frequency", frequency, "--seed", str(options.seed)]
                if name == "ours":
                    command = [sys.executable, __file__, *common, "--part", str(out)]
                    command += ["--epochs", str(options.epochs)] if options.epochs else []
                    command += ["--ours", f"{frequency}={before[frequency]}"] if frequency in before else []
                else:
                    command = [
                        options.rivals,
                        str(HERE / "rivals" / "rivals.py"),
                        *common,
                        "--model",
                        name,
                        "--out",
                        str(out),
                    ]
                    command += ["--max-seconds", str(options.max_seconds)]
                done = subprocess.run(command, env=env, capture_output=True, text=True)
                if done.returncode:
                    print(done.stderr[-2000:], file=sys.stderr)
                    raise SystemExit(f"{frequency}: {name} failed")
            row = json.loads(out.read_text())
            table.append({**score(frequency, row.pop("forecasts")), **row})
    sizes = installed(sys.executable, ["recurra", "recurra[train]"])
    if any(name in PACKAGES for name in options.models):
        sizes |= installed(options.rivals, sorted({PACKAGES[name] for name in options.models if name in PACKAGES}))
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    report = {
        "rows": table,
        "floors": {frequency: floors(frequency) for frequency in options.frequency},
        "installed_mb_beyond_torch": sizes,
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": 1,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "max_seconds": options.max_seconds,
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
    }
    columns = {
        "sMAPE": 8,
        "MASE": 8,
        "OWA": 8,
        "train s": 9,
        "cpu s": 8,
        "predict ms": 11,
        "step ms": 9,
        "import s": 9,
        "MB": 6,
    }
    print(f"{'':8}{'model':32}" + "".join(f"{name:>{width}}" for name, width in columns.items()))
    for frequency in options.frequency:
        for name, row in report["floors"][frequency].items():
            print(f"{frequency:8}{name:32}{row['smape']:8.2f}{row['mase']:8.3f}{row['owa']:8.3f}")
        for row in (r for r in table if r["frequency"] == frequency):
            size = sizes[PACKAGES.get(row["model"], "recurra")]["mb"]
            mark = f"  capped at {row['max_seconds']:g} s: {row['steps']} steps" if row["capped"] else ""
            cpu_seconds = "" if row["train_cpu_seconds"] is None else round(row["train_cpu_seconds"])
            print(
                f"{frequency:8}{row['model']:32}{row['smape']:8.2f}{row['mase']:8.3f}{row['owa']:8.3f}"
                f"{row['train_seconds']:9.0f}{cpu_seconds:>8}{row['predict_ms']:11.1f}{row.get('step_ms', ''):>9}"
                f"{row['import_seconds']:9.2f}{size:6}{mark}"
            )
    loads = [f"{r['frequency']} {r['import_and_load_seconds']:.2f} s" for r in table if r["model"] == "ours"]
    predicting, training = sizes["recurra"]["mb"], sizes["recurra[train]"]["mb"]
    print(
        f"import and load of ours: {', '.join(loads)}; MB: beyond torch; ours to predict {predicting}, to train {training}"
    )
    versions = {k: v for row in table for k, v in row["versions"].items()}
    print(
        f"{cpu}, {os.cpu_count()} cores, one thread each, load {report['load']}; {versions}; {report['date']}\n{report['command']}"
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
