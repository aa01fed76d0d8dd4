"""A worker of a contest: a process that measures what it is asked for, one question a line on standard input. See contest.py."""

import ctypes
import datetime
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from contest import AVX2, Contest

from recurra.machine import hardware, in_turns, versions

PROJECT = Path(__file__).parents[1]


def serve(contests: Callable[[str], list[Contest]]) -> None:
    """Answer the questions on standard input, one a line, until it ends."""
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing else may write into the answers
    made: dict[str, Callable[[], Any]] = {}
    now, differences, skipped, faults = None, {}, {}, {}
    for line in sys.stdin:
        question = json.loads(line)
        torch.set_num_threads(question["threads"])
        answer: dict[str, Any] = {}
        if question.get("machine"):
            answer = machine()
        elif question.get("matmul"):
            answer = {"gflops": matmul()}
        else:
            contest = next(c for c in contests(question["table"]) if c.row == question["row"])
            if question.get("weigh"):
                assert contest.weigh
                answer = contest.weigh(question["weigh"])
            else:
                if now != contest.row:
                    now, made = contest.row, {}
                    forget()
                    made, skipped = ready(contest, question["variants"])
                    differences = compared(contest, made)
                    faults = {name: page_faults(call) for name, call in made.items()}
                times = in_turns(made, question["seconds"], least=question["least"], warm=0) if made else {}
                answer = {"times": times, "skipped": skipped, "differences": differences, "page_faults": faults}
        talk.write(json.dumps(answer) + "\n")
        talk.flush()


def ready(contest: Contest, names: list[str]) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """The calls that can be made, each called once, and why the others can't."""
    made, skipped = {}, {}
    for name in names:
        try:
            call = contest.variants[name]()
            call()
            made[name] = call
        except Exception as error:
            skipped[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return made, skipped


def compared(contest: Contest, made: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The largest difference of each variant to the first of those that must agree, in units of the largest value of the tensor."""
    names = [name for name in contest.agree if name in made]
    if len(names) < 2:
        return {}
    results = {name: [tensor.clone() for tensor in made[name]()] for name in names}
    first = results[names[0]]
    return {
        f"{names[0]} and {name}": max(
            float((a - b).abs().max() / a.abs().max()) for a, b in zip(first, results[name], strict=True)
        )
        for name in names[1:]
    }


def forget() -> None:
    """Give back what the row before has left in the heap: a variant may find its memory there, and save its page faults."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def page_faults(call: Callable[[], Any]) -> int:
    """Of a second call: memory that is given back to the system and fetched anew each time, which is a part of its time."""
    call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def matmul() -> float:
    """GF/s of torch.mm of 1024^3, the fastest of many: the machine's own rate, but for its clock."""
    a, b, out = (torch.randn(1024, 1024) for _ in range(3))
    times = in_turns({"mm": lambda: (torch.mm(a, b, out=out),)}, 0.3)["mm"]
    return round(2 * 1024**3 / min(wall for wall, _ in times) / 1e9, 1)


def machine() -> dict[str, Any]:
    facts = hardware()
    del facts["threads"]
    held = {name: os.environ[name] for name in AVX2 if name in os.environ}
    return {
        **facts,
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(),
        "environment": held,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


def commit() -> str:
    """The commit that was measured, with a + where files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
