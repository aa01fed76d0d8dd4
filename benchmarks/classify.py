"""Documents and series classified: TREC-6, SST-2, IMDb (from scratch, and from a language model of its own training text), UCR.

    RECURRA_DATA=... python benchmarks/classify.py trec sst2 ucr imdb imdb-lm --seeds 0 1 2

The plain options of `recurra train classify`, but for what a row names. TREC-6 (5,452 / 500 questions, coarse labels) and IMDb (24,996 /
24,996 reviews) hold out a seeded tenth of the training part for validation; SST-2 (sentences alone, 6,920 / 1,821) has its own. The test
part is read once, after training. UCR: 27 sets, each with its own split, nothing held out, 40 epochs, the last kept. Floors: majority;
for UCR one nearest neighbour by Euclid's distance and by DTW in a band of a tenth of the length, each series standardised alone
(`pip install tslearn`).
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


def source(name: str, part: str, place: Path) -> str:
    """The file of a part ("train", "dev", "test") as the library reads it."""
    if name == "trec":
        return str(folder("trec_qc") / f"{part}.txt")
    if name == "sst2":
        return str(folder("sst2") / f"stsa.binary.{part}.gz")
    with gzip.open(folder("imdb") / f"imdb_{part}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts = [" ".join(row["text"].replace("<br />", " ").split()) for row in rows]
    path = place / f"{part}.jsonl"
    pl.DataFrame({"text": texts, "label": [row["label"] for row in rows]}).write_ndjson(path)
    return str(path)


def text_row(name: str, seed: int) -> dict[str, Any]:
    """Train on one set of texts and score its test part."""
    import recurra

    kind = name.removesuffix("-lm")
    place = OUT / f"{name}-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    task, core, fit = recurra.Classify(), recurra.Core(), recurra.Fit(seed=seed)
    if kind == "trec":
        options |= {"encoding": "latin-1", "label_until": ":"}
    elif kind == "sst2":
        options["validation"] = source(kind, "dev", place)
    else:
        options["vocabulary"] = 30_000
    started = time.monotonic()
    if name == "imdb-lm":
        lm = language_model(source(kind, "train", place), place, seed, options.pop("vocabulary"))
        task = recurra.Classify(
            encoder=str(lm), direction="forward", pooling="concat", embedding=200, unfreeze=True, discriminate=1.3
        )
        core, fit = recurra.Core(hidden=256), recurra.Fit(epochs=5, seed=seed)
    pretraining = time.monotonic() - started
    model = recurra.train(
        task,
        recurra.Documents(source(kind, "train", place), **options),
        core=core,
        fit=fit,
        out=place / "model",
        overwrite=True,
        progress=False,
    )
    seconds = time.monotonic() - started
    scored = model.evaluate(source(kind, "test", place))
    row: dict[str, Any] = {"set": name, "seed": seed, "minutes": round(seconds / 60, 1)}
    if pretraining > 1:
        row["of which language model"] = round(pretraining / 60, 1)
    for who, found in scored.rows.items():
        row |= {f"{who} {metric}": value for metric, value in found.items()}
    return row


def language_model(train: str, place: Path, seed: int, vocabulary: int) -> Path:
    """A language model of the training reviews, one a line."""
    import recurra

    text = place / "train.txt"
    text.write_text("\n".join(pl.read_ndjson(train)["text"]), encoding="utf-8")
    out = place / "language-model"
    recurra.train(
        recurra.Generate(embedding=200, tied=False, cutoffs=(2_000, 10_000), input_dropout=0.1),
        recurra.Text(str(text), unit="words", split="punctuation", vocabulary=vocabulary, validation=0.02),
        core=recurra.Core(hidden=256, layers=1, dropout=0.1),
        fit=recurra.Fit(epochs=2, seed=seed),
        out=out,
        overwrite=True,
        progress=False,
    )
    return out


def ucr(name: str, part: str) -> str:
    """The file of a part."""
    return str(folder("ucr2018") / name / f"{name}_{part}.tsv.gz")


def series(name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Series [N, T], each with mean 0 and spread 1 as 1-NN wants them, NaN behind the end of a shorter one, and their labels."""
    with gzip.open(ucr(name, part), "rt") as file:
        rows = np.genfromtxt(file, delimiter="\t")
    x = rows[:, 1:]
    return (x - np.nanmean(x, 1, keepdims=True)) / np.maximum(np.nanstd(x, 1, keepdims=True), 1e-12), rows[:, 0]


def ucr_row(name: str, seed: int, floors: bool) -> dict[str, Any]:
    """Train on one set of series and score its test part, beside one nearest neighbour."""
    import recurra

    started = time.monotonic()
    model = recurra.train(
        recurra.Classify(),
        recurra.Documents(ucr(name, "TRAIN"), values=("*",), validation=0),
        fit=recurra.Fit(epochs=40, seed=seed),
        out=OUT / f"ucr-{name}-{seed}",
        overwrite=True,
        progress=False,
    )
    seconds = time.monotonic() - started
    scored = model.evaluate(ucr(name, "TEST"))
    row = {"set": f"ucr {name}", "seed": seed, "minutes": round(seconds / 60, 2)}
    row |= {f"{who} accuracy": found["accuracy"] for who, found in scored.rows.items()}
    if floors:
        row |= neighbours(name)
    return row


def neighbours(name: str) -> dict[str, float]:
    """Accuracy of the nearest neighbour: by Euclid (a shorter series goes on with its mean), and by tslearn's dynamic time warping in a
    band of a tenth of the length.
    """
    from tslearn.metrics import cdist_dtw

    (x, y), (x_test, y_test) = series(name, "TRAIN"), series(name, "TEST")
    whole, whole_test = np.nan_to_num(x), np.nan_to_num(x_test)
    band = {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": max(1, x.shape[1] // 10)}
    distances = {
        "Euclid": (whole**2).sum(1) - 2 * whole_test @ whole.T,
        "DTW": cdist_dtw(x_test[..., None], x[..., None], **band),
    }
    return {f"1-NN {how} accuracy": float((y[d.argmin(1)] == y_test).mean()) for how, d in distances.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=["trec", "sst2", "ucr"], help="trec, sst2, imdb, imdb-lm, ucr")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ucr", nargs="*", help="names of UCR sets; default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--machine", default="")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    kept = (
        json.loads(options.results.read_text())
        if options.results.exists()
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
                options.results.write_text(json.dumps(kept, indent=1) + "\n")
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
