"""Play a language model: read text, say how surprising it is, and go on with it. The network is that of tasks/generate.py.

A text begins as if a line had just ended, where the tokens have a line's end. Whatever comes in, everything goes through `_read`, so a text
has the same bits however it is read: at once, in pieces, or token by token; and what was read once is kept in the state.
"""

import copy
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TextIO

import numpy as np
import polars as pl

from recurra import textfile
from recurra.codec.text import PADDING, UNKNOWN, TextCodec
from recurra.errors import DataError, RecipeError, StateError
from recurra.runtime.cache import Cache
from recurra.runtime.dynamic import Dynamic, Learner
from recurra.runtime.generation import RECENT, Generation, cut
from recurra.runtime.language import Network
from recurra.runtime.scored import Scored
from recurra.runtime.stream import State
from recurra.runtime.surprise import Part, Surprise, floors, measures, shares
from recurra.runtime.weights import unplayable
from recurra.search import beam
from recurra.search.sampling import Sampling
from recurra.search.settings import Search

FRAMES = 256  # tokens read at a time
NOTHING = -1  # in the place of a token, before the first one


class GenerateModel:
    """A trained language model: `start`, `step`, `peek` and `read` for states; `generate` and `beam`; `score` and `evaluate`."""

    streams = True

    def __init__(
        self,
        manifest: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        digest: str,
        files: Mapping[str, str],
    ) -> None:
        self.manifest, self.digest = dict(manifest), digest
        self.cache: Cache | None = None
        try:
            self.codec = TextCodec.read(manifest["codec"], files.__getitem__)
            self._pattern, self.encoding = manifest["codec"]["pattern"], manifest["codec"]["encoding"]
            self._column: str | None = manifest["codec"].get("text")
            self.network = Network(manifest["layers"], weights)
            if self.network.vocabulary != self.codec.size:
                raise ValueError(f"{self.network.vocabulary} tokens in the network, {self.codec.size} in the codec")
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise unplayable("language model", error) from None
        self.opening = opening(self.codec)

    def with_cache(self, cache: Cache | None) -> Self:
        """The same model with a continuous cache (runtime/cache.py), or without; its states are its own."""
        if not isinstance(cache, Cache | None):
            raise RecipeError(f"a cache is Cache(size=2000) or None, not {cache!r}")
        other = copy.copy(self)
        other.cache = cache
        return other

    # -- states --------------------------------------------------------------------------------------------------

    def start(self, rows: int = 1) -> State:
        """The state of `rows` streams of which nothing has been read: a new line begins."""
        state = self._blank(rows)
        if rows:
            _, state = self._read(state, np.full((rows, 1), self.opening), remember=False)
        return state

    def step(self, state: State, ids: int | Sequence[int] | np.ndarray) -> tuple[np.ndarray, State]:
        """One token of every stream in, log p of the next out: [rows, vocabulary] float32, in nats. `state` is left as it was.

        ids: [rows] (or one number, for one row). Raises DataError for an id that there is not, StateError for another model's state.
        """
        self._check(state)
        given = np.atleast_1d(np.asarray(ids))
        if given.shape != (state.rows,) or not np.issubdtype(given.dtype, np.integer):
            raise DataError(f"ids must be {state.rows} whole number(s), one a stream, not {str(ids)[:60]}")
        if len(given) and (given.min() < 0 or given.max() >= self.codec.size):
            raise DataError(f"ids must lie between 0 and {self.codec.size - 1}, not {str(ids)[:60]}")
        if not state.rows:
            raise StateError("this state holds no stream: begin with start(1), or more")
        _, new = self._read(state, given[:, None])
        return self.peek(new), new

    def peek(self, state: State) -> np.ndarray:
        """log p of the token that comes next, [rows, vocabulary] float32, in nats."""
        self._check(state)
        outputs = self.network.output(state.arrays)
        logp = self.network.log_probabilities(outputs)
        return logp if self.cache is None else self.cache.mix(state.arrays, outputs, logp)

    def read(self, text: str, state: State | None = None) -> State:
        """The state after `text`, which follows on what `state` has read. Raises DataError: empty, or of unknown words alone."""
        ids = self._known(text)
        state = self.start() if state is None else state
        self._check(state)
        for i in range(0, len(ids), FRAMES):
            _, state = self._read(state, np.repeat(ids[None, i : i + FRAMES], state.rows, axis=0))
        return state

    # -- text out ------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str | None = None,
        *,
        state: State | None = None,
        tokens: int = 200,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> Generation:
        """Go on with `prompt` (after `state`, where both are given): an iterator of pieces of text, whose `state` is that after them.

        From a state that `read` or another generation left nothing is read again, and the tokens are those that would have come without
        the break. Raises RecipeError for absurd settings, DataError for a prompt that is empty or of unknown words alone.
        """
        if prompt is not None:
            state = self.read(prompt, state)
        state = self.start() if state is None else state
        return Generation(
            self, state, tokens=tokens, sampling=Sampling() if sampling is None else sampling, stop=stop, seed=seed
        )

    def beam(
        self, prompt: str | None = None, *, state: State | None = None, width: int = 4, tokens: int = 20, stop: str = ""
    ) -> list[tuple[str, float]]:
        """The most probable continuations that `width` of them side by side find: (text, log p in nats), the most probable first.

        Each has `tokens` tokens, or ends before the text `stop`, whose tokens count in its log p. Raises RecipeError, DataError.
        """
        if prompt is not None:
            state = self.read(prompt, state)
        if not isinstance(stop, str):
            raise RecipeError(f"a beam takes one stop string, not {stop!r}")
        if width < 1 or tokens < 1:
            raise RecipeError(f"a beam needs a width and tokens from 1 on, not {width} and {tokens}")
        states = [self.start() if state is None else state]

        def advance(rows: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, None]:
            if ids[0] == NOTHING:
                return self.peek(states[0]), None
            logp, states[0] = self.step(states[0].take(rows), ids)
            return logp, None

        def ends(ids: tuple[int, ...]) -> bool:
            return len(ids) == tokens or (bool(stop) and stop in self.codec.decode(ids))

        (found,) = beam.search(
            advance,
            [beam.Task(tokens)],
            Search(beam=width, length_penalty=0.0),
            start=NOTHING,
            ends=ends,
            banned=(PADDING, UNKNOWN),
        )
        return [(cut(self.codec.decode(h.ids), (stop,) if stop else (), True)[0], h.logp) for h in found]

    # -- text in -------------------------------------------------------------------------------------------------

    def score(self, text: str, state: State | None = None, *, dynamic: Dynamic | None = None) -> Surprise:
        """How surprising each token of `text` is, after what `state` has read. Raises DataError where it is empty."""
        ids = self.codec.encode(text)
        if not len(ids):
            raise DataError("the text is empty: give at least one character")
        nats, after = self._nats(ids, state, dynamic)
        return Surprise(tuple(self.codec.token(int(i)) for i in ids), nats, len(text), after)

    def evaluate(self, source: Any, *, train: Any = None, dynamic: Dynamic | None = None) -> Scored:
        """Score a text file, a folder of them, or a `Part`: perplexity, nats and bits, beside the n-gram floors.

        The floors need the text that the model was trained on: `train`, or that of the Part; without it there are none. Raises DataError.
        """
        part = source if isinstance(source, Part) else self._part(source)
        learnt = part.train if train is None else self._part(train).ids
        nats, _ = self._nats(part.ids, None, dynamic)
        rows = {"model": measures(nats, part.characters)}
        caption = f"{len(part.ids)} tokens, {part.characters} characters"
        unknown = float(np.mean(part.ids == UNKNOWN)) if len(part.ids) else 0.0
        if unknown:
            caption += f"; {unknown:.1%} of the tokens are unknown words, each guessed as one: compare only with the same vocabulary"
        if learnt is not None:
            rows |= floors(part, learnt, self.opening, self.codec.size)
            caption += f"; floors learnt from {len(learnt)} tokens"
        return Scored(rows, caption, {"where the surprise lies": shares(self.codec, part.ids, nats)})

    def predict(self, source: Any) -> pl.DataFrame:
        """How surprising each token of a text file is: a frame with place, token and nats. Raises DataError."""
        ids = self._part(source).ids
        nats, _ = self._nats(ids, None, None)
        tokens = [self.codec.token(int(i)) for i in ids]
        return pl.DataFrame({"place": np.arange(len(ids)), "token": tokens, "nats": nats})

    def lines(self, given: Iterable[str], out: TextIO) -> int:
        """A stream of text, line by line: for each a JSON line with its nats and bits a character, after all lines before it.

        Returns the number of refused lines: none.
        """
        state = self.start()
        for number, line in enumerate(given, start=1):
            found = self.score(line.rstrip("\n") + "\n", state)
            state = found.state
            row = {
                "line": number,
                "nats": round(found.total, 4),
                "bits/char": round(found.bits_per_character, 4),
            }
            print(json.dumps(row), file=out, flush=True)
        return 0

    def facts(self) -> dict[str, Any]:
        """What `recurra info` says of it beside what every model has."""
        return {
            "unit": self.codec.unit,
            "vocabulary": self.codec.size,
            "output layer": self.manifest["layers"][-1]["kind"],
        }

    # -- inside --------------------------------------------------------------------------------------------------

    def _check(self, state: State) -> None:
        """Raises StateError where it is not of this model with this cache."""
        memory = state.arrays.get("cache.token")
        held, here = 0 if memory is None else memory.shape[-1], 0 if self.cache is None else self.cache.size
        if state.digest == self.digest and held != here:
            raise StateError(
                f"this state has a cache of {held} tokens, the model one of {here}: go on with the same cache, or start a new state"
            )
        state.check_like(self._blank(0))

    def _blank(self, rows: int) -> State:
        arrays = self.network.start(rows)
        arrays["recent"] = np.full((rows, RECENT), -1, np.int32)
        arrays["drawn"] = np.zeros(rows, np.int64)
        if self.cache is not None:
            arrays |= self.cache.start(rows, self.network.width)
        return State(self.digest, arrays)

    def _read(self, state: State, ids: np.ndarray, *, remember: bool = True) -> tuple[np.ndarray, State]:
        """ids [rows, T] after `state` -> what predicted each of them, [rows, T, width], and the state after them."""
        before = self.network.output(state.arrays)
        outputs, core = self.network.read(state.arrays, ids)
        outputs = np.concatenate([before[:, None], outputs[:, :-1]], axis=1)
        arrays = {name: array.copy() for name, array in state.arrays.items() if name not in core} | core
        arrays["recent"] = np.concatenate([arrays["recent"], ids.astype(np.int32)], axis=1)[:, -RECENT:]
        if self.cache is not None and remember:
            for t in range(ids.shape[1]):
                self.cache.put(arrays, outputs[:, t], ids[:, t])
        return outputs, State(self.digest, {name: arrays[name] for name in state.arrays})

    def _nats(self, ids: np.ndarray, state: State | None, dynamic: Dynamic | None) -> tuple[np.ndarray, State]:
        """-log p of each of `ids` [T] after `state`, float64, and the state after them."""
        state = self.start() if state is None else state
        self._check(state)
        if state.rows != 1:
            raise StateError(
                f"a text is scored after a state of one stream, not of {state.rows}: take([row]) one of them"
            )
        learner = None if dynamic is None else Learner(self.network.softmax, dynamic)
        nats: list[np.ndarray] = []
        for i in range(0, len(ids), FRAMES):
            some = ids[i : i + FRAMES]
            held = (
                {} if self.cache is None else {k: v.copy() for k, v in state.arrays.items() if k.startswith("cache.")}
            )
            outputs, state = self._read(state, some[None])
            h = outputs[0]
            logp = self.network.log_probabilities(h) if learner is None else learner(h, some)
            if self.cache is not None:
                for t in range(len(some)):
                    logp[t] = self.cache.mix(held, h[t : t + 1], logp[t : t + 1])[0]
                    self.cache.put(held, h[t : t + 1], some[t : t + 1])
            nats.append(-logp[np.arange(len(some)), some].astype(np.float64))
        return np.concatenate(nats) if nats else np.zeros(0), state

    def _part(self, source: Any) -> Part:
        """The text of a file, a list of files or a folder. Raises DataError."""
        folder = isinstance(source, str | os.PathLike) and os.path.isdir(source)
        texts: list[str] = []
        for path in textfile.files(source, self._pattern):
            try:
                texts.append("".join(textfile.pieces(path, self.encoding, self._column)))
            except DataError:
                if not folder:  # of a folder, what is no text is left out, as in training
                    raise
        if not texts:
            raise DataError(f"the folder {source} holds no text like '{self._pattern}'")
        return Part(np.concatenate(self.codec.encode_all(texts)), sum(map(len, texts)))

    def _known(self, text: str) -> np.ndarray:
        """The ids of a prompt. Raises DataError where there is none, or none that says something."""
        ids = self.codec.encode(text)
        if not len(ids):
            raise DataError("the prompt is empty: give at least one character, or no prompt, to begin with a new line")
        if (ids == UNKNOWN).all():
            raise DataError(
                f"this model knows no {self.codec.unit} of the prompt {text[:40]!r}: use some of its training text"
            )
        return ids


def opening(codec: TextCodec) -> int:
    """The token after which a text begins: a line's end, or PADDING where the codec has none of its own."""
    found = codec.encode("\n")
    return int(found[0]) if len(found) == 1 and found[0] != UNKNOWN else PADDING
