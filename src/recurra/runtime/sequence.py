"""Sequence to sequence, played without torch: a source is read once, and written about token by token. The equations are those of
nn/sequence.py, nn/decoder.py and nn/pointer.py.

What a row gets depends on its own source and tokens alone, bit for bit: sources are read side by side, but attended to one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recurra.codec.text import UNKNOWN
from recurra.runtime.attention import Attention, Memory
from recurra.runtime.language import Softmax
from recurra.runtime.layers import Bidirectional, Embedding, Linear, Recurrent, tanh
from recurra.runtime.weights import under

Arrays = dict[str, np.ndarray]
GROUP = 64  # sources that are read side by side
TINY = np.float32(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Source:
    """What was read of one source. ids [S] (the pointer's extended ones, where there is a pointer); final: the top layer's last h."""

    ids: np.ndarray
    memory: Memory
    final: np.ndarray


@dataclass(frozen=True)
class Rows:
    """Texts being written, one a row. source [rows]: the number of the source that each is about; arrays: name -> [rows, ...]; step:
    tokens read so far.
    """

    source: np.ndarray
    arrays: Arrays
    step: int

    def take(self, rows: Sequence[int] | np.ndarray) -> "Rows":
        """The rows `rows`, in that order; one may be taken more than once."""
        return Rows(self.source[rows], {name: array[rows] for name, array in self.arrays.items()}, self.step)


class EncoderDecoder:
    """The network of a model file's `layers`. Raises KeyError or ValueError where they don't fit together."""

    def __init__(self, layers: Sequence[Mapping[str, Any]], weights: Mapping[str, np.ndarray]) -> None:
        described = {layer["name"]: layer for layer in layers}

        def linear(name: str) -> Linear:
            return Linear(weights[f"{name}.weight"], weights[f"{name}.bias"])

        def stack(name: str) -> list[tuple[Recurrent | Bidirectional, bool]]:
            found = [layer for layer in layers if layer["name"].startswith(f"{name}.layers.")]
            make = [Bidirectional if layer["both"] else Recurrent for layer in found]
            return [
                (cls(layer["kind"], under(weights, layer["name"]), layers=1), bool(layer["residual"]))
                for cls, layer in zip(make, found, strict=True)
            ]

        self._read_words = Embedding(weights["encoder.embedding.weight"])
        words = "decoder.embedding" if "decoder.embedding" in described else "encoder.embedding"
        self._write_words = Embedding(weights[f"{words}.weight"])
        self._encoder = stack("encoder")
        self._decoder: list[tuple[Recurrent, bool]] = stack("decoder")  # type: ignore[assignment]
        self._bridge = [linear(name) for name in described if name.startswith("bridge.")]
        self._attention = Attention(described["attention"], under(weights, "attention"))
        self._read, read = linear("decoder.read"), described["decoder.read"]
        self.feeds, self.wait = read["shape"] == "feeding", read["wait"]
        output = weights[f"{words}.weight"] if described["softmax"]["tied"] else weights["softmax.weight"]
        self._softmax = Softmax(
            np.ascontiguousarray(output, np.float32), np.asarray(weights["softmax.bias"], np.float32)
        )
        self._pointer = linear("pointer") if "pointer" in described else None
        self._check()

    def _check(self) -> None:
        (first, _), top = self._decoder[0], self._decoder[-1][0].hidden
        wanted = {
            "the encoder": (self._encoder[0][0].inputs, self._read_words.outputs),
            "the decoder": (first.inputs, self._write_words.outputs + (self._softmax.inputs if self.feeds else 0)),
            "the output layer": (self._softmax.inputs, self._read.outputs),
            "the vocabulary": (self._softmax.outputs, self._write_words.size),
        }
        for name, (found, want) in wanted.items():
            if found != want:
                raise ValueError(f"{name} has {found} numbers where there must be {want}")
        if self._bridge and len(self._bridge) != len(self._decoder):
            raise ValueError(f"{len(self._bridge)} bridges for {len(self._decoder)} layers of {top}")

    @property
    def vocabulary(self) -> int:
        """Ids that can be written, END, the last, among them; a pointer adds words of the source."""
        return self._softmax.outputs

    @property
    def end(self) -> int:
        """The id that ends a text, and is read before its first."""
        return self.vocabulary - 1

    @property
    def copies(self) -> bool:
        """Whether it has a pointer."""
        return self._pointer is not None

    # -- reading -------------------------------------------------------------------------------------------------

    def encode(self, sources: Sequence[np.ndarray]) -> list[Source]:
        """Ids [S] of each source, S at least 1 -> what was read of each."""
        found: dict[int, Source] = {}
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        for first in range(0, len(order), GROUP):
            group = order[first : first + GROUP]
            states, final = self._states([sources[i] for i in group])
            for j, i in enumerate(group):
                found[i] = Source(sources[i], self._attention.read(states[j, : len(sources[i])]), final[j])
        return [found[i] for i in range(len(sources))]

    def _states(self, sources: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The top layer's states [n, S, M] and its last h, each direction's own, [n, M]."""
        lengths = np.array([len(ids) for ids in sources], np.int64)
        ids = np.zeros((len(sources), int(lengths.max())), np.int64)
        for row, some in zip(ids, sources, strict=True):
            row[: len(some)] = some
        x = scaled(self._read_words(known(ids, self._read_words.size)))
        y = x
        for layer, residual in self._encoder:
            y = layer(x, lengths) if isinstance(layer, Bidirectional) else layer(x, layer.start(len(x)), lengths)[0]
            x = x + y if residual else y
        ahead = self._encoder[-1][0].hidden
        newest = y[np.arange(len(y)), lengths - 1, :ahead]
        return x, np.concatenate([newest, y[:, 0, ahead:]], 1)

    def hear(self, ids: np.ndarray, heard: Mapping[str, np.ndarray]) -> tuple[Memory, Arrays]:
        """The next ids [n] of one source -> the memory of these n, and what the encoder, which reads forwards, remembers after them.

        heard: what it remembered before, name -> [1, ...]; empty: nothing.
        """
        x = scaled(self._read_words(known(ids[None], self._read_words.size)))
        after: Arrays = {}
        for k, (layer, residual) in enumerate(self._encoder):
            assert isinstance(layer, Recurrent)
            names = [f"{k}.{name}" for name in layer.state_names]
            state = tuple(heard[name][None] for name in names) if heard else layer.start(1)
            y, state = layer(x, state) if len(ids) else (np.zeros((1, 0, layer.hidden), np.float32), state)
            after |= {name: part[0] for name, part in zip(names, state, strict=True)}
            x = x + y if residual else y
        return self._attention.read(x[0]), after

    # -- writing -------------------------------------------------------------------------------------------------

    def start(self, sources: Sequence[Source]) -> Rows:
        """A row for each source, of which nothing is written."""
        n = len(sources)
        longest = max((len(source.memory) for source in sources), default=0)
        arrays = {"output": np.zeros((n, self._read.outputs), np.float32), "past": np.zeros((n, longest), np.float32)}
        final = np.stack([source.final for source in sources]) if n else np.zeros((0, 0), np.float32)
        for k, (layer, _) in enumerate(self._decoder):
            for name, part in zip(layer.state_names, layer.start(n), strict=True):
                arrays[f"{k}.{name}"] = part[0]
            if self._bridge and n:
                arrays[f"{k}.h"] = tanh(self._bridge[k](final))
        return Rows(np.arange(n), arrays, 0)

    def step(self, sources: Sequence[Source], rows: Rows, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, Rows]:
        """One id of every row in -> log P of the next [rows, V], in nats (with a pointer [rows, N], N >= V, and -inf beyond a row's own
        ids); the attention weights [rows, S], 0 behind a source's end; and the new rows.
        """
        arrays: Arrays = {}

        def run(k: int, x: np.ndarray) -> np.ndarray:
            layer, residual = self._decoder[k]
            names = [f"{k}.{name}" for name in layer.state_names]
            y, after = layer(x[:, None], tuple(rows.arrays[name][None] for name in names))
            arrays.update((name, part[0]) for name, part in zip(names, after, strict=True))
            return x[:, : y.shape[2]] + y[:, 0] if residual else y[:, 0]

        e = scaled(self._write_words(known(ids, self._write_words.size)))
        top = run(0, np.concatenate([e, rows.arrays["output"]], 1) if self.feeds else e)
        if self.feeds:
            for k in range(1, len(self._decoder)):
                top = run(k, top)
        context, weights = self._attend(sources, rows, top)
        if not self.feeds:
            for k in range(1, len(self._decoder)):
                top = run(k, np.concatenate([top, context], 1))
        output = tanh(self._read(np.concatenate([top, context], 1)))
        arrays["output"] = output
        past = rows.arrays["past"]
        arrays["past"] = (weights + past if self._attention.covers else weights) if self._attention.looks_back else past
        logp = self._softmax(output)
        if self._pointer is not None:
            logp = self._point(sources, rows.source, np.concatenate([context, top, e], 1), logp, weights)
        return logp, weights, Rows(rows.source, arrays, rows.step + 1)

    def _attend(self, sources: Sequence[Source], rows: Rows, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Context [rows, C] and weights [rows, S]."""
        past = rows.arrays["past"]
        if not len(query):
            return np.zeros((0, self._read.inputs - query.shape[1]), np.float32), past
        numbers, of = np.unique(rows.source, return_inverse=True)
        memories = [sources[number].memory for number in numbers.tolist()]
        if self.wait is not None:
            memories = [memory.first(rows.step + self.wait) for memory in memories]
        context, found = self._attention.attend_all(self._attention.ask(query), memories, of, past)
        weights = np.zeros_like(past)
        weights[:, : found.shape[1]] = found
        return context, weights

    def _point(
        self, sources: Sequence[Source], of: np.ndarray, x: np.ndarray, logp: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """log (p P_vocabulary + (1 - p) what is copied), [rows, N]."""
        assert self._pointer is not None
        gate = self._pointer(x)
        sizes = [max(self.vocabulary, int(sources[number].ids.max()) + 1) for number in of.tolist()]
        whole = np.full((len(logp), max(sizes, default=self.vocabulary)), -np.inf, np.float32)
        for row, (number, size) in enumerate(zip(of.tolist(), sizes, strict=True)):
            copied = np.zeros(size, np.float32)
            np.add.at(copied, sources[number].ids, weights[row, : len(sources[number].ids)])
            written = np.pad(logp[row], (0, size - self.vocabulary), constant_values=-np.inf)
            own = log_sigmoid(gate[row]) + written
            taken = log_sigmoid(-gate[row]) + np.log(np.maximum(copied, TINY))
            whole[row, :size] = np.logaddexp(own, taken)
        return whole


def scaled(e: np.ndarray) -> np.ndarray:
    """Vectors [..., E] times the root of E."""
    return e * np.float32(e.shape[-1] ** 0.5)


def known(ids: np.ndarray, vocabulary: int) -> np.ndarray:
    """The ids, UNKNOWN for those beyond the vocabulary: words that a pointer copied."""
    return np.where(ids >= vocabulary, UNKNOWN, ids)


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    """log(1 / (1 + e^-x)), float32; never -inf for a finite x."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))
