"""What a recipe says about text, and its parts for training and validation: running text, documents, tagged sentences.

A part is read anew whenever it is gone through, so that files may be larger than memory.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from recurra import textfile
from recurra.codec import text as text_codec
from recurra.codec.text import TextCodec
from recurra.codec.tokenizer import Normalise, Split, Unit
from recurra.config import config, idle
from recurra.errors import DataError
from recurra.textfile import Document, Sentence

T = TypeVar("T")
OF_TEXT = ("unit", "split", "vocabulary", "minimum", "lower", "normalise")  # options of the codec that is learnt


@dataclass(frozen=True)
class Part(Generic[T]):
    """A part of the data: each pass reads it anew. keep: which of the rows, None: all."""

    read: Callable[[], Iterator[T]]
    keep: np.ndarray | None = None

    def __iter__(self) -> Iterator[T]:
        return self.read() if self.keep is None else compress(self.read(), self.keep)


@config
class Tokens:
    """What all texts have in common."""

    source: Any = Field(description="file, folder, or frame")
    vocabulary: int | None = Field(
        default=None,
        ge=3,
        description="most ids, two special ones included; none: every word or character, 8,000 pieces",
    )
    minimum: int = Field(default=1, ge=1, description="how often a token must occur in the training part to be known")
    lower: bool = Field(default=False, description="lower case alone")
    normalise: Normalise = Field(default="nfc", description="Unicode normal form")
    encoding: str = Field(default="utf-8", description="of plain text files; tables are UTF-8")
    validation: Any = Field(
        default=0.1,
        description="fraction kept for early stopping, or a file of its own; 0: none",
        validate_default=True,
    )

    @field_validator("validation")
    @classmethod
    def _fraction(cls, value: Any) -> Any:
        try:
            value = float(value)
        except (TypeError, ValueError):
            return value
        if not 0 <= value < 1:
            raise ValueError("a fraction is at least 0 and below 1")
        return value


@config
class Text(Tokens):
    """Running text: a file, a list of files or a folder of them. For validation its last lines are kept."""

    unit: Unit = Field(default="characters", description="what a token is; bpe and unigram: pieces of words")
    split: Split = Field(default="whitespace", description="where words end")
    pattern: str = Field(default="*", description="names of the files of a folder")
    text: str | None = Field(default=None, description="column of the text, where a file is a table")

    def parts(self) -> tuple[Part[str], Part[str] | None]:
        """Pieces of text for training and validation (a fraction of the characters), lines with their ends. Of a folder what is
        no text is left out, with a warning that names one. Raises DataError.
        """
        paths, sizes = self._texts(self.source)
        if isinstance(self.validation, float):
            late = np.cumsum(sizes) - sizes >= sizes.sum() * (1 - self.validation)
            return divided(self._part(paths), late, self.validation, "line(s)")
        return self._part(paths), self._part(self._texts(self.validation)[0])

    def fit(self, part: Iterable[str]) -> TextCodec:
        """The codec of the training part. Raises DataError, RecipeError."""
        return text_codec.fit(
            part,
            unit=self.unit,
            vocabulary=self.vocabulary,
            minimum=self.minimum,
            lower=self.lower,
            normalise=self.normalise,
            split=self.split,
            ends=True,
        )

    def _part(self, paths: list[Path]) -> Part[str]:
        return Part(lambda: chain.from_iterable(textfile.pieces(path, self.encoding, self.text) for path in paths))

    def _texts(self, source: Any) -> tuple[list[Path], np.ndarray]:
        """The files, and the characters of each piece of them."""
        folder = not isinstance(source, list | tuple) and Path(source).is_dir()
        paths: list[Path] = []
        sizes: list[np.ndarray] = []
        left_out: list[DataError] = []
        for path in textfile.files(source, self.pattern):
            try:
                sizes.append(np.fromiter(map(len, textfile.pieces(path, self.encoding, self.text)), np.int64))
                paths.append(path)
            except DataError as error:
                if not folder:
                    raise
                left_out += [error] if path.stat().st_size else []
        if left_out:
            warnings.warn(f"{len(left_out)} file(s) left out, e.g. {left_out[0]}", RuntimeWarning, stacklevel=3)
        if not paths:
            raise DataError(f"the folder {source} holds no text like '{self.pattern}'")
        return paths, np.concatenate(sizes)


@config
class Documents(Tokens):
    """Documents with labels, texts or numeric series: a table, or plain text with the label first in each line."""

    minimum: int = Field(default=2, ge=1, description="how often a token must occur in the training part to be known")
    unit: Unit = Field(default="words", description="what a token is; bpe and unigram: pieces of words")
    split: Split = Field(default="punctuation", description="where words end")
    text: str = Field(default="text", description="column of the text")
    label: str = Field(default="label", description="column of the label")
    separator: str | None = Field(default=None, description="mark between several labels of a document")
    label_until: str | None = Field(default=None, description="mark at which a label ends: ':' makes NUM of NUM:date")
    values: tuple[str, ...] = Field(
        default=(),
        description="numbers in the place of a text: a column a step (*: all but the label), or columns of lists",
    )

    @model_validator(mode="after")
    def _of_values(self) -> Self:
        if self.values:
            idle(self, (*OF_TEXT, "text"), "numbers are classified (values)")
        return self

    @property
    def columns(self) -> dict[str, Any]:
        """How a table is read, as options of textfile.documents."""
        return {
            "text": self.text,
            "label": self.label,
            "separator": self.separator,
            "values": list(self.values),
            "label_until": self.label_until,
            "encoding": self.encoding,
        }

    def parts(self, seed: int = 0) -> tuple[Part[Document], Part[Document] | None]:
        """Documents for training and validation, each label in both; equal texts are all in one. Raises DataError."""
        whole = self._part(self.source)
        if not isinstance(self.validation, float):
            return whole, self._part(self.validation)
        keys = ((_key(document), "\n".join(document.labels or ())) for document in whole)
        return divided(whole, drawn(keys, self.validation, seed), self.validation, "document(s)")

    def fit(self, part: Iterable[Document]) -> TextCodec:
        """The codec of the training part's texts. Raises DataError, RecipeError."""
        return text_codec.fit(
            (document.text or "" for document in part),
            unit=self.unit,
            vocabulary=self.vocabulary,
            minimum=self.minimum,
            lower=self.lower,
            normalise=self.normalise,
            split=self.split,
        )

    def _part(self, source: Any) -> Part[Document]:
        sources = source if isinstance(source, list | tuple) else [source]
        return Part(lambda: chain.from_iterable(textfile.documents(one, **self.columns) for one in sources))


@config
class Sentences(Tokens):
    """Sentences with a tag for each word: CoNLL columns or CoNLL-U."""

    lower: bool = Field(default=True, description="words in lower case alone; their letters are read as they are")
    word: str | int | None = Field(
        default=None, description="column of the word: a number from 1, or a name of CoNLL-U; none: the first, or form"
    )
    tag: str | int | None = Field(default=None, description="column of the tag; none: the last, or upos")

    @property
    def columns(self) -> dict[str, Any]:
        """How a file is read, as options of textfile.sentences."""
        return {"word": self.word, "tag": self.tag, "encoding": self.encoding}

    def parts(self, seed: int = 0) -> tuple[Part[Sentence], Part[Sentence] | None]:
        """Sentences for training and validation; equal ones are all in one. Raises DataError."""
        whole = self._part(self.source)
        if not isinstance(self.validation, float):
            return whole, self._part(self.validation)
        keys = ((key(" ".join(sentence.words)), "") for sentence in whole)
        return divided(whole, drawn(keys, self.validation, seed), self.validation, "sentence(s)")

    def fit(self, part: Iterable[Sentence]) -> TextCodec:
        """The codec of the training part's words. Raises DataError."""
        return text_codec.fit_words(
            (word for sentence in part for word in sentence.words),
            vocabulary=self.vocabulary,
            minimum=self.minimum,
            lower=self.lower,
            normalise=self.normalise,
        )

    def _part(self, source: Any) -> Part[Sentence]:
        paths = textfile.files(source)
        return Part(lambda: chain.from_iterable(textfile.sentences(path, **self.columns) for path in paths))


def divided(whole: Part[T], held_out: np.ndarray, fraction: float, what: str) -> tuple[Part[T], Part[T] | None]:
    """The rows that are not held out and those that are, bool [N]; `what` names them. Raises DataError where either has none."""
    if not fraction:
        return whole, None
    if held_out.all() or not held_out.any():
        raise DataError(
            f"{len(held_out)} {what} are too few to keep {fraction:g} of them for validation: name a file of its own, or set "
            "validation = 0 to train without"
        )
    return Part(whole.read, ~held_out), Part(whole.read, held_out)


def _key(document: Document) -> str:
    if document.text is None:
        return "" if document.values is None else document.values.tobytes().hex()
    return key(document.text)


def key(text: str) -> str:
    """Equal for texts that differ in white space and case alone."""
    return " ".join(text.split()).lower()


def drawn(rows: Iterable[tuple[str, str]], fraction: float, seed: int) -> np.ndarray:
    """Which rows to hold out, bool [N]: a seeded fraction of the different keys, in each stratum alike, and never all of one.
    rows: (key, stratum).
    """
    hashes, strata = [], []
    codes: dict[str, int] = {}
    for key, stratum in rows:
        made = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode())
        hashes.append(int.from_bytes(made.digest(), "big"))
        strata.append(codes.setdefault(stratum, len(codes)))
    keys, first, place = np.unique(np.array(hashes, np.uint64), return_index=True, return_inverse=True)
    of = np.array(strata, np.int64)[first]
    order = np.lexsort((keys, of))
    held = np.zeros(len(keys), bool)
    held[order] = np.diff(np.floor(np.arange(len(keys) + 1) * fraction + 0.5)) > 0
    ends = np.append(of[order][1:] != of[order][:-1], True) if len(of) else np.zeros(0, bool)
    whole = np.bincount(of, held) == np.bincount(of)  # a stratum that would be held out as a whole keeps one
    held[order[ends & whole[of[order]]]] = False
    return held[place]
