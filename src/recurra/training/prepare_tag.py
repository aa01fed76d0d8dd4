"""From a recipe of `tag` to what training needs: the codecs of words, letters and tags, the network, where it starts, and the batches."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, compress
from typing import Any

import numpy as np
import torch

from recurra.codec import tags as tag_codec
from recurra.codec.tag_floor import TagFloor
from recurra.codec.tags import Tags
from recurra.codec.text import CharacterView, TextCodec
from recurra.data import vectors
from recurra.data.buckets import Buckets, Rows, stored
from recurra.data.text import Part
from recurra.errors import RecipeError
from recurra.runtime.tag import FLOOR
from recurra.tasks.tag import Tag, Tagger
from recurra.textfile import Sentence
from recurra.training.prepared import MIN_STEPS, Prepared
from recurra.training.recipe import Recipe


def tag(recipe: Recipe) -> Prepared:
    """A tagger of words. Raises DataError, RecipeError."""
    config, data, fit = recipe.task, recipe.data, recipe.fit
    learnt, held_out = data.parts(fit.seed)
    both = chain(learnt, held_out or ())  # a tag that the validation part alone has is known, though never learnt
    at_once = config.direction == "forward" and not config.ahead
    tags = tag_codec.fit([s.tags or () for s in both], config.scheme, at_once=at_once)
    words = data.fit(learnt)
    letters = None
    if config.characters != "none":
        letters = CharacterView.fit(word for s in learnt for word in s.words)
    rows = _rows(learnt, data.source, words, letters, tags, config.repair)
    torch.manual_seed(fit.seed)
    start = None if config.vectors is None else _vectors(config, words)
    task = Tagger(
        config if start is None else replace(config, embedding=start[0].shape[1]),
        recipe.core,
        vocabulary=words.size,
        letters=0 if letters is None else letters.size,
        tags=tags,
        once=np.bincount(rows["rows"].flat, minlength=words.size) == 1,
    )
    if start is not None:
        with torch.no_grad():
            task.words.weight[torch.from_numpy(start[1])] = torch.from_numpy(start[0][start[1]])
    validation, parts = None, [rows]
    if held_out is not None:
        source = data.source if isinstance(data.validation, float) else data.validation
        parts.append(_rows(held_out, source, words, letters, tags, config.repair))
        validation = Buckets(**parts[1], batch_size=4 * fit.batch_size, train=False)
    digests = [part.digest() for found in parts for part in found.values() if part is not None]
    return Prepared(
        task=task,
        train=Buckets(**rows, batch_size=fit.batch_size, train=True, seed=fit.seed, min_steps=MIN_STEPS),
        validation=validation,
        codec={
            "words": words.manifest(),
            "letters": None if letters is None else letters.model_dump(mode="json"),
            "tags": tags.model_dump(mode="json"),
            "columns": data.columns,
            "repair": config.repair,
        },
        digest=hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        sizes={"sentences": len(rows["rows"]), "words": len(rows["rows"].flat), "tags": len(tags.names)},
        scored=None if held_out is None else list(held_out),
        files={**words.to_files(), FLOOR: TagFloor.fit((s.words, s.tags or ()) for s in learnt).model_dump_json()},
    )


def _rows(
    part: Part[Sentence], source: Any, words: TextCodec, letters: CharacterView | None, tags: Tags, repair: bool
) -> dict[str, Any]:
    """What `Buckets` reads: rows, targets, characters. Raises DataError, naming source, sentence and word."""

    def targets() -> Iterator[np.ndarray]:
        numbered = enumerate(part.read(), 1)
        for i, sentence in numbered if part.keep is None else compress(numbered, part.keep):
            found = tags.encode(sentence.tags or (), f"{source}, sentence {i}", repair=repair)
            yield np.array(found, np.int32)

    found: dict[str, Rows | None] = {"targets": stored(targets())}
    found["rows"] = stored(words.encode_words(sentence.words) for sentence in part)
    found["characters"] = None if letters is None else stored(letters.encode(sentence.words) for sentence in part)
    return found


def _vectors(config: Tag, words: TextCodec) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of the words [size, width], and which words have one [size]."""
    assert config.vectors is not None
    found, known = vectors.load(config.vectors, [words.token(i) for i in range(words.size)])
    if config.embedding not in (None, found.shape[1]):
        raise RecipeError(
            f"'{config.vectors}' has vectors of {found.shape[1]} numbers, but embedding = {config.embedding}: leave embedding out"
        )
    return found, known
