"""Translate while the source is still being read (wait-k: Ma et al. 2019): a word in, what can be written by then out.

Token t of the translation, from 0, is written once t + wait tokens of the source are there, and sees these alone. Written greedily,
word by word, the text has the bits of the same source given as a whole to a greedy search.
"""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from recurra.codec.tokenizer import PADDING, UNKNOWN
from recurra.errors import DataError, StateError
from recurra.runtime.attention import Memory
from recurra.runtime.sequence import EncoderDecoder, Rows, Source
from recurra.runtime.stream import State
from recurra.search.settings import Search

if TYPE_CHECKING:
    from recurra.runtime.translate import TranslateModel


class Simultaneous:
    """A translator that was trained with `wait`, one sentence at a time.

    Its state holds what was heard, as text and as the encoder's memory, and what was written: heard [1, bytes], read [1, S], written
    [1, T], ended [1], memory.values and memory.keys [1, S, ...], and the layers' own.
    """

    def __init__(self, model: "TranslateModel") -> None:
        self._model, self._codec = model, model.codec
        self._network: EncoderDecoder = model.networks[0]
        self._wait = self._network.wait or 0

    def start(self) -> State:
        """The state before the first word of a sentence."""
        memory, heard = self._network.hear(np.zeros(0, np.int64), {})
        rows = self._network.start([_source(memory)])
        arrays = {
            "heard": np.zeros((1, 0), np.uint8),
            "read": np.zeros((1, 0), np.int32),
            "written": np.zeros((1, 0), np.int32),
            "ended": np.zeros(1, bool),
            "memory.values": memory.values[None],
            "memory.keys": memory.keys[None],
        }
        arrays |= {f"encoder.{name}": array for name, array in heard.items()}
        return State(self._model.digest, arrays | {f"decoder.{name}": array for name, array in rows.arrays.items()})

    def step(self, state: State, words: str) -> tuple[str, State]:
        """The next word of the source, or several with spaces between -> what is written by then ("" while it waits), and the new state.

        Raises DataError where there is no word, StateError for another model's state and one that `finish` gave.
        """
        self._check(state)
        if not isinstance(words, str) or not words.strip():
            raise DataError(f"a step takes the next word of a sentence, not {str(words)[:40]!r}: finish it instead")
        before = state.arrays["heard"].tobytes().decode()
        text = f"{before} {words.strip()}" if before else words.strip()
        ids = next(iter(self._codec.source.encode_each([text])))
        if self._codec.longest is not None and len(ids) > self._codec.longest:
            warnings.warn(
                f"of a sentence the model reads the first {self._codec.longest} tokens", RuntimeWarning, stacklevel=3
            )
            ids = ids[: self._codec.longest]
        read = state.arrays["read"][0]
        if not np.array_equal(ids[: len(read)], read):
            raise DataError(f"{words.strip()[:40]!r} changes how the words before it are read: give whole words")
        return self._onwards(state, text, ids[len(read) :], over=False)

    def finish(self, state: State) -> tuple[str, State]:
        """The source has ended -> the rest of the translation, and the state after it, from which no sentence goes on."""
        self._check(state)
        if not state.arrays["read"].shape[1]:
            return "", state
        text = state.arrays["heard"].tobytes().decode()
        return self._onwards(state, text, np.array([self._codec.source.size]), over=True)

    # -- inside --------------------------------------------------------------------------------------------------

    def _onwards(self, state: State, text: str, ids: np.ndarray, *, over: bool) -> tuple[str, State]:
        arrays = state.arrays
        more, heard = self._network.hear(ids, state.part("encoder"))
        values = np.concatenate([arrays["memory.values"][0], more.values])
        keys = np.concatenate([arrays["memory.keys"][0], more.keys])
        read = np.concatenate([arrays["read"][0], ids.astype(np.int32)])
        written, ended = arrays["written"][0].tolist(), bool(arrays["ended"][0])
        source = _source(Memory(values, keys))
        rows = Rows(np.zeros(1, np.int64), state.part("decoder"), len(written))
        past = np.zeros((1, len(read)), np.float32)
        past[:, : rows.arrays["past"].shape[1]] = rows.arrays["past"]
        rows.arrays["past"] = past
        before = self._shown(written, whole=ended)
        most = Search(beam=1).most(len(read) - 1)
        while not ended and (over or len(written) + self._wait <= len(read)):
            last = written[-1] if written else self._codec.end
            logp, _, rows = self._network.step([source], rows, np.array([last]))
            logp[:, [PADDING, UNKNOWN]] = -np.inf
            token = int(logp[0].argmax())
            ended = token == self._codec.end or (over and len(written) + 2 >= most)
            written += [token] if token != self._codec.end else []
        new = {
            "heard": np.frombuffer(text.encode(), np.uint8)[None],
            "read": read[None],
            "written": np.array([written], np.int32),
            "ended": np.array([ended]),
            "memory.values": values[None],
            "memory.keys": keys[None],
        }
        new |= {f"encoder.{name}": array for name, array in heard.items()}
        new |= {f"decoder.{name}": array for name, array in rows.arrays.items()}
        return self._shown(written, whole=ended)[len(before) :], State(state.digest, new)

    def _shown(self, written: list[int], *, whole: bool) -> str:
        """The text of what is written, but for a last word that may still go on."""
        text = self._codec.decode(written)
        if whole or self._codec.target.unit == "words":
            return text
        return text[: text.rfind(" ") + 1]

    def _check(self, state: State) -> None:
        if not isinstance(state, State):
            raise StateError(f"a state is what start or step gave, not {type(state).__name__}")
        state.check(self._model.digest)
        if state.arrays.keys() != self.start().arrays.keys() or state.rows != 1:
            raise StateError("this state is not of one sentence that is being translated: begin with start()")
        if self._codec.source.size in state.arrays["read"][0]:
            raise StateError("this sentence has ended: begin the next with start()")


def _source(memory: Memory) -> Source:
    """A source for a network without pointer and bridge, which reads nothing but the memory."""
    return Source(np.zeros(len(memory), np.int64), memory, np.zeros(0, np.float32))


def lagging(source: int, written: int, wait: int) -> float:
    """How many tokens of the source the translation is behind, in the mean, of one written at the source's own pace (average lagging).

    source, written: tokens, ends included. Ma et al. 2019, equations 8 and 9.
    """
    pace = written / source
    seen = [min(t + wait, source) for t in range(written)]
    cut = seen.index(source) + 1 if source in seen else written
    return sum(g - t / pace for t, g in enumerate(seen[:cut])) / cut
