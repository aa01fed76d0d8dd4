"""Play a tagger: sentences, or, where it reads forwards, word by word. The equations are those of tasks/tag.py.

A model that reads both ways answers with the best sequence of tags (Viterbi). One that reads forwards decides `ahead` words later, once
and for all, since no later word may change what was said: each word gets the tag with the highest p(tag | scores up to it) (the filter)
among those that may follow the tag before. `predict` decides so too, hence a sentence has the same bits whole or word by word.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TextIO

import numpy as np
import polars as pl

from recurra.codec.tag_floor import TagFloor
from recurra.codec.tags import Tags, split
from recurra.codec.text import UNKNOWN, CharacterView, TextCodec
from recurra.errors import DataError, RecurraError, StateError, UnsupportedError
from recurra.runtime.layers import Recurrent
from recurra.runtime.scored import Scored
from recurra.runtime.stream import State
from recurra.runtime.tag_network import TagNetwork
from recurra.runtime.tag_scores import score
from recurra.runtime.weights import unplayable
from recurra.search.viterbi import Chain
from recurra.textfile import Sentence, sentences

FLOOR = "floor.json"
NONE = -1  # no tag yet
GROUP = 64  # sentences side by side
HELD = 2048  # sentences that are read before they are sorted by length


class Tagged(NamedTuple):
    """A tag, and how sure it is, 0 to 1: the probability of its whole span, of a word outside that of its tag; where the model reads
    forwards, that of the tag, given the words so far.
    """

    tag: str
    confidence: float


class TagModel:
    """A trained tagger. `tag`, `predict` and `evaluate` for sentences; `start`, `step` and `finish` for streams."""

    def __init__(
        self,
        manifest: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        digest: str,
        files: Mapping[str, str],
    ) -> None:
        self.manifest, self.digest = dict(manifest), digest
        try:
            codec = manifest["codec"]
            self.tags = Tags.model_validate(codec["tags"])
            self.columns: dict[str, Any] = dict(codec["columns"])
            self.repair: bool = codec["repair"]
            self.floor = TagFloor.model_validate_json(files[FLOOR])
            letters = None if codec["letters"] is None else CharacterView.model_validate(codec["letters"])
            text = TextCodec.read(codec["words"], files.__getitem__)
            self._network = network = TagNetwork(manifest["layers"], weights, text, letters)
            if network.read.outputs != len(self.tags.names):
                raise ValueError(f"{network.read.outputs} scores for {len(self.tags.names)} tags")
            parts = zip(("transitions", "start", "end"), self.tags.legal(), strict=True)
            self._chain = Chain(*(np.where(allowed, weights[f"crf.{name}"], -np.inf) for name, allowed in parts))
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise unplayable("tagger", error) from None

    @property
    def streams(self) -> bool:
        """Whether it can take a sentence word by word: only one that reads forwards can."""
        return self._network.forward is not None

    @property
    def ahead(self) -> int:
        """Words that it waits for before it tags a word, where it reads forwards."""
        return self._network.ahead

    def facts(self) -> dict[str, Any]:
        """What `recurra info` says of it."""
        tags, network = self.tags, self._network
        kinds = {"tags": list(tags.names)}
        if tags.scheme != "none":
            written = "" if tags.scheme == tags.source else f", written in {tags.source}"
            kinds = {
                "spans": list(dict.fromkeys(split(name)[1] for name in tags.names[1:])),
                "scheme": tags.scheme + written,
            }
        return {
            **kinds,
            "words": network.text.size,
            "letters": 0 if network.letters is None else network.letters.size,
            "columns": {name: value for name, value in self.columns.items() if value is not None},
            "direction": f"forward, {network.ahead} word(s) ahead" if self.streams else "both",
        }

    # -- sentences -------------------------------------------------------------------------------------------------

    def tag(self, words: Sequence[str]) -> list[Tagged]:
        """The tags of one sentence, a tag a word. Raises DataError where there is no word, or one text instead of words."""
        return self._tagged(next(self._scored([words]))[1])

    def n_best(self, words: Sequence[str], n: int) -> list[tuple[list[str], float]]:
        """The n best sequences of tags of a sentence, each with its probability, best first; fewer where there are no more.

        They weigh the sentence as a whole, also where the model reads forwards (and so `tag` need not give the first).
        Raises DataError.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise DataError(f"n = {n!r}: ask for 1 sequence or more")
        (_, scores), *_ = self._scored([words])
        paths, worth = self._chain.n_best(scores, n)
        p = np.exp(np.minimum(worth - self._chain.log_z(scores), 0.0))
        return [(self.tags.decode(path), q) for path, q in zip(paths.tolist(), p.tolist(), strict=True)]

    def predict(self, source: Any) -> pl.DataFrame:
        """Tag every word of `source`: a file with the words' column as in the training data, or a list of sentences, each a list of words.

        Returns a row a word: sentence (from 1), word, tag, confidence. Raises DataError.
        """
        numbers: list[int] = []
        words: list[str] = []
        found: list[Tagged] = []
        for i, (sentence, scores) in enumerate(self._scored(self._read_words(source)), 1):
            numbers += [i] * len(sentence)
            words += sentence
            found += self._tagged(scores)
        columns = {"sentence": pl.Series(numbers, dtype=pl.Int64), "word": pl.Series(words, dtype=pl.String)}
        columns["tag"] = pl.Series([answer.tag for answer in found], dtype=pl.String)
        return pl.DataFrame(columns | {"confidence": pl.Series([a.confidence for a in found], dtype=pl.Float64)})

    def evaluate(self, source: Any) -> Scored:
        """Score the tags of a file (or list of `Sentence`) beside the floor; runtime/tag_scores.py has the definitions.

        Raises DataError for an unknown tag or a broken sequence, naming sentence and word.
        """
        name = "the list" if isinstance(source, list | tuple) else str(source)
        given = source if isinstance(source, list | tuple) else sentences(source, **self.columns)
        pairs: list[tuple[list[str], list[int]]] = []

        def words() -> Iterator[list[str]]:
            for i, sentence in enumerate(given, 1):
                where = f"{name}, sentence {i}"
                if sentence.tags is None or len(sentence.tags) != len(sentence.words):
                    raise DataError(f"{where}: {len(sentence.words)} words, but {len(sentence.tags or ())} tags")
                pairs.append((list(sentence.words), self.tags.encode(sentence.tags, where, repair=self.repair)))
                yield pairs[-1][0]

        found = [self._decided(scores) for _, scores in self._scored(words())]
        if not found:
            raise DataError(f"{name}: there is no sentence to score")
        known = {
            word for sentence, _ in pairs for word in sentence if self._network.text.encode_words([word])[0] != UNKNOWN
        }
        return score(self.tags, self.floor, pairs, found, known)

    def _read_words(self, source: Any) -> Iterator[list[str]]:
        if isinstance(source, list | tuple):
            for sentence in source:
                if isinstance(sentence, str):
                    raise DataError("a list of sentences is a list of lists of words, not of texts: split them first")
                yield list(sentence.words if isinstance(sentence, Sentence) else sentence)
            return
        for sentence in sentences(source, **self.columns, labelled=False):
            yield list(sentence.words)

    def _scored(self, source: Iterable[Sequence[str]]) -> Iterator[tuple[list[str], np.ndarray]]:
        """Each sentence with its scores [T, K] float32, in order."""
        rest, before = iter(source), 0
        while some := list(islice(rest, HELD)):
            for i, words in enumerate(some, before + 1):
                if isinstance(words, str):
                    raise DataError(f"a sentence is a list of words, not the text {words[:40]!r}: split it first")
                if not len(words):
                    raise DataError(f"sentence {i} is empty: a sentence has at least one word")
                strange = [word for word in words if not isinstance(word, str)]
                if strange:
                    raise DataError(
                        f"sentence {i} holds {strange[0]!r}, which is no text: a sentence is a list of words"
                    )
            block = [list(words) for words in some]
            before += len(block)
            order = sorted(range(len(block)), key=lambda i: len(block[i]))
            found: dict[int, np.ndarray] = {}
            for first in range(0, len(order), GROUP):
                group = order[first : first + GROUP]
                found |= zip(group, self._network.scores([block[i] for i in group]), strict=True)
            for i, words in enumerate(block):
                yield words, found[i]

    def _decided(self, scores: np.ndarray) -> list[int]:
        """The tags of a sentence of scores [T, K]."""
        chain = self._chain
        return (chain.online(scores, self.ahead > 0) if self.streams else chain.best(scores))[0].tolist()

    def _tagged(self, scores: np.ndarray) -> list[Tagged]:
        if self.streams:
            tags, sure = self._chain.online(scores, self.ahead > 0)
            before = [None, *tags[:-1].tolist()]
            steps = zip(before, tags.tolist(), sure.tolist(), strict=True)
            return [Tagged(self.tags.next(a, b), p) for a, b, p in steps]
        tags = self._decided(scores)
        marginals = self._chain.marginals(scores)
        p = marginals[np.arange(len(tags)), tags]
        if self.tags.scheme != "none":
            spans = self.tags.spans(tags)
            places = [(span.first, span.end, self.tags.after(span.type)) for span in spans]
            for span, q in zip(spans, self._chain.spans(scores, np.array(tags), places), strict=True):
                p[span.first : span.end] = q
        return [Tagged(tag, q) for tag, q in zip(self.tags.decode(tags), p.tolist(), strict=True)]

    # -- streams -------------------------------------------------------------------------------------------------

    def start(self, rows: int = 1) -> State:
        """The state of `rows` sentences of which nothing has been seen. Raises UnsupportedError for a model that reads both ways."""
        core = self._streaming()
        arrays = {
            f"core.{name}": np.ascontiguousarray(np.moveaxis(part, 0, 1))
            for name, part in zip(core.state_names, core.start(rows), strict=True)
        }
        arrays["waiting"] = np.zeros((rows, self.ahead, core.hidden), np.float32)  # newest last
        arrays["filter"] = np.zeros((rows, len(self.tags.names)), np.float64)
        arrays["seen"], arrays["previous"] = np.zeros(rows, np.int64), np.full(rows, NONE, np.int64)
        return State(self.digest, arrays)

    def step(self, state: State, words: str | Sequence[str]) -> tuple[list[Tagged | None], State]:
        """The next word of every sentence in, the tag of the word `ahead` words before out (None: there is none yet); and the new
        state, `state` is left as it was. words: one a row; a str, for one row.

        The answers have the bits of `predict`. Raises DataError, StateError (another model's state), UnsupportedError.
        """
        core, rows = self._streaming(), state.rows
        self._check(state)
        words = [words] if isinstance(words, str) else list(words)
        if len(words) != rows or not rows:
            raise DataError(f"a step has one word a row, {rows}, not {len(words)}")
        new = state.copy()
        before = tuple(np.ascontiguousarray(np.moveaxis(new.arrays[f"core.{n}"], 1, 0)) for n in core.state_names)
        y, after = core(self._network.embed(words)[:, None], before)
        for name, part in zip(core.state_names, after, strict=True):
            new.arrays[f"core.{name}"] = np.ascontiguousarray(np.moveaxis(part, 0, 1))
        waiting = np.concatenate([new.arrays["waiting"], y], 1)
        new.arrays["waiting"] = np.ascontiguousarray(waiting[:, 1:])
        new.arrays["seen"] += 1
        scores = self._network.read(np.concatenate([waiting[:, 0], y[:, 0]], 1) if self.ahead else y[:, 0])
        ready = new.arrays["seen"] > self.ahead
        return [self._answer(new, row, scores[row], last=False) if ready[row] else None for row in range(rows)], new

    def finish(self, state: State) -> list[list[Tagged]]:
        """The sentences end here: the tags of the words that were still waited for, of each row."""
        self._check(state)
        new, found = state.copy(), []
        for row, seen in enumerate(new.arrays["seen"].tolist()):
            left = new.arrays["waiting"][row, self.ahead - min(seen, self.ahead) :]
            answers = []
            for k, y in enumerate(left):
                scores = self._network.read(np.concatenate([y, left[-1]])[None])[0]
                answers.append(self._answer(new, row, scores, last=k == len(left) - 1))
            found.append(answers)
        return found

    def _answer(self, state: State, row: int, scores: np.ndarray, *, last: bool) -> Tagged:
        """Decide a row's next word; `state` is written to."""
        past = int(state.arrays["previous"][row])
        previous = None if past == NONE else past
        before = None if previous is None else state.arrays["filter"][row]
        at, tag, p = self._chain.decide(before, previous, scores.astype(np.float64), last=last)
        state.arrays["filter"][row], state.arrays["previous"][row] = at, tag
        return Tagged(self.tags.next(previous, tag), p)

    def _check(self, state: State) -> None:
        """Raises StateError where it is of another model, or edited; UnsupportedError where the model reads both ways."""
        state.check_like(self.start(0))
        previous = state.arrays["previous"]
        if ((previous < NONE) | (previous >= len(self.tags.names))).any():
            raise StateError("this state is broken at 'previous': it was edited; start a new one")

    def _streaming(self) -> Recurrent:
        if self._network.forward is None:
            raise UnsupportedError(
                'this model reads both ways, so it must see a whole sentence: train with direction = "forward" to stream'
            )
        return self._network.forward

    def lines(self, lines: Iterable[str], out: TextIO) -> int:
        """A word a line in (of several columns the first), a line "word TAB tag TAB confidence" out as soon as it is decided; an empty
        line ends a sentence. A line that is refused is named on standard error and changes nothing; returns how many were.

        Raises UnsupportedError for a model that reads both ways.
        """
        state, refused, waiting = self.start(), 0, []

        def write(answers: Iterable[Tagged | None]) -> None:
            for answer in answers:
                if answer is not None:
                    out.write(f"{waiting.pop(0)}\t{answer.tag}\t{answer.confidence:.6f}\n")

        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    word = (line.split("\t") if "\t" in line else line.split())[0].strip()
                    if not word:
                        raise DataError("the first column, the word, is empty")
                    answers, state = self.step(state, word)
                    waiting.append(word)
                    write(answers)
                elif state.arrays["seen"][0]:
                    write(self.finish(state)[0])
                    out.write("\n")
                    state = self.start()
                out.flush()
            except RecurraError as error:
                refused += 1
                sys.stderr.write(f"recurra: line {number}: {error}\n")
        write(self.finish(state)[0])
        out.flush()
        return refused
