"""Chunks (CoNLL-2000), entities (CoNLL-2003) and parts of speech (UD English EWT, UPOS): F1 and accuracy on the test part.

    RECURRA_DATA=... python benchmarks/tag.py --sets chunks entities upos --seeds 0 1 2

`recurra train tag` with every option at its default, no pretrained vectors, gold tokens. The validation part picks the epoch and is never
learnt from. CoNLL-2000 has none: all its training sentences are learnt for the default number of epochs, and the last is kept (--hold-out
0.1: a tenth, drawn with the seed, picks the epoch instead). The test part is read once, for the scores. F1 over exact spans, as conlleval;
counted again by seqeval, mode "strict", in the scheme of the file (IOB2), and refused where the two differ. Floor: each word's most
frequent tag of the training part (unknown words: the most frequent of all), whose broken spans are read as conlleval reads them.
"""

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

SETS: dict[str, dict[str, Any]] = {
    "chunks": {"folder": "conll2000_chunking", "train": "train.txt.gz", "test": "test.txt.gz"},
    "entities": {
        "folder": "conll2003_ner_en",
        "train": "train.txt.gz",
        "validation": "valid.txt.gz",
        "test": "test.txt.gz",
    },
    "upos": {
        "folder": "ud_english_ewt",
        "train": "en_ewt-ud-train.conllu.gz",
        "validation": "en_ewt-ud-dev.conllu.gz",
        "test": "en_ewt-ud-test.conllu.gz",
    },
}
METRIC = {"chunks": "f1", "entities": "f1", "upos": "accuracy"}


def run(
    name: str, seed: int, hold_out: float, out: Path, options: dict[str, Any], fit: dict[str, Any]
) -> dict[str, Any]:
    """Train one model and score it on the test part."""
    import recurra

    files = SETS[name]
    folder = Path(os.environ["RECURRA_DATA"]) / files["folder"]
    given = {"validation": str(folder / files["validation"])} if "validation" in files else {"validation": hold_out}
    started, cpu = time.monotonic(), time.process_time()
    model = recurra.train(
        recurra.Tag(**options),
        recurra.Sentences(str(folder / files["train"]), **given),
        fit=recurra.Fit(seed=seed, **fit),
        out=out / f"{name}-{seed}",
        overwrite=True,
        progress=False,
    )
    minutes, cpu = (time.monotonic() - started) / 60, (time.process_time() - cpu) / 60
    test = folder / files["test"]
    started = time.monotonic()
    scored = model.evaluate(test)
    row: dict[str, Any] = {"set": name, "seed": seed, "minutes": round(minutes, 1), "cpu minutes": round(cpu, 1)}
    row |= {"epochs": model.manifest["training"]["epochs"], "parameters": model.manifest["training"]["parameters"]}
    row |= {"scoring seconds": round(time.monotonic() - started, 1), "over": scored.caption}
    row |= {f"{who} {metric}": value for who, found in scored.rows.items() for metric, value in found.items()}
    if METRIC[name] == "f1":
        row["seqeval strict f1"] = seqeval(model, test)
        assert abs(row["seqeval strict f1"] - row["model f1"]) < 1e-12
    return row


def seqeval(model: Any, test: Path) -> float:
    """The F1 of seqeval's strict mode in the scheme of the file."""
    from seqeval import scheme
    from seqeval.metrics import f1_score

    from recurra.textfile import sentences

    frame = model.predict(test)
    tags = iter(frame["tag"].to_list())
    wanted = [list(s.tags or ()) for s in sentences(test, **model.columns)]
    found = [[next(tags) for _ in some] for some in wanted]
    return float(f1_score(wanted, found, mode="strict", scheme=getattr(scheme, model.tags.source)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--hold-out", type=float, default=0.0, help="share of CoNLL-2000's training part that picks the epoch"
    )
    parser.add_argument("--task", type=json.loads, default={}, help="options of Tag, as JSON")
    parser.add_argument("--fit", type=json.loads, default={}, help="options of Fit, as JSON")
    parser.add_argument("--out", type=Path, default=Path("/tmp/recurra-tag"))
    parser.add_argument("--results", type=Path, help="JSON file to write; rows of other sets in it are kept")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    command = f"python benchmarks/tag.py --sets {' '.join(options.sets)} --seeds {' '.join(map(str, options.seeds))}"
    for name in options.sets:
        rows = []
        for seed in options.seeds:
            rows.append(run(name, seed, options.hold_out, options.out, options.task, options.fit))
            print(json.dumps(rows[-1]), flush=True)
            if options.results:
                keep(options.results, command, rows)
        metric = METRIC[name]
        score = [100 * row[f"model {metric}"] for row in rows]
        floor = 100 * rows[0][f"most frequent tag {metric}"]
        print(
            f"{name}: {metric} {np.mean(score):.2f} +- {np.std(score):.2f} over {len(score)} seeds; floor {floor:.2f}; "
            f"{np.mean([row['minutes'] for row in rows]):.1f} minutes",
            flush=True,
        )


def keep(path: Path, command: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows; those of other sets and seeds that are there stay."""
    import torch

    old = json.loads(path.read_text())["rows"] if path.exists() else []
    mine = {(row["set"], row["seed"]) for row in rows}
    machine = f"{platform.machine()}, {os.cpu_count()} cores (shared), Python {platform.python_version()}, torch {torch.__version__}"
    kept = [row for row in old if (row["set"], row["seed"]) not in mine]
    kept = sorted([*kept, *rows], key=lambda row: (list(SETS).index(row["set"]), row["seed"]))
    note = {"command": command, "date": date.today().isoformat(), "machine": f"{machine}, one thread", "rows": kept}
    path.write_text(json.dumps(note, indent=1) + "\n")


if __name__ == "__main__":
    main()
