"""What a recipe says about pairs of texts, and their parts for training and validation: translations, documents with summaries."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from recurra import pairfile
from recurra.codec import text as text_codec
from recurra.codec.pairs import PairCodec
from recurra.codec.text import TextCodec
from recurra.codec.tokenizer import Split, Unit
from recurra.config import config
from recurra.data.buckets import stored
from recurra.data.text import Part, Tokens, divided, drawn, key
from recurra.pairfile import Pair


@config
class Pairs(Tokens):
    """Sentences and their translations, or other pairs of texts: two files, line by line, or a table with two columns."""

    target: Any = Field(default=None, description="file with a line for each of the source's; none: source is a table")
    validation_target: Any = Field(default=None, description="the same for validation, where that is plain text")
    source_column: str = Field(default="source", description="column of a table: the text to read")
    target_column: str = Field(default="target", description="column of a table: the text to write")
    unit: Unit = Field(default="bpe", description="what a token is; bpe and unigram: pieces of words")
    split: Split = Field(default="whitespace", description="where words end")
    joint: bool = Field(default=True, description="one vocabulary for both sides")
    longest: int | None = Field(
        default=None, ge=1, description="tokens of a source that are read, the rest is left out; none: all"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source_column == self.target_column:
            raise ValueError(f"source_column and target_column are both '{self.source_column}': name two columns")
        if self.validation_target is not None and isinstance(self.validation, float):
            raise ValueError("validation_target goes with a validation file: name that one too, or leave it out")
        return self

    @property
    def columns(self) -> dict[str, Any]:
        """How a source is read, as options of pairfile.pairs."""
        return {
            "source_column": self.source_column,
            "target_column": self.target_column,
            "encoding": self.encoding,
        }

    def parts(self, seed: int = 0) -> tuple[Part[Pair], Part[Pair] | None]:
        """Pairs for training and validation; those of equal sources are all in one. All is read once, so that what is wrong with
        it is said at once. Raises DataError.
        """
        whole = self._part(self.source, self.target)
        keys = ((key(pair.source), "") for pair in self._pairs(self.source, self.target))
        if isinstance(self.validation, float):
            return divided(whole, drawn(keys, self.validation, seed), self.validation, "pair(s)")
        other = self.validation, self.validation_target
        deque(chain(keys, self._pairs(*other)), maxlen=0)
        return whole, self._part(*other)

    def fit(self, part: Iterable[Pair]) -> PairCodec:
        """The codecs of the training part, which is read twice where they are not joint. Raises DataError, RecipeError."""
        if self.joint:
            both = self._codec(text for pair in part for text in pair)
            return PairCodec(both, both, self.longest)
        source, target = self._codec(pair.source for pair in part), self._codec(pair.target for pair in part)
        return PairCodec(source, target, self.longest)

    def _codec(self, texts: Iterable[str]) -> TextCodec:
        return text_codec.fit(
            texts,
            unit=self.unit,
            vocabulary=self.vocabulary,
            minimum=self.minimum,
            lower=self.lower,
            normalise=self.normalise,
            split=self.split,
        )

    def _part(self, source: Any, target: Any) -> Part[Pair]:
        return Part(lambda: self._pairs(source, target, quiet=True))

    def _pairs(self, source: Any, target: Any, *, quiet: bool = False) -> Iterator[Pair]:
        return pairfile.pairs(source, target, **self.columns, quiet=quiet)


@config
class Summaries(Pairs):
    """Documents with summaries: a table with two columns, or two files, line by line."""

    source_column: str = Field(default="document", description="column of a table: the text to read")
    target_column: str = Field(default="summary", description="column of a table: the text to write")
    unit: Unit = Field(default="words", description="what a token is; bpe and unigram: pieces of words")
    split: Split = Field(default="punctuation", description="where words end")
    vocabulary: int | None = Field(default=20_000, ge=3, description="most ids, two special ones included")
    longest: int | None = Field(
        default=400, ge=1, description="tokens of a document that are read, the rest is left out"
    )


def encoded(codec: PairCodec, part: Part[Pair], *, copies: bool = False) -> dict[str, Any]:
    """What `PairBuckets` reads: sources, targets, copies. Raises DataError; UnsupportedError: copies where the unit is not words."""

    def written() -> Iterator[np.ndarray]:
        for pair in part:
            yield codec.copied(pair.target, codec.copies(pair.source)[1])

    return {
        "sources": stored(codec.sources(pair.source for pair in part)),
        "targets": stored(written() if copies else codec.targets(pair.target for pair in part)),
        "copies": stored(codec.copies(pair.source)[0] for pair in part) if copies else None,
    }
