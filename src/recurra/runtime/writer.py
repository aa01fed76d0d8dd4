"""Play what reads a text and writes another: what translate and summarise share. The network is runtime/sequence.py's.

A text's answer depends on that text alone, bit for bit, whatever stands beside it.
"""

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TextIO

import numpy as np

from recurra import pairfile
from recurra.codec.pairs import PairCodec
from recurra.codec.tokenizer import PADDING, UNKNOWN, checked
from recurra.codec.words import unknown
from recurra.errors import DataError, RecipeError, RecurraError, UnsupportedError
from recurra.pairfile import Pair
from recurra.runtime.sequence import EncoderDecoder, Rows, Source
from recurra.runtime.weights import unplayable
from recurra.runtime.written import Written, cut, nothing, written
from recurra.search import beam
from recurra.search.beam import Task, Words
from recurra.search.sample import sample
from recurra.search.sampling import Sampling
from recurra.search.settings import Search

GROUP = 64  # texts side by side
EXAMPLES, WIDEST = 4, 60  # answers that are shown with their scores, and words of a source that a picture has


class Writer:
    """A trained model that writes one text about another. `write` for texts; `score` for pairs; `ensemble` with others."""

    usual: ClassVar[Search] = Search()

    def __init__(
        self, manifest: Mapping[str, Any], weights: Mapping[str, np.ndarray], digest: str, files: Mapping[str, str]
    ) -> None:
        self.manifest, self.digest = dict(manifest), digest
        try:
            codec = manifest["codec"]
            self.codec = PairCodec.read(codec, files.__getitem__)
            self.columns: dict[str, Any] = dict(codec["columns"])
            self.longest = int(codec["trained longest"])
            self.networks = [EncoderDecoder(manifest["layers"], weights)]
            if self.networks[0].vocabulary != self.codec.vocabulary:
                raise ValueError(
                    f"{self.networks[0].vocabulary} tokens in the network, {self.codec.vocabulary} in the codec"
                )
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise unplayable("model of two texts", error) from None

    def ensemble(self, *others: "Writer") -> "Writer":
        """This model and others as one: the mean of their probabilities, token by token. Raises RecipeError for other tokens."""
        made = type(self).__new__(type(self))
        made.__dict__ |= self.__dict__
        for other in others:
            if other.codec.manifest() != self.codec.manifest() or other.codec.to_files() != self.codec.to_files():
                raise RecipeError(
                    "models that answer together need the same tokens: train them on the same data, with other seeds"
                )
            if other.networks[0].copies != self.networks[0].copies:
                raise RecipeError(
                    "models that answer together must all have a pointer, or none: train them with one recipe"
                )
        made.networks = [network for model in (self, *others) for network in model.networks]
        return made

    @property
    def search(self) -> Search:
        """How it searches where nothing is said: with a beam, or, where it waits, greedily. For another way of the same kind:
        dataclasses.replace(model.search, n_best=3).
        """
        beam = 1 if self.streams else self.usual.beam
        return replace(self.usual, beam=min(beam, self.codec.vocabulary - 1))

    def lines(self, lines: Iterable[str], out: TextIO) -> int:
        """A text a line in, its answer a line out. A line that is refused is named on standard error; returns how many were."""
        refused = 0
        for number, line in enumerate(lines, 1):
            try:
                out.write(self.write([line.strip()])[0].text + "\n")
                out.flush()
            except RecurraError as error:
                refused += 1
                sys.stderr.write(f"recurra: line {number}: {error}\n")
        return refused

    def sources(self, source: Any) -> Iterable[str]:
        """The texts of a list, a file or a frame, read as its training data were. Raises DataError."""
        if isinstance(source, list | tuple):
            return source
        named = {name: self.columns[name] for name in ("source_column", "encoding")}
        return pairfile.sources(source, **named)

    def examples(self, pairs: Sequence[Pair], answers: Sequence[Written]) -> list[dict[str, Any]]:
        """The first answers of a scored part, with what was wanted and, word by word, what they attended to: JSON values."""
        some = list(zip(pairs, answers, strict=True))[:EXAMPLES]
        return [
            {
                "text": answer.text,
                "wanted": pair.target,
                "source": list(answer.source_words[:WIDEST]),
                "words": list(answer.words),
                "attention": np.round(answer.attention[:, :WIDEST].astype(float), 3).tolist(),
            }
            for pair, answer in some
        ]

    @property
    def streams(self) -> bool:
        """Whether it was trained to write before its source ends (`wait`)."""
        return self.networks[0].wait is not None

    def facts(self) -> dict[str, Any]:
        """What `recurra info` says of it."""
        codec = self.codec
        return {
            "unit": codec.source.unit,
            "vocabulary": codec.vocabulary if codec.joint else f"{codec.source.size + 1} and {codec.vocabulary}",
            "columns": {name: value for name, value in self.columns.items() if value is not None},
            "longest source": self.longest,
        }

    # -- writing -------------------------------------------------------------------------------------------------

    def write(
        self,
        texts: Sequence[str],
        search: Search | None = None,
        *,
        prefixes: Sequence[str] | None = None,
        phrases: Sequence[Sequence[str]] | None = None,
        words: tuple[int, int] | None = None,
    ) -> list[Written]:
        """What each text becomes. prefixes: how each answer begins; phrases: what must stand in each, apart from letters; words: the
        fewest and the most of each. An empty text gives an empty one.

        Raises DataError for what is no text, for prefixes and phrases that are not one for each or can't be written, RecipeError for a
        search that can't be.
        """
        search = search or self.search
        search.check(self.codec.vocabulary)
        _check("texts", texts)
        for name, given in (("prefixes", prefixes), ("phrases", phrases)):
            if given is not None:
                _check(name, given, len(texts))
        if words is not None and self.codec.spelling is None:
            raise RecipeError(
                "the model's texts have no space between words to count them by: set min_length, max_length"
            )
        inside = None if self.codec.spelling is None else self.codec.spelling[1]
        found = [nothing()] * len(texts)
        for some, extra, sources in self._groups(texts):
            tasks = [
                Task(
                    search.most(len(source.memory) - 1),
                    () if prefixes is None else self._ids(prefixes[i], self.codec.target.encode),
                    () if phrases is None else self._phrases(phrases[i], self.codec.phrase),
                    len(source.memory),
                    None if words is None else self._counted(*words, more),
                    () if phrases is None else self._phrases(phrases[i], self.codec.target.encode),
                )
                for i, source, more in zip(some, sources[0], extra, strict=True)
            ]
            rules = self._rules(search)
            answers = beam.search(_Advance(self.networks, sources).step, tasks, search, inside=inside, **rules)
            for i, best, more, task in zip(some, answers, extra, tasks, strict=True):
                found[i] = written(self.codec, texts[i], [cut(one, task.most, search) for one in best], more, search)
        return found

    def sample(
        self, texts: Sequence[str], sampling: Sampling, *, seed: int = 0, search: Search | None = None
    ) -> list[Written]:
        """What each text becomes, drawn token by token. A text's draws follow from the seed and the text. search: for max_length,
        max_ratio and unknown alone. Raises as `write` does.
        """
        search = search or Search(beam=1)
        for name in ("n_best", "no_repeat", "min_length", "coverage_penalty", "length_power"):
            if getattr(search, name) != getattr(Search(), name):
                raise RecipeError(
                    f"{name} = {getattr(search, name)} would do nothing where texts are drawn: leave it out"
                )
        _check("texts", texts)
        found = [nothing()] * len(texts)
        for some, extra, sources in self._groups(texts):
            tasks = [Task(search.most(len(source.memory) - 1), positions=len(source.memory)) for source in sources[0]]
            seeds = [
                int.from_bytes(hashlib.blake2b(f"{seed} {texts[i]}".encode(), digest_size=6).digest()) for i in some
            ]
            drawn = sample(_Advance(self.networks, sources).step, tasks, sampling, seeds, **self._rules(search))
            for i, one, more, task in zip(some, drawn, extra, tasks, strict=True):
                found[i] = written(self.codec, texts[i], [cut(one, task.most, search)], more, search)
        return found

    def _groups(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[list[str]], list[list[Source]]]]:
        """The texts that are not empty, some at a time: which, the words that a pointer may copy, and what each network read."""
        there = [i for i, text in enumerate(texts) if not isinstance(text, str) or text.strip()]
        for first in range(0, len(there), GROUP):
            some = there[first : first + GROUP]
            yield some, *self._encode([texts[i] for i in some])

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """log p of each target given its source, END included, in nats, float64 [n]; and how many tokens they have, int64 [n]: [2, n]."""
        total, count = np.zeros(len(pairs)), np.zeros(len(pairs))
        for first in range(0, len(pairs), GROUP):
            some = pairs[first : first + GROUP]
            extra, sources = self._encode([pair.source for pair in some])
            copies = self.networks[0].copies
            targets = [
                self.codec.copied(pair.target, more) if copies else ids
                for pair, more, ids in zip(some, extra, self.codec.targets(p.target for p in some), strict=True)
            ]
            going, advance = list(range(len(some))), _Advance(self.networks, sources)
            rows, ids = np.arange(len(some)), np.full(len(some), self.codec.end, np.int64)
            for t in range(max(map(len, targets))):
                logp, _ = advance.step(rows, ids)
                for row, j in enumerate(going):
                    total[first + j] += float(logp[row, targets[j][t]])
                    count[first + j] += 1
                left = [row for row, j in enumerate(going) if t + 1 < len(targets[j])]
                going = [going[row] for row in left]
                rows, ids = np.array(left, np.int64), np.array([targets[j][t] for j in going], np.int64)
                if not going:
                    break
        return np.stack([total, count])

    # -- inside --------------------------------------------------------------------------------------------------

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[str]], list[list[Source]]]:
        """The words that a pointer may copy of each text, and what each network read of each."""
        if self.networks[0].copies:
            both = [self.codec.copies(text) for text in texts]
            ids, extra = [np.asarray(one[0]) for one in both], [one[1] for one in both]
        else:
            ids, extra = list(self.codec.sources(texts)), [[] for _ in texts]
        self._warn(texts, ids)
        return extra, [network.encode(ids) for network in self.networks]

    def _warn(self, texts: Sequence[str], ids: Sequence[np.ndarray]) -> None:
        """Of what the answers can't be good for: a source that is cut, or longer than any that was seen, or of unknown words alone."""
        most = max(map(len, self.codec.source.encode_each(texts)))
        cut, said = self.codec.longest or most, []
        if most > cut:
            said.append(f"of a text of more than {cut} tokens the model reads the first {cut}, as in training")
        if min(most, cut) > 2 * self.longest:
            said.append(f"a text of {most} tokens is far longer than any in training ({self.longest}): split it")
        dark = [text for text, one in zip(texts, ids, strict=True) if unknown(self.codec.source, one[:-1])]
        if dark:
            said.append(f"the model knows no word of {dark[0][:40]!r}: its answer is a guess")
        for line in said:
            warnings.warn(line, RuntimeWarning, stacklevel=6)

    def _rules(self, search: Search) -> dict[str, Any]:
        """What a text begins with, whether one ends, and ids that are never written."""
        end = self.codec.end
        banned = (PADDING, UNKNOWN) if search.unknown == "never" else (PADDING,)
        return {"start": end, "ends": lambda ids: ids[-1] == end, "banned": banned}

    def _ids(self, text: str, encode: Callable[[str], np.ndarray]) -> tuple[int, ...]:
        ids = tuple(encode(" ".join(checked(text).split())).tolist())
        if UNKNOWN in ids:
            raise DataError(f"the model has no token for a word of {text[:40]!r}: it can't be asked for")
        return ids

    def _counted(self, least: int, most: int, extra: Sequence[str]) -> Words:
        """How many words: where tokens are no words, none begins the first."""
        assert self.codec.spelling is not None
        begins = np.append(self.codec.spelling[0], [any(map(str.isalnum, word)) for word in extra]).astype(bool)
        begun = int(self.codec.target.unit != "words")
        return Words(least - begun, most - begun, begins)

    def _phrases(self, phrases: Sequence[str], encode: Callable[[str], np.ndarray]) -> tuple[tuple[int, ...], ...]:
        listed = isinstance(phrases, list | tuple)
        if not listed or not all(isinstance(one, str) and one.strip() for one in phrases):
            raise DataError(
                f"phrases are a list of words for each text, not {phrases!r}: give e.g. [['a phrase', 'another']]"
            )
        return tuple(self._ids(one, encode) for one in phrases)


def _check(name: str, given: Any, number: int | None = None) -> None:
    if not isinstance(given, list | tuple):
        raise DataError(f"{name} must be a list, an entry for each text, not {type(given).__name__}")
    if number is not None and len(given) != number:
        raise DataError(f"{name} are for {len(given)} texts, and there are {number}: give one entry for each")


class _Advance:
    """Rows of all networks, continued together."""

    def __init__(self, networks: Sequence[EncoderDecoder], sources: Sequence[list[Source]]) -> None:
        self.networks, self.sources = networks, sources
        self.rows: list[Rows] = [network.start(read) for network, read in zip(networks, sources, strict=True)]

    def step(self, rows: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What beam.search calls: log p [n, V], and the mean weights [n, S]."""
        logps, weights = [], []
        for k, network in enumerate(self.networks):
            logp, seen, self.rows[k] = network.step(self.sources[k], self.rows[k].take(rows), ids)
            logps.append(logp)
            weights.append(seen)
        if len(logps) == 1:
            return logps[0], weights[0]
        with np.errstate(divide="ignore"):
            together = np.log(np.mean(np.exp(np.stack(logps, dtype=np.float64)), axis=0))
        return together, np.asarray(np.mean(np.stack(weights), axis=0), np.float32)


def need(package: str, extra: str = "text") -> Any:
    """A package of an extra of ours. Raises UnsupportedError where it is absent."""
    try:
        return __import__(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise UnsupportedError(
            f"this needs {package}, which is not installed: pip install 'recurra[{extra}]'"
        ) from None
