"""Dynamic evaluation of the whole network (Krause et al. 2018), by plain gradient descent; it needs torch.

runtime/dynamic.py is the same for the output layer alone, without torch.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from recurra.data.batch import Batch
from recurra.errors import DataError
from recurra.runtime.dynamic import Dynamic
from recurra.tasks.generate import Generate, LanguageModel
from recurra.tasks.task import Core, detach


def restored(manifest: dict[str, Any], weights: dict[str, np.ndarray], vocabulary: int) -> LanguageModel:
    """The network of a saved language model (modelfile.read), to go on training it."""
    config = manifest["config"]
    task = LanguageModel(Generate(**config["task"]), Core(**config["core"]), vocabulary)
    task.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()}, strict=False)
    return task


def surprise(task: LanguageModel, ids: np.ndarray, dynamic: Dynamic) -> np.ndarray:
    """-log p of each of ids[1:] in nats, each before it was learnt from. `task` is changed: it has learnt the text.

    Segment after segment, the gradient of its mean loss, cut at its beginning, moves every weight; then each goes the share `decay` of the
    way back to what it was. No dropout. Raises DataError for fewer than two ids.
    """
    if len(ids) < 2:
        raise DataError(f"dynamic evaluation needs at least two tokens, not {len(ids)}")
    task.eval()
    parameters = list(task.parameters())
    trained = [parameter.detach().clone() for parameter in parameters]
    text = torch.from_numpy(ids.astype(np.int64))[None]
    places = [*range(0, len(ids) - 1, dynamic.segment), len(ids) - 1]
    state, nats = None, []
    for begin, end in pairwise(places):
        targets = text[:, begin + 1 : end + 1]
        batch = Batch(text[:, begin:end], torch.tensor([end - begin]), targets, torch.ones(targets.shape))
        output, state = task(batch, state)
        state = detach(state)
        found = task.surprise(output, targets)
        nats.append(found.detach()[0].double())
        gradients = torch.autograd.grad(found.mean(), parameters, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for parameter, gradient, before in zip(parameters, gradients, trained, strict=True):
                parameter -= dynamic.rate * gradient
                if dynamic.decay:
                    parameter += dynamic.decay * (before - parameter)
    return torch.cat(nats).numpy()
