"""From a recipe of `classify` to what training needs: the codec of its documents, the network, where it starts, and the batches."""

import hashlib
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from recurra import modelfile
from recurra.codec import values as values_codec
from recurra.codec.text import Labels, TextCodec
from recurra.codec.values import ValuesCodec
from recurra.config import idle
from recurra.data import vectors
from recurra.data.buckets import Buckets, Rows, stored
from recurra.data.text import OF_TEXT, Documents, Part
from recurra.errors import DataError, RecipeError
from recurra.modelfile import ModelFile
from recurra.tasks.classify import Classifier, Classify
from recurra.tasks.task import Core
from recurra.textfile import Document
from recurra.training.prepared import MIN_STEPS, Prepared
from recurra.training.recipe import Recipe

FRAMES = 64  # of a numeric series that is read both ways: steps are put together until the longest has no more


def classify(recipe: Recipe) -> Prepared:
    """A classifier of texts or numeric series. Raises DataError, RecipeError, ModelFileError (of the encoder)."""
    config, data, fit = recipe.task, recipe.data, recipe.fit
    learnt, held_out = data.parts(fit.seed)
    labels = Labels.fit(name for document in learnt for name in _names(document, config.many))
    if len(labels) < 2 and not config.many:
        raise DataError(f"every document has the label '{labels.names[0]}': there is nothing to tell apart")
    encoder = None if config.encoder is None else modelfile.read(config.encoder, "generate")
    codec = _codec(config, data, learnt, encoder)
    rows, targets = _encoded(learnt, codec), _targets(learnt, labels, config.many)
    torch.manual_seed(fit.seed)
    inputs = {"vocabulary": codec.size} if isinstance(codec, TextCodec) else {"channels": codec.features}
    if encoder is not None:
        _check(config, recipe.core, encoder)
    task = Classifier(
        config,
        recipe.core,
        classes=len(labels),
        class_weights=_weights(targets) if config.balance else None,
        chunk=fit.chunk,
        sizes=None if encoder is None else _sizes(encoder),
        **inputs,
    )
    if config.unfreeze and fit.epochs < (groups := len(task.groups())):
        said = f"unfreeze thaws one of {groups} groups of layers an epoch: after {fit.epochs} some are as they were"
        warnings.warn(said, RuntimeWarning, stacklevel=2)
    if encoder is not None:
        inside = {
            name.removeprefix("encoder."): w for name, w in encoder.weights.items() if name.startswith("encoder.")
        }
        task.start_from(inside)
    if config.vectors is not None:
        _start_from_vectors(task, codec, config.vectors)
    validation, digests = None, [rows.digest(), repr(targets.tolist())]
    if held_out is not None:
        kept, wanted = _encoded(held_out, codec), _targets(held_out, labels, config.many)
        validation = Buckets(kept, wanted, batch_size=4 * fit.batch_size, train=False)
        digests += [kept.digest(), repr(wanted.tolist())]
    return Prepared(
        task=task,
        train=Buckets(rows, targets, batch_size=fit.batch_size, train=True, seed=fit.seed, min_steps=MIN_STEPS),
        validation=validation,
        codec={
            "text": codec.manifest() if isinstance(codec, TextCodec) else None,
            "values": codec.model_dump(mode="json") if isinstance(codec, ValuesCodec) else None,
            "labels": labels.model_dump(mode="json"),
            "many": config.many,
            "documents": len(rows),
            "columns": data.columns,
        },
        digest=hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        sizes={"documents": len(rows), "labels": len(labels)},
        scored=None if held_out is None else list(held_out),
        files=codec.to_files() if isinstance(codec, TextCodec) else {},
    )


def _names(document: Document, many: bool) -> tuple[str, ...]:
    names = document.labels or ()
    if not many and len(names) != 1:
        raise DataError(f"a document has the labels {', '.join(names)}: set many = true where it may have several")
    return names


def _codec(
    config: Classify, data: Documents, learnt: Part[Document], encoder: ModelFile | None
) -> TextCodec | ValuesCodec:
    if next(iter(learnt)).values is not None:  # a file of the UCR archive has them without being asked
        for name in ("encoder", "vectors"):
            if getattr(config, name) is not None:
                raise RecipeError(
                    f"{name} = '{getattr(config, name)}' is for texts: leave it out where values are classified"
                )
        frames = FRAMES if config.direction == "both" else None  # one that streams takes them one by one
        return values_codec.fit((_series(document) for document in learnt), frames=frames)
    if encoder is not None:
        idle(data, OF_TEXT, f"the text is read as '{config.encoder}' reads it")
        return TextCodec.read(encoder.manifest["codec"], encoder.read_text)
    return data.fit(learnt)


def _series(document: Document) -> np.ndarray:
    assert document.values is not None  # documents() gives a text or values, as it was asked
    return document.values


def _encoded(part: Iterable[Document], codec: TextCodec | ValuesCodec) -> Rows:
    if isinstance(codec, TextCodec):
        return stored(codec.encode_each(document.text or "" for document in part))
    return stored(codec.encode(_series(document)) for document in part)


def _targets(part: Iterable[Document], labels: Labels, many: bool) -> np.ndarray:
    """int64 [N]; with `many` float32 [N, classes]."""
    if not many:
        return labels.encode([_names(document, many)[0] for document in part])
    rows: list[np.ndarray] = []
    for document in part:
        row = np.zeros(len(labels), np.float32)
        row[labels.encode(_names(document, many))] = 1.0
        rows.append(row)
    return np.stack(rows)


def _weights(targets: np.ndarray) -> np.ndarray:
    """What each class counts, so that all together count the same; of several labels, its presence beside its absence."""
    if targets.ndim == 2:
        there = targets.sum(0)
        return (len(targets) - there) / np.maximum(there, 1)
    counts = np.bincount(targets)
    return len(targets) / (len(counts) * counts)


def _sizes(encoder: ModelFile) -> tuple[int, ...]:
    """Units of each layer of a language model's encoder."""
    layers = [layer["name"] for layer in encoder.manifest["layers"] if layer["name"].startswith("encoder.stack")]
    return tuple(encoder.weights[f"{name}.weight_hh_l0"].shape[1] for name in layers)


def _check(config: Classify, core: Core, encoder: ModelFile) -> None:
    """Raises RecipeError where the encoder is of other sizes than the recipe says."""
    sizes = _sizes(encoder)
    found = {
        "cell": encoder.manifest["config"]["core"]["cell"],
        "layers": len(sizes),
        "hidden": sizes[0],
        "embedding": encoder.weights["encoder.embedding.weight"].shape[1],
    }
    wanted = {"cell": core.cell, "layers": core.layers, "hidden": core.hidden, "embedding": config.embedding}
    if found != wanted:
        asked, has = (", ".join(f"{name} = {value}" for name, value in part.items()) for part in (wanted, found))
        raise RecipeError(f"the encoder of '{config.encoder}' has {has}, but the recipe says {asked}: say the same")


def _start_from_vectors(task: Classifier, codec: Any, path: str) -> None:
    """Put pretrained vectors in the place of the embedding's, for the words that have one."""
    if codec.unit != "words":
        raise RecipeError(f"vectors are for words, not for {codec.unit}: set unit = 'words', or leave them out")
    found, known = vectors.load(path, [codec.token(i) for i in range(codec.size)])
    weight = task.encoder.get_parameter("embedding.weight")
    if found.shape[1] != weight.shape[1]:
        raise RecipeError(
            f"'{path}' has vectors of {found.shape[1]} numbers, but embedding = {weight.shape[1]}: say embedding = {found.shape[1]}"
        )
    with torch.no_grad():
        weight[torch.from_numpy(known)] = torch.from_numpy(found[known])
