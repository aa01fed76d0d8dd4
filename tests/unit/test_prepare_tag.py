"""`recurra train tag` and what follows, from end to end on a small file; what is refused, each in a line that names the place."""

import json
import re

import polars as pl
import pytest
import torch

import recurra
from forecasters import command
from recurra.errors import DataError, RecipeError
from recurra.textfile import sentences
from taggers import NER, POS

torch.set_num_threads(1)
SMALL = recurra.Core(hidden=12, layers=1, dropout=0.1)


def write(path, data, columns=lambda word, tag: f"{word} {tag}"):
    path.write_text(
        "\n".join("".join(columns(*pair) + "\n" for pair in zip(s.words, s.tags, strict=True)) for s in data)
    )
    return path


def train(path, out, *, epochs=1, seed=0, validation=0, core=SMALL, data=None, **task):
    return recurra.train(
        recurra.Tag(**task),
        recurra.Sentences(str(path), validation=validation, **(data or {})),
        core=core,
        fit=recurra.Fit(epochs=epochs, seed=seed, learning_rate=0.02),
        out=out,
        progress=False,
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tag")
    write(folder / "ner.txt", NER)
    train(folder / "ner.txt", folder / "both", epochs=2, validation=str(write(folder / "again.txt", NER)))
    train(folder / "ner.txt", folder / "forward", direction="forward", ahead=1, characters="cnn", repair=True)
    return folder


def test_a_small_file_is_learnt_by_heart(here):
    model = recurra.load(here / "both")
    scored = model.evaluate(here / "ner.txt")
    assert scored.rows["model"]["f1"] > scored.rows["most frequent tag"]["f1"] > 0
    assert set(scored.details["types"]) == {"LOC", "MISC", "ORG", "PER"}
    kept = json.loads((here / "both" / "metrics.json").read_text())
    assert kept["rows"] == scored.rows


def test_commands(here):
    ran = command("evaluate", here / "both", here / "ner.txt", "--json")
    assert json.loads(ran.out)["rows"]["model"]["f1"] > 0.5
    ran = command("predict", here / "both", here / "ner.txt", "--out", here / "tags.csv")
    assert ran.code == 0
    frame = pl.read_csv(here / "tags.csv")
    given = list(sentences(here / "ner.txt"))
    assert frame["word"].to_list() == [word for s in given for word in s.words]
    assert frame["sentence"].to_list() == [i for i, s in enumerate(given, 1) for _ in s.words]
    facts = json.loads(command("info", here / "both", "--json").out)
    assert facts["spans"] == ["LOC", "MISC", "ORG", "PER"]
    assert facts["scheme"] == "BIOES, written in IOB2"
    assert facts["direction"] == "both"


def test_a_stream_of_words(here):
    model = recurra.load(here / "forward")
    ran = command("stream", here / "forward", stdin="Peter\nBlackburn\n\nBRUSSELS\n")
    rows = [line.split("\t")[:2] for line in ran.out.split("\n")]
    wanted = [
        [[w, a.tag] for w, a in zip(s, model.tag(s), strict=True)] for s in (["Peter", "Blackburn"], ["BRUSSELS"])
    ]
    assert rows == [*wanted[0], [""], *wanted[1], [""]]
    refused = command("stream", here / "both", stdin="Peter\n")
    assert 'train with direction = "forward" to stream' in refused.err[0]
    assert (refused.code, len(refused.err)) == (2, 1)


def test_words_without_tags_are_predicted(here):
    plain = here / "words.txt"
    plain.write_text("Peter\nwent\n\nx\n")
    assert len(recurra.load(here / "both").predict(plain)) == 3


def test_plain_tags_of_a_conllu_file(tmp_path):
    path = write(tmp_path / "pos.conllu", POS, lambda word, tag: "\t".join(["1", word, "_", tag, *"______"]))
    model = train(path, tmp_path / "model", characters="none", crf=False)
    scored = model.evaluate(path)
    assert list(scored.rows["model"]) == ["accuracy"]
    assert model.tags.scheme == "none"
    assert model.tag(["the", "dog"])[0].tag in ("ADV", "DET", "NOUN", "VERB")


def test_pretrained_vectors(tmp_path):
    path = write(tmp_path / "ner.txt", NER)
    (tmp_path / "v.txt").write_text("peter 1 2 3\nunheard 4 5 6\nx 7 8 9\n")
    from recurra.training.prepare_tag import tag
    from recurra.training.recipe import Recipe, complete

    def prepared(**task):
        return tag(
            complete(
                Recipe(recurra.Tag(vectors=str(tmp_path / "v.txt"), **task), recurra.Sentences(str(path), validation=0))
            )
        )

    made = prepared()
    place = made.task.words.weight.detach()
    assert place.shape[1] == 3
    assert [1.0, 2.0, 3.0] in place.tolist()
    assert [7.0, 8.0, 9.0] in place.tolist()
    with pytest.raises(RecipeError, match="vectors of 3 numbers, but embedding = 50: leave embedding out"):
        prepared(embedding=50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a O\nb I-PER\n\nc B-PER\nd I-PER\n",
            r"f\.txt, sentence 1, word 2: 'I-PER' can't follow 'O' in IOB2; mend the file",
        ),
        ("a O\nb\n", r"f\.txt, line 2: has 1 column\(s\), but 2 are expected"),
        ("", r"f\.txt is empty"),
        ("a\nb\n", r"f\.txt, line 1: the word 'a' has no tag"),
    ],
)
def test_bad_training_files_are_named(tmp_path, text, message):
    (tmp_path / "f.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        train(tmp_path / "f.txt", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_bad_evaluation_files_are_named(here):
    bad = here / "bad.txt"
    bad.write_text("a O\n\nb B-PRE\n")
    with pytest.raises(
        DataError, match=re.escape(f"{bad}, sentence 2, word 1: the tag 'B-PRE' is unknown; did you mean")
    ):
        recurra.load(here / "both").evaluate(bad)
    bad.write_text("a I-PER\n")
    with pytest.raises(DataError, match="sentence 1, word 1: 'I-PER' can't be the first in IOB2"):
        recurra.load(here / "both").evaluate(bad)
    assert recurra.load(here / "forward").evaluate(bad).rows["model"]["f1"] >= 0  # trained with repair


def test_options_that_contradict(tmp_path):
    with pytest.raises(RecipeError, match='ahead needs direction = "forward"'):
        recurra.Tag(ahead=2)
    path = write(
        tmp_path / "s.txt",
        NER,
        lambda w, t: f"{w} {t.replace('B-', 'S-') if t[0] == 'B' else 'O'}",
    )
    with pytest.raises(RecipeError, match="can't be said word by word from IOB2"):
        train(path, tmp_path / "model", direction="forward", scheme="IOB2")
    path = write(tmp_path / "p.txt", POS)
    with pytest.raises(DataError, match="these tags are plain"):
        train(path, tmp_path / "model", scheme="BIOES")
