"""What this machine gives: its instruction set, the kernel that each cell and option takes and why, and the speed beside torch's.

Behind `recurra kernels`. benchmarks/kernels.py measures with the same `in_turns` and `against_torch`, longer and over more shapes.
"""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import recurra
from recurra import nn
from recurra.cells import CELLS
from recurra.kernels import Request, choose, cpu

Call = Callable[[], tuple[Tensor, ...]]
Shape = tuple[int, int, int, int, int]
"""T, B, I, H, layers"""
SHAPES: tuple[Shape, ...] = ((100, 32, 8, 64, 1), (35, 20, 200, 200, 2), (50, 64, 256, 512, 1))
SECONDS = 1.5  # of each of the six measurements of `survey`
PAUSE = 0.03  # torch's OpenMP workers spin for some milliseconds after their last product, on cores that the next call needs


def survey(*, measure: bool) -> dict[str, Any]:
    """The facts as JSON has them: cpu, isa, threads, versions, kernels and, where `measure` (about 10 s), speed."""
    return {
        **hardware(),
        "versions": versions(),
        "kernels": list(kernels()),
        "speed": [speed(shape, training) for shape in SHAPES for training in (False, True)] if measure else [],
    }


def hardware() -> dict[str, Any]:
    """Processor, the instruction set of recurra's kernels and of torch's, cores and threads, and GPUs."""
    # untyped: the compiled module may be absent
    core: Any = cpu._core
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in _lines(info) if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "isa": "none: recurra._core was not built, reinstall with a C++20 compiler" if core is None else core.isa(),
        "torch_isa": torch.backends.cpu.get_cpu_capability().lower(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    found = {
        "recurra": recurra.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    if torch.backends.cudnn.is_available():
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


# -- which kernel ---------------------------------------------------------------------------------------------------


STEPS, ROWS, INPUTS, HIDDEN = 3, 2, 3, 4
# What is asked -> fields of the request, weights of the cell. What is not here reaches a kernel as something that is: dropout
# between layers and weight drop as other inputs and weights, the coupled gate as four blocks of weights.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, int | tuple[int, int]]]] = {
    "plain": ({}, {}),
    "lengths": ({"lengths": torch.tensor([3, 1])}, {}),
    "resets": ({"reset": torch.zeros(ROWS, STEPS, dtype=torch.bool)}, {}),
    "packed": ({"batch_sizes": torch.tensor([2, 2, 1])}, {}),
    "the backward direction": ({"reverse": True}, {}),
    "every state": ({"states": True}, {}),
    "projection": ({}, {"weight_hr": (2, HIDDEN)}),
    "peepholes": ({}, {"peephole": 3 * HIDDEN}),
    "LayerNorm": ({}, {"gain_ih": -1, "gain_hh": -1, "gain_c": HIDDEN, "bias_c": HIDDEN}),
    "recurrent dropout": ({"recurrent_dropout": 0.1, "training": True, "seed": torch.tensor(1)}, {}),
    "zoneout": ({"zoneout_h": 0.1, "training": True, "seed": torch.tensor(1)}, {}),
    "checkpoint='gates'": ({"checkpoint": 0}, {}),
    "checkpoint='every 16'": ({"checkpoint": 16}, {}),
    "float64": ({}, {}),
    "bfloat16": ({}, {}),
    "bfloat16 with lengths": ({"lengths": torch.tensor([3, 1])}, {}),
    "bfloat16 with zoneout": ({"zoneout_h": 0.1, "training": True, "seed": torch.tensor(1)}, {}),
    "traced gates": ({"trace": True}, {}),
}


def kernels() -> Iterator[dict[str, str]]:
    """Device, cell, option, kernel and why, for each of OPTIONS that the cell has, on the CPU and on a GPU if there is one."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for name in CELLS:
            for option in OPTIONS:
                request = _request(name, option, device)
                if request is not None:
                    kernel, why = choose(request)
                    yield {"device": device, "cell": name, "option": option, "kernel": kernel, "why": why}


def _request(name: str, option: str, device: str) -> Request | None:
    """The smallest request that asks for it, or None where cell or request have no such thing."""
    asked, further = OPTIONS[option]
    cell: Any = CELLS[name]
    has = {field.name for field in fields(cell)}
    if option == "LayerNorm" and "gain_ih" in has:  # without an LSTM's c, two gains are all
        further = {key: size for key, size in further.items() if key in has}
    if not (further.keys() <= has and asked.keys() <= {field.name for field in fields(Request)}):
        return None
    dtype = {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(option.split()[0], torch.float32)
    of = {"device": device, "dtype": dtype}
    sums, output = len(cell.gates) * HIDDEN, 2 if "weight_hr" in further else HIDDEN
    weights = [torch.zeros(size, **of) for size in ((sums, INPUTS), (sums, output), (sums,), (sums,))]
    added = {key: torch.zeros(sums if size == -1 else size, **of) for key, size in further.items()}
    widths = (output, HIDDEN)[: len(cell.State._fields)]
    state = cell.State(*(torch.zeros(ROWS, width, **of) for width in widths))
    x = torch.zeros(5, INPUTS, **of) if option == "packed" else torch.zeros(STEPS, ROWS, INPUTS, **of)
    for key in {"lengths", "reset"} & asked.keys():
        asked = {**asked, key: asked[key].to(device)}
    return Request(cell(*weights, **added), x, state, **asked)


# -- how fast -------------------------------------------------------------------------------------------------------


def speed(shape: Shape, training: bool) -> dict[str, Any]:
    """An LSTM of ours and torch's in turns: median milliseconds of each and the median of the quotients, torch's over ours."""
    times = in_turns(against_torch("LSTM", shape, training), SECONDS)
    wall = {name: [wall for wall, _ in found] for name, found in times.items()}
    return {
        "shape": list(shape),
        "mode": "training" if training else "inference",
        "threads": torch.get_num_threads(),
        "torch_ms": round(statistics.median(wall["torch"]) * 1e3, 3),
        "recurra_ms": round(statistics.median(wall["recurra"]) * 1e3, 3),
        "ratio": round(statistics.median(a / b for a, b in zip(wall["torch"], wall["recurra"], strict=True)), 2),
    }


def against_torch(cell: str, shape: Shape, training: bool, *, x_grad: bool = False) -> dict[str, Call]:
    """ "torch" and "recurra" -> one call of that library's LSTM, GRU or RNN; the same weights and random input in both.

    Inference: forward in eval under no_grad. Training: forward, and backward of a random gradient of the output into fresh gradients
    of the weights; of x too where `x_grad` (a first layer needs none).
    """
    steps, rows, inputs, hidden, layers = shape
    torch.manual_seed(0)
    theirs = getattr(torch.nn, cell)(inputs, hidden, layers)
    ours = getattr(nn, cell)(inputs, hidden, layers)
    ours.load_state_dict(theirs.state_dict())
    x, dy = torch.randn(steps, rows, inputs), torch.randn(steps, rows, hidden)
    x.requires_grad_(training and x_grad)
    made = {"torch": theirs.train(training), "recurra": ours.train(training)}
    if not training:
        return {name: answer(lambda layer=layer: layer(x)[0]) for name, layer in made.items()}
    also = [x] if x_grad else []
    return {
        name: step(lambda layer=layer: layer(x)[0], [*layer.parameters(), *also], dy) for name, layer in made.items()
    }


def answer(forward: Callable[[], Tensor]) -> Call:
    """A call of `forward` without gradients."""

    def call() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (forward(),)

    return call


def step(forward: Callable[[], Tensor], leaves: list[Tensor], dy: Tensor) -> Call:
    """A call that gives what `forward` gives and the gradients of `leaves` for its gradient dy, each time new tensors."""

    def call() -> tuple[Tensor, ...]:
        for leaf in leaves:
            leaf.grad = None
        output = forward()
        output.backward(dy)
        return (output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None))

    return call


def in_turns(
    calls: dict[str, Call], seconds: float, *, least: int = 3, most: int = 200, warm: int = 2
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of a call, by the clock and of processor time, the i-th of each measured in round i, for about `seconds` in all.

    A measurement of a fast call is the mean of several. With more than one thread a pause and an unmeasured call go before each.
    """
    pause = PAUSE if len(calls) > 1 and torch.get_num_threads() > 1 else 0.0
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        cost = 0.0
        for _ in range(warm + 1):
            started = time.perf_counter()
            call()
            cost = time.perf_counter() - started
        repeats[name] = max(1, int(0.004 / max(cost, 1e-7)))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    try:
        ends = time.perf_counter() + seconds
        for done in range(most):
            if done >= least and time.perf_counter() > ends:
                break
            for name, call in calls.items():
                if pause:
                    time.sleep(pause)
                    call()
                n = repeats[name]
                started, worked = time.perf_counter(), time.process_time()
                for _ in range(n):
                    call()
                times[name].append(((time.perf_counter() - started) / n, (time.process_time() - worked) / n))
    finally:
        gc.enable()
    return times


# -- as text --------------------------------------------------------------------------------------------------------


def shown(facts: dict[str, Any]) -> str:
    """The facts of `survey` as a few lines: what takes the same kernel for the same reason stands together."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads; kernels {facts['isa']}, torch {facts['torch_isa']}",
        ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        *facts["gpus"],
    ]
    options: dict[tuple[str, str, str, str], list[str]] = {}
    for row in facts["kernels"]:
        options.setdefault((row["device"], row["kernel"], row["why"], row["cell"]), []).append(row["option"])
    cells: dict[tuple[str, str, str, str], list[str]] = {}
    for (device, kernel, why, cell), names in options.items():
        cells.setdefault((device, kernel, why, ", ".join(names)), []).append(cell)
    for (device, kernel, why, names), having in cells.items():
        lines += ["", f"{device}: {', '.join(having)} -> {kernel}", f"  {names}", f"  why: {why}"]
    if facts["speed"]:
        said = "(medians of the rounds; ratio: of each round's torch / recurra)"
        lines += ["", f"{'lstm: T,B,I,H,layers':22} {'':10} {'torch ms':>10} {'recurra ms':>10} {'ratio':>6}  {said}"]
    for row in facts["speed"]:
        shape = ",".join(map(str, row["shape"]))
        lines.append(
            f"{shape:22} {row['mode']:10} {row['torch_ms']:10.3f} {row['recurra_ms']:10.3f} {row['ratio']:6.2f}"
        )
    return "\n".join(lines)
