"""Small classifiers as the runtime plays them, with the network that they come from."""

from typing import Any

import numpy as np
import torch

from recurra.codec import text as text_codec
from recurra.codec import values as values_codec
from recurra.codec.text import Labels
from recurra.runtime.classify import ClassifyModel
from recurra.tasks.classify import Classifier, Classify
from recurra.tasks.task import Core

NAMES = ("bad", "fair", "good")
WORDS = "the film was a very poor bore but some liked its fine dark score and all of us slept".split()  # noqa: SIM905


def texts(n: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Texts of 0 to `longest` words, some of them unknown to the codec."""
    rng = np.random.default_rng(seed)
    words = [*WORDS, "unheardof"]
    return [" ".join(rng.choice(words, n)) for n in rng.integers(0, longest + 1, n)]


def series(n: int, seed: int = 0, longest: int = 12, channels: int = 2) -> list[np.ndarray]:
    """Series of 1 to `longest` steps, some values missing."""
    rng = np.random.default_rng(seed)
    rows = [rng.normal(5.0, 3.0, (n, channels)) for n in rng.integers(1, longest + 1, n)]
    for row in rows:
        row[rng.random(row.shape) < 0.2] = np.nan
    return rows


def make(
    config: Classify, core: Core | None = None, *, numeric: bool = False, chunk: int = 400, seed: int = 0
) -> tuple[Classifier, ClassifyModel]:
    """A classifier with weights from `seed`, and its player."""
    core = core or Core(hidden=7, layers=2, dropout=0.3)
    torch.manual_seed(seed)
    codec: dict[str, Any] = {"text": None, "values": None, "many": config.many, "documents": 10}
    codec["labels"] = {"names": NAMES, "counts": (5, 2, 3)}
    codec["columns"] = {"text": None, "label": "label", "separator": "|" if config.many else None, "values": None}
    Labels.model_validate(codec["labels"])
    files: dict[str, str] = {}
    if numeric:
        values = values_codec.fit(series(20, seed=9), frames=5 if config.direction == "both" else None)
        codec["values"] = values.model_dump(mode="json")
        codec["columns"]["values"] = "values"
        task = Classifier(config, core, classes=3, channels=values.features, chunk=chunk)
    else:
        words = text_codec.fit([" ".join(WORDS)] * 3, unit="words")
        codec["text"], files = words.manifest(), words.to_files()
        codec["columns"]["text"] = "text"
        task = Classifier(config, core, classes=3, vocabulary=words.size, chunk=chunk)
    with torch.no_grad():
        task.temperature.fill_(1.7)
        for parameter in task.parameters():  # far from the untrained, where all is nearly alike
            parameter.mul_(2.0)
    return task.eval(), player(task, config, core, codec, files)


def player(
    task: Classifier, config: Classify, core: Core, codec: dict[str, Any], files: dict[str, str]
) -> ClassifyModel:
    """The player of a network."""
    export = task.export()
    manifest = {"task": "classify", "codec": codec, "layers": export.layers}
    manifest["config"] = {"task": {"pooling": config.pooling}, "core": {}}
    return ClassifyModel(manifest, export.weights, "digest", files)
