"""From a recipe of `translate` or `summarise` to what training needs: the codec of both sides, the network, and the batches."""

import hashlib
from typing import Any

import torch

from recurra.codec.pairs import PairCodec
from recurra.data.buckets import PairBuckets
from recurra.data.pairs import encoded
from recurra.errors import RecipeError
from recurra.tasks.summarise import Summariser
from recurra.tasks.task import Task
from recurra.tasks.translate import Translator
from recurra.training.prepared import MIN_STEPS, Prepared
from recurra.training.recipe import Recipe

SCORED = 300  # pairs at most that are scored after training: each is written out
PLACES = 2 * 32  # of a batch: so many tokens, padding included, for each sequence of batch_size


def translate(recipe: Recipe) -> Prepared:
    """A translator. Raises DataError, RecipeError."""

    def made(codec: PairCodec) -> Task:
        source = None if codec.joint else codec.source.size + 1
        return Translator(recipe.task, recipe.core, codec.vocabulary, source)

    return _prepared(recipe, made, copies=False)


def summarise(recipe: Recipe) -> Prepared:
    """A summariser. Raises DataError, RecipeError."""
    config, data = recipe.task, recipe.data
    if not data.joint:
        raise RecipeError("a summary is in the document's own words: leave joint = true")
    if config.pointer and data.unit != "words":
        raise RecipeError(f"a pointer copies words, not {data.unit}: set unit = 'words', or pointer = false")
    return _prepared(recipe, lambda codec: Summariser(config, recipe.core, codec.vocabulary), copies=config.pointer)


def _prepared(recipe: Recipe, made: Any, *, copies: bool) -> Prepared:
    data, fit = recipe.data, recipe.fit
    learnt, held_out = data.parts(fit.seed)
    codec = data.fit(learnt)
    rows = encoded(codec, learnt, copies=copies)
    torch.manual_seed(fit.seed)
    task = made(codec)
    tokens = PLACES * fit.batch_size
    parts, validation = [rows], None
    if held_out is not None:
        parts.append(encoded(codec, held_out, copies=copies))
        validation = PairBuckets(**parts[1], tokens=4 * tokens, train=False)
    digests = [part.digest() for found in parts for part in found.values() if part is not None]
    longest = int(rows["sources"].lengths.max()) - 1
    every = [] if held_out is None else list(held_out)
    step = max(1, -(-len(every) // SCORED))
    return Prepared(
        task=task,
        train=PairBuckets(**rows, tokens=tokens, train=True, seed=fit.seed, min_steps=MIN_STEPS),
        validation=validation,
        codec={**codec.manifest(), "columns": data.columns, "trained longest": longest},
        digest=hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        sizes={"pairs": len(rows["sources"]), "tokens": len(rows["sources"].flat) + len(rows["targets"].flat)},
        scored=every[::step] or None,
        sample=f"one in {step} of {len(every)} pairs" if step > 1 else "",
        files=codec.to_files(),
    )
