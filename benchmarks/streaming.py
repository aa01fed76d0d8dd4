"""Time of one step of live streams: ours bound to its buffers, against torch.nn.LSTM, LSTMCell and ONNX Runtime.

    python benchmarks/streaming.py [--rounds 60] [--out FILE]

One LSTM layer of 8 inputs, one stream and 1,000 at once, one thread, every step from the state that the last one left. All run the
same weights and must agree to 1e-5 (bfloat16 3e-3, int8 1e-2) over the first 20 frames. Interleaved in one process: some 100 us of
steps of each, in turns, with a new random x each time; medians over the rounds, by the clock and in processor time (the steady
number on a machine that has other work too), and the lower decile of the clock. "x and y copied" fills x from a numpy array
before each step and copies y after it; the others leave x in its buffer. ONNX Runtime writes into bound buffers too (io-binding,
two sets in turns, so that no copy of the state is needed). Needs onnx and onnxruntime for its rows, and leaves them out where they
are missing. Writes benchmarks/results/streaming.json.
"""
# ruff: noqa: E402 (threads are limited before numpy comes in)

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import datetime
import gc
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import recurra
from recurra.runtime import layers

RESULT = Path(__file__).parent / "results" / "streaming.json"
INPUTS, HIDDEN, ROWS = 8, (64, 128, 256), (1, 1000)
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
SAMPLE = 100e-6  # seconds of steps that are timed together: a clock's tick is no measure of one microsecond


@dataclass(frozen=True)
class Contest:
    """x: where it reads its frame [rows, I]; run(n): n steps; y: the last output [rows, H]."""

    x: np.ndarray
    run: Callable[[int], None]
    y: Callable[[], np.ndarray]
    tolerance: float = 1e-5


def ours(lstm: torch.nn.LSTM, rows: int, weights: str, copied: bool = False) -> Contest:
    """A bound step; `copied`: with x filled and y copied by numpy around it."""
    arrays = {name: value.detach().numpy() for name, value in lstm.state_dict().items()}
    bound = layers.Recurrent("lstm", arrays, layers=1).bind(rows, weights)
    step, x, y = bound.step, bound.x, bound.y
    frame = np.zeros_like(x) if copied else x
    out = np.empty_like(y)

    def run(n: int) -> None:
        if copied:
            for _ in range(n):
                x[:] = frame
                step()
                out[:] = y
        else:
            for _ in range(n):
                step()

    return Contest(frame, run, lambda: y, {"float32": 1e-5, "bfloat16": 3e-3, "int8": 1e-2}[weights])


def torch_layer(lstm: torch.nn.LSTM, rows: int) -> Contest:
    """torch.nn.LSTM, T = 1."""
    x = torch.zeros(rows, 1, INPUTS)
    zero = torch.zeros(1, rows, lstm.hidden_size)
    at: list[Any] = [None, (zero, zero)]

    def run(n: int) -> None:
        y, state = at
        with torch.no_grad():
            for _ in range(n):
                y, state = lstm(x, state)
        at[:] = y, state

    return Contest(x[:, 0].numpy(), run, lambda: at[0][:, 0].numpy())


def torch_cell(lstm: torch.nn.LSTM, rows: int) -> Contest:
    """torch.nn.LSTMCell."""
    cell = torch.nn.LSTMCell(INPUTS, lstm.hidden_size)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    x, zero = torch.zeros(rows, INPUTS), torch.zeros(rows, lstm.hidden_size)
    at: list[Any] = [(zero, zero)]

    def run(n: int) -> None:
        state = at[0]
        with torch.no_grad():
            for _ in range(n):
                state = cell(x, state)
        at[0] = state

    return Contest(x.numpy(), run, lambda: at[0][0].numpy())


def onnx_session(lstm: torch.nn.LSTM, rows: int) -> Any:
    """One LSTM node of these weights, on one thread."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    def iofc(value: torch.Tensor) -> np.ndarray:
        i, f, g, o = value.detach().chunk(4)
        return torch.cat([i, o, f, g]).numpy()

    H = lstm.hidden_size
    w = {
        "W": iofc(lstm.weight_ih_l0)[None],
        "R": iofc(lstm.weight_hh_l0)[None],
        "B": np.concatenate([iofc(lstm.bias_ih_l0), iofc(lstm.bias_hh_l0)])[None],
    }
    shapes = {"x": [1, rows, INPUTS], "h": [1, rows, H], "c": [1, rows, H]}
    out = {"y": [1, 1, rows, H], "hn": [1, rows, H], "cn": [1, rows, H]}
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "W", "R", "B", "", "h", "c"], list(out), hidden_size=H)],
        "step",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in out.items()],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in w.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def onnx_bound(lstm: torch.nn.LSTM, rows: int) -> Contest:
    """ONNX Runtime with io-binding: the state goes from one set of buffers to the other, and back in the next step."""
    from onnxruntime import OrtValue

    session, H = onnx_session(lstm, rows), lstm.hidden_size
    x = np.zeros((1, rows, INPUTS), np.float32)
    y = np.zeros((1, 1, rows, H), np.float32)
    states = [[np.zeros((1, rows, H), np.float32) for _ in range(2)] for _ in range(2)]
    bindings = []
    for old, new in (states, states[::-1]):
        binding = session.io_binding()
        for name, array in zip(("x", "h", "c"), (x, *old), strict=True):
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
        for name, array in zip(("y", "hn", "cn"), (y, *new), strict=True):
            binding.bind_ortvalue_output(name, OrtValue.ortvalue_from_numpy(array))
        bindings.append(binding)
    at = [0]

    def run(n: int) -> None:
        go, turn = session.run_with_iobinding, at[0]
        for _ in range(n):
            go(bindings[turn])
            turn = 1 - turn
        at[0] = turn

    return Contest(x[0], run, lambda: y[0, 0])


def onnx_run(lstm: torch.nn.LSTM, rows: int) -> Contest:
    """ONNX Runtime's ordinary call, numpy in and out."""
    session, H = onnx_session(lstm, rows), lstm.hidden_size
    feed = {"x": np.zeros((1, rows, INPUTS), np.float32)}
    at: list[Any] = [None, *(np.zeros((1, rows, H), np.float32) for _ in range(2))]

    def run(n: int) -> None:
        for _ in range(n):
            at[:] = session.run(None, feed | {"h": at[1], "c": at[2]})

    return Contest(feed["x"][0], run, lambda: at[0][0, 0])


def contests(hidden: int, rows: int) -> dict[str, Contest]:
    torch.manual_seed(hidden)
    lstm = torch.nn.LSTM(INPUTS, hidden, batch_first=True).eval()
    made = {f"recurra {weights}": ours(lstm, rows, weights) for weights in ("float32", "bfloat16", "int8")}
    if rows == 1:
        made["recurra float32, x and y copied"] = ours(lstm, rows, "float32", copied=True)
    made |= {"torch.nn.LSTM": torch_layer(lstm, rows), "torch.nn.LSTMCell": torch_cell(lstm, rows)}
    if ONNX:
        made |= {"ONNX Runtime, io-binding": onnx_bound(lstm, rows), "ONNX Runtime": onnx_run(lstm, rows)}
    return made


def agree(made: dict[str, Contest], rows: int) -> None:
    """All answer alike over the first 20 frames."""
    rng = np.random.default_rng(0)
    first = next(iter(made.values()))
    for _ in range(20):
        frame = rng.standard_normal((rows, INPUTS)).astype(np.float32)
        for name, contest in made.items():
            contest.x[:] = frame
            contest.run(1)
            worst = np.abs(contest.y() - first.y()).max()
            if not worst <= contest.tolerance:
                raise SystemExit(f"{name} is off by {worst:.1e}")


def measure(made: dict[str, Contest], rows: int, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds of a step, in turns."""
    rng = np.random.default_rng(1)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    steps = {}
    for name, contest in made.items():
        contest.run(5)
        started = time.perf_counter()
        contest.run(5)
        steps[name] = max(1, round(SAMPLE / ((time.perf_counter() - started) / 5)))
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, contest in made.items():
            n = steps[name]
            contest.x[:] = rng.standard_normal((rows, INPUTS))
            contest.run(max(1, n // 4))  # what the one before left in the caches is not its burden
            started, worked = time.perf_counter(), time.process_time()
            contest.run(n)
            wall, cpu = time.perf_counter() - started, time.process_time() - worked
            times[name].append((wall / n * 1e6, cpu / n * 1e6))
    gc.enable()
    summary = {}
    for name, all_times in times.items():
        wall, cpu = (float(v) for v in np.median(np.array(all_times), axis=0))
        low = float(np.quantile([w for w, _ in all_times], 0.1))
        summary[name] = {"us_step": round(wall, 3), "us_step_cpu": round(cpu, 3), "us_step_low": round(low, 3)}
        summary[name]["streams_a_second_cpu"] = round(rows / cpu * 1e6)
    return summary


def machine() -> dict[str, Any]:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    isa = "numpy"
    if layers.COMPILED:
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
        "onnxruntime": version("onnxruntime") if ONNX else None,
        "numpy": np.__version__,
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
    }


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"results": {}, **machine()}
    print(
        f"{report['cpu']}, {report['kernel']}, one thread, load {report['load']}, torch {report['torch']}, {report['date']}"
    )
    for rows in ROWS:
        for hidden in HIDDEN:
            made = contests(hidden, rows)
            agree(made, rows)
            results = measure(made, rows, options.rounds if rows == 1 else max(5, options.rounds // 3))
            report["results"][f"{rows} x {INPUTS}, {hidden}"] = results
            print(f"\n{rows} stream{'s' * (rows > 1)}, I = {INPUTS}, H = {hidden}: us a step")
            print(f"  {'':34} {'median':>10} {'cpu':>10} {'low':>10} {'streams/s cpu':>14} {'cpu/ours':>9}")
            base = results["recurra float32"]["us_step_cpu"]
            for name, row in results.items():
                times = " ".join(f"{row[key]:10.2f}" for key in ("us_step", "us_step_cpu", "us_step_low"))
                print(f"  {name:34} {times} {row['streams_a_second_cpu']:14,} {row['us_step_cpu'] / base:8.1f}x")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
