"""Text <-> ids of tokens: characters, words, or pieces of words (BPE, Unigram); the characters of a word; labels.

The tokenizer is one of the `tokenizers` library, saved as `tokenizer.json` beside the model: normalisation and splitting are
part of it, so that training and service read a text alike. Ids 0 and 1 are PADDING and UNKNOWN in every unit. Pieces of
words are made of bytes, so that they spell every text; BPE: Sennrich et al. 2016; Unigram: Kudo 2018.
"""

import codecs
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer

from recurra.codec.tokenizer import (
    BYTES,
    PADDING,
    SPECIAL,
    UNKNOWN,
    Normalise,
    Split,
    Unit,
    checked,
    learn,
    learn_words,
)
from recurra.errors import DataError, ModelFileError, UnsupportedError, nearest

FILE = "tokenizer.json"
AT_ONCE = 1 << 20  # characters that are encoded at once


@dataclass(frozen=True, eq=False)
class TextCodec:
    """A fitted tokenizer, and what it was asked to do. `ends`: words alone: a line's end is a token of its own ("\\n")."""

    unit: Unit
    lower: bool
    normalise: Normalise
    split: Split
    ends: bool
    tokenizer: Tokenizer = field(repr=False)

    @cached_property
    def size(self) -> int:
        """Number of ids, PADDING and UNKNOWN included."""
        return self.tokenizer.get_vocab_size()

    # -- text -> ids ---------------------------------------------------------------------------------------------------

    def encode(self, text: str) -> np.ndarray:
        """int32 [n]. Raises DataError where `text` is no str or no Unicode text."""
        return next(self.encode_each((text,)))

    def encode_all(self, texts: Iterable[str]) -> list[np.ndarray]:
        """The ids of each text. Raises DataError."""
        return list(self.encode_each(texts))

    def encode_each(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of each text, int32 [n], read about a million characters at a time. Raises DataError."""
        for group in _groups(texts):
            if self.unit == "characters":
                yield from map(self._characters, group)
                continue
            for found in self.tokenizer.encode_batch_fast(group, add_special_tokens=False):
                ids = np.array(found.ids, np.int32)
                ids[ids == PADDING] = UNKNOWN  # the word "<pad>"
                yield ids

    def _characters(self, text: str) -> np.ndarray:
        """As the tokenizer's answer, and thirty times faster: a table by code point."""
        return self._table[np.frombuffer(self.normal(text).encode("utf-32-le"), np.uint32)]

    def normal(self, text: str) -> str:
        """The text as the codec reads it: in its normal form, and in lower case where it was asked to."""
        normalizer = self.tokenizer.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(0x110000, UNKNOWN, np.int32)
        for token, i in self._ids.items():
            if i > UNKNOWN:
                table[ord(token)] = i
        return table

    @cached_property
    def _ids(self) -> dict[str, int]:
        return self.tokenizer.get_vocab()

    def encode_words(self, words: Sequence[str]) -> np.ndarray:
        """One id a word, int32 [n], whatever a word looks like. Raises UnsupportedError where the unit is another."""
        if self.unit != "words":
            raise UnsupportedError(f"a codec of {self.unit} has no id for a word: fit one with unit = 'words'")
        return np.array([self._word(word) for word in words], np.int32)

    def _word(self, word: str) -> int:
        found = self._known.get(word)
        if found is None:
            found = max(UNKNOWN, self._ids.get(self.normal(checked(word)), UNKNOWN))
            if len(self._known) < 1 << 20:
                self._known[word] = found
        return found

    @cached_property
    def _known(self) -> dict[str, int]:
        """Words as they were written, that need not be normalised again."""
        return {}

    # -- ids -> text ---------------------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of `ids`. Characters and pieces of words: as it was before, but for normalisation, lower case and
        unknown characters. Words: with a space between, none beside a line's end. PADDING is left out.

        Raises DataError for an id that the codec has not.
        """
        return "".join(self.decode_each(np.asarray(ids).tolist() if isinstance(ids, np.ndarray) else ids))

    def decode_each(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `ids`, piece by piece as they come: together the same as `decode`. A character whose bytes are spread
        over several ids comes with the last of them.
        """
        before, bytes_ = "\n", codecs.getincrementaldecoder("utf-8")("replace")
        for i in ids:
            token = self._token(int(i))
            if i == PADDING:
                yield ""
            elif self.unit == "words":
                yield token if "\n" in (token, before) else f" {token}"
                before = token
            elif self.unit == "characters":
                yield token
            else:
                yield bytes_.decode(bytes(BYTES[c] for c in token))
        if rest := bytes_.decode(b"", final=True):
            yield rest

    def token(self, i: int) -> str:
        """The text of one id, for display; "�" where it is part of a character, "<pad>" and "<unk>" for the first two."""
        return self._token(i) if i <= UNKNOWN else "".join(self.decode_each((i,)))

    def _token(self, i: int) -> str:
        token = self.tokenizer.id_to_token(i) if i >= 0 else None
        if token is None:
            raise DataError(f"there is no token {i}: the ids of this codec are 0 to {self.size - 1}")
        return token

    # -- the model file ------------------------------------------------------------------------------------------------

    def to_files(self) -> dict[str, str]:
        """The files of the model folder that hold the tokenizer."""
        return {FILE: self.tokenizer.to_str()}

    def manifest(self) -> dict[str, Any]:
        """The rest, as JSON values."""
        return {
            "unit": self.unit,
            "lower": self.lower,
            "normalise": self.normalise,
            "split": self.split,
            "ends": self.ends,
            "size": self.size,
        }

    @classmethod
    def read(cls, manifest: Mapping[str, Any], read_text: Callable[[str], str], file: str = FILE) -> "TextCodec":
        """The codec of a model folder; read_text: reads one of its files by name. Raises ModelFileError."""
        text = read_text(file)
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises plain Exceptions
            raise ModelFileError(f"{file} can't be read ({str(error)[:100]}): copy the model's folder again") from None
        options = {name: manifest[name] for name in ("unit", "lower", "normalise", "split", "ends")}
        codec = cls(**options, tokenizer=tokenizer)
        if codec.size != manifest["size"]:
            raise ModelFileError(
                f"{file} holds {codec.size} tokens, not {manifest['size']}: copy the model's folder again"
            )
        return codec


def fit(
    texts: Iterable[str],
    *,
    unit: Unit,
    vocabulary: int | None = None,
    minimum: int = 1,
    lower: bool = False,
    normalise: Normalise = "nfc",
    split: Split = "whitespace",
    ends: bool = False,
) -> TextCodec:
    """Learn the tokens of `texts` (the training part; read once, as a stream).

    vocabulary: at most so many ids, PADDING and UNKNOWN included (none: every word or character; 8,000 pieces).
    minimum: how often a word, a character or a pair that becomes one piece must occur (Unigram: not used).
    split: how words are told apart: by white space, or punctuation marks too are words (don't is one).  ends: see TextCodec.
    Words and characters have ids by falling frequency. The same texts give the same ids.
    Raises DataError: no text at all; RecipeError: a vocabulary that can't be.
    """
    tokenizer = learn(texts, unit, vocabulary, minimum, lower, normalise, split, ends)
    return TextCodec(unit, lower, normalise, split, ends, tokenizer)


def fit_words(
    words: Iterable[str],
    *,
    vocabulary: int | None = None,
    minimum: int = 1,
    lower: bool = False,
    normalise: Normalise = "nfc",
) -> TextCodec:
    """The codec of words that were told apart before, as taggers have them; the options are those of `fit`. Raises DataError."""
    tokenizer = learn_words(words, vocabulary, minimum, lower, normalise)
    return TextCodec("words", lower, normalise, "whitespace", False, tokenizer)


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts, about AT_ONCE characters together. Raises DataError for what is no text."""
    group, size = [], 0
    for text in texts:
        group.append(checked(text))
        size += len(text) + 50
        if size > AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


class CharacterView(BaseModel):
    """A word as ids of its characters: the width's first half and last half of a longer one. Fitted on the training words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    characters: str
    width: int

    @classmethod
    def fit(cls, words: Iterable[str], *, width: int = 20) -> "CharacterView":
        """The characters of `words`, the most frequent first; width: ids a word, less where the longest word is shorter."""
        counts: Counter[str] = Counter()
        longest = 1
        for word in words:
            counts.update(word)
            longest = max(longest, len(word))
        return cls(
            characters="".join(sorted(counts, key=lambda c: (-counts[c], c))),
            width=min(width, longest),
        )

    @property
    def size(self) -> int:
        """Number of ids, PADDING and UNKNOWN included."""
        return len(self.characters) + len(SPECIAL)

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """int32 [n, width], PADDING behind the end of a word."""
        out = np.full((len(words), self.width), PADDING, np.int32)
        for row, word in zip(out, words, strict=True):
            row[: len(word)] = self._word(word)
        return out

    def _word(self, word: str) -> list[int]:
        if len(word) > self.width:
            tail = self.width // 2
            word = word[: self.width - tail] + (word[-tail:] if tail else "")
        return [self._ids.get(c, UNKNOWN) for c in word]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {c: i for i, c in enumerate(self.characters, start=len(SPECIAL))}


class Labels(BaseModel):
    """The names of classes or tags in a fixed order (the alphabet's; numbers by size), and how often each occurs in the
    training part, which is what the floor of the majority needs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def fit(cls, labels: Iterable[str]) -> "Labels":
        """The names in `labels`, each label one str. Raises DataError where there is none."""
        counts = Counter(labels)
        if not counts:
            raise DataError("there is no label to learn from")
        try:
            names = sorted(counts, key=lambda name: (float(name), name))
        except ValueError:
            names = sorted(counts)
        return cls(names=tuple(names), counts=tuple(counts[name] for name in names))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def majority(self) -> int:
        """The index of the most frequent one."""
        return int(np.argmax(self.counts))

    def index(self, name: str) -> int:
        """The place of `name`. Raises DataError where training has never seen it."""
        found = self._index.get(name)
        if found is None:
            raise DataError(f"the label '{name}' is unknown to the model: {nearest(name, self.names)}")
        return found

    def encode(self, names: Sequence[str]) -> np.ndarray:
        """int64 [n], the place of each. Raises DataError."""
        return np.array([self.index(name) for name in names], np.int64)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}
