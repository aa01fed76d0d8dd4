"""The floor that a tagger must beat: each word gets the tag that it had most often in the training part, an unknown word the most
frequent tag of all. Spans of it are read as conlleval does, for such tags break every scheme.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict


class TagFloor(BaseModel):
    """most: the most frequent tag; words: those whose own is another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most: str
    words: dict[str, str]

    @classmethod
    def fit(cls, sentences: Iterable[tuple[Sequence[str], Sequence[str]]]) -> "TagFloor":
        """Of the words and tags of sentences, of which there is at least one. Of equals the first of the alphabet."""
        counts: dict[str, Counter[str]] = {}
        whole = Counter[str]()
        for words, tags in sentences:
            whole.update(tags)
            for word, tag in zip(words, tags, strict=True):
                counts.setdefault(word, Counter())[tag] += 1
        most = _first(whole)
        own = {word: _first(count) for word, count in counts.items()}
        return cls(most=most, words={word: tag for word, tag in own.items() if tag != most})

    def tags(self, words: Iterable[str]) -> list[str]:
        """A tag for each word."""
        return [self.words.get(word, self.most) for word in words]


def _first(counts: Counter[str]) -> str:
    return min(counts, key=lambda tag: (-counts[tag], tag))
