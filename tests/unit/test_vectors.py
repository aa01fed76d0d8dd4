"""Pretrained vectors of every format, written here byte by byte."""

import gzip

import numpy as np
import pytest

from recurra.data.vectors import load
from recurra.errors import DataError

WORDS = ["the", ",", "naïve", "New_York", "don't", "</s>", "日本", "the", "x"]
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 7)).astype(np.float32)
VECTORS[1] = 0  # all bytes NUL
VECTORS[2] = np.frombuffer(b"\n\n\n\n    " * 4, "<f4")[:7]  # line ends and spaces among the bytes


def text(header=False, end="", mark=" ", words=WORDS, vectors=VECTORS):
    lines = [f"{len(words)} {vectors.shape[1]}"] if header else []
    lines += [
        word + mark + mark.join(f"{v:.9g}" for v in vector) + end for word, vector in zip(words, vectors, strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


def binary(end=b"\n", words=WORDS, vectors=VECTORS):
    entries = [word.encode() + b" " + vector.tobytes() + end for word, vector in zip(words, vectors, strict=True)]
    return f"{len(words)} {vectors.shape[1]}\n".encode() + b"".join(entries)


FORMATS = {
    "glove.txt": text(),
    "tabs.txt": text(mark="\t"),
    "windows.txt": text().replace(b"\n", b"\r\n"),
    "word2vec.txt": text(header=True),
    "fasttext.vec": text(header=True, end=" "),
    "word2vec.bin": binary(),
    "gensim.bin": binary(end=b""),
}


def save(tmp_path, blob, name="v.txt"):
    (tmp_path / name).write_bytes(blob)
    return tmp_path / name


def refused(path, *parts, words=WORDS):
    with pytest.raises(DataError) as caught:
        load(path, words)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path, name, packed):
    blob = FORMATS[name]
    path = save(tmp_path, gzip.compress(blob) if packed else blob, name + ".gz" * packed)
    wanted = ["x", "unknown", "the", "NAÏVE", "日本", ",", "the", "</s>", "", "don't"]
    vectors, found = load(path, wanted)
    assert vectors.dtype == np.float32
    assert vectors.shape == (10, 7)
    assert found.tolist() == [True, False, True, True, True, True, True, True, False, True]
    want = VECTORS[[8, 0, 0, 2, 6, 1, 0, 5, 0, 4]] * found[:, None]  # of the two "the" the first
    np.testing.assert_array_equal(vectors, want)


def test_a_word_as_it_is_written_goes_before_its_lower_case(tmp_path):
    for words in (["apple", "Apple"], ["Apple", "apple"]):
        vectors = np.array([[1.0, 2], [3, 4]], np.float32)
        path = save(tmp_path, text(words=words, vectors=vectors))
        got, found = load(path, ["Apple", "apple", "APPLE"])
        lower = vectors[words.index("apple")]
        np.testing.assert_array_equal(got, [vectors[words.index("Apple")], lower, lower])
        assert found.all()


def test_words_with_spaces_in_text(tmp_path):
    path = save(tmp_path, b"the 1 2 3\n. . . 4 5 6\nat name@example.com 7 8 9\n")
    np.testing.assert_array_equal(load(path, [". . .", "at name@example.com"])[0], [[4, 5, 6], [7, 8, 9]])


def test_many_words(tmp_path):
    words = [f"word{i}" for i in range(40_000)]
    vectors = np.arange(40_000 * 10, dtype=np.float32).reshape(-1, 10)
    path = save(tmp_path, binary(words=words, vectors=vectors), "big.bin")
    np.testing.assert_array_equal(load(path, words[::-1])[0], vectors[::-1])
    path = save(tmp_path, text(True, words=words, vectors=vectors), "big.vec")
    np.testing.assert_array_equal(load(path, words[::997])[0], vectors[::997])


def test_bad_files(tmp_path):
    refused(tmp_path / "w.txt", "no such")
    refused(save(tmp_path, b""), "v.txt, line 1: there is no vector")
    refused(save(tmp_path, b"hello\n"), "line 1: there is no vector")
    refused(save(tmp_path, b"3 0\na 1\n"), "line 1: there is no vector")
    refused(save(tmp_path, text() + b"more 1 2 3\n"), "v.txt, line 10", "has 3 numbers, but 7 are expected")
    refused(save(tmp_path, text() + b"more 1 2 3 4 5 6 7 8 9\n"), "line 10", "has 9 numbers, but 7")
    refused(save(tmp_path, b"9 6\n" + text()), "line 2", "has 7 numbers, but 6")
    refused(save(tmp_path, b"9 8\n" + text()), "line 2", "has 7 numbers, but 8")
    refused(save(tmp_path, b"the 1 2\nx 1 b\n"), "line 2", "not a number")
    refused(save(tmp_path, b"the 1 2\nx 1 nan\n"), "line 2", "not a number")
    refused(save(tmp_path, text()), "holds none of the 2 words", words=["nowhere", "seen"])
    refused(save(tmp_path, text()), "holds none of the 0 words", words=[])
    refused(save(tmp_path, b"no gzip", "v.gz"), "v.gz can't be read")
    for end in (b"", b"\n"):
        whole = binary(end=end)
        refused(save(tmp_path, whole[:-9], "b.bin"), "b.bin: is broken at word 9 of 9")
        refused(save(tmp_path, whole[:15], "b.bin"), "b.bin: is broken at word 1 of 9")
        refused(save(tmp_path, whole + b"\nmore", "b.bin"), "goes on behind the 9 words of 7 numbers")
        refused(save(tmp_path, whole.replace(b"9 7\n", b"9 8\n", 1), "b.bin"), "b.bin")
        refused(save(tmp_path, whole.replace(b"9 7\n", b"9 6\n", 1), "b.bin"), "b.bin")
    broken = VECTORS.copy()
    broken[3, 2] = np.nan
    refused(save(tmp_path, binary(vectors=broken), "b.bin"), "broken at word 4")


def test_a_text_file_that_ends_early_is_refused(tmp_path):
    path = tmp_path / "cut.vec"
    path.write_text("3 2\na 1 2\nb 3 4\n")
    with pytest.raises(DataError, match="ends after 2 of the 3 words that its first line names"):
        load(path, ["a"])
