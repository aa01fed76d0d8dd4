"""Play a summariser: documents, tables of them, and scores beside the floor. The network is that of tasks/summarise.py."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from recurra import pairfile
from recurra.codec.tokenizer import checked
from recurra.codec.words import words as words_of
from recurra.errors import DataError, RecipeError
from recurra.pairfile import Pair
from recurra.runtime.scored import Scored
from recurra.runtime.writer import Writer, need
from recurra.runtime.written import Written
from recurra.search.settings import Search

AROUND = 0.2  # of the words asked for, that a summary may have more or less
ROOM = 6  # tokens for each word asked for
ROUGE = ("rouge1", "rouge2", "rougeL")


class SummariseModel(Writer):
    """A trained summariser. `summarise` for documents, `predict` for a table, `evaluate` for documents with summaries."""

    usual = Search(beam=4, length_penalty=0.9, coverage_penalty=0.0, min_length=1, max_ratio=0.5, no_repeat=3)

    def summarise(
        self, texts: str | Sequence[str], search: Search | None = None, *, words: int | None = None
    ) -> list[Written]:
        """The summary of each document (one alone may be a str). words: about how many, within a fifth; for a model of words what
        holds no letter or digit is none. Raises DataError where a document has fewer words than are asked for, RecipeError.
        """
        texts = [texts] if isinstance(texts, str) else texts
        if words is None:
            return self.write(texts, search)
        if isinstance(words, bool) or not isinstance(words, int) or words < 1:
            raise RecipeError(f"words = {words}: must be a whole number from 1 on")
        for text in texts if isinstance(texts, list | tuple) else ():
            there = sum(any(map(str.isalnum, word)) for word in checked(text).split())
            if text.strip() and there < words:
                raise DataError(f"a document of {there} words has no summary of about {words}: ask for fewer")
        around = math.ceil((1 - AROUND) * words), math.floor((1 + AROUND) * words)
        search = search or self.search
        if search.max_length is None:
            search = replace(search, max_length=max(ROOM * words + 10, search.min_length))
        return self.write(texts, search, words=around)

    def predict(self, source: Any, search: Search | None = None) -> pl.DataFrame:
        """Summarise every document of a table (file or frame), of a file of plain text (one a line) or of a list: a row each, with text,
        score and ended. Raises DataError.
        """
        found = self.write(list(self.sources(source)), search)
        columns = {"text": pl.String, "score": pl.Float64, "ended": pl.Boolean}
        return pl.DataFrame(
            {k: pl.Series([getattr(one, k) for one in found], dtype=kind) for k, kind in columns.items()}
        )

    def evaluate(self, source: Any, target: Any = None, search: Search | None = None) -> Scored:
        """Score summaries of documents (a list of `Pair`, a table, or two files) against theirs, beside the first words of each document.

        ROUGE-1, 2 and L are the F of rouge-score, with stemming, the mean over documents, in hundredths; the floor takes as many
        words as the given summaries have in the mean. Raises DataError, UnsupportedError.
        """
        pairs = (
            list(source) if isinstance(source, list | tuple) else list(pairfile.pairs(source, target, **self.columns))
        )
        if not pairs:
            raise DataError("there is no document to score")
        need("rouge_score")
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(list(ROUGE), use_stemmer=True)
        answers = self.write([pair.source for pair in pairs], search)
        written = [answer.text for answer in answers]
        lead = max(1, round(float(np.mean([len(words_of(self.codec.source, pair.target)) for pair in pairs]))))
        first = [" ".join(words_of(self.codec.source, pair.source)[:lead]) for pair in pairs]
        total, count = self.score(pairs)
        rows = {name: _rouge(scorer, pairs, texts) for name, texts in (("model", written), (f"lead-{lead}", first))}
        rows["model"]["nats/token"] = float(-total.sum() / count.sum())
        caption = f"{len(pairs)} documents; rouge-score, F, with stemming"
        return Scored(rows, caption, examples=self.examples(pairs, answers))


def _rouge(scorer: Any, pairs: Sequence[Pair], texts: Sequence[str]) -> dict[str, float]:
    found = [scorer.score(pair.target, text) for pair, text in zip(pairs, texts, strict=True)]
    return {
        f"ROUGE-{name.removeprefix('rouge')}": 100 * float(np.mean([one[name].fmeasure for one in found]))
        for name in ROUGE
    }
