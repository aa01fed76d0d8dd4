"""A contest: variants of one piece of work, timed in turns in one process and each in a process of its own.

The parent imports no torch. It keeps a worker for each variant and one for all of them, and asks them one after the other, so that
processes alternate within seconds: a machine whose clock wanders, or has other work, then treats the variants alike. An idle worker
waits on its pipe. Ratios are medians of quotients of the same round, times are medians.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AVX2 = {
    "RECURRA_ISA": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
}


@dataclass(frozen=True)
class Bar:
    """The time of `over` divided by the time of `under`, and what it must be; no bound: shown only."""

    over: str
    under: str
    at_least: float | None = None
    at_most: float | None = None
    of: str = "time"
    """or one of the bytes that `Contest.weigh` counts"""

    @property
    def target(self) -> str:
        low, high = self.at_least, self.at_most
        return f">= {low}" if low is not None else f"<= {high}" if high is not None else ""

    def passed(self, ratio: float) -> bool | None:
        if self.at_least is not None:
            return ratio >= self.at_least
        return None if self.at_most is None else ratio <= self.at_most


@dataclass(frozen=True)
class Contest:
    """One row of a table."""

    row: str
    variants: dict[str, Callable[[], Callable[[], Any]]]
    """name -> what makes its call; an exception when it is made, or at its first call, is a reason to skip it"""
    bars: tuple[Bar, ...]
    agree: tuple[str, ...] = ()
    """variants that must give the same numbers"""
    weigh: Callable[[str], dict[str, Any]] | None = None
    """name -> what is kept for backward, counted in a process that has done nothing else"""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How much is measured: seconds of a contest in turns and the least rounds of it; rounds of alternating processes, and
    seconds of a variant and round in them."""

    threads: tuple[int, ...]
    seconds: float
    least: int
    rounds: int
    alone: float
    clock: str  # "wall", or "cpu": processor time, steadier where the machine has other work; for one thread only


# -- the parent ---------------------------------------------------------------------------------------------------------


class Worker:
    """A process that measures contests of the tables of kernels.py on `threads` threads."""

    def __init__(self, threads: int, fresh: bool = False):
        env = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        if fresh:  # every tensor its own pages, so that resident memory is the sum of what is alive
            env["MALLOC_MMAP_THRESHOLD_"] = "65536"
        self.threads = threads
        command = [sys.executable, str(Path(__file__).with_name("kernels.py")), "--worker"]
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({**question, "threads": self.threads}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"a worker ended with {self.process.wait()} at {question}")
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def compete(table: str, contest: Contest, plan: Plan, threads: int, workers: dict[str, Worker]) -> dict[str, Any]:
    """One row: times of each variant in turns and alone, ratios beside their bars, what was skipped and why."""
    about = {"table": table, "row": contest.row}
    column = 1 if plan.clock == "cpu" else 0

    def worker(name: str) -> Worker:
        if name not in workers:
            workers[name] = Worker(threads)
        return workers[name]

    started, before = time.perf_counter(), busy(workers.values())
    seconds = plan.seconds * max(1.0, len(contest.variants) / 2)
    found = worker("").ask(**about, variants=list(contest.variants), seconds=seconds, least=plan.least)
    times = {"in_turns": {name: [t[column] for t in ts] for name, ts in found["times"].items()}}
    names = list(times["in_turns"])
    if plan.rounds:
        alone: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(plan.rounds):
            for name in names:
                ran = worker(name).ask(**about, variants=[name], seconds=plan.alone, least=1)["times"][name]
                alone[name].append(statistics.median(t[column] for t in ran))
        times["alone"] = alone
    others = round(max(0.0, busy(workers.values()) - before) / (time.perf_counter() - started), 2)
    weights = {}
    if contest.weigh:
        for name in names:
            fresh = Worker(threads, fresh=True)
            weights[name] = fresh.ask(**about, weigh=name)
            fresh.close()
    result: dict[str, Any] = {"row": contest.row, "threads": threads, **contest.facts}
    result["ms"] = {
        how: {name: round(statistics.median(ts) * 1e3, 4) for name, ts in of.items()} for how, of in times.items()
    }
    result["cores_of_others"] = others
    result["disturbed"] = plan.clock == "wall" and threads + others > (os.cpu_count() or 1) + 0.1
    result["measurements"] = {how: {name: len(ts) for name, ts in of.items()} for how, of in times.items()}
    result["page_faults"] = found["page_faults"]
    result["skipped"] = found["skipped"]
    result["differences"] = found["differences"]
    if weights:
        result["kept"] = weights
    result["bars"] = [
        judged(bar, times, weights, threads) for bar in contest.bars if {bar.over, bar.under} <= set(names)
    ]
    for bar in result["bars"] if result["disturbed"] else ():
        if bar["of"] == "time":  # what a busy machine says is neither passed nor failed
            bar.pop("passed", None)
    return result


def busy(workers: Iterable[Worker]) -> float:
    """Seconds of processor time that the machine has given to others than these, since it started. 0 where it doesn't say (not Linux)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, irq, softirq, steal = (int(n) for n in stat.read_text().split()[1:9])
    ours = 0
    for worker in workers:
        after = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        ours += int(after[11]) + int(after[12])
    return (user + nice + system + irq + softirq + steal - ours) / tick


def judged(bar: Bar, times: dict[str, Any], weights: dict[str, Any], threads: int) -> dict[str, Any]:
    """The ratio both ways. One thread is judged in turns, more than one alone: there torch's idle threads disturb the next variant."""
    row: dict[str, Any] = {"over": bar.over, "under": bar.under, "of": bar.of, "target": bar.target}
    if bar.of != "time":
        decides = row["ratio"] = round(weights[bar.over][bar.of] / max(1, weights[bar.under][bar.of]), 3)
    else:
        for how, of in times.items():
            quotients = [a / b for a, b in zip(of[bar.over], of[bar.under], strict=True)]
            row[how] = round(statistics.median(quotients), 3)
        decides = row.get("alone", row["in_turns"]) if threads > 1 else row["in_turns"]
    passed = bar.passed(decides)
    return row if passed is None else {**row, "passed": passed}


HEAD = f"{'':44} {'thr':>3} {'over':>20} {'ms':>9} {'under':>20} {'ms':>9} {'in turns':>8} {'alone':>7} {'target':>8}"


def shown(result: dict[str, Any]) -> Iterator[str]:
    """The lines of a row: one for each bar."""
    for bar in result["bars"]:
        verdict = {True: "pass", False: "FAIL", None: ""}[bar.get("passed")]
        if result["disturbed"] and bar["of"] == "time":
            verdict = f"disturbed: others used {result['cores_of_others']} cores"
        front = f"{result['row']:44} {result['threads']:3}"
        if bar["of"] != "time":
            mb = [f"{result['kept'][bar[side]][bar['of']] / 1e6:7.1f}MB" for side in ("over", "under")]
            ratios = f"{bar['ratio']:8.3f} {bar['of'][:7]:>7}"
        else:
            # where a variant ran alone too, its own process tells its time
            ms = result["ms"].get("alone", result["ms"]["in_turns"])
            mb = [f"{ms[bar[side]]:9.3f}" for side in ("over", "under")]
            ratios = f"{bar['in_turns']:8.2f} {format(bar['alone'], '7.2f') if 'alone' in bar else '':7}"
        yield f"{front} {bar['over']:>20} {mb[0]} {bar['under']:>20} {mb[1]} {ratios} {bar['target']:>8} {verdict}"
    if "tokens_a_step" in result:
        rates = ", ".join(f"{name} {rate:,}" for name, rate in tokens_a_second(result).items())
        yield f"{result['row']:44} {result['threads']:3} tokens a second: {rates}"
    for names, difference in result["differences"].items():
        if not difference < 1e-3:
            yield f"{result['row']:44} {result['threads']:3} DIFFERENT NUMBERS: {names}: {difference:.1e}"


def tokens_a_second(result: dict[str, Any]) -> dict[str, int]:
    """Of each variant of a row that says how many tokens a call is."""
    ms = result["ms"].get("alone", result["ms"]["in_turns"])
    return {name: round(result["tokens_a_step"] / took * 1e3) for name, took in ms.items()}


def run(table: str, contests: list[Contest], plan: Plan) -> dict[str, Any]:
    """All rows of a table, printed as they come."""
    about: dict[str, Any] = {}
    rows, skipped = [], set()
    for threads in plan.threads:
        workers: dict[str, Worker] = {"": Worker(threads)}
        if not about:
            about = workers[""].ask(machine=True)
            versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
            print(
                f"\n{table}: {about['cpu']}, {about['cores']} cores, {about['isa']}, torch {about['torch_isa']}; {versions}; ",
                end="",
            )
            print(f"{about['date']}, commit {about['commit']}, load {about['load']}\n{HEAD}", flush=True)
        about.setdefault("matmul_gflops", {})[str(threads)] = [workers[""].ask(matmul=True)["gflops"]]
        for contest in contests:
            rows.append(compete(table, contest, plan, threads, workers))
            for line in shown(rows[-1]):
                print(line, flush=True)
            for name, reason in rows[-1]["skipped"].items():
                if (name, reason) not in skipped:
                    skipped.add((name, reason))
                    print(f"skipped {name}: {reason}", flush=True)
        about["matmul_gflops"][str(threads)].append(workers[""].ask(matmul=True)["gflops"])
        for worker in workers.values():
            worker.close()
    print(f"torch.mm of 1024^3, GF/s before and after, by threads: {about['matmul_gflops']}", flush=True)
    return {**about, "plan": vars(plan), "rows": rows}
