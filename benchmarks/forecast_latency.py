"""Time of one new observation: our step from the kept state, against a window that is encoded again, library style.

    python benchmarks/forecast_latency.py [--model FOLDER] [--rounds 60] [--profile] [--no-alone]

All do what a service does when an observation comes in, on one thread: new forecasts of all horizons, for one series and
for 1,000 at once. Ours (`model.step`) is the whole of it: checks, scaling, network, head, quantiles in the unit of y. The
windows are torch's nn.LSTM of the same sizes and the same head on random features: scaling, checks and decoding are left out,
in their favour; "state kept by hand" is the best that plain torch can do, one frame and its own h and c. Interleaved: one call
of each after the other, in turns, in one process; alone: each in a process of its own. Medians of single calls, by the clock and
in processor time (the steady number on a machine that has other work too). Writes benchmarks/results/forecast_latency.json.
"""
# ruff: noqa: E402 (threads are limited before numpy comes in)

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[_name] = "1"

import argparse
import datetime
import gc
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "forecast_latency.json"
ROWS = (1, 1000)
WINDOWS = (168, 48)
HIDDEN, LAYERS, HORIZON, SEASONS, HEAD = 128, 2, 48, (24, 168), 256


def quick_model(folder: Path) -> None:
    """A model of the sizes above on synthetic seasonal series, one epoch: its weights do not matter for time."""
    import polars as pl

    import recurra

    rng = np.random.default_rng(0)
    t = np.arange(400)
    series = [
        50 + 10 * np.sin(2 * np.pi * (t + i) / 24) + 5 * np.sin(2 * np.pi * t / 168) + rng.normal(0, 1, 400)
        for i in range(16)
    ]
    table = pl.DataFrame(
        {"unique_id": np.repeat([f"s{i}" for i in range(16)], 400), "ds": np.tile(t, 16), "y": np.concatenate(series)}
    )
    recurra.train(
        recurra.Forecast(horizon=HORIZON, seasons=SEASONS, head=HEAD),
        recurra.Series(table),
        core=recurra.Core(cell="lstm", hidden=HIDDEN, layers=LAYERS),
        fit=recurra.Fit(epochs=1),
        out=folder,
        overwrite=True,
        progress=False,
    )


def ours(model: Any, rows: int) -> Callable[[], object]:
    """One observation of each of `rows` streams that have run for 200 steps (longer than their longest season)."""
    rng = np.random.default_rng(1)
    y = np.exp(rng.normal(3, 0.5, (500, rows)))
    state = model.start(rows)
    for t in range(200):
        _, state = model.step(state, y[t])
    at = [state, 0]

    def call() -> object:
        answer, at[0] = model.step(at[0], y[at[1] % 500])
        at[1] += 1
        return answer

    return call


def torch_parts(model: Any) -> tuple[Any, Any]:
    """nn.LSTM of the model's sizes, and its head as tasks/forecast.py has it, in plain torch."""
    import torch
    from torch import nn

    codec = model.codec
    hidden, features, context = model._core.hidden, codec.features, codec.context
    choices, h = codec.scaling.choices, codec.horizon

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(hidden + context, model._read.outputs)
            self.correct = nn.Linear(model._read.outputs, h * codec.parameters)
            self.gate = nn.Linear(model._read.outputs, h * choices)

        def forward(self, memory: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            r = torch.relu(self.read(torch.cat([memory, context], -1)))
            weights = self.gate(r).unflatten(-1, (h, choices)).softmax(-1)
            base = (weights * 4.0 * context.unflatten(-1, (h, choices))).sum(-1, keepdim=True)
            return self.correct(r).unflatten(-1, (h, codec.parameters)) + base

    torch.manual_seed(0)
    return nn.LSTM(features, hidden, model._core.layers, batch_first=True).eval(), Head().eval()


def window(model: Any, rows: int, length: int) -> Callable[[], object]:
    """Encode the last `length` observations from a zero state, then the head once."""
    import torch

    lstm, head = torch_parts(model)
    x, context = torch.randn(rows, length, model.codec.features), torch.randn(rows, model.codec.context)

    def call() -> object:
        with torch.inference_mode():
            return head(lstm(x)[0][:, -1], context)

    return call


def by_hand(model: Any, rows: int) -> Callable[[], object]:
    """One frame through nn.LSTM from its own h and c, then the head."""
    import torch

    lstm, head = torch_parts(model)
    x, context = torch.randn(rows, 1, model.codec.features), torch.randn(rows, model.codec.context)
    at = [tuple(torch.zeros(lstm.num_layers, rows, lstm.hidden_size) for _ in range(2))]

    def call() -> object:
        with torch.inference_mode():
            out, at[0] = lstm(x, at[0])
            return head(out[:, -1], context)

    return call


def contests(model: Any) -> dict[str, tuple[int, Callable[[], Callable[[], object]]]]:
    """name -> (rows, how to make its call)."""
    made: dict[str, tuple[int, Callable[[], Callable[[], object]]]] = {}
    for rows in ROWS:
        made[f"recurra step, {rows}"] = (rows, lambda rows=rows: ours(model, rows))
        for length in WINDOWS:
            made[f"torch window of {length}, {rows}"] = (rows, lambda rows=rows, n=length: window(model, rows, n))
        made[f"torch, state kept by hand, {rows}"] = (rows, lambda rows=rows: by_hand(model, rows))
    return made


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each call, by the clock and of processor time, in turns; the slow ones fewer times."""
    cost: dict[str, float] = {}
    for name, call in calls.items():
        for _ in range(3):
            started = time.perf_counter()
            call()
            cost[name] = time.perf_counter() - started
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    for i in range(rounds):
        for name, call in calls.items():
            if cost[name] > 0.2 and i % 5:
                continue
            call()  # what the call before left in the caches is not its burden
            repeats = 1 if cost[name] > 0.02 else 5
            for _ in range(repeats):
                started, worked = time.perf_counter(), time.process_time()
                call()
                times[name].append((time.perf_counter() - started, time.process_time() - worked))
    gc.enable()
    return times


def summary(times: list[tuple[float, float]], rows: int) -> dict[str, float]:
    wall, cpu = (float(v) * 1e6 for v in np.median(np.array(times), axis=0))
    return {
        "us_call": round(wall, 1),
        "us_call_cpu": round(cpu, 1),
        "us_series": round(wall / rows, 3),
        "us_series_cpu": round(cpu / rows, 3),
        "calls": len(times),
    }


def machine() -> dict[str, Any]:
    import torch

    import recurra
    from recurra.runtime.layers import COMPILED

    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    isa = "numpy"
    if COMPILED:
        from recurra import _core

        isa = _core.isa()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "kernel": isa,
        "python": platform.python_version(),
        "recurra": recurra.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
    }


def profile(model: Any, rows: int, calls: int) -> list[tuple[str, float]]:
    """Microseconds of each part of a step, the parts called by themselves on a copy of the state (median processor time)."""
    from recurra.runtime.observation import known_ahead, next_stamps

    rng = np.random.default_rng(2)
    call = ours(model, rows)
    state = call.__closure__[0].cell_contents[0]  # type: ignore[index]
    codec, scaling, core = model.codec, model.codec.scaling, model._core
    y = np.exp(rng.normal(3, 0.5, rows))
    empty, ones = np.zeros((rows, 1, 0), np.float32), np.ones(rows, np.int64)
    names = [f"core.{name}" for name in core.state_names]
    work = state.copy()
    memory, anchors = model._advance(work, y[:, None], empty, ones)
    memory = memory[:, -1]
    known = np.zeros((rows, codec.horizon, 0), np.float32)
    raw = model._head(memory, anchors, known)
    features = np.zeros((rows, 1, codec.features), np.float32)
    before = tuple(np.ascontiguousarray(np.moveaxis(work.arrays[name], 1, 0)) for name in names)
    inside = np.concatenate([memory, codec.head_context(anchors, known)], axis=-1)
    hidden = model._read(inside)
    level, scale = work.arrays["codec.level"], work.arrays["codec.scale"]
    part = work.part("codec")
    levels = np.asarray(model.levels)
    x = scaling.forward(y)
    parts: dict[str, Callable[[], object]] = {
        "whole step": lambda: model.step(state, y),
        "time stamps (next_stamps)": lambda: next_stamps(model.codec.step, state.arrays["time"], None),
        "covariates (known_ahead)": lambda: known_ahead(model.codec, rows, state.arrays["time"], {}, {}),
        "state.copy": state.copy,
        "codec: encode, all": lambda: codec.encode(work.part("codec"), y[:, None], ones, anchors=False),
        "codec:   of it scaling.observe": lambda: scaling.observe(part, x),
        "codec:   of it scaling.forward (log)": lambda: scaling.forward(y),
        "state layout in and out of the core": lambda: [
            work.arrays[name].__setitem__(
                ..., np.moveaxis(np.ascontiguousarray(np.moveaxis(work.arrays[name], 1, 0)), 0, 1)
            )
            for name in names
        ],
        "core": lambda: core(features, before, ones),
        "codec: anchors": lambda: scaling.anchors(work.part("codec"), codec.horizon),
        "head, all": lambda: model._head(memory, anchors, known),
        "head:   of it read": lambda: model._read(inside),
        "head:   of it correct": lambda: model._correct(hidden),
        "head:   of it gate": lambda: model._gate(hidden),
        "decode: quantiles": lambda: codec.decode(raw, level, scale, levels, model._df),
        "decode: point": lambda: codec.point(raw, level, scale, model._df),
    }
    table = []
    for name, run in parts.items():
        times = []
        for _ in range(calls):
            started = time.process_time()
            run()
            times.append(time.process_time() - started)
        table.append((name, round(float(np.median(times)) * 1e6, 1)))
    return table


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, help="a trained forecaster without covariates (default: train one in seconds)"
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--profile", action="store_true", help="also: where the microseconds of a step go")
    parser.add_argument("--no-alone", action="store_true", help="leave out the runs in processes of their own")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    import torch

    import recurra

    torch.set_num_threads(1)
    folder = options.model or Path(tempfile.mkdtemp()) / "model"
    if options.model is None:
        quick_model(folder)
    model = recurra.load(folder)
    made = contests(model)
    if options.only:
        rows, make = made[options.only]
        print(json.dumps(summary(measure({options.only: make()}, options.rounds)[options.only], rows)))
        return
    times = measure({name: make() for name, (_, make) in made.items()}, options.rounds)
    results: dict[str, dict[str, Any]] = {}
    for name, (rows, _) in made.items():
        results[name] = {"series": rows, "interleaved": summary(times[name], rows)}
        if not options.no_alone:
            command = [
                sys.executable,
                __file__,
                "--model",
                str(folder),
                "--rounds",
                str(options.rounds),
                "--only",
                name,
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[name]["alone"] = json.loads(done.stdout.splitlines()[-1])
    report: dict[str, Any] = {"results": results, **machine()}
    report["model"] = f"{model._core.cell} {model._core.layers} x {model._core.hidden}, horizon {model.horizon}"
    report["state_bytes_a_series"] = model.start(1).nbytes
    print(
        f"{report['model']}; {report['cpu']}, one thread, load {report['load']}, torch {report['torch']}, {report['date']}\n"
    )
    print(f"{'us a series':36} {'interleaved':>12} {'cpu':>10} {'alone':>12} {'cpu':>10} {'cpu/ours':>9}")
    for rows in ROWS:
        base = results[f"recurra step, {rows}"]["interleaved"]["us_series_cpu"]
        for name, row in results.items():
            if row["series"] == rows:
                shown = [
                    row[how][key]
                    for how in ("interleaved", "alone")
                    if how in row
                    for key in ("us_series", "us_series_cpu")
                ]
                ratio = row["interleaved"]["us_series_cpu"] / base
                print(
                    f"{name + ' series':36} "
                    + " ".join(f"{v:{w}.2f}" for v, w in zip(shown, (12, 10, 12, 10), strict=False))
                    + f" {ratio:8.1f}x"
                )
    if options.profile:
        report["profile_us"] = {}
        for rows in ROWS:
            table = profile(model, rows, 300 if rows == 1 else 40)
            report["profile_us"][str(rows)] = dict(table)
            print(f"\none step of {rows} series, us of processor time, median, each part called by itself:")
            for name, value in table:
                print(f"  {name:40} {value:10.1f}  {value / table[0][1]:5.0%}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
