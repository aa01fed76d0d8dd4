"""Lines, documents and sentences from every kind of file; each kind of bad input is told in one clear line."""

import gzip
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurra import textfile
from recurra.errors import DataError
from recurra.table import write
from recurra.textfile import Document, Sentence, documents, files, lines, pieces, sentences

DATA = Path(os.environ.get("RECURRA_DATA", "/nowhere"))
LIBRARY = Path(os.__file__).parent


def needs(name):
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"RECURRA_DATA names no folder with {name}")


def save(tmp_path, text, name="t.txt"):
    path = tmp_path / name
    blob = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(blob) if name.endswith(".gz") and not blob.startswith(b"\x1f") else blob)
    return path


def refused(found, *words):
    """`found` is a stream, or makes one."""
    with pytest.raises(DataError) as caught:
        list(found() if callable(found) else found)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# ---- plain text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.txt", "t", "t.txt.gz"])
def test_lines(tmp_path, name):
    path = save(tmp_path, "\ufeffa b\r\n\nc\u2028 d\x0c\ré", name)
    assert list(lines(path)) == ["a b", "", "c\u2028 d\x0c", "é"]
    assert list(lines(str(path))) == list(lines(path))
    assert list(pieces(path)) == ["a b\n", "\n", "c\u2028 d\x0c\n", "é\n"]


def test_other_encodings(tmp_path):
    path = save(tmp_path, "naïve\nfaçade\n".encode("latin-1"))
    assert list(lines(path, "latin-1")) == ["naïve", "façade"]
    refused(lines(path), str(path), "line 1", "0xEF", "utf-8", "--encoding latin-1")
    late = save(tmp_path, b"fine\n" * 5000 + b"\xff\n", "late.txt")
    found = lines(late)
    assert next(found) == "fine"
    refused(found, "late.txt, line 5001", "0xFF")
    wide = save(tmp_path, "one\ntwo\n".encode("utf-16"), "wide.txt")
    assert list(lines(wide, "utf-16")) == ["one", "two"]
    refused(lines(wide), "wide.txt, line 1", "0xFF")
    refused(lines(save(tmp_path, "one\ntwo\n".encode("utf-16-le"))), "line 1", "NUL")
    refused(lines(path, "klingon"), "no encoding 'klingon'")
    refused(lines(save(tmp_path, "ab".encode("utf-16-le")[:-1]), "utf-16-le"), "utf-16-le")


def test_bad_files(tmp_path):
    refused(lines(save(tmp_path, "")), "t.txt is empty")
    refused(pieces(save(tmp_path, "")), "t.txt is empty")
    refused(lines(save(tmp_path, gzip.compress(b""), "e.gz")), "e.gz is empty")
    refused(lines(tmp_path / "tt.txt"), "no such file", "did you mean 't.txt'?")
    refused(lines(tmp_path / "none" / "tt.txt"), "no such folder")
    refused(lines(tmp_path), "is a folder")
    whole = gzip.compress(b"some text\n" * 1000)
    (tmp_path / "cut.gz").write_bytes(whole[:-20])
    refused(lines(tmp_path / "cut.gz"), "cut.gz can't be read")
    (tmp_path / "no.gz").write_bytes(b"some text")
    refused(lines(tmp_path / "no.gz"), "no.gz can't be read")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "bcd", " ", "é", "\n", "  \n"]), min_size=1), st.integers(1, 9))
def test_pieces_are_the_text(tmp_path_factory, parts, longest):
    text = "".join(parts)
    path = save(tmp_path_factory.mktemp("pieces"), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textfile, "LONGEST", longest)
        found = list(pieces(path))
    assert "".join(found) == text if text.endswith("\n") else text + "\n"
    assert all(piece.find("\n") in (-1, len(piece) - 1) for piece in found)
    assert all(found)


def test_a_long_line_comes_in_pieces_cut_before_spaces(tmp_path):
    path = save(tmp_path, "some words " * 50_000 + "end")
    found = list(pieces(path))
    assert max(map(len, found)) <= textfile.LONGEST + len(" words")
    assert all(piece.startswith(" ") for piece in found[1:])
    assert "".join(found) == "some words " * 50_000 + "end\n"


def test_files(tmp_path):
    for name in ("b.py", "sub/a.py", "sub/c.txt", ".git/x.py", "sub/.hidden.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    names = [path.relative_to(tmp_path).as_posix() for path in files(tmp_path, "*.py")]
    assert names == ["b.py", "sub/a.py"]
    assert len(files(tmp_path)) == 3
    assert files(str(tmp_path / "b.py"), "*.txt") == [tmp_path / "b.py"]
    assert files([tmp_path / "sub", str(tmp_path / "b.py")]) == [
        *(tmp_path / name for name in ("sub/a.py", "sub/c.txt")),
        tmp_path / "b.py",
    ]
    refused(lambda: files(tmp_path, "*.rs"), "holds no file like '*.rs'")
    refused(lambda: files(tmp_path / "c.py"), "no such file", "'b.py'")
    assert len(files(LIBRARY / "json", "*.py")) >= 5


# ---- documents -------------------------------------------------------------------------------------------------------

ROWS = [
    ("good, really", "pos"),
    ('she said: "no"\ntwice', "neg"),
    ("naïve ½", "pos"),
]
TABLE = pl.DataFrame(ROWS, schema=["text", "label"], orient="row")
WANT = [Document(text, None, (label,)) for text, label in ROWS]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet", "jsonl", "jsonl.gz"])
def test_documents_of_tables(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    write(TABLE.with_columns(extra=pl.lit(1)), path)
    assert list(documents(path)) == WANT
    assert list(documents(str(path), labelled=False)) == [Document(text, None, None) for text, _ in ROWS]
    write(TABLE.select(body="text"), path)
    assert list(documents(path, text="body", labelled=False)) == [Document(text, None, None) for text, _ in ROWS]
    assert list(documents(path, text="body", label=None)) == [Document(text, None, None) for text, _ in ROWS]
    refused(documents(path, text="body"), "no column 'label'", str(path))
    refused(documents(path, text="bode", labelled=False), "no column 'bode': did you mean 'body'?")


def test_documents_of_frames():
    for frame in (
        TABLE,
        TABLE.lazy(),
        TABLE.to_pandas(),
        TABLE.to_arrow(),
        pd.DataFrame(ROWS, columns=["text", "label"]),
    ):
        assert list(documents(frame)) == WANT
    refused(documents({"text": []}), "convert it")
    refused(documents(TABLE.head(0)), "no rows")
    refused(documents(TABLE, text=None), "name the column of the text")


def test_tab_separated_text_has_no_quotes(tmp_path):
    path = save(tmp_path, 'sentence\tlabel\n"it\'s" good\t1\na " mark\t0\n', "train.tsv")
    assert list(documents(path, text="sentence")) == [
        Document('"it\'s" good', None, ("1",)),
        Document('a " mark', None, ("0",)),
    ]
    refused(lambda: write(TABLE, path), "write a .csv file")


def test_labels_of_every_type():
    def labels(values, dtype=None, **options):
        frame = pl.DataFrame({"text": ["a"] * len(values), "label": pl.Series(values, dtype=dtype, strict=False)})
        return [document.labels for document in documents(frame, **options)]

    assert labels([0, 1]) == [("0",), ("1",)]
    assert labels([1.0, 0.5]) == [("1",), ("0.5",)]
    assert labels([True, False]) == [("true",), ("false",)]
    assert labels([" a ", "b"]) == [("a",), ("b",)]
    assert labels(["a", "b"], pl.Categorical) == [("a",), ("b",)]
    assert labels(["a|b", "", "b| |c|b"], separator="|") == [("a", "b"), (), ("b", "c")]
    assert labels([["a", "b"], [], [3]], pl.List(pl.String)) == [("a", "b"), (), ("3",)]
    assert labels(["NUM:dist", "LOC"], label_until=":") == [("NUM",), ("LOC",)]
    assert labels(["x:1|y:2", None], separator="|", label_until=":") == [("x", "y"), ()]
    for missing in (None, "", " "):
        refused(lambda missing=missing: labels(["a", missing]), "the table, row 2", "no label in column 'label'")


@pytest.mark.parametrize("name", ["sst.train", "sst.txt.gz"])
def test_plain_documents(tmp_path, name):
    path = save(tmp_path, "DESC:manner  How did it ?\n\nNUM:date When ? \n", name)
    assert list(documents(path)) == [
        Document("How did it ?", None, ("DESC:manner",)),
        Document("When ?", None, ("NUM:date",)),
    ]
    assert [document.labels for document in documents(path, label_until=":")] == [("DESC",), ("NUM",)]
    assert [document.text for document in documents(path, labelled=False)][1] == "NUM:date When ?"
    refused(documents(save(tmp_path, "0 a b\n1\n", name)), f"{name}, line 2", "'1' is a label without a text")
    refused(documents(save(tmp_path, "\n \n", name)), "blank lines alone")
    refused(documents(save(tmp_path, b"0 caf\xe9\n", name)), "line 1", "--encoding latin-1")
    assert next(documents(save(tmp_path, b"0 caf\xe9\n", name), encoding="latin-1")).text == "café"


def test_bad_documents(tmp_path):
    refused(documents(save(tmp_path, 'text,label\na,x\n"",y\n', "t.csv")), "t.csv, row 2", "no text in column 'text'")
    refused(
        documents(save(tmp_path, '{"text":"a","label":1}\n{"text":null,"label":1}\n', "t.jsonl")), "t.jsonl, line 2"
    )
    refused(documents(save(tmp_path, '{"text":5,"label":1}\n', "t.jsonl")), "'text' holds Int64, not text")
    refused(documents(save(tmp_path, '{"text":["a"],"label":1}\n', "t.jsonl")), "not text")
    refused(documents(save(tmp_path, '{"text":"a","label":1}\n{"text":\n', "t.jsonl")), "line 2 is not a JSON object")
    refused(documents(save(tmp_path, '{"text":"a"}\n{', "t.jsonl.gz")), "line 2 is not a JSON object")
    refused(documents(save(tmp_path, "text,label\na,1\ncaf\xe9,1\n".encode("latin-1"), "t.csv")), "t.csv", "line 3")
    refused(documents(save(tmp_path, "text,label\n", "t.csv")), "t.csv has a header and no rows")
    refused(documents(save(tmp_path, "", "t.csv")), "t.csv is empty")
    refused(documents(save(tmp_path, "[]", "t.json")), "unknown ending '.json'", ".jsonl")
    refused(documents(tmp_path / "u.csv"), "no such file")
    refused(documents(save(tmp_path, "no parquet", "t.parquet")), "t.parquet")
    assert list(documents(save(tmp_path, "text,label\na,1\n\nb,2\n\n", "t.csv"))) == [
        Document("a", None, ("1",)),
        Document("b", None, ("2",)),
    ]


def test_more_documents_than_are_held_at_once(tmp_path):
    path = tmp_path / "t.csv"
    write(pl.DataFrame({"text": [f"row {i}" for i in range(5000)], "label": [i % 7 for i in range(5000)]}), path)
    found = list(documents(path))
    assert [document.text for document in found] == [f"row {i}" for i in range(5000)]
    with path.open("a") as file:
        file.write(",3\n")
    stream = documents(path)
    assert next(stream).text == "row 0"
    refused(stream, "row 5001")


# ---- numeric series --------------------------------------------------------------------------------------------------


def series(source, **options):
    found = list(documents(source, **options))
    assert all(document.text is None and document.values.dtype == np.float64 for document in found)
    return [document.values for document in found], [document.labels for document in found]


def equal(found, want):
    assert len(found) == len(want)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_array_equal(a, np.array(b, float))


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_column_a_step(tmp_path, ending):
    frame = pl.DataFrame({"t0": [1.5, 4.0], "kind": ["a", "b"], "t1": [None, 5.0], "t2": [3.0, None]})
    write(frame, tmp_path / f"t.{ending}")
    for names in (("*",), ("t0", "t1", "t2")):
        values, labels = series(tmp_path / f"t.{ending}", values=names, label="kind")
        equal(values, [[[1.5], [np.nan], [3]], [[4], [5]]])
        assert labels == [("a",), ("b",)]
    values, labels = series(tmp_path / f"t.{ending}", values=("*",), label="kind", labelled=False)
    equal(values, [[[1.5], [np.nan], [3]], [[4], [5]]])
    assert labels == [None, None]
    equal(series(frame.to_pandas(), values=("*",), label="kind")[0], [[[1.5], [np.nan], [3]], [[4], [5]]])
    equal(series(frame.select("t2", "t0"), values=("*",), label=None)[0], [[[3], [1.5]], [[np.nan], [4]]])


def test_columns_of_lists():
    frame = pl.DataFrame({"label": [1, 2], "x": [[1.0, None, 3.0], [4.0]], "y": [[5, 6, None], [None]]})
    equal(series(frame, values=("x",))[0], [[[1], [np.nan], [3]], [[4]]])
    equal(series(frame, values=("x", "y"))[0], [[[1, 5], [np.nan, 6], [3, np.nan]], [[4, np.nan]]])
    nested = pl.DataFrame({"label": [1], "z": [[[1.0, 2.0], [3.0, 4.0], [5.0, None]]]})
    equal(series(nested, values=("z",))[0], [[[1, 2], [3, 4], [5, np.nan]]])
    refused(
        documents(pl.DataFrame({"label": [1], "x": [[1.0]], "y": [[1.0, 2.0]]}), values=("x", "y")), "row 1", "[1, 2]"
    )
    refused(
        documents(pl.DataFrame({"label": [1], "x": [["a"]]}), values=("x",)),
        "column 'x' holds List(String), not numbers",
    )


def test_bad_series(tmp_path):
    def bad(text, *words, **options):
        refused(documents(save(tmp_path, text, "t.csv"), values=("*",), **options), "t.csv", *words)

    bad("label,a,b\n1,2,3\n1,x,3\n", "row 2", "column 'a' holds 'x', which is not a number")
    bad("label,a,b\n1,2,3\n1,,NA\n", "row 2", "no value")
    bad("label,a,b\n1,2,inf\n", "row 1", "inf")
    bad("a,b\n1,2\n", "no column 'label'")
    refused(documents(pl.DataFrame({"label": [1], "a": [1.0]}), values=("b",)), "no column 'b'")
    equal(series(save(tmp_path, "label,a,b,c\n1, 2 ,NaN,\n", "t.csv"), values=("*",))[0], [[[2]]])


def test_ucr(tmp_path):
    path = save(tmp_path, "1\t0.5\t-2e-1\tNaN\n-1.0000000e+00\t1\tNaN\t3\n", "X_TRAIN.tsv.gz")
    values, labels = series(path)
    equal(values, [[[0.5], [-0.2]], [[1], [np.nan], [3]]])
    assert labels == [("1",), ("-1",)]
    assert series(path, labelled=False)[1] == [None, None]
    refused(documents(save(tmp_path, "1\t2\t3\n1\tx\t3\n", "X.tsv")), "X.tsv, line 2", "not a number")
    refused(documents(save(tmp_path, "1\t2\n1\tNaN\n", "X.tsv")), "X.tsv, line 2", "no value")


# ---- sentences -------------------------------------------------------------------------------------------------------

CONLL = "-DOCSTART- -X- O\n\nEU NNP B-ORG\n# NN O\n\n\nhi UH O\n"
UNIVERSAL = (
    "# sent_id = 1\n1\tAl\tAl\tPROPN\tNNP\t_\t0\troot\t_\t_\n2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n"
    "2\tdo\tdo\tAUX\tVB\t_\t1\tx\t_\t_\n3\tn't\tnot\tPART\tRB\t_\t1\tx\t_\t_\n3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_\n\n"
    "1\tNew York\t_\tX\t_\t_\t0\troot\t_\t_\n"
)


@pytest.mark.parametrize(
    "text", [CONLL, CONLL.replace(" ", "\t"), CONLL.replace("\n", "\r\n"), CONLL.rstrip() + "\n \n"]
)
def test_columns(tmp_path, text):
    path = save(tmp_path, text)
    assert list(sentences(path)) == [Sentence(("EU", "#"), ("B-ORG", "O")), Sentence(("hi",), ("O",))]
    assert next(sentences(path, tag=2)).tags == next(sentences(path, tag="-2")).tags == ("NNP", "NN")
    assert next(sentences(path, word=3, tag=1)) == Sentence(("B-ORG", "O"), ("EU", "#"))
    assert list(sentences(path, labelled=False)) == [Sentence(("EU", "#"), None), Sentence(("hi",), None)]


def test_universal(tmp_path):
    path = save(tmp_path, UNIVERSAL, "x.conllu.gz")
    assert list(sentences(path)) == [
        Sentence(("Al", "do", "n't"), ("PROPN", "AUX", "PART")),
        Sentence(("New York",), ("X",)),
    ]
    assert next(sentences(path, word="lemma", tag="xpos")) == Sentence(("Al", "do", "not"), ("NNP", "VB", "RB"))
    assert next(sentences(path, word=3, tag=5)) == next(sentences(path, word="lemma", tag="xpos"))
    refused(sentences(path, tag="xpos"), "x.conllu.gz, line 8", "no tag of 'New York'")
    refused(sentences(path, tag="upo"), "no column 'upo': did you mean 'upos'?")
    refused(sentences(save(tmp_path, UNIVERSAL + "2\tonly\n", "x.conllu")), "line 9", "2 column(s), but 10")
    refused(
        sentences(save(tmp_path, UNIVERSAL + "2x" + "\ta" * 9 + "\n", "x.conllu")), "line 9", "the id '2x' is no number"
    )


def test_words_alone(tmp_path):
    path = save(tmp_path, "a\nb\n\nc\n")
    assert list(sentences(path, labelled=False)) == [Sentence(("a", "b"), None), Sentence(("c",), None)]
    refused(sentences(path), "t.txt, line 1", "the word 'a' has no tag")


def test_bad_sentences(tmp_path):
    def bad(text, *words, **options):
        refused(sentences(save(tmp_path, text), **options), "t.txt", *words)

    bad("a X\nb\n", "line 2", "1 column(s), but 2")
    bad("a X\nb Y Z\n", "line 2", "3 column(s), but 2")
    bad("a\tX\nb\t\n", "line 2", "no tag of 'b'")
    bad("a\tX\n\tX\n", "line 2", "no word")
    bad("a X\n", "line 1", "no column 4", tag=4)
    bad("a X\n", "line 1", "no column -3", tag=-3)
    bad("\n\n-DOCSTART- O\n", "no sentence")
    bad("", "empty")
    bad("caf\xe9 X\n".encode("latin-1"), "line 1", "0xE9")
    assert next(sentences(save(tmp_path, "caf\xe9 X\n".encode("latin-1")), encoding="latin-1")).words == ("café",)
    refused(sentences(save(tmp_path, "a X\n"), tag=0), "no column 0")
    refused(sentences(save(tmp_path, "a X\n"), tag="upos"), "column 'upos' has no name in this file")


# ---- real files ------------------------------------------------------------------------------------------------------


def test_the_standard_library_is_text():
    found = files(LIBRARY / "json", "*.py")
    assert "".join(piece for path in found for piece in pieces(path)) == "".join(p.read_text("utf-8") for p in found)


@needs("conll2003_ner_en")
@pytest.mark.parametrize(
    ("part", "size", "entities"), [("train", 14_041, 23_499), ("valid", 3_250, 5_942), ("test", 3_453, 5_648)]
)
def test_conll2003(part, size, entities):
    found = list(sentences(DATA / "conll2003_ner_en" / f"{part}.txt.gz"))
    assert len(found) == size
    assert sum(tag.startswith("B-") for sentence in found for tag in sentence.tags) == entities


@needs("conll2000_chunking")
def test_conll2000():
    for part, size, words in (("train", 8_936, 211_727), ("test", 2_012, 47_377)):
        found = list(sentences(DATA / "conll2000_chunking" / f"{part}.txt.gz"))
        assert (len(found), sum(len(sentence.words) for sentence in found)) == (size, words)
        assert any("#" in sentence.words for sentence in found)


@needs("ud_english_ewt")
def test_ewt():
    for part, size, words in (("train", 12_544, 204_577), ("dev", 2_001, 25_147), ("test", 2_077, 25_094)):
        found = list(sentences(DATA / "ud_english_ewt" / f"en_ewt-ud-{part}.conllu.gz"))
        assert (len(found), sum(len(sentence.words) for sentence in found)) == (size, words)
        assert len({tag for sentence in found for tag in sentence.tags}) == 17


@needs("trec_qc")
def test_trec():
    train = list(documents(DATA / "trec_qc" / "train.txt", encoding="latin-1", label_until=":"))
    test = list(documents(DATA / "trec_qc" / "test.txt", label_until=":"))
    assert (len(train), len(test)) == (5_452, 500)
    assert len({document.labels for document in train}) == 6
    assert max(Counter(document.labels for document in test).values()) / 500 == pytest.approx(0.276)
    assert len({document.labels for document in documents(DATA / "trec_qc" / "train.txt", encoding="latin-1")}) == 50
    refused(documents(DATA / "trec_qc" / "train.txt"), "train.txt, line ", "--encoding latin-1")


@needs("sst2")
def test_sst():
    sizes = [len(list(documents(DATA / "sst2" / f"stsa.binary.{part}.gz"))) for part in ("train", "dev", "test")]
    assert sizes == [6_920, 872, 1_821]


@needs("imdb")
def test_imdb():
    labels = Counter(document.labels for document in documents(DATA / "imdb" / "imdb_test.jsonl.gz"))
    assert labels == {("0",): 12_497, ("1",): 12_499} or sum(labels.values()) == 24_996


@needs("ucr2018")
def test_ucr_archive():
    for name, size, steps, classes in (("GunPoint", 50, 150, 2), ("Plane", 105, 144, 7)):
        values, labels = series(DATA / "ucr2018" / name / f"{name}_TRAIN.tsv.gz")
        assert {value.shape for value in values} == {(steps, 1)}
        assert (len(values), len(set(labels))) == (size, classes)


def test_no_features_is_an_answer_in_conllu(tmp_path):
    line = "\t".join(["1", "dog", "dog", "NOUN", "_", "_", "0", "root", "_", "_"])
    (tmp_path / "a.conllu").write_text(line + "\n\n")
    assert [s.tags for s in sentences(tmp_path / "a.conllu", tag="feats")] == [("_",)]
    (tmp_path / "a.conllu").write_text(line.replace("NOUN", "_") + "\n\n")
    with pytest.raises(DataError, match="there is no tag of 'dog'"):
        list(sentences(tmp_path / "a.conllu"))
