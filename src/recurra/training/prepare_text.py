"""The text tasks' way from a recipe to what training needs."""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from recurra.codec.text import TextCodec
from recurra.data.buckets import stored
from recurra.data.streams import Streams
from recurra.runtime.generate import opening
from recurra.runtime.surprise import Part
from recurra.tasks import LanguageModel
from recurra.training.prepared import Prepared
from recurra.training.recipe import Recipe

STEPS, FEWEST = 500, 4  # batches an epoch that a short text should have: it is read as fewer streams, 4 at least
SCORED = 200_000  # tokens at most that are scored after training
LEARNT = 3_000_000  # tokens at most, the last ones, from which the floors learn


def generate(recipe: Recipe) -> Prepared:
    """A language model of running text. Raises DataError, RecipeError."""
    config, data, fit = recipe.task, recipe.data, recipe.fit
    train, validation = data.parts()
    codec = data.fit(train)
    ids, characters = _encoded(codec, train)
    rows = min(fit.batch_size, max(FEWEST, len(ids) // (fit.chunk * STEPS)))
    start = opening(codec)
    held_out, scored = None, None
    digest = hashlib.sha256(ids.data)
    if validation is not None:
        kept, kept_characters = _encoded(codec, validation)
        digest.update(kept.data)
        side = max(1, min(rows, len(kept) // fit.chunk))
        held_out = Streams(kept, batch_size=side, chunk=fit.chunk, start=start)
        some = kept[:SCORED]
        share = len(some) / max(1, len(kept))
        scored = Part(some, round(kept_characters * share), ids[-LEARNT:])
    torch.manual_seed(fit.seed)
    return Prepared(
        task=LanguageModel(config, recipe.core, codec.size),
        train=Streams(ids, batch_size=rows, chunk=fit.chunk, seed=fit.seed, vary=config.vary, start=start),
        validation=held_out,
        codec=codec.manifest() | {"pattern": data.pattern, "encoding": data.encoding, "text": data.text},
        digest=digest.hexdigest(),
        sizes={"characters": characters, "tokens": len(ids)},
        scored=scored,
        files=codec.to_files(),
    )


def _encoded(codec: TextCodec, texts: Iterable[str]) -> tuple[np.ndarray, int]:
    """All tokens of the texts, int32 [n], in a temporary file, and how many characters they have."""
    characters = 0

    def counted() -> Iterator[str]:
        nonlocal characters
        for text in texts:
            characters += len(text)
            yield text

    return stored(codec.encode_each(counted())).flat, characters
