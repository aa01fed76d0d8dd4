"""Documents and series classified: TREC-6, SST-2, IMDb (from scratch, and from a language model of its own training text), UCR.

    RECURRA_DATA=... python benchmarks/classify.py trec sst2 ucr imdb imdb-lm --seeds 0 1 2

The plain options of `recurra train classify`, but for what a row names. TREC-6 (5,452 / 500 questions, coarse labels) and IMDb (24,996 /
24,996 reviews) hold out a seeded tenth of the training part for validation; SST-2 (sentences alone, 6,920 / 1,821) has its own. The test
part is read once, after training. UCR: 27 sets, each with its own split, nothing held out, the last epoch kept. Floors: the majority, and
for UCR one nearest neighbour by Euclid's distance and by DTW in a band of a tenth of the length, each series standardised alone.
"""

import argparse
import gzip
import json
import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

OUT = Path("/tmp/recurra-classify")
RESULTS = Path(__file__).parent / "results" / "classify.json"
BARS = {"trec": 0.88, "sst2": 0.79, "imdb": 0.865}


def folder(name: str) -> Path:
    """A data set's folder."""
    return Path(os.environ["RECURRA_DATA"]) / name


def trec(part: str) -> pl.DataFrame:
    """Questions with their coarse label."""
    text = (folder("trec_qc") / f"{part}.txt").read_text(encoding="latin-1")
    rows = [line.split(" ", 1) for line in text.splitlines()]
    return pl.DataFrame({"text": [row[1] for row in rows], "label": [row[0].split(":")[0] for row in rows]})


def sst2(part: str) -> pl.DataFrame:
    """Sentences, 1 = positive."""
    with gzip.open(folder("sst2") / f"stsa.binary.{part}.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(" ", 1) for line in file]
    return pl.DataFrame({"text": [row[1] for row in rows], "label": [row[0] for row in rows]})


def imdb(part: str) -> pl.DataFrame:
    """Reviews, 1 = positive."""
    with gzip.open(folder("imdb") / f"imdb_{part}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return pl.DataFrame(
        {"text": [row["text"].replace("<br />", " ") for row in rows], "label": [str(row["label"]) for row in rows]}
    )


def text_row(name: str, seed: int) -> dict[str, Any]:
    """Train on one set of texts and score its test part."""
    import recurra

    read = {"trec": trec, "sst2": sst2, "imdb": imdb}[name.removesuffix("-lm")]
    place = OUT / f"{name}-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    task: Any = recurra.Classify()
    core, fit = recurra.Core(), recurra.Fit(seed=seed)
    if name == "sst2":
        read("dev").write_ndjson(place / "dev.jsonl")
        options["validation"] = str(place / "dev.jsonl")
    elif name.startswith("imdb"):
        options |= {"split": "punctuation", "vocabulary": 30_000}
    started = time.monotonic()
    if name == "imdb-lm":
        lm = language_model(place, seed, options)
        task = recurra.Classify(
            encoder=str(lm), direction="forward", pooling="concat", embedding=256, unfreeze=True, discriminate=2.6
        )
        core = recurra.Core(hidden=512, layers=2)
    pretraining = time.monotonic() - started
    model = recurra.train(
        task,
        recurra.Documents(read("train"), **options),
        core=core,
        fit=fit,
        out=place / "model",
        overwrite=True,
        progress=False,
    )
    seconds = time.monotonic() - started
    scored = model.evaluate(read("test"))
    row: dict[str, Any] = {"set": name, "seed": seed, "minutes": round(seconds / 60, 1)}
    if pretraining > 1:
        row["of which language model"] = round(pretraining / 60, 1)
    for who, found in scored.rows.items():
        row |= {f"{who} {metric}": value for metric, value in found.items()}
    return row


def language_model(place: Path, seed: int, options: dict[str, Any]) -> Path:
    """A language model of the training reviews, one a line."""
    import recurra

    text = place / "train.txt"
    text.write_text("\n".join(" ".join(review.split()) for review in imdb("train")["text"]), encoding="utf-8")
    out = place / "language-model"
    recurra.train(
        recurra.Generate(embedding=256, tied=True, weight_drop=0.2, input_dropout=0.2, word_dropout=0.05),
        recurra.Text(str(text), unit="words", **options),
        core=recurra.Core(hidden=512, layers=2, dropout=0.2),
        fit=recurra.Fit(seed=seed),
        out=out,
        overwrite=True,
        progress=False,
    )
    return out


def ucr(name: str, part: str) -> tuple[np.ndarray, list[str]]:
    """Series [N, T] and their labels."""
    with gzip.open(folder("ucr2018") / name / f"{name}_{part}.tsv.gz", "rt") as file:
        rows = [line.split("\t") for line in file]
    return np.array([[float(v) for v in row[1:]] for row in rows]), [row[0] for row in rows]


def ucr_row(name: str, seed: int, floors: bool) -> dict[str, Any]:
    """Train on one set of series and score its test part, beside one nearest neighbour."""
    import recurra

    (x, y), (x_test, y_test) = ucr(name, "TRAIN"), ucr(name, "TEST")
    started = time.monotonic()
    model = recurra.train(
        recurra.Classify(),
        recurra.Documents(
            pl.DataFrame({"values": x.tolist(), "label": y}), values="values", label="label", validation=0
        ),
        fit=recurra.Fit(seed=seed),
        out=OUT / f"ucr-{name}-{seed}",
        overwrite=True,
        progress=False,
    )
    seconds = time.monotonic() - started
    scored = model.evaluate(pl.DataFrame({"values": x_test.tolist(), "label": y_test}))
    row = {"set": f"ucr {name}", "seed": seed, "minutes": round(seconds / 60, 2), "train": len(x), "steps": x.shape[1]}
    row |= {f"{who} accuracy": found["accuracy"] for who, found in scored.rows.items()}
    if floors:
        labels, wanted = np.array(y), np.array(y_test)
        a, b = standardised(x), standardised(x_test)
        distance = (a**2).sum(1) - 2 * b @ a.T
        row["1-NN Euclid accuracy"] = float((labels[distance.argmin(1)] == wanted).mean())
        row["1-NN DTW accuracy"] = float((labels[[dtw(series, a).argmin() for series in b]] == wanted).mean())
    return row


def standardised(x: np.ndarray) -> np.ndarray:
    """Each series with mean 0 and spread 1, as 1-NN wants them."""
    return (x - x.mean(1, keepdims=True)) / np.maximum(x.std(1, keepdims=True), 1e-12)


def dtw(series: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared dynamic time warping distance of a series [T] to each of others [N, T], |i - j| <= T / 10 (Sakoe and Chiba 1978).

    Antidiagonal after antidiagonal: cells (i, j) with i + j = d follow from those of d - 1 and d - 2.
    """
    n, steps = others.shape
    band = max(1, steps // 10)
    last = np.full((n, steps + 1), np.inf)
    before = last.copy()  # at i + 1: the cell (i, d - 1 - i), and of the antidiagonal before
    before[:, 0] = 0.0  # so that (0, 0) begins at nothing
    for d in range(2 * steps - 1):
        i = np.arange(max(0, d - steps + 1, (d - band + 1) // 2), min(steps - 1, d, (d + band) // 2) + 1)
        here = np.full((n, steps + 1), np.inf)
        cost = (series[i] - others[:, d - i]) ** 2
        here[:, i + 1] = cost + np.minimum(before[:, i], np.minimum(last[:, i], last[:, i + 1]))
        before, last = last, here
    return last[:, steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=["trec", "sst2", "ucr"], help="trec, sst2, imdb, imdb-lm, ucr")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ucr", nargs="*", help="names of UCR sets; default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--machine", default="")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    kept = (
        json.loads(RESULTS.read_text())
        if RESULTS.exists()
        else {"command": "python benchmarks/classify.py", "rows": []}
    )
    for name in options.sets:
        inside = [name]
        if name == "ucr":
            inside = [f"ucr {path.name}" for path in sorted(folder("ucr2018").iterdir()) if path.is_dir()]
            inside = [one for one in inside if not options.ucr or one[4:] in options.ucr]
        for one in inside:
            for seed in options.seeds:
                row = ucr_row(one[4:], seed, seed == options.seeds[0]) if name == "ucr" else text_row(one, seed)
                print(json.dumps(row), flush=True)
                kept["rows"] = [r for r in kept["rows"] if (r["set"], r["seed"]) != (one, seed)] + [row]
                kept |= {"date": date.today().isoformat(), "machine": options.machine or kept.get("machine", "")}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    report(kept["rows"])


def report(rows: list[dict[str, Any]]) -> None:
    """Mean and spread over the seeds."""
    for name in dict.fromkeys(row["set"] for row in rows if not row["set"].startswith("ucr ")):
        found = [row["model accuracy"] for row in rows if row["set"] == name]
        bar = BARS.get(name)
        print(
            f"{name}: {np.mean(found):.4f} +- {np.std(found):.4f} over {len(found)} seeds{f', bar {bar}' if bar else ''}"
        )
    series = [row for row in rows if row["set"].startswith("ucr ")]
    for who in ("model", "majority", "1-NN Euclid", "1-NN DTW") if series else ():
        by_set: dict[str, list[float]] = {}
        for row in series:
            if f"{who} accuracy" in row:
                by_set.setdefault(row["set"], []).append(row[f"{who} accuracy"])
        print(f"UCR, mean over {len(by_set)} sets: {who} {np.mean([np.mean(v) for v in by_set.values()]):.4f}")


if __name__ == "__main__":
    main()
