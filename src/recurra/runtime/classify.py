"""Play a classifier: whole documents and numeric series, or, where it reads forwards, step by step.

The equations are those of tasks/classify.py. Frames go through the core and the pooling in order, in blocks of steps and rows, so a
verdict has the same bits however its document came in: whole, in pieces, one token at a time, alone or among others.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TextIO

import numpy as np
import polars as pl

from recurra.codec.text import Labels, TextCodec
from recurra.codec.values import ValuesCodec
from recurra.errors import DataError, RecurraError, StateError, UnsupportedError
from recurra.runtime.layers import Bidirectional, Embedding, Linear, Recurrent, sigmoid, softmax, tanh
from recurra.runtime.pooling import Pooling
from recurra.runtime.scored import Scored
from recurra.runtime.stream import State
from recurra.runtime.verdict import Verdict, score, verdict
from recurra.runtime.weights import under, unplayable
from recurra.textfile import Document, documents

GROUP = 64  # documents side by side
FRAMES = 256  # steps of them at a time
HELD = 2048  # documents that are read before they are sorted by length


class ClassifyModel:
    """A trained classifier. `predict` and `evaluate` for tables; `start` and `step` for streams, where it reads forwards."""

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
            self.labels = Labels.model_validate(codec["labels"])
            self.columns: dict[str, Any] = dict(codec["columns"])
            self.many: bool = codec["many"]
            self.documents: int = codec["documents"]
            self.text = None if codec["text"] is None else TextCodec.read(codec["text"], files.__getitem__)
            self.values = None if codec["values"] is None else ValuesCodec.model_validate(codec["values"])
            self._build(manifest["layers"], weights)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            if isinstance(error, UnsupportedError):
                raise
            raise unplayable("classifier", error) from None

    def _build(self, described: list[Any], weights: Mapping[str, np.ndarray]) -> None:
        layers = {layer["name"]: layer for layer in described}

        def linear(name: str) -> Linear:
            return Linear(weights[f"{name}.weight"], weights.get(f"{name}.bias"))

        width = self.values.features if self.values is not None else 0
        self._embedding = None
        if self.text is not None:
            self._embedding = Embedding(weights["encoder.embedding.weight"])
            width = self._embedding.outputs
            if self._embedding.size != self.text.size:
                raise ValueError(f"{self._embedding.size} embeddings for a vocabulary of {self.text.size}")
        self._ahead: list[Recurrent] = []
        self._both: list[Bidirectional] = []
        for layer in described:
            if "both" not in layer:
                continue
            made = (Bidirectional if layer["both"] else Recurrent)(
                layer["kind"], under(weights, layer["name"]), layers=1
            )
            if made.inputs != width:
                raise ValueError(f"{layer['name']} reads {made.inputs} values, not {width}")
            (self._both if isinstance(made, Bidirectional) else self._ahead).append(made)  # type: ignore[arg-type]
            width = made.hidden * (2 if layer["both"] else 1)
        if bool(self._both) == bool(self._ahead):
            raise ValueError("all layers must read one way, or all both")
        pooling, backward = layers["pool"]["pooling"], width // 2 if self._both else 0
        self._attend = (linear("attend"), linear("score")) if pooling == "attention" else None
        self._pool = Pooling(pooling, width, backward=backward, score=self._score)
        self._classify = linear("classify")
        if (self._classify.inputs, self._classify.outputs) != (self._pool.outputs, len(self.labels.names)):
            raise ValueError(f"the head must map {self._pool.outputs} values to {len(self.labels.names)} labels")
        self._temperature = np.float32(weights["temperature"].reshape(1)[0])

    def _score(self, y: np.ndarray) -> np.ndarray:
        assert self._attend is not None
        attend, score = self._attend
        return score(tanh(attend(y)))

    @property
    def streams(self) -> bool:
        """Whether it can take a document step by step: only one that reads forwards can."""
        return not self._both

    def facts(self) -> dict[str, Any]:
        """What `recurra info` says of it."""
        text = self.text
        return {
            "labels": list(self.labels.names),
            "several labels": self.many,
            **({} if text is None else {"tokens": f"{text.size} {text.unit}"}),
            **({} if self.values is None else {"channels": self.values.channels, "missing values": self.values.flags}),
            "columns": {name: value for name, value in self.columns.items() if value is not None},
            "direction": "forward" if self.streams else "both",
            "pooling": self.manifest["config"]["task"]["pooling"],
            "temperature": round(float(self._temperature), 4),
        }

    # -- streams -------------------------------------------------------------------------------------------------

    def start(self, rows: int = 1) -> State:
        """The state of `rows` documents of which nothing has been seen. Raises UnsupportedError for a model that reads both ways."""
        if self._both:
            raise UnsupportedError(
                'this model reads both ways, so it must see a whole document: train with direction = "forward" to stream'
            )
        arrays = {}
        for k, layer in enumerate(self._ahead):
            for name, part in zip(layer.state_names, layer.start(rows), strict=True):
                arrays[f"core.{k}.{name}"] = part[0]
        arrays |= {f"pool.{name}": part for name, part in self._pool.start(rows).items()}
        return State(self.digest, arrays)

    def step(self, state: State, tokens: Any) -> tuple[Verdict, State]:
        """Go on by some steps: the verdict on all that was seen, and the new state; `state` is left as it was.

        tokens: ids [rows] or [rows, T]; a text, for one row; of a numeric series [rows, channels] or [rows, T, channels] (NaN: missing).
        The bits are those of the whole document. Raises DataError, StateError (another model's state), UnsupportedError.
        """
        state.check_like(self.start(0))
        rows = state.rows
        if not rows:
            raise StateError("this state holds no document: begin with start(1), or more")
        x = self._steps(tokens, rows)
        new = self._advance(state, x, np.full(rows, x.shape[1], np.int64))
        return self._verdict(self._answer(new)), new

    def _steps(self, tokens: Any, rows: int) -> np.ndarray:
        """ids [rows, T] or frames [rows, T, features] from what `step` takes."""
        if isinstance(tokens, str):
            if self.text is None or rows != 1:
                raise DataError(f"a text is for one row of a model of text, not for {rows}: give ids [rows]")
            return self.text.encode(tokens)[None]
        values = np.asarray(tokens)
        if self.values is not None:
            values = np.asarray(tokens, np.float64)
            channels = self.values.channels
            values = values.reshape(rows, 1, channels) if values.size == rows * channels else values
            if values.ndim != 3 or len(values) != rows:
                raise DataError(f"a step is [{rows}, {channels}] values, not {list(np.shape(tokens))}")
            return self.values.encode(values)
        if (
            values.ndim not in (0, 1, 2)
            or values.dtype.kind not in "iu"
            or ((values.ndim or rows > 1) and len(values) != rows)
        ):
            raise DataError(f"a step is [{rows}] ids, not {list(values.shape)} {values.dtype}")
        return values.reshape(rows, -1)

    def _advance(self, state: State, x: np.ndarray, lengths: np.ndarray) -> State:
        """The state after x: ids [rows, T] or frames [rows, T, F], of which `lengths` [rows] are valid."""
        arrays = {}
        y = x if self._embedding is None else self._embedding(x)
        for k, layer in enumerate(self._ahead):
            before = tuple(state.arrays[f"core.{k}.{name}"][None] for name in layer.state_names)
            y, after = layer(y, before, lengths)
            arrays |= {f"core.{k}.{name}": part[0] for name, part in zip(layer.state_names, after, strict=True)}
        pooled = self._pool(state.part("pool"), y, lengths)
        return State(state.digest, arrays | {f"pool.{name}": part for name, part in pooled.items()})

    def _answer(self, state: State) -> np.ndarray:
        return self._probabilities(self._pool.read(state.part("pool")))

    def _probabilities(self, pooled: np.ndarray) -> np.ndarray:
        logits = self._classify(pooled) / self._temperature
        return sigmoid(logits) if self.many else softmax(logits)

    def _verdict(self, probabilities: np.ndarray) -> Verdict:
        return verdict(probabilities, self.labels.names, self.many)

    def lines(self, lines: Iterable[str], out: TextIO) -> int:
        """A verdict a token: text in, line after line, one JSON line a token out; an empty line begins a new document.

        Of numeric series: a line is a step, a number or a JSON list of one a channel (null: missing). A line that is refused is named on
        standard error and changes nothing. Returns how many were. Raises UnsupportedError for a model that reads both ways.
        """
        state, refused, between = self.start(), 0, ""
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\r\n")
            if not line.strip():
                state, between = self.start(), ""
                continue
            try:
                steps = list(self._tokens(between + line))
                between = "\n" if self.text is not None else ""
                for name, x in steps:
                    answer, state = self.step(state, x)
                    found = {"token": name, "label": answer.labels[0]}
                    shown = zip(self.labels.names, answer.probabilities[0].tolist(), strict=True)
                    out.write(json.dumps(found | {"p": {k: round(p, 6) for k, p in shown}}, ensure_ascii=False) + "\n")
                out.flush()
            except RecurraError as error:
                refused += 1
                sys.stderr.write(f"recurra: line {number}: {error}\n")
        return refused

    def _tokens(self, line: str) -> Iterator[tuple[Any, np.ndarray]]:
        """The steps of a line: as shown, and as `step` takes them."""
        if self.text is not None:
            yield from ((self.text.token(int(i)), np.array([i])) for i in self.text.encode(line))
            return
        try:
            found = json.loads(line)
            values = np.array(found if isinstance(found, list) else [found], np.float64)
        except (ValueError, TypeError):
            raise DataError(f"'{line[:60]}' is no number, nor a JSON list of numbers") from None
        yield found, values[None]

    # -- documents -----------------------------------------------------------------------------------------------

    def predict(self, source: Any) -> pl.DataFrame:
        """The label of every document of `source`: a table (file or frame) with the columns of the training data, or a list of texts.

        Returns a row a document: label (several: a list), probability (of the label; several: that this is the whole set), and
        "p_<label>" for each. Raises DataError.
        """
        labels: list[Any] = []
        parts: list[np.ndarray] = []
        for block in self._blocks(self._read(source, labelled=False)):
            p = self._classified([self._encode(document) for document in block])
            parts.append(p)
            labels += [list(found) if self.many else found for found in self._verdict(p).labels]
        p = np.concatenate(parts) if parts else np.zeros((0, len(self.labels.names)), np.float32)
        sure = np.where(p >= 0.5, p, 1 - p).prod(1) if self.many else p.max(1, initial=0)
        kind = pl.List(pl.String) if self.many else pl.String
        each = {f"p_{name}": p[:, k] for k, name in enumerate(self.labels.names)}
        return pl.DataFrame({"label": pl.Series(labels, dtype=kind), "probability": sure} | each)

    def evaluate(self, source: Any) -> Scored:
        """Score the verdicts on a table with its labels beside the floor (runtime/verdict.py has the definitions). Raises DataError."""
        found: list[np.ndarray] = []
        truth: list[np.ndarray | int] = []
        for block in self._blocks(self._read(source, labelled=True)):
            for document in block:
                try:
                    truth.append(self._target(document))
                except DataError as error:
                    raise DataError(f"document {len(truth) + 1}: {error}") from None
            found.append(self._classified([self._encode(document) for document in block]))
        if not found:
            raise DataError("there is no document to score")
        counts = np.asarray(self.labels.counts)
        return score(np.concatenate(found), np.stack(truth), self.labels.names, counts, self.documents)

    def _read(self, source: Any, labelled: bool) -> Iterator[Document]:
        if isinstance(source, list | tuple) and all(isinstance(item, Document) for item in source):
            return iter(source)
        if isinstance(source, list | tuple) and all(isinstance(item, str) for item in source) and not labelled:
            return (Document(text, None, None) for text in source)
        return documents(source, **self.columns, labelled=labelled, known=self.labels.names)

    @staticmethod
    def _blocks(source: Iterator[Document]) -> Iterator[list[Document]]:
        while block := list(islice(source, HELD)):
            yield block

    def _encode(self, document: Document) -> np.ndarray:
        if self.text is not None:
            return self.text.encode(document.text or "")
        assert self.values is not None
        if document.values is None:
            raise DataError("this model classifies numeric series, but a document has none")
        return self.values.encode(document.values)

    def _target(self, document: Document) -> np.ndarray | int:
        """Its label's number, or of several, where they are."""
        if document.labels is None:
            raise DataError("a document without a label can't be scored")
        if not self.many:
            (label,) = document.labels
            return self.labels.index(label)
        target = np.zeros(len(self.labels.names), bool)
        for label in document.labels:
            target[self.labels.index(label)] = True
        return target

    def _classified(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities [rows, classes] of encoded documents, ids [T] or frames [T, F], the like in length side by side."""
        lengths = np.array([len(row) for row in rows], np.int64)
        order = np.argsort(-lengths, kind="stable")
        p = np.zeros((len(rows), len(self.labels.names)), np.float32)
        while len(order):
            group, order = np.split(order, [max(1, min(GROUP, GROUP * FRAMES // max(int(lengths[order[0]]), 1)))])
            x = np.zeros((len(group), max(int(lengths[group].max()), 1), *rows[0].shape[1:]), rows[0].dtype)
            for j, i in enumerate(group):
                x[j, : lengths[i]] = rows[i]
            p[group] = self._whole(x, lengths[group])
        return p

    def _whole(self, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        if self._both:
            y = x if self._embedding is None else self._embedding(x)
            for layer in self._both:
                y = layer(y, lengths)
            return self._probabilities(self._pool.read(self._pool(self._pool.start(len(x)), y, lengths)))
        state = self.start(len(x))
        for t in range(0, x.shape[1], FRAMES):
            piece = x[:, t : t + FRAMES]
            state = self._advance(state, piece, np.clip(lengths - t, 0, piece.shape[1]))
        return self._answer(state)
