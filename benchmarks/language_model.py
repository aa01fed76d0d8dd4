"""Language models: Penn Treebank words and Tiny Shakespeare characters, beside n-gram floors.

    RECURRA_DATA=... python benchmarks/language_model.py --runs small regularised shakespeare --seeds 0 1 2

small        Zaremba, Sutskever and Vinyals (2014): 2 layers of 200, no dropout, 20 streams of 20 words, SGD at 1 on the sum over the steps
             (so 20 on the mean, clipped at 5 / 20), 4 epochs, then halved at each of 9 more, weights from U(-0.1, 0.1). Published: 115
regularised  at most 10 million parameters, tied, AWD-LSTM's regularisers, AdamW in one cycle
shakespeare  characters, the last tenth as validation; nats a character

The first two also with the continuous cache and with dynamic evaluation, whose settings are chosen on the validation part.

Perplexity is over all words and ends of lines of the test part, read as one stream; the first word follows a line's end.
"""

import argparse
import gzip
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "language_model.json"
CACHES = [(theta, weight) for theta in (0.05, 0.15, 0.3) for weight in (0.1, 0.2)]
CACHE = 2000
RATES = (0.1, 0.3, 1.0, 3.0)


def unpacked(name: str, folder: Path) -> Path:
    """A file of RECURRA_DATA as plain text in `folder`."""
    path = folder / Path(name).stem
    path.write_bytes(gzip.decompress((Path(os.environ["RECURRA_DATA"]) / name).read_bytes()))
    return path


def recipes(run: str, folder: Path) -> dict[str, Any]:
    """task, data, core and fit of a run, but for the seed."""
    import recurra

    if run == "shakespeare":
        return {
            "task": recurra.Generate(),
            "data": recurra.Text(unpacked("tiny_shakespeare/input.txt.gz", folder), unit="characters", validation=0.1),
            "core": recurra.Core(hidden=384, layers=2, dropout=0.25),
            "fit": {"epochs": 20, "batch_size": 32, "chunk": 100, "learning_rate": 4e-3},
        }
    train, valid = (unpacked(f"ptb/ptb.{part}.txt.gz", folder) for part in ("train", "valid"))
    data = recurra.Text(train, unit="words", vocabulary=None, minimum=1, validation=valid)
    if run == "small":
        return {
            "task": recurra.Generate(tied=False, initial=0.1),
            "data": data,
            "core": recurra.Core(hidden=200, layers=2, dropout=0.0),
            "fit": {
                "epochs": 13,
                "batch_size": 20,
                "chunk": 20,
                "optimiser": "sgd",
                "schedule": "divide 2 after 4",
                "learning_rate": 20.0,
                "clip": 0.25,
                "weight_decay": 0.0,
                "average": 0.0,
            },
        }
    return {
        "task": recurra.Generate(
            embedding=256,
            weight_drop=0.3,
            word_dropout=0.05,
            input_dropout=0.25,
            output_dropout=0.35,
            alpha=1.0,
            beta=1.0,
        ),
        "data": data,
        "core": recurra.Core(hidden=512, layers=2, dropout=0.2),
        "fit": {"epochs": 16, "batch_size": 20, "chunk": 35, "learning_rate": 3e-3, "weight_decay": 1e-2, "clip": 0.25},
    }


def run(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one model and score it."""
    import recurra
    from recurra.runtime.cache import Cache
    from recurra.runtime.dynamic import Dynamic

    parts = recipes(name, folder)
    started = time.monotonic()
    model = recurra.train(
        parts["task"],
        parts["data"],
        core=parts["core"],
        fit=recurra.Fit(seed=seed, **parts["fit"]),
        out=folder / f"{name}-{seed}",
        overwrite=True,
        progress=False,
    )
    minutes = (time.monotonic() - started) / 60
    training = model.manifest["training"]
    row: dict[str, Any] = {
        "run": name,
        "seed": seed,
        "minutes": round(minutes, 1),
        "parameters": training["parameters"],
    }
    row["epochs"] = training["epochs"]
    row["validation"] = json.loads((folder / f"{name}-{seed}" / "metrics.json").read_text())["rows"]
    if name == "shakespeare":
        return row
    train, valid, test = (unpacked(f"ptb/ptb.{part}.txt.gz", folder) for part in ("train", "valid", "test"))
    row["test"] = model.evaluate(test, train=train).rows
    caches = [Cache(CACHE, theta, weight) for theta, weight in CACHES]
    row["cache"] = chosen(lambda cache, path: model.with_cache(cache).evaluate(path), caches, valid, test)
    learners = [Dynamic(rate=rate) for rate in RATES]
    row["dynamic evaluation, output layer"] = chosen(
        lambda dynamic, path: model.evaluate(path, dynamic=dynamic), learners, valid, test
    )
    return row


def chosen(score: Callable[[Any, Path], Any], options: list[Any], valid: Path, test: Path) -> dict[str, Any]:
    """The option with the least perplexity on the validation part, and its perplexity on the test part."""
    from recurra.config import dump

    found = [score(option, valid).rows["model"]["perplexity"] for option in options]
    best = options[found.index(min(found))]
    perplexity = score(best, test).rows["model"]["perplexity"]
    return {**dump(best), "validation perplexity": min(found), "test perplexity": perplexity}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", default=["small", "regularised", "shakespeare"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("/tmp/recurra-language-model"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    whole = json.loads(options.results.read_text()) if options.results.exists() else {"rows": []}
    for name in options.runs:
        for seed in options.seeds:
            row = run(name, seed, options.out) | {
                "command": f"python benchmarks/language_model.py --runs {name} --seeds {seed} --threads {options.threads}",
                "date": str(date.today()),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            }
            print(json.dumps(row), flush=True)
            whole["rows"] = [old for old in whole["rows"] if (old["run"], old["seed"]) != (name, seed)] + [row]
            options.results.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
