"""Load a model file and play it: the one inference path of predict, evaluate, stream, server and inspector."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recurra import modelfile
from recurra.errors import ModelFileError, nearest
from recurra.runtime.classify import ClassifyModel
from recurra.runtime.forecast import ForecastModel
from recurra.runtime.generate import GenerateModel
from recurra.runtime.summarise import SummariseModel
from recurra.runtime.tag import TagModel
from recurra.runtime.translate import TranslateModel
from recurra.runtime.weights import Weights

PLAYERS: dict[str, Any] = {
    "forecast": ForecastModel,
    "classify": ClassifyModel,
    "generate": GenerateModel,
    "tag": TagModel,
    "translate": TranslateModel,
    "summarise": SummariseModel,
}


def load(path: str | Path, task: str | None = None) -> Any:
    """Read, verify and prepare the model folder `path`; `task` refuses a model of another task. Imports no torch.

    Raises ModelFileError.
    """
    file = modelfile.read(path, task)
    further = [name for name in file.manifest["files"] if name.endswith(".json") and name not in modelfile.PARTS]
    texts = {name: file.read_text(name) for name in further}
    return make(file.task, file.manifest, file.weights, file.digest, texts)


def make(
    task: str,
    manifest: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    digest: str,
    files: Mapping[str, str],
) -> Any:
    """A model from the parts of a model file; files: its further JSON files, e.g. tokenizer.json.

    Raises ModelFileError, also where a layer has no weights, or a weight is read by no layer.
    """
    if task not in PLAYERS:
        raise ModelFileError(f"this recurra can't play the task '{task}': {nearest(task, PLAYERS)}")
    arrays = Weights(weights)
    model = PLAYERS[task](manifest, arrays, digest, files)
    arrays.check(task, manifest["layers"])
    return model
