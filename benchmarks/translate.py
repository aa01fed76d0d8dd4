"""Multi30k (de-en, en-de, wait-k), small_parallel_enja with and without attention, and AESLC subject lines, beside their floors.

    RECURRA_DATA=... python benchmarks/translate.py de-en en-de en-ja aeslc --seeds 0

de-en, en-de  29,000 captions, joint BPE of 8,000; the epoch by validation loss; test_2016_flickr, cased, sacrebleu with its signature.
              Greedy, beam 5, and beam 5 under other penalties. en-de-lower: lower case and tokenised on both sides, as the papers score
en-ja         50,000 short sentences, words, 128 units; BLEU by length of the source, with attention and without (attention = "none")
wait          wait-k translation, de-en of Multi30k, 128 units: BLEU and average lagging as k grows; "whole" reads all before it writes
aeslc         subject lines of mails, of which 120 tokens are read; ROUGE of the pointer-generator, without pointer, without coverage
checks        of the de-en model in --out: 300 sentences in batches of 1, 7, 64 and shuffled are the same, bit for bit; torch's network of
              the same weights writes the same tokens and scores the same; a process that can't import torch writes the same
"""

import argparse
import gzip
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "translate.json"
BARS = {"de-en": 33.0, "en-de": 31.0, "en-de-lower": 34.0}
MARKS = re.compile(r"([^\w\s]|_)", re.UNICODE)
SUBJECTS: dict[str, dict[str, Any]] = {
    "whole": {},
    "no coverage": {"coverage": False},
    "no pointer": {"pointer": False},
}
LENGTHS = ((1, 6), (7, 8), (9, 10), (11, 99))  # words of a source


def unpacked(name: str, folder: Path, lower: bool = False) -> str:
    """A file of RECURRA_DATA as plain text in `folder`; lower: in lower case, marks apart."""
    text = gzip.decompress((Path(os.environ["RECURRA_DATA"]) / name).read_bytes()).decode()
    if lower:
        text = "\n".join(" ".join(MARKS.sub(r" \1 ", line.lower()).split()) for line in text.splitlines()) + "\n"
    path = folder / (Path(name).stem + (".lower" if lower else ""))
    path.write_text(text, encoding="utf-8")
    return str(path)


def captions(name: str, seed: int, out: Path, epochs: int | None) -> dict[str, Any]:
    """One direction of Multi30k."""
    import recurra

    lower = name.endswith("lower")
    a, b = name.split("-")[:2]

    def both(part: str) -> tuple[str, str]:
        return unpacked(f"multi30k_en_de/{part}.{a}.gz", out, lower), unpacked(
            f"multi30k_en_de/{part}.{b}.gz", out, lower
        )

    (source, target), (valid, valid_target), test = both("train"), both("val"), both("test_2016_flickr")
    model = recurra.train(
        recurra.Translate(),
        recurra.Pairs(source, target=target, validation=valid, validation_target=valid_target),
        core=recurra.Core(),
        fit=recurra.Fit(seed=seed) if epochs is None else recurra.Fit(seed=seed, epochs=epochs),
        out=out / f"{name}-{seed}",
        overwrite=True,
        progress=False,
    )
    row: dict[str, Any] = {}
    searches = {
        "greedy": {"beam": 1},
        "beam 5, no penalty": {"length_penalty": 0.0},
        "beam 5": {},
        "beam 5, length 1.0": {"length_penalty": 1.0},
        "beam 5, coverage 0.2": {"coverage_penalty": 0.2},
    }
    for what, options in searches.items():
        began = time.monotonic()
        found = model.evaluate(*test, search=recurra.Search(**options))
        row[what] = found.rows["model"] | {"seconds": round(time.monotonic() - began, 1)}
    return row | {"source copied": found.rows["source copied"], "caption": found.caption, "bar": BARS[name]}


def short_sentences(seed: int, out: Path, epochs: int | None) -> dict[str, Any]:
    """small_parallel_enja, with and without attention, by the length of the source."""
    import recurra
    from recurra.pairfile import pairs

    def both(part: str) -> tuple[str, str]:
        return unpacked(f"small_parallel_enja/{part}.en.gz", out), unpacked(f"small_parallel_enja/{part}.ja.gz", out)

    (source, target), (valid, valid_target), test = both("train"), both("dev"), both("test")
    row: dict[str, Any] = {}
    for attention in ("normed", "none"):
        model = recurra.train(
            recurra.Translate(attention=attention, embedding=128),
            recurra.Pairs(
                source, target=target, validation=valid, validation_target=valid_target, unit="words", joint=False
            ),
            core=recurra.Core(hidden=128),
            fit=recurra.Fit(seed=seed) if epochs is None else recurra.Fit(seed=seed, epochs=epochs),
            out=out / f"en-ja-{attention}-{seed}",
            overwrite=True,
            progress=False,
        )
        given = list(pairs(*test))
        row[attention] = {"all": model.evaluate(given).rows["model"]}
        for least, most in LENGTHS:
            some = [pair for pair in given if least <= len(pair.source.split()) <= most]
            if some:
                row[attention][f"{least} to {most} words"] = model.evaluate(some).rows["model"] | {
                    "sentences": len(some)
                }
    return row


def simultaneous(seed: int, out: Path, epochs: int | None) -> dict[str, Any]:
    """Multi30k de-en, written while the source is read: a model for each k."""
    import recurra

    def both(part: str) -> tuple[str, str]:
        return unpacked(f"multi30k_en_de/{part}.de.gz", out), unpacked(f"multi30k_en_de/{part}.en.gz", out)

    (source, target), (valid, valid_target), test = both("train"), both("val"), both("test_2016_flickr")
    row: dict[str, Any] = {}
    for k in (1, 3, 5, None):
        model = recurra.train(
            recurra.Translate(direction="forward", bridge="zeros", wait=k, embedding=128),
            recurra.Pairs(source, target=target, validation=valid, validation_target=valid_target),
            core=recurra.Core(hidden=128),
            fit=recurra.Fit(seed=seed) if epochs is None else recurra.Fit(seed=seed, epochs=epochs),
            out=out / f"wait-{k}-{seed}",
            overwrite=True,
            progress=False,
        )
        row["whole" if k is None else f"wait {k}"] = model.evaluate(*test, search=recurra.Search(beam=1)).rows["model"]
    return row


def subjects(seed: int, out: Path, epochs: int | None, models: Sequence[str] = tuple(SUBJECTS)) -> dict[str, Any]:
    """AESLC: the whole, without a pointer, without coverage, or some of these."""
    import polars as pl

    import recurra

    tables = {}
    for part in ("train", "dev", "test"):
        with gzip.open(Path(os.environ["RECURRA_DATA"]) / "aeslc" / f"{part}.jsonl.gz", "rt", encoding="utf-8") as file:
            tables[part] = pl.DataFrame([json.loads(line) for line in file])
    columns = tables["train"].columns
    document = next(name for name in columns if "body" in name)
    summary = next(name for name in columns if "subject" in name)
    row: dict[str, Any] = {}
    for what in models:
        model = recurra.train(
            recurra.Summarise(**SUBJECTS[what]),
            recurra.Summaries(
                tables["train"],
                validation=tables["dev"],
                source_column=document,
                target_column=summary,
                lower=True,
                longest=120,
            ),
            fit=recurra.Fit(seed=seed) if epochs is None else recurra.Fit(seed=seed, epochs=epochs),
            out=out / f"aeslc-{what.replace(' ', '-')}-{seed}",
            overwrite=True,
            progress=False,
        )
        found = model.evaluate(tables["test"])
        row[what] = found.rows["model"]
        free = model.summarise([text or "" for text in tables["test"][document]], replace(model.search, no_repeat=None))
        said = sum(len(answer.words) for answer in free)
        row[what]["words said twice, n-grams not blocked"] = sum(len(a.words) - len(set(a.words)) for a in free) / said
        if SUBJECTS[what].get("coverage", True):
            begun = [one["epoch"] for one in model.manifest["training"]["history"] if "begins" in one]
            row[what] |= {"coverage began after epoch": begun[0] if begun else None}
    floor = next(name for name in found.rows if name.startswith("lead"))
    return row | {floor: found.rows[floor], "caption": found.caption, "bar ROUGE-1": 15.0}


def checks(seed: int, out: Path) -> dict[str, Any]:
    """What a trained model keeps to, on 300 sentences of the test part."""
    import numpy as np
    import torch

    import recurra
    from recurra.pairfile import pairs

    folder = out / f"de-en-{seed}"
    model = recurra.load(folder)
    given = list(pairs(*(unpacked(f"multi30k_en_de/test_2016_flickr.{side}.gz", out) for side in ("de", "en"))))[:300]
    sources = [pair.source for pair in given]

    def written(texts: list[str], batch: int) -> list[tuple[Any, ...]]:
        found = [one for i in range(0, len(texts), batch) for one in model.translate(texts[i : i + batch])]
        return [(one.tokens, one.score, one.logp, one.weights.tobytes()) for one in found]

    whole, order = written(sources, 300), np.random.default_rng(seed).permutation(300).tolist()
    row: dict[str, Any] = {f"same in batches of {n}": written(sources, n) == whole for n in (1, 7, 64)}
    row["same shuffled"] = written([sources[i] for i in order], 64) == [whole[i] for i in order]

    network = network_of(folder, model)
    ids = list(model.codec.sources(sources))
    lengths = torch.tensor([len(one) for one in ids])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in ids], batch_first=True)
    greedy = recurra.Search(beam=1, max_length=60)
    theirs = [tuple(map(model.codec.token, one)) for one in network.greedy(padded, lengths, 60)]
    ours = [one.tokens[: -1 if one.ended else None] for one in model.translate(sources, greedy)]
    same = [one == other for one, other in zip(ours, theirs, strict=True)]
    row["torch's greedy tokens are the same, sentences"] = sum(same)
    targets = list(model.codec.targets(pair.target for pair in given))
    wanted = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in targets], batch_first=True)
    with torch.no_grad():
        logp = network.log_probabilities(network(padded, lengths, network.inputs(wanted)), padded)
    chosen = logp.gather(2, wanted.unsqueeze(2)).squeeze(2)
    total = torch.stack([part[: len(one)].sum() for part, one in zip(chosen, targets, strict=True)]).numpy()
    row["largest difference of log p of a target, nats"] = float(np.abs(model.score(given)[0] - total).max())

    code = (
        "import sys, json; sys.modules['torch'] = None\nimport recurra\n"
        "model = recurra.load(sys.argv[1])\nprint(json.dumps([one.text for one in model.translate(json.load(sys.stdin))]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(folder)], input=json.dumps(sources), capture_output=True, text=True, check=True
    )
    row["same where torch can't be imported"] = json.loads(answer.stdout) == [
        one.text for one in model.translate(sources)
    ]
    return row


def network_of(folder: Path, model: Any) -> Any:
    """The torch network of a model folder."""
    import torch
    from safetensors.numpy import load_file

    from recurra.tasks.task import Core
    from recurra.tasks.translate import Translate, Translator

    config, codec = model.manifest["config"], model.codec
    other = None if codec.joint else codec.source.size + 1
    network = Translator(Translate(**config["task"]), Core(**config["core"]), codec.vocabulary, other).eval().network
    weights = load_file(folder / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in zip(network.export()[1], network.parameters(), strict=True):
            parameter.copy_(torch.from_numpy(weights[name]))
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="*", default=["de-en", "en-de", "en-ja", "aeslc"], help="also en-de-lower, wait, checks"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="default: the task's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--subjects", nargs="+", default=list(SUBJECTS), choices=list(SUBJECTS), help="models of aeslc")
    parser.add_argument("--out", type=Path, default=Path("/tmp/recurra-translate"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    whole = json.loads(options.results.read_text()) if options.results.exists() else {"rows": []}
    for name in options.runs:
        for seed in options.seeds:
            began = time.monotonic()
            if name == "checks":
                row = checks(seed, options.out)
            elif name == "aeslc":
                row = subjects(seed, options.out, options.epochs, options.subjects)
            elif run := {"en-ja": short_sentences, "wait": simultaneous}.get(name):
                row = run(seed, options.out, options.epochs)
            else:
                row = captions(name, seed, options.out, options.epochs)
            row |= {
                "run": name,
                "seed": seed,
                "minutes": round((time.monotonic() - began) / 60, 1),
                "command": f"python benchmarks/translate.py {name} --seeds {seed} --threads {options.threads}"
                + (f" --epochs {options.epochs}" if options.epochs else "")
                + (f" --subjects {' '.join(map(repr, options.subjects))}" if name == "aeslc" else ""),
                "date": str(date.today()),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            }
            print(json.dumps(row), flush=True)
            whole["rows"] = [old for old in whole["rows"] if (old["run"], old["seed"]) != (name, seed)] + [row]
            options.results.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
