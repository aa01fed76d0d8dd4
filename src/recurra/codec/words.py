"""The words of a text, and which of them each token is part of: what attention pictures and copied words are about.

A codec of words has its own: they are its tokens. For characters and pieces a word is what white space parts from others.
"""

from collections.abc import Sequence

import numpy as np

from recurra.codec.text import TextCodec
from recurra.codec.tokenizer import UNKNOWN, checked

LACKING = "\ufffd"  # stands for what a token doesn't spell


def words(codec: TextCodec, text: str) -> list[str]:
    """The words of a text, normalised as the codec does. Raises DataError where `text` is no text."""
    text = codec.normal(checked(text))
    if codec.unit != "words":
        return text.split()
    return [word for word, _ in codec.tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def word_index(codec: TextCodec, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """For each of the ids of a text the index of its word, int32 [n], among `words` of that text: words[index] is what the token
    is part of. White space belongs to the word behind it, at the end to the last. Raises DataError for an id that the codec has not.
    """
    ids = np.asarray(ids).tolist()
    if codec.unit == "words":
        return np.arange(len(ids), dtype=np.int32)
    pieces = list(codec.decode_each(ids))
    text = "".join(pieces)
    blank = np.array([*map(str.isspace, text), True])
    ends = ~blank & np.append(blank[1:], True)
    # a character whose bytes are spread over several tokens comes with the last of them, and each of them begins at it
    begin = np.cumsum([0, *map(len, pieces)])[: len(ids)]
    before = np.append(0, np.cumsum(ends))  # words that end before each character
    return np.minimum(before[begin], max(0, int(ends.sum()) - 1)).astype(np.int32)


def unknown(codec: TextCodec, ids: Sequence[int] | np.ndarray) -> bool:
    """Whether a text is of unknown words alone. Characters and pieces: whether it holds what the codec doesn't know, and beside it no
    letter that it knows. Pieces spell everything by bytes: there a letter is known that stands in one piece.
    """
    ids = np.asarray(ids)
    if codec.unit == "words":
        return bool(len(ids)) and bool(((ids <= UNKNOWN) | (ids >= codec.size)).all())
    tokens = [codec.token(i) if UNKNOWN < i < codec.size else LACKING for i in ids.tolist()]
    return any(LACKING in token for token in tokens) and not any(map(str.isalnum, "".join(tokens)))
