"""Learning a tokenizer (of the `tokenizers` library) from a stream of texts: characters, words, BPE, Unigram.

Ids 0 and 1 are the special tokens in every unit. Characters and words are looked up: by falling frequency, equal ones by the
alphabet. Pieces of words are made of bytes (ByteLevel, as in GPT-2), so that they spell every text and none is unknown.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from recurra.errors import DataError, RecipeError

Unit = Literal["characters", "words", "bpe", "unigram"]
Normalise = Literal["nfc", "nfkc", "none"]
Split = Literal["whitespace", "punctuation"]

PADDING, UNKNOWN = 0, 1
SPECIAL = ["<pad>", "<unk>"]
PIECES = 8_000  # tokens of BPE and Unigram where no number is given
FEWEST = {"characters": 3, "words": 3, "bpe": 300, "unigram": 300}  # 256 bytes, the special ones and something to learn
SPLITS: dict[Split, str] = {"whitespace": r"\S+", "punctuation": r"<unk>|\w+(?:['’]\w+)*|[^\w\s]"}


def learn(
    texts: Iterable[str],
    unit: Unit,
    vocabulary: int | None,
    minimum: int,
    lower: bool,
    normalise: Normalise,
    split: Split,
    ends: bool,
) -> Tokenizer:
    """The tokenizer of `texts`, which are read once; the options are those of codec.text.fit.

    Raises DataError: no text at all, or what is no text; RecipeError: a vocabulary that can't be.
    """
    if vocabulary is not None and vocabulary < FEWEST[unit]:
        raise RecipeError(f"vocabulary = {vocabulary}: {unit} needs at least {FEWEST[unit]}")
    normalizer, stream = _normalizer(normalise, lower), _not_empty(texts)
    if unit == "characters":
        return _characters(stream, vocabulary, minimum, normalizer)
    if unit == "words":
        return _words(stream, vocabulary, minimum, normalizer, (r"\n|" if ends else "") + SPLITS[split])
    return _pieces(stream, unit, vocabulary or PIECES, minimum, normalizer)


def learn_words(
    words: Iterable[str], vocabulary: int | None, minimum: int, lower: bool, normalise: Normalise
) -> Tokenizer:
    """The tokenizer of words that were told apart before, spaces and all; the options are those of codec.text.fit_words."""
    normalizer = _normalizer(normalise, lower)
    counts: Counter[str] = Counter()
    for word, n in Counter(_not_empty(words)).items():
        counts[normalizer.normalize_str(word) if normalizer is not None else word] += n
    parts = pre_tokenizers.Split(Regex(SPLITS["whitespace"]), "removed", invert=True)
    return _lookup(_frequent(counts, minimum), vocabulary, normalizer, parts)


def checked(text: Any) -> str:
    """`text`, as it is. Raises DataError where it is no text."""
    if not isinstance(text, str):
        raise DataError(f"a text is a str, not {type(text).__name__} ({str(text)[:40]!r}): convert it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            "a text holds what is no Unicode text (a wrong byte, or half a surrogate pair): write it again as UTF-8"
        ) from None
    return text


def _not_empty(texts: Iterable[str]) -> Iterator[str]:
    empty = True
    for text in texts:
        checked(text)
        empty = empty and not text.strip()
        yield text
    if empty:
        raise DataError("there is no text to learn from: every text is empty")


def _normalizer(normalise: Normalise, lower: bool) -> Any:
    parts: list[Any] = {"nfc": [normalizers.NFC()], "nfkc": [normalizers.NFKC()], "none": []}[normalise]
    parts += [normalizers.Lowercase()] if lower else []
    return normalizers.Sequence(parts) if parts else None


def _characters(texts: Iterator[str], vocabulary: int | None, minimum: int, normalizer: Any) -> Tokenizer:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text) if normalizer is not None else text)
    parts = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    return _lookup(_frequent(counts, minimum), vocabulary, normalizer, parts)


def _frequent(counts: Counter[str], minimum: int) -> list[str]:
    return sorted((token for token, n in counts.items() if n >= minimum), key=lambda token: (-counts[token], token))


def _words(texts: Iterator[str], vocabulary: int | None, minimum: int, normalizer: Any, pattern: str) -> Tokenizer:
    parts = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    tokenizer = Tokenizer(models.WordLevel({}, unk_token=SPECIAL[UNKNOWN]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, parts
    trainer = trainers.WordLevelTrainer(vocab_size=1 << 40, min_frequency=minimum, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return _lookup(sorted(ids, key=ids.__getitem__), vocabulary, normalizer, parts)


def _lookup(tokens: list[str], vocabulary: int | None, normalizer: Any, parts: Any) -> Tokenizer:
    tokens = [token for token in tokens if token not in SPECIAL]
    if not any(map(str.strip, tokens)):
        raise RecipeError("no token of the text occurs as often as minimum asks: lower minimum")
    tokens = SPECIAL + tokens[: None if vocabulary is None else vocabulary - len(SPECIAL)]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=SPECIAL[UNKNOWN]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, parts
    return tokenizer


def _pieces(texts: Iterator[str], unit: Unit, vocabulary: int, minimum: int, normalizer: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE() if unit == "bpe" else models.Unigram())
    tokenizer.normalizer = normalizer
    # a piece ends with its line, so that the lines of a text may be encoded one by one
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "merged_with_previous"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    same: Any = {"special_tokens": SPECIAL, "initial_alphabet": sorted(BYTES), "show_progress": False}
    if unit == "bpe":
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, min_frequency=minimum, **same)
    else:
        trainer = trainers.UnigramTrainer(vocab_size=vocabulary, unk_token=SPECIAL[UNKNOWN], **same)
    tokenizer.train_from_iterator(texts, trainer)
    made = json.loads(tokenizer.to_str())
    made["added_tokens"] = []  # "<unk>" in a text is five characters like any others
    if unit == "unigram":
        made["model"]["vocab"] = _settled(made["model"]["vocab"])
    return Tokenizer.from_str(json.dumps(made))


def _settled(vocabulary: list[list[Any]]) -> list[list[Any]]:
    """Unigram's pieces, in an order and with scores that don't change from run to run: the trainer's threads add up in any
    order, and the bytes that never occurred come last in any order, a ten-thousandth apart.
    """
    special, pieces = vocabulary[: len(SPECIAL)], vocabulary[len(SPECIAL) :]
    least = min(score for _, score in pieces)
    rest = least + 1e-4 * (len(BYTES) + 1)
    pieces = [[p, round(least if len(p) == 1 and score < rest else score, 6)] for p, score in pieces]
    return special + sorted(pieces, key=lambda piece: (-piece[1], piece[0]))


def _byte_letters() -> dict[str, int]:
    """The letters that stand for bytes: printable ones for themselves, the others from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + k): b for k, b in enumerate(rest)}


BYTES = _byte_letters()
