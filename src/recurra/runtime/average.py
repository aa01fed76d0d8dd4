"""The mean of several models' weights, as one model: checkpoint averaging (Junczys-Dowmunt et al. 2016).

Of checkpoints of one run `Fit(average=3)` keeps the mean by itself. Models of other seeds have no mean: they started apart.
"""

import os
from collections.abc import Sequence

import numpy as np

from recurra import modelfile
from recurra.errors import RecipeError
from recurra.modelfile import ModelFile


def average(
    models: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, overwrite: bool = False
) -> ModelFile:
    """Write the model folder `out`: the first model's files with the mean of all models' weights.

    Raises RecipeError where there are fewer than two models, or one differs from the first in task, codec, layers, data, shapes or seed.
    """
    if len(models) < 2:
        raise RecipeError(f"a mean needs at least two models, not {len(models)}")
    first, *others = [modelfile.read(path) for path in models]
    for path, other in zip(models[1:], others, strict=True):
        for part in ("task", "codec", "layers", "data"):
            if other.manifest[part] != first.manifest[part]:
                raise RecipeError(
                    f"'{path}' has another {part} than '{models[0]}': average models of one recipe and data"
                )
        seeds = [one.manifest["config"]["fit"]["seed"] for one in (first, other)]
        if seeds[0] != seeds[1]:
            raise RecipeError(
                f"'{path}' began from another seed ({seeds[1]}) than '{models[0]}' ({seeds[0]}): let such models answer together instead"
            )
        shapes = [{name: w.shape for name, w in one.weights.items()} for one in (first, other)]
        if shapes[0] != shapes[1]:
            raise RecipeError(f"the weights of '{path}' have other shapes than those of '{models[0]}'")
    every = [first, *others]
    weights = {
        n: np.mean([one.weights[n] for one in every], axis=0, dtype=np.float64).astype(w.dtype)
        for n, w in first.weights.items()
    }
    manifest = {k: v for k, v in first.manifest.items() if k not in ("format", "created", "library", "files", "digest")}
    kept = [name for name in first.manifest["files"] if name not in modelfile.PARTS and name != modelfile.METRICS]
    return modelfile.write(out, manifest, weights, {name: first.read_bytes(name) for name in kept}, overwrite=overwrite)
