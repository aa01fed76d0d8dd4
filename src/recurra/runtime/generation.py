"""Text as it is generated: tokens drawn one by one, pieces of text as soon as they are whole, until a stop string or the last token."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recurra.codec.text import PADDING, UNKNOWN, TextCodec
from recurra.errors import RecipeError, StateError
from recurra.runtime.stream import State
from recurra.search.sampling import Sampling, draw, probabilities

if TYPE_CHECKING:
    from recurra.runtime.generate import GenerateModel

RECENT = 64  # tokens that a state keeps: for the repetition penalty, and to go on with the text
BROKEN = "\N{REPLACEMENT CHARACTER}"  # what decoding gives for the first bytes of a character


class Generation(Iterator[str]):
    """An iterator of pieces of text. `state` is at any time the state after all tokens drawn so far, and `ids` are these.

    A state may be saved and generation go on from it later, with the same seed: the same tokens, as without the break. `stopped`:
    the stop string that ended it. A piece is a token's text; bytes of a character that is not whole, and text with which a stop
    string may begin, are kept back until they are. A stop string, which is looked for in this generation alone, is not part of the text.
    """

    def __init__(
        self, model: "GenerateModel", state: State, *, tokens: int, sampling: Sampling, stop: Sequence[str], seed: int
    ) -> None:
        if tokens < 1:
            raise RecipeError(f"tokens = {tokens}: must be at least 1")
        if seed < 0:
            raise RecipeError(f"seed = {seed}: must be at least 0")
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
        self._pieces = Pieces(model.codec, state)
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
        piece = self._pieces.push(token)
        self._pieces.mark(self.state)
        return piece


class Pieces:
    """From tokens to text, each piece as soon as it is whole: goes on from what a state keeps of the tokens before."""

    def __init__(self, codec: TextCodec, state: State) -> None:
        self._codec = codec
        shown, kept = (int(n) for n in state.arrays["shown"][0])
        self._ids = state.arrays["recent"][0][RECENT - kept :].tolist()  # the last ones shown, then those not yet shown
        self._shown = shown
        self._before = codec.decode(self._ids[:shown])

    def push(self, token: int) -> str:
        """The text that became whole with `token`; "" while bytes of its last character are missing."""
        self._ids.append(token)
        text = self._codec.decode(self._ids)
        waits = text.endswith(BROKEN) and len(self._ids) - self._shown < 4  # no character has more bytes
        if waits or len(text) <= len(self._before):
            return ""
        piece = text[len(self._before) :]
        self._ids = self._ids[self._shown :]
        self._shown, self._before = len(self._ids), self._codec.decode(self._ids)
        return piece

    def mark(self, state: State) -> None:
        """Keep in `state`, in place, what another `Pieces` needs to go on."""
        state.arrays["shown"][0] = min(self._shown, RECENT), min(len(self._ids), RECENT)


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
