"""The layers against torch.nn's, through the public modules, autograd and Python included.

    python benchmarks/kernels.py [--tables lstm,cells,ragged,memory,options,language_model] [--quick] [--isa avx2]
                                 [--shapes "100,32,8,64,1 35,20,200,200,2"] [--threads 1,2] [--mode inference|training|both]

Each row is a contest of variants: in turns in one process (with a pause where there are two threads, since torch's OpenMP workers spin for
milliseconds after their last product, on the core that the next variant needs), and each variant in a process of its own, the processes
alternating. One thread is judged in turns, two are judged alone. Random inputs, float32, the same weights in both, and the numbers are
compared before they are timed. Inference: eval, under no_grad. Training: forward, and backward of a random gradient into fresh gradients.
x of the first layer needs no gradient, as in a model that reads data; one row shows the price where it does.

--isa avx2 holds ours (RECURRA_ISA) and torch (ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS, ATEN_CPU_CAPABILITY) to AVX2.
Writes benchmarks/results/kernels.json, kernels_avx2.json with --isa avx2; a run of some tables leaves the others in the file.
--quick and every choice of shapes, threads or mode writes nothing unless --out says where.
"""

import argparse
import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import AVX2, Bar, Contest, Plan, run
from kernels_page import markdown

RESULTS = Path(__file__).parent / "results"
# T, B, I, H, layers: what the time of torch over ours must be at least, inference and training, with AVX-512
SHAPES = {
    (100, 32, 8, 64, 1): (1.9, 1.9),
    (168, 256, 16, 128, 1): (1.4, 2.1),
    (35, 20, 200, 200, 2): (1.4, 1.25),
    (35, 64, 650, 650, 2): (1.15, 1.08),
    (50, 64, 256, 512, 1): (1.0, 1.25),
    (128, 16, 512, 1024, 1): (1.3, 1.25),
    (2000, 8, 32, 128, 1): (1.3, 2.0),
    (24, 1024, 8, 64, 1): (1.4, 2.4),
    (1000, 1, 40, 256, 1): (1.5, 1.4),
}
WITH_X = (50, 64, 256, 512, 1)
SMALL = 64  # units up to which AVX2 alone must be 1.4 times as fast
CELLS = {("GRU", (100, 32, 8, 64, 1)): 3.0, ("GRU", (50, 64, 256, 512, 1)): 1.1}
CELLS |= {("RNN", shape): bar for (_, shape), bar in CELLS.items()}
MODES = ("inference", "training")
TABLES = ("lstm", "cells", "ragged", "memory", "options", "language_model")


def versus(cell: str, shape: tuple[int, ...], mode: str, bar: float | None, x_grad: bool = False) -> Contest:
    """A layer of torch's against ours."""

    def make(name: str) -> Callable[[], Any]:
        from recurra.machine import against_torch

        return against_torch(cell, shape, mode == "training", x_grad=x_grad)[name]  # type: ignore[arg-type]

    row = f"{cell.lower()} {','.join(map(str, shape))} {mode}" + (", x too" if x_grad else "")
    names = ("torch", "recurra")
    variants = {name: lambda name=name: make(name) for name in names}
    return Contest(row, variants, (Bar("torch", "recurra", at_least=bar),), names)


def lstm() -> list[Contest]:
    """The table of the LSTM's shapes."""
    held = "RECURRA_ISA" in os.environ
    contests = []
    for shape, bars in SHAPES.items():
        for mode, bar in zip(MODES, bars, strict=True):
            least = bar if not held else 1.4 if shape[3] <= SMALL else 0.95
            contests.append(versus("LSTM", shape, mode, least))
        if shape == WITH_X:
            contests.append(versus("LSTM", shape, "training", None, x_grad=True))
    return contests


def cells() -> list[Contest]:
    """GRU and RNN, for which torch has no oneDNN kernel."""
    bars = CELLS if "RECURRA_ISA" not in os.environ else dict.fromkeys(CELLS, 0.95)
    return [
        versus(cell, shape, mode, bar if mode == "training" else None)
        for (cell, shape), bar in bars.items()
        for mode in MODES
    ]


def contests(table: str) -> list[Contest]:
    """The rows of a table by name."""
    if table in ("lstm", "cells"):
        return {"lstm": lstm, "cells": cells}[table]()
    return importlib.import_module(f"kernels_{table}").contests()


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", default=",".join(TABLES), help=f"of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--shapes", help="rows of these T,B,I,H[,L], parted by spaces (default: all)")
    parser.add_argument("--threads", help="default: 1,2 for lstm, cells and language_model, else 1")
    parser.add_argument("--mode", choices=[*MODES, "both"], default="both")
    parser.add_argument("--quick", action="store_true", help="two minutes, few repetitions: no result to keep")
    parser.add_argument("--no-alone", action="store_true", help="leave out the processes of their own")
    parser.add_argument("--isa", choices=["avx2"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time, one thread only")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--markdown", action="store_true", help="print the kept results as tables, measure nothing")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.isa and any(os.environ.get(name) != value for name, value in AVX2.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | AVX2)  # read when the libraries are loaded
    if options.worker:
        from contest_worker import serve

        serve(contests)
        return
    result = RESULTS / f"kernels{'_avx2' if options.isa else ''}.json"
    if options.markdown:
        print(markdown(json.loads((options.out or result).read_text())))
        return
    names = options.tables.split(",")
    if not set(names) <= set(TABLES):
        parser.error(f"--tables must be of {', '.join(TABLES)}, not {options.tables}")
    part = options.quick or options.shapes or options.threads or options.mode != "both" or options.no_alone
    out = options.out or (None if part else result)
    started, rows = time.perf_counter(), []
    for name in names:
        competing = chosen(contests(name), options.shapes, options.mode)
        if options.quick and name != "lstm":
            competing = competing[:2]
        if competing:
            table = run(name, competing, plan(name, options))
            rows += table["rows"]
            if out:
                whole = json.loads(out.read_text()) if out.exists() else {}
                whole[name] = {"command": " ".join(["python", *sys.argv]), **table}
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(whole, indent=1) + "\n")
    bars = [bar["passed"] for row in rows for bar in row["bars"] if "passed" in bar]
    print(
        f"\n{sum(bars)} of {len(bars)} bars passed, {time.perf_counter() - started:.0f} s{f' -> {out}' if out else ''}"
    )
    disturbed, skipped = sum(row["disturbed"] for row in rows), sum(len(row["skipped"]) for row in rows)
    print(f"{disturbed} of {len(rows)} rows disturbed by other work, {skipped} variants skipped")


def plan(table: str, options: argparse.Namespace) -> Plan:
    """How long a table may take."""
    if options.threads:
        threads = tuple(int(n) for n in options.threads.split(","))
    else:
        both = ("lstm",) if options.quick else ("lstm", "cells", "language_model")
        threads = (1, 2) if table in both else (1,)
    if options.clock == "cpu" and threads != (1,):
        raise SystemExit("--clock cpu counts the work of all threads: give --threads 1")
    made = (
        Plan(threads, 0.4, 3, 2, 0.05, options.clock)
        if options.quick
        else Plan(threads, 2.0, 5, 4, 0.25, options.clock)
    )
    if options.no_alone or table in ("memory", "options"):  # many variants of ours, none of which disturbs the next
        made = dataclasses.replace(made, rounds=0)
    return made


def chosen(rows: list[Contest], shapes: str | None, mode: str) -> list[Contest]:
    """The rows whose name holds one of the shapes, and the mode where it names one."""
    other = {"inference": "training", "training": "inference"}.get(mode)
    wanted = shapes.split() if shapes else [""]
    return [row for row in rows if any(shape in row.row for shape in wanted) and not (other and other in row.row)]


if __name__ == "__main__":
    main()
