"""Text as it is generated: tokens drawn one by one, pieces of text as soon as they are whole, until a stop string or the last token."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recurra.codec.text import PADDING, UNKNOWN, TextCodec
from recurra.errors import RecipeError, StateError
from recurra.runtime.stream import State
from recurra.search.sampling import Sampling, draw, probabilities

if TYPE_CHECKING:
    from recurra.runtime.generate import GenerateModel

RECENT = 64  # tokens that a state keeps: for the repetition penalty, and to go on with the text
SEEDS = 1 << 64
LONGEST = 4  # bytes of a character at most


class Generation(Iterator[str]):
    """An iterator of pieces of text. `state` is at any time the state after all tokens drawn so far, and `ids` are these.

    A state may be saved and generation go on from it later, with the same seed: the same tokens, as without the break. `stopped`:
    the stop string that ended it. A piece is a token's text; bytes of a character that is not whole, and text with which a stop
    string may begin, are kept back until they are. A stop string, which is looked for in this generation alone, is not part of the text.
    """

    def __init__(
        self, model: "GenerateModel", state: State, *, tokens: int, sampling: Sampling, stop: Sequence[str], seed: int
    ) -> None:
        if not isinstance(tokens, int) or tokens < 1:
            raise RecipeError(f"tokens = {tokens!r}: must be a whole number from 1 on")
        if not isinstance(seed, int) or not 0 <= seed < SEEDS:
            raise RecipeError(f"seed = {seed!r}: must be a whole number from 0 to 2^64 - 1")
        if not isinstance(sampling, Sampling):
            raise RecipeError(f"sampling is Sampling(temperature=0.8), for one, not {sampling!r}")
        if not isinstance(state, State):
            raise StateError(f"a state is what start, read or another generation gave, not {type(state).__name__}")
        if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
            raise RecipeError(f"stop = {stop!r}: must be a list of texts, none of them empty")
        if state.rows != 1:
            raise StateError(
                f"text is generated from a state of one stream, not of {state.rows}: take([row]) one of them"
            )
        self.state = state
        self.ids: list[int] = []
        self.stopped: str | None = None
        self._model, self._sampling, self._stop, self._seed, self._left = model, sampling, tuple(stop), seed, tokens
        self._logp = model.peek(state)
        recent = state.arrays["recent"][0]
        self._piece = pieces(model.codec, recent[recent >= 0].tolist())
        self._held = ""

    def __next__(self) -> str:
        """The next piece of text, never empty. Raises StopIteration at the end."""
        while True:
            if self.stopped is None and self._left:
                self._held += self._draw()
                whole, self.stopped = cut(self._held, self._stop, self._left == 0)
            else:
                raise StopIteration
            if whole:
                self._held = self._held[len(whole) :]
                return whole

    def _draw(self) -> str:
        arrays = self.state.arrays
        logp = self._logp[0].astype(np.float64)
        logp[[PADDING, UNKNOWN]] = -np.inf  # neither is text
        recent = arrays["recent"][0]
        p = probabilities(logp, self._sampling, recent[recent >= 0])
        token = draw(p, self._seed, int(arrays["drawn"][0]))
        self._logp, self.state = self._model.step(self.state, token)
        self.state.arrays["drawn"] += 1
        self.ids.append(token)
        self._left -= 1
        return self._piece(token)


def pieces(codec: TextCodec, before: Sequence[int]) -> Callable[[int], str]:
    """A function: token -> the text that is whole with it, for text that goes on after the tokens `before`.

    "" while bytes of a character are missing. The bytes of one that was begun are among the last tokens, of which each has one at least.
    """
    waiting = deque(before[-LONGEST:])
    texts = codec.decode_each(iter(waiting.popleft, None))
    for _ in range(len(waiting)):
        next(texts)

    def push(token: int) -> str:
        waiting.append(token)
        return next(texts)

    return push


def cut(text: str, stop: Sequence[str], last: bool) -> tuple[str, str | None]:
    """What of `text` can be given away, and the stop string found in it, if any: before that one, or before what may become one."""
    found = [(text.index(s), s) for s in stop if s in text]
    if found:
        place, which = min(found, key=lambda pair: (pair[0], -len(pair[1])))
        return text[:place], which
    if last:
        return text, None
    open_ = [n for s in stop for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n])]
    return text[: len(text) - max(open_, default=0)], None
