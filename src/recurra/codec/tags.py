"""Tags of words: schemes that write spans as tags, what is legal in each, and F1 over spans.

A scheme writes a span of type X over words:    1 word      2 words        3 words
    IOB2     (CoNLL-2002, BIO)                  B-X         B-X I-X        B-X I-X I-X
    BIOES    (IOBES)                            S-X         B-X E-X        B-X I-X E-X
    IOB1     (CoNLL-2003's own)                 I-X         I-X I-X        I-X I-X I-X        and B-X only right after a span of type X
    none     plain labels, e.g. parts of speech: no spans

O is a word outside. References: Ramshaw and Marcus (1995); Tjong Kim Sang and Veenstra (1999); Ratinov and Roth (2009).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from recurra.errors import DataError, nearest

Scheme = Literal["none", "IOB1", "IOB2", "BIOES"]
OUTSIDE = "O"


class Span(NamedTuple):
    """words[first:end] are a span of this type."""

    first: int
    end: int
    type: str


def split(tag: str) -> tuple[str, str]:
    """ "B-PER" -> ("B", "PER"); "O" -> ("O", "")."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def detect(sentences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme in which these tags are written: that with the fewest breaks. Without spans, or with any other tag: none."""
    seen: set[str] = set()
    first = 0  # spans that begin with I (a break of IOB2)
    needless = 0  # B where no span of its type stands before (a break of IOB1)
    for tags in sentences:
        before = OUTSIDE, ""
        for tag in tags:
            prefix, kind = split(tag)
            if tag != OUTSIDE and (prefix not in ("B", "I", "E", "S") or not kind):
                return "none"
            seen.add(prefix)
            first += prefix == "I" and (before[0] == OUTSIDE or before[1] != kind)
            needless += prefix == "B" and (before[0] == OUTSIDE or before[1] != kind)
            before = prefix, kind
    if seen & {"E", "S"}:
        return "BIOES"
    if not seen & {"B", "I"}:
        return "none"
    return "IOB1" if needless < first else "IOB2"


def types(sentences: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The types of spans that occur, sorted."""
    return tuple(sorted({split(tag)[1] for tags in sentences for tag in tags if tag != OUTSIDE}))


def names(types: Sequence[str], scheme: Scheme) -> tuple[str, ...]:
    """All tags of a scheme: O, then those of each type."""
    prefixes = "BIES" if scheme == "BIOES" else "BI"
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in prefixes))


def follows(before: str | None, tag: str | None, scheme: Scheme) -> bool:
    """Whether `tag` may stand after `before` (None: the sentence's begin, or its end)."""
    if scheme == "none":
        return True
    (last, old), (prefix, kind) = split(before or OUTSIDE), split(tag or OUTSIDE)
    same = last != OUTSIDE and old == kind
    if scheme != "BIOES" and prefix in ("E", "S"):
        return False
    if scheme == "IOB2":
        return prefix != "I" or same
    if scheme == "IOB1":
        return prefix != "B" or same
    inside = last in ("B", "I")
    return (same and inside) if prefix in ("I", "E") else not inside


def legal(tags: Sequence[str], scheme: Scheme) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the scheme allows, truth values: transitions [K, K] from the row's tag to the column's, start [K] and end [K]."""
    pairs = [[follows(before, tag, scheme) for tag in tags] for before in tags]
    start, end = ([follows(None, tag, scheme) for tag in tags], [follows(tag, None, scheme) for tag in tags])
    return np.array(pairs, bool).reshape(len(tags), len(tags)), np.array(start, bool), np.array(end, bool)


def broken(tags: Sequence[str], scheme: Scheme) -> tuple[int, str] | None:
    """The first place where the scheme is broken, word number (from 0) and reason; None where it is kept."""
    for t, (before, tag) in enumerate(zip([None, *tags], [*tags, None], strict=True)):
        if not follows(before, tag, scheme):
            if tag is None:
                return t - 1, f"'{before}' can't be the last in {scheme}"
            return t, f"'{tag}' can't " + (f"follow '{before}'" if before else "be the first") + f" in {scheme}"
    return None


def spans(tags: Sequence[str], scheme: Scheme | None = None) -> list[Span]:
    """The spans that tags say, in order.

    Without a scheme, as conlleval reads: of any scheme, and what is broken is repaired (an I or E that continues nothing begins a span).
    With one, strictly (seqeval's "strict"): a span that the scheme does not allow is none.
    """
    found: list[Span] = []
    first, last, old = 0, OUTSIDE, ""  # where the open span began, and the tag before
    begun = False  # whether it began as the scheme wants it
    for t, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = split(tag)
        same = last != OUTSIDE and kind == old
        goes_on = prefix in ("I", "E") and last in ("B", "I") and same and (begun or scheme is None)
        if not goes_on:
            if begun and (scheme != "BIOES" or last in ("E", "S")):
                found.append(Span(first, t, old))
            first = t
            if scheme is None:
                begun = tag != OUTSIDE
            elif scheme == "IOB1":
                begun = prefix == "I" or (prefix == "B" and same)
            else:
                begun = prefix in ("B", "S")
        last, old = prefix, kind
    return found


def write(found: Iterable[Span], length: int, scheme: Scheme) -> list[str]:
    """The tags of `length` words with these spans, which must not overlap."""
    tags, before = [OUTSIDE] * length, (-1, "")  # where the span before ends, and its type
    for first, end, kind in sorted(found):
        inner = ["I"] * (end - first)
        if scheme == "IOB2" or (scheme == "IOB1" and before == (first, kind)):
            inner[0] = "B"
        elif scheme == "BIOES":
            inner[0], inner[-1] = "B", "E"
            if end - first == 1:
                inner = ["S"]
        tags[first:end] = [f"{prefix}-{kind}" for prefix in inner]
        before = end, kind
    return tags


def convert(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """The same spans in another scheme; what was broken is repaired as conlleval reads it."""
    return list(tags) if scheme == "none" else write(spans(tags), len(tags), scheme)


class F1:
    """Precision, recall and F1 over spans: right is a span whose first word, last word and type are all right.

    Add sentence by sentence. conlleval's numbers, and seqeval's in mode "strict" where the spans were read with their scheme.
    """

    def __init__(self) -> None:
        self.right, self.found, self.wanted = Counter[str](), Counter[str](), Counter[str]()

    def add(self, wanted: Iterable[Span], found: Iterable[Span]) -> None:
        """The spans that should be there, and those that were found, of one sentence."""
        wanted, found = set(wanted), set(found)
        self.right.update(span.type for span in wanted & found)
        self.found.update(span.type for span in found)
        self.wanted.update(span.type for span in wanted)

    def scores(self, kind: str | None = None) -> dict[str, float]:
        """precision, recall and f1, 0 to 1, of one type, or over all spans (micro); 0 where nothing is to divide by."""
        right, found, wanted = (
            count.total() if kind is None else count[kind] for count in (self.right, self.found, self.wanted)
        )
        return {
            "precision": right / found if found else 0.0,
            "recall": right / wanted if wanted else 0.0,
            "f1": 2 * right / (found + wanted) if found + wanted else 0.0,
        }

    def by_type(self) -> dict[str, dict[str, float]]:
        """`scores` of each type, with the number of its spans."""
        kinds = sorted(self.wanted.keys() | self.found.keys())
        return {kind: {**self.scores(kind), "spans": self.wanted[kind]} for kind in kinds}


class Tags(BaseModel):
    """The tags of a model: `names`, learnt in `scheme`, and `source`, the scheme of the training data, in which they come out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]
    scheme: Scheme
    source: Scheme

    def encode(self, tags: Sequence[str], where: str, *, repair: bool = False) -> list[int]:
        """The numbers of a sentence's tags, which are written in `source`. `where` names the sentence in errors.

        Raises DataError for an unknown tag, and, but for `repair`, for a broken sequence; each names the word.
        """
        if not repair and (fault := broken(tags, self.source)) is not None:
            t, why = fault
            raise DataError(f"{where}, word {t + 1}: {why}; mend the file, or train with repair = true")
        known = set(self.names) | ({OUTSIDE} if self.scheme != "none" else set())
        learnt = tags if self.scheme == "none" else convert(tags, self.scheme)
        for t, tag in enumerate(learnt):
            if tag not in known:
                raise DataError(f"{where}, word {t + 1}: the tag '{tags[t]}' is unknown; {nearest(tags[t], known)}")
        return [self._numbers[tag] for tag in learnt]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """The tags of a sentence, in `source`."""
        tags = [self.names[k] for k in numbers]
        return tags if self.scheme == self.source else convert(tags, self.source)

    def next(self, before: int | None, number: int) -> str:
        """The tag, in `source`, that follows the tag `before` (None: it is the first). What comes later must not matter: BIOES can't be
        written so, but where it was learnt.
        """
        tag = self.names[number]
        prefix, kind = split(tag)
        if self.scheme == self.source or tag == OUTSIDE:
            return tag
        begins = prefix in ("B", "S")
        if self.source == "IOB1":
            begins = begins and before is not None and split(self.names[before])[1] == kind
        return f"{'B' if begins else 'I'}-{kind}"

    def after(self, kind: str) -> np.ndarray:
        """Truth values [K]: the tags that don't go on with a span of this type."""
        return np.array([split(name)[0] not in ("I", "E") or split(name)[1] != kind for name in self.names], bool)

    def spans(self, numbers: Iterable[int]) -> list[Span]:
        """The spans of a sentence's tags; of plain tags, each word is one."""
        if self.scheme == "none":
            return [Span(t, t + 1, self.names[k]) for t, k in enumerate(numbers)]
        return spans([self.names[k] for k in numbers])

    def mistakes(self, wanted: Sequence[int], found: Sequence[int]) -> tuple[int, int]:
        """(sum, count) whose ratio is 1 - F1 over spans, or the share of wrong tags, where tags are plain."""
        if self.scheme == "none":
            return sum(a != b for a, b in zip(wanted, found, strict=True)), len(wanted)
        a, b = set(self.spans(wanted)), set(self.spans(found))
        return len(a ^ b), len(a) + len(b)

    def legal(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As the function `legal`."""
        return legal(self.names, self.scheme)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: k for k, name in enumerate(self.names)}


def fit(
    sentences: Sequence[Sequence[str]],
    scheme: Literal["auto", "none", "IOB2", "BIOES"] = "auto",
    *,
    at_once: bool = False,
) -> Tags:
    """The tags of training data, to be learnt in `scheme`. auto: BIOES for spans, but where a word's tag must be said before the next
    word is seen (`at_once`) IOB2, for BIOES says of a span's word whether it is the last. Raises DataError for spans where there are none.
    """
    source = detect(sentences)
    if scheme == "none" or (scheme == "auto" and source == "none"):
        plain = tuple(sorted({tag for tags in sentences for tag in tags}))
        return Tags(names=plain, scheme="none", source="none")
    if source == "none":
        raise DataError(
            f"scheme = {scheme} is for spans (B-X, I-X, ...), but these tags are plain: leave scheme at auto"
        )
    learnt: Scheme = scheme if scheme != "auto" else "IOB2" if at_once and source != "BIOES" else "BIOES"
    return Tags(names=names(types(sentences), learnt), scheme=learnt, source=source)
