"""Play a translator: sentences, files of them, and scores beside the floor. The network is that of tasks/translate.py."""

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, TextIO

import numpy as np
import polars as pl

from recurra import pairfile
from recurra.errors import DataError, RecurraError, UnsupportedError
from recurra.pairfile import Pair
from recurra.runtime.scored import Scored
from recurra.runtime.simultaneous import Simultaneous, lagging
from recurra.runtime.stream import State
from recurra.runtime.writer import Writer, need
from recurra.runtime.written import Written
from recurra.search.settings import Search

HELD = 2048  # sentences read at a time


class TranslateModel(Writer):
    """A trained translator. `translate` for sentences, `predict` for a file, `evaluate` for pairs.

    One that was trained with `wait` also translates while a sentence comes, word by word: `start`, `step` and `finish`.
    """

    def translate(
        self,
        texts: str | Sequence[str],
        search: Search | None = None,
        *,
        prefixes: Sequence[str] | None = None,
        phrases: Sequence[Sequence[str]] | None = None,
    ) -> list[Written]:
        """The translation of each sentence (one alone may be a str); prefixes: how each begins; phrases: what must stand in each.

        Raises DataError, RecipeError.
        """
        texts = [texts] if isinstance(texts, str) else texts
        return self.write(texts, search, prefixes=prefixes, phrases=phrases)

    def start(self) -> State:
        """The state before the first word of a sentence. Raises UnsupportedError for a model that was trained without `wait`."""
        return self._simultaneous().start()

    def step(self, state: State, words: str) -> tuple[str, State]:
        """The next word (or words) of the sentence in, what can be written by then out, and the new state; `state` is left as it was.

        Raises DataError, StateError, UnsupportedError.
        """
        return self._simultaneous().step(state, words)

    def finish(self, state: State) -> tuple[str, State]:
        """The rest of the translation, once the sentence has ended. Raises StateError, UnsupportedError."""
        return self._simultaneous().finish(state)

    def _simultaneous(self) -> Simultaneous:
        if not self.streams or len(self.networks) > 1:
            raise UnsupportedError(
                "only a single model that was trained with wait = 3 or the like writes while it reads: use translate"
            )
        return Simultaneous(self)

    def predict(self, source: Any, search: Search | None = None) -> pl.DataFrame:
        """Translate every line of a file of plain text, every source of a table (file or frame), or every text of a list: a row for each of
        the `n_best`, with sentence (from 1), rank (from 1), text, score, ended, and the alignment of the best ("0-0 1-2": source word -
        word). Raises DataError.
        """
        rows: dict[str, list[Any]] = {name: [] for name in ("sentence", "rank", "text", "score", "ended", "alignment")}
        number, texts = 0, iter(self.sources(source))
        while block := list(islice(texts, HELD)):
            for answer in self.write(block, search):
                number += 1
                pairs = " ".join(f"{s}-{t}" for s, t in answer.alignment)
                best = (answer.text, answer.score, answer.ended)
                for rank, one in enumerate((best, *answer.alternatives), 1):
                    shown = (number, rank, *one, pairs if rank == 1 else "")
                    for name, value in zip(rows, shown, strict=True):
                        rows[name].append(value)
        kinds = (pl.Int64, pl.Int64, pl.String, pl.Float64, pl.Boolean, pl.String)
        return pl.DataFrame({k: pl.Series(v, dtype=kind) for (k, v), kind in zip(rows.items(), kinds, strict=True)})

    def evaluate(self, source: Any, target: Any = None, search: Search | None = None) -> Scored:
        """Score translations of pairs (a list of `Pair`, a table, or two files) against the targets, beside the source as it is.

        BLEU and chrF are sacrebleu's, on cased text; its signature is in the caption. A model with `wait` searches greedily where nothing
        is said, and its average lagging, in tokens of the source, stands beside. Raises DataError, UnsupportedError.
        """
        pairs = self._pairs(source, target)
        bleu, chrf = need("sacrebleu").metrics.BLEU(), need("sacrebleu").metrics.CHRF()
        answers = self.write([pair.source for pair in pairs], search)
        written = [answer.text for answer in answers]
        wanted = [[pair.target for pair in pairs]]
        total, count = self.score(pairs)
        rows = {
            name: {"BLEU": bleu.corpus_score(texts, wanted).score, "chrF": chrf.corpus_score(texts, wanted).score}
            for name, texts in (("model", written), ("source copied", [pair.source for pair in pairs]))
        }
        rows["model"]["nats/token"] = float(-total.sum() / count.sum())
        wait = self.networks[0].wait
        if wait is not None:
            lags = [lagging(a.weights.shape[1], len(a.tokens), wait) for a in answers if a.tokens]
            rows["model"]["average lagging"] = float(np.mean(lags))
        signatures = f"{bleu.get_signature()}; chrF {chrf.get_signature()}"
        caption = f"{len(pairs)} sentences; sacrebleu {signatures}"
        return Scored(rows, caption, examples=self.examples(pairs, answers))

    def lines(self, lines: Iterable[str], out: TextIO) -> int:
        """A sentence a line in, its translation a line out. A line that is refused is named on standard error; returns how many were.

        A model with `wait` takes a word, or several, a line, and writes a line as soon as there is one; an empty line ends the sentence.
        """
        return self._words(lines, out) if self.streams else super().lines(lines, out)

    def _words(self, lines: Iterable[str], out: TextIO) -> int:
        state, refused = self.start(), 0

        def ended() -> State:
            rest, _ = self.finish(state)
            out.write(f"{rest.strip()}\n\n" if rest.strip() else "\n")
            out.flush()
            return self.start()

        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    piece, state = self.step(state, line)
                    out.write(f"{piece.strip()}\n" if piece.strip() else "")
                    out.flush()
                elif state.arrays["read"].shape[1]:
                    state = ended()
            except RecurraError as error:
                refused += 1
                sys.stderr.write(f"recurra: line {number}: {error}\n")
        if state.arrays["read"].shape[1]:
            ended()
        return refused

    def _pairs(self, source: Any, target: Any) -> list[Pair]:
        if isinstance(source, list | tuple) and all(isinstance(one, Pair) for one in source):
            pairs = list(source)
        else:
            pairs = list(pairfile.pairs(source, target, **self.columns))
        if not pairs:
            raise DataError("there is no pair to score")
        return pairs


def shown(answer: Written) -> str:
    """Attention as a table of text for a terminal: a row for each word, a column for each source word, in tenths."""
    if not answer.attention.size:
        return ""
    width = max(map(len, answer.words), default=0)
    head = " " * width + " " + " ".join(f"{word[:5]:>5}" for word in answer.source_words)
    rows = [
        f"{word:>{width}} " + " ".join(f"{value:5.2f}" if value >= 0.05 else "    ." for value in row)
        for word, row in zip(answer.words, answer.attention.tolist(), strict=True)
    ]
    return "\n".join([head, *rows])


def as_json(answer: Written) -> str:
    """An answer with its attention, as one line of JSON."""
    return json.dumps(
        {
            "text": answer.text,
            "score": round(answer.score, 6),
            "logp": round(answer.logp, 6),
            "ended": answer.ended,
            "source": list(answer.source_words),
            "words": list(answer.words),
            "attention": np.round(answer.attention.astype(float), 4).tolist(),
            "alternatives": [one._asdict() | {"score": round(one.score, 6)} for one in answer.alternatives],
        },
        ensure_ascii=False,
    )
