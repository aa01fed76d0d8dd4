"""Load a model file and play it: the one inference path of predict, evaluate, stream, server and inspector."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recurra import modelfile
from recurra.errors import ModelFileError, nearest
from recurra.runtime.forecast import ForecastModel

PLAYERS = {"forecast": ForecastModel}


def load(path: str | Path, task: str | None = None) -> ForecastModel:
    """Read, verify and prepare the model folder `path`; `task` refuses a model of another task. Imports no torch.

    Raises ModelFileError.
    """
    file = modelfile.read(path, task)
    return make(file.task, file.manifest, file.weights, file.digest)


def make(task: str, manifest: Mapping[str, Any], weights: Mapping[str, np.ndarray], digest: str) -> ForecastModel:
    """A model from the parts of a model file. Raises ModelFileError."""
    if task not in PLAYERS:
        raise ModelFileError(f"this recurra can't play the task '{task}': {nearest(task, PLAYERS)}")
    return PLAYERS[task](manifest, weights, digest)
