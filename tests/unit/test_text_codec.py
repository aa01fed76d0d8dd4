"""The text codec: every text comes back, whatever the unit; the same texts give the same ids; words against a plain loop."""

import gzip
import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra.codec.text import CharacterView, Labels, TextCodec, fit
from recurra.codec.tokenizer import PADDING, UNKNOWN
from recurra.errors import DataError, ModelFileError, RecipeError, UnsupportedError

UNITS = ("characters", "words", "bpe", "unigram")
PIECES = ("bpe", "unigram")
SOURCES = [Path(os.__file__).parent / name for name in ("textwrap.py", "bisect.py", "json/decoder.py", "this.py")]
LINES = [line for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines(keepends=True)]
SOURCE = "".join(LINES)
ODD = "日本語 \x00 <unk><pad>\n\t x  y\r\n 🎉▁ \u2028e\u0301 Å \ufeffĠ\n\n"
FITTED = {
    unit: fit([*LINES, ODD], unit=unit, vocabulary=500 if unit in PIECES else None, normalise="none") for unit in UNITS
}


def refused(words, call, *args, kind=DataError, **options):
    with pytest.raises(kind) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert words in message, message


# ---- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["characters", *PIECES])
def test_every_text_comes_back(unit):
    codec = FITTED[unit]
    for text in (SOURCE, ODD, "", "\n", " "):
        ids = codec.encode(text)
        assert ids.dtype == np.int32
        assert ids.ndim == 1
        assert codec.decode(ids) == text
        assert "".join(codec.decode_each(int(i) for i in ids)) == text
        assert not np.isin(ids, (PADDING, UNKNOWN)).any()


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_pieces_spell_any_text_at_all(text):
    for unit in PIECES:
        assert FITTED[unit].decode(FITTED[unit].encode(text)) == text


@pytest.mark.parametrize("unit", PIECES)
def test_pieces_of_a_text_are_those_of_its_lines(unit):
    whole = FITTED[unit].encode(SOURCE)
    np.testing.assert_array_equal(whole, np.concatenate(FITTED[unit].encode_all(LINES)))
    assert len(whole) < len(SOURCE) / 1.8  # and they are shorter than characters


def test_characters_are_those_of_the_saved_tokenizer():
    """The table of code points is a shorter way to the tokenizer's own answer."""
    for options in ({}, {"lower": True}, {"normalise": "nfkc"}, {"vocabulary": 40}, {"minimum": 5}):
        codec = fit(LINES, unit="characters", **options)
        for text in (ODD, SOURCE[:3000]):
            np.testing.assert_array_equal(codec.encode(text), codec.tokenizer.encode(text).ids)


def test_words_against_a_plain_loop():
    lines = ["the cat  sat\n", "the <unk> sat on the mat\n", "  \n", "a cat"]
    codec = fit(lines, unit="words", ends=True)
    counts = Counter(token for line in lines for token in line.replace("\n", " \n ").split(" ") if token)
    del counts["<unk>"]
    order = sorted(counts, key=lambda token: (-counts[token], token))
    assert [codec.token(i) for i in range(codec.size)] == ["<pad>", "<unk>", *order]
    assert codec.encode("the cat sat\n<unk> dog <pad>").tolist() == [
        *(2 + order.index(token) for token in ("the", "cat", "sat", "\n")),
        *(UNKNOWN, UNKNOWN, UNKNOWN),
    ]
    assert codec.decode(codec.encode("".join(lines))) == "the cat sat\nthe <unk> sat on the mat\n\na cat"
    without = fit(lines, unit="words")
    assert without.size == codec.size - 1
    assert without.decode(without.encode("".join(lines))) == "the cat sat the <unk> sat on the mat a cat"


def test_punctuation_is_split_off():
    codec = fit(['"Don\'t," it said (3.5)... <unk> naïve_x l’été<br />'], unit="words", split="punctuation")
    text = codec.decode(codec.encode('"Don\'t," it said (3.5)... <unk> naïve_x l’été<br />'))
    assert text == '" Don\'t , " it said ( 3 . 5 ) . . . <unk> naïve_x l’été < br / >'


def test_lower_case_and_normal_forms_are_saved_with_the_tokenizer():
    composed, apart = "Café ÅNGSTRÖM ﬁn", unicodedata.normalize("NFD", "Café ÅNGSTRÖM ﬁn")
    codec = fit([composed], unit="words", lower=True)
    assert codec.decode(codec.encode(apart)) == "café ångström ﬁn"
    assert codec.encode_words(apart.split(" ")).tolist() == codec.encode(composed).tolist()
    again = TextCodec.read(codec.manifest(), codec.to_files().__getitem__)
    assert again.decode(again.encode(apart)) == "café ångström ﬁn"
    assert fit([composed], unit="words", normalise="nfkc").encode("fin").tolist() != [UNKNOWN]
    none = fit([composed], unit="words", normalise="none")
    assert none.encode(apart).tolist()[0] == UNKNOWN


def test_words_given_one_by_one():
    codec = fit(["New York is big", "it is"], unit="words", split="punctuation")
    ids = codec.encode_words(["is", "New York", "(a)", "<unk>", "<pad>", "", "it", "is"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [codec.encode("is")[0], *[UNKNOWN] * 5, codec.encode("it")[0], codec.encode("is")[0]]
    assert codec.encode_words([]).shape == (0,)
    refused("no id for a word", FITTED["bpe"].encode_words, ["a"], kind=UnsupportedError)


def test_tokens_by_name():
    assert [FITTED["bpe"].token(i) for i in (0, 1)] == ["<pad>", "<unk>"]
    assert next(FITTED["bpe"].token(int(i)) for i in FITTED["bpe"].encode(" re🎉")).startswith(" ")
    assert "�" in FITTED["unigram"].token(int(FITTED["unigram"].encode("🧵")[0]))
    assert FITTED["words"].decode([0, 2, 0]) == FITTED["words"].token(2).strip() or FITTED["words"].token(2) != "\n"
    for i in (-1, 10_000, FITTED["words"].size):
        refused("no token", FITTED["words"].token, i)
        refused("no token", FITTED["words"].decode, [2, i])


# ---- fitting ---------------------------------------------------------------------------------------------------------


def test_vocabulary_and_minimum():
    counts = Counter(SOURCE)
    for unit in UNITS:
        assert fit(LINES, unit=unit, vocabulary=400).size <= 400
    assert fit(LINES, unit="bpe", vocabulary=400).size == 400
    few = fit(LINES, unit="characters", vocabulary=12)
    assert {few.token(i) for i in range(2, 12)} == {c for c, _ in counts.most_common(10)}
    often = fit(LINES, unit="characters", minimum=50)
    assert {often.token(i) for i in range(2, often.size)} == {c for c, n in counts.items() if n >= 50}
    assert fit(["a a b b b c"], unit="words", minimum=2).size == 4
    for unit in UNITS:
        refused("vocabulary = 2", fit, LINES, unit=unit, vocabulary=2, kind=RecipeError)


def test_texts_are_read_once_as_a_stream():
    for unit in UNITS:
        passes = iter(LINES)
        codec = fit(passes, unit=unit, vocabulary=400)
        assert next(passes, None) is None
        assert codec.to_files() == fit(LINES, unit=unit, vocabulary=400).to_files()
        taken = []
        ids = codec.encode_each(line for line in LINES * 200 if not taken.append(1))
        assert next(ids).tolist() == codec.encode(LINES[0]).tolist()
        assert len(taken) < len(LINES) * 200


def test_the_same_texts_give_the_same_ids_in_another_process():
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]); import test_text_codec as t; "
        "print([hashlib.sha256(t.fit(t.LINES, unit=u, vocabulary=600).to_files()['tokenizer.json'].encode()).hexdigest() for u in t.UNITS])"
    )
    out = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(out) == 1


@pytest.mark.parametrize("unit", UNITS)
def test_the_files_bring_the_codec_back(unit):
    codec = FITTED[unit]
    manifest = json.loads(json.dumps(codec.manifest()))
    again = TextCodec.read(manifest, codec.to_files().__getitem__)
    assert isinstance(again, TextCodec)
    assert again.manifest() == codec.manifest()
    assert again.to_files() == codec.to_files()
    np.testing.assert_array_equal(again.encode(SOURCE + ODD), codec.encode(SOURCE + ODD))
    refused("can't be read", TextCodec.read, manifest, lambda name: "{", kind=ModelFileError)
    refused("holds", TextCodec.read, {**manifest, "size": 3}, codec.to_files().__getitem__, kind=ModelFileError)


@pytest.mark.parametrize("unit", UNITS)
def test_bad_texts(unit):
    codec = FITTED[unit]
    for bad, words in (("a \ud800 b", "surrogate"), (5, "not int"), (None, "not NoneType")):
        refused(words, codec.encode, bad)
        refused(words, fit, ["ab", bad], unit=unit)
    for empty in ([], ["", " \n"]):
        refused("no text to learn from", fit, empty, unit=unit)

    def broken():
        yield "some text"
        raise DataError("line 2 of the file is broken")

    refused("line 2 of the file", fit, broken(), unit=unit)


def test_penn_treebank():
    folder = Path(os.environ.get("RECURRA_DATA", "/nowhere")) / "ptb"
    if not folder.is_dir():
        pytest.skip("RECURRA_DATA names no folder with ptb")
    parts = [
        gzip.decompress((folder / f"ptb.{p}.txt.gz").read_bytes()).decode().splitlines(True)
        for p in ("train", "valid", "test")
    ]
    codec = fit(parts[0], unit="words", ends=True)
    assert codec.size == 10_001  # its 10,000 words, <unk> and the line's end among them, and <pad>
    assert [sum(map(len, codec.encode_each(part))) for part in parts] == [929_589, 73_760, 82_430]


# ---- the characters of a word; labels --------------------------------------------------------------------------------


def test_characters_of_words():
    view = CharacterView.fit(["abba", "a-b", "Zoë"], width=5)
    assert view.width == 4
    assert view.size == 2 + len(set("abba-Zoë"))
    got = view.encode(["abba", "b", "", "a?a", "bbbbaaaa"])
    a, b = (2 + view.characters.index(c) for c in "ab")
    assert got.dtype == np.int32
    assert got.tolist() == [[a, b, b, a], [b, 0, 0, 0], [0] * 4, [a, UNKNOWN, a, 0], [b, b, a, a]]
    assert CharacterView.model_validate_json(view.model_dump_json()) == view
    assert CharacterView.fit(["abcdefg"], width=5).encode(["abcdefg"]).tolist() == [[2, 3, 4, 7, 8]]
    assert CharacterView.fit(["abcdefg"], width=1).encode(["abcdefg"]).tolist() == [[2]]
    assert CharacterView.fit([]).encode(["a"]).tolist() == [[UNKNOWN]]


def test_labels():
    labels = Labels.fit(["pos", "neg", "pos", "neutral", "pos"])
    assert labels.names == ("neg", "neutral", "pos")
    assert labels.counts == (1, 1, 3)
    assert labels.majority == 2
    assert len(labels) == 3
    assert labels.encode(["pos", "neg"]).tolist() == [2, 0]
    assert labels.encode(["pos"]).dtype == np.int64
    assert Labels.fit(["10", "9", "-1", "1"]).names == ("-1", "1", "9", "10")
    assert Labels.model_validate_json(labels.model_dump_json()) == labels
    refused("'positive' is unknown to the model: did you mean 'pos'?", labels.index, "positive")
    refused("no label", Labels.fit, [])
