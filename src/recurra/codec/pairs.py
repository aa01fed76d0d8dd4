"""Two texts and their ids: a source, and the target that it becomes. For a pointer also the words that may be copied.

ids         0 ... size - 1 are those of the text codec of a side; one more, END = size, stands behind the last of a sentence.
pointer     with V = END + 1 of the target: V, V + 1, ... are the words of one document that the target's codec doesn't know,
            in the order in which they appear there first (the extended vocabulary: See, Liu and Manning, 2017).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np

from recurra.codec.text import TextCodec
from recurra.codec.tokenizer import PADDING, UNKNOWN
from recurra.codec.words import words
from recurra.errors import DataError

TARGET_FILE = "target-tokenizer.json"


@dataclass(frozen=True, eq=False)
class PairCodec:
    """The codecs of both sides, one and the same where they are joint.  longest: tokens of a source that are read, None: all."""

    source: TextCodec
    target: TextCodec
    longest: int | None = None

    @property
    def joint(self) -> bool:
        """Whether both sides have the same ids."""
        return self.source is self.target

    @property
    def end(self) -> int:
        """The id that ends a target, and that its decoder reads first."""
        return self.target.size

    @property
    def vocabulary(self) -> int:
        """V: ids of a target, END included."""
        return self.target.size + 1

    # -- text -> ids ---------------------------------------------------------------------------------------------------

    def sources(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of each source, the source's END last, int32 [n + 1]. Raises DataError for what is no text."""
        for ids in self.source.encode_each(texts):
            yield np.append(ids[: self.longest], np.int32(self.source.size))

    def targets(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of each target, END last, int32 [n + 1]. Raises DataError for what is no text."""
        for ids in self.target.encode_each(texts):
            yield np.append(ids, np.int32(self.end))

    def phrase(self, text: str) -> np.ndarray:
        """The ids of words that stand within a target, the white space before them included, int32 [n], without END. Raises DataError."""
        inside = self.target.unit != "words" and self.spelling is not None and text[:1].isalnum()
        return self.target.encode(f" {text}" if inside else text)

    @cached_property
    def spelling(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of each id of a target, END included, whether it begins a word, and whether it goes on with the one before it, truth values
        [V]; None for targets that are written without white space. A codec's word counts where it has a letter or a digit; of
        characters and pieces white space begins a word, but for the first.
        """
        unit = self.target.unit
        tokens = ["", "", *(self.target.token(i) for i in range(UNKNOWN + 1, self.target.size)), ""]
        letters = [any(map(str.isalnum, token)) for token in tokens]
        blank = [token[:1].isspace() for token in tokens]
        inside = [unit != "words" and (token[:1].isalnum() or token[:1] == "\ufffd") for token in tokens]
        spaced = any(blank) if unit == "characters" else any(map(bool.__and__, letters, blank)) or unit == "words"
        return (np.array(letters if unit == "words" else blank), np.array(inside)) if spaced else None

    # -- a pointer -----------------------------------------------------------------------------------------------------

    def copies(self, text: str) -> tuple[np.ndarray, list[str]]:
        """What a pointer writes that copies each token of a source: its id in the target, V + k for the word k of those that have none,
        int32 [n + 1], END last; and those words. Raises UnsupportedError where the unit is not words, DataError.
        """
        read = words(self.source, text)[: self.longest]
        ids = np.append(self.target.encode_words(read), np.int32(self.end))
        extra: dict[str, int] = {}
        for i in np.flatnonzero(ids == UNKNOWN).tolist():
            ids[i] = self.vocabulary + extra.setdefault(read[i], len(extra))
        return ids, list(extra)

    def copied(self, text: str, extra: Sequence[str]) -> np.ndarray:
        """The ids of a target, END last, int32 [n + 1], where a word that the codec doesn't know but the document has, as its `extra`
        word k, is V + k. Raises UnsupportedError where the unit is not words, DataError.
        """
        read = words(self.target, text)
        ids = np.append(self.target.encode_words(read), np.int32(self.end))
        places = {word: self.vocabulary + k for k, word in enumerate(extra)}
        for i in np.flatnonzero(ids == UNKNOWN).tolist():
            ids[i] = places.get(read[i], UNKNOWN)
        return ids

    # -- ids -> text ---------------------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int] | np.ndarray, extra: Sequence[str] = ()) -> str:
        """The text of a target up to its END, as TextCodec.decode gives it back; extra: the words V, V + 1, ... of its document.
        Raises DataError for an id that is neither the codec's nor one of these.
        """
        known = list(takewhile(lambda i: i != self.end, map(int, ids)))
        if not extra:
            return self.target.decode(known)
        return " ".join(self.token(i, extra) for i in known if i != PADDING)

    def token(self, i: int, extra: Sequence[str] = ()) -> str:
        """The text of one id of a target, for display; "</s>" for END. Raises DataError as `decode` does."""
        if i == self.end:
            return "</s>"
        if i < self.vocabulary:
            return self.target.token(i)
        if i - self.vocabulary >= len(extra):
            raise DataError(
                f"there is no token {i}: the document has {len(extra)} word(s) of its own, from {self.vocabulary} on"
            )
        return extra[i - self.vocabulary]

    # -- the model file ------------------------------------------------------------------------------------------------

    def to_files(self) -> dict[str, str]:
        """The files of the model folder that hold the tokenizers."""
        target = {} if self.joint else {TARGET_FILE: self.target.tokenizer.to_str()}
        return self.source.to_files() | target

    def manifest(self) -> dict[str, Any]:
        """The rest, as JSON values; target: None where it is the source's."""
        return {
            "source": self.source.manifest(),
            "target": None if self.joint else self.target.manifest(),
            "longest": self.longest,
        }

    @classmethod
    def read(cls, manifest: Mapping[str, Any], read_text: Callable[[str], str]) -> "PairCodec":
        """The codec of a model folder; read_text: reads one of its files by name. Raises ModelFileError."""
        source = TextCodec.read(manifest["source"], read_text)
        other = manifest["target"]
        target = source if other is None else TextCodec.read(other, read_text, TARGET_FILE)
        return cls(source, target, manifest["longest"])
