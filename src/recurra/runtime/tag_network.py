"""The network of a tagger: words to a score for each tag. The equations are those of tasks/tag.py."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recurra.codec.text import PADDING, CharacterView, TextCodec
from recurra.runtime.layers import Bidirectional, Embedding, Linear, Recurrent
from recurra.runtime.weights import under


class TagNetwork:
    """What `weights` make of words, read by `text` and, letter by letter, by `letters` (None: as wholes alone).

    ahead: words that are waited for; forward: the core, where it reads one way, else None. Raises ValueError or KeyError where the parts
    don't fit together.
    """

    def __init__(
        self,
        described: Sequence[Mapping[str, Any]],
        weights: Mapping[str, np.ndarray],
        text: TextCodec,
        letters: CharacterView | None,
    ) -> None:
        layers = {layer["name"]: layer for layer in described}
        self.text, self.letters = text, letters
        self._words = Embedding(weights["words.weight"])
        width, sizes = self._words.outputs, {"words": (self._words.size, text.size)}
        self._spelling: Bidirectional | Linear | None = None
        if letters is not None:
            self._letters = Embedding(weights["letters.weight"])
            sizes["letters"] = self._letters.size, letters.size
            if layers["spelling"]["kind"] == "lstm":
                self._spelling = Bidirectional("lstm", under(weights, "spelling"), layers=1)
                width += 2 * self._spelling.hidden
                sizes["spelling"] = self._spelling.inputs, self._letters.outputs
            else:
                self._spelling = Linear(weights["spelling.weight"], weights["spelling.bias"])
                width += self._spelling.outputs
                sizes["spelling"] = self._spelling.inputs, 3 * self._letters.outputs
        core = layers["core"]
        both = core["direction"] == "both"
        made = (Bidirectional if both else Recurrent)(core["kind"], under(weights, "core"), layers=core["layers"])
        self._both, self.forward = (made, None) if isinstance(made, Bidirectional) else (None, made)
        self.ahead = int(layers["read"]["ahead"])
        self.read = Linear(weights["read.weight"], weights["read.bias"])
        sizes["core"] = made.inputs, width
        sizes["read"] = self.read.inputs, made.hidden * (2 if both or self.ahead else 1)
        for name, (found, wanted) in sizes.items():
            if found != wanted:
                raise ValueError(f"{name}: {found} numbers where there must be {wanted}")

    def scores(self, sentences: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """[T, K] float32 of each sentence, which has at least one word; its bits depend on nothing but itself."""
        lengths = np.array([len(words) for words in sentences])
        y = self._outputs(sentences, lengths)
        if self.ahead:
            later = np.minimum(np.arange(y.shape[1]) + self.ahead, lengths[:, None] - 1)
            y = np.concatenate([y, np.take_along_axis(y, np.maximum(later, 0)[:, :, None], 1)], 2)
        return [row[:n] for row, n in zip(self.read(y), lengths, strict=True)]

    def _outputs(self, sentences: Sequence[Sequence[str]], lengths: np.ndarray) -> np.ndarray:
        """What the core gives for whole sentences, [rows, T, H]."""
        place: dict[str, int] = {}
        for words in sentences:
            for word in words:
                place.setdefault(word, len(place))
        table = self.embed(list(place))
        x = np.zeros((len(sentences), int(lengths.max()), table.shape[1]), np.float32)
        for row, words in zip(x, sentences, strict=True):
            row[: len(words)] = table[[place[word] for word in words]]
        if self._both is not None:
            return self._both(x, lengths)
        assert self.forward is not None
        return self.forward(x, self.forward.start(len(x)), lengths)[0]

    def embed(self, words: Sequence[str]) -> np.ndarray:
        """What the core reads for each word, [n, E]."""
        x = self._words(self.text.encode_words(words))
        if self.letters is None:
            return x
        letters = self.letters.encode(words)
        lengths, seen = (letters != PADDING).sum(1), self._letters(letters)
        if isinstance(self._spelling, Bidirectional):
            y, width = self._spelling(seen, lengths), self._spelling.hidden
            newest = y[np.arange(len(y)), np.maximum(lengths - 1, 0), :width]
            return np.concatenate([x, newest, y[:, 0, width:]], 1)
        assert self._spelling is not None
        edge = np.zeros_like(seen[:, :1])
        window = [np.concatenate([edge, seen[:, :-1]], 1), seen, np.concatenate([seen[:, 1:], edge], 1)]
        y = np.where((letters != PADDING)[:, :, None], self._spelling(np.concatenate(window, 2)), -np.inf).max(1)
        return np.concatenate([x, np.where(lengths[:, None] > 0, y, 0).astype(np.float32)], 1)
