"""Tags: schemes against seqeval, random and by hand; what is broken is named; F1."""

import warnings
from itertools import pairwise, product

import numpy as np
import pytest

from recurra.codec import tags as codec
from recurra.codec.tags import F1, Span, Tags
from recurra.errors import DataError

SCHEMES = ("IOB1", "IOB2", "BIOES")


def random_tags(rng, scheme, n=None):
    """Any tags of the scheme, mostly broken ("none": without B, so never)."""
    names = codec.names(("A", "B"), scheme) if scheme != "none" else ("O", "I-A", "I-B")
    return [names[k] for k in rng.integers(0, len(names), rng.integers(1, 9) if n is None else n)]


def random_spans(rng, length):
    found, at = [], 0
    while at < length:
        end = min(length, at + int(rng.integers(1, 5)))
        if rng.random() < 0.6:
            found.append(Span(at, end, "AB"[rng.integers(2)]))
        at = end
    return found


def seqeval_scheme(name):
    from seqeval import scheme

    return {"IOB1": scheme.IOB1, "IOB2": scheme.IOB2, "BIOES": scheme.IOBES}[name]


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB1", "I-A I-A B-A I-B O I-A"),
        ("IOB2", "B-A I-A B-A B-B O B-A"),
        ("BIOES", "B-A E-A S-A S-B O S-A"),
    ],
)
def test_the_same_spans_in_every_scheme_by_hand(scheme, tags):
    spans = [Span(0, 2, "A"), Span(2, 3, "A"), Span(3, 4, "B"), Span(5, 6, "A")]
    assert codec.spans(tags.split()) == spans
    assert codec.spans(tags.split(), scheme) == spans
    assert codec.write(spans, 6, scheme) == tags.split()
    assert codec.detect([tags.split()]) == scheme


def test_every_scheme_gives_the_spans_back_and_converts_to_every_other():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 12))
        spans = random_spans(rng, n)
        written = {scheme: codec.write(spans, n, scheme) for scheme in SCHEMES}
        for scheme, other in product(SCHEMES, SCHEMES):
            assert codec.broken(written[scheme], scheme) is None
            assert codec.spans(written[scheme]) == codec.spans(written[scheme], scheme) == spans
            assert codec.convert(written[scheme], other) == written[other]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_strict_spans_are_seqevals(scheme):
    from seqeval.scheme import Entities

    rng = np.random.default_rng(1)
    sentences = [random_tags(rng, scheme) for _ in range(1000)]
    if (
        scheme == "IOB1"
    ):  # seqeval drops a span of one B where another type's B (a break) stands behind it; we drop only the latter
        sentences = [tags for tags in sentences if not {("B-A", "B-B"), ("B-B", "B-A")} & set(pairwise(tags))]
    wanted = Entities(sentences, seqeval_scheme(scheme)).entities
    for tags, entities in zip(sentences, wanted, strict=True):
        assert codec.spans(tags, scheme) == [Span(e.start, e.end, e.tag) for e in entities], tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_repairing_spans_are_conllevals(scheme):
    from seqeval.metrics.sequence_labeling import get_entities

    rng = np.random.default_rng(2)
    for _ in range(1000):
        tags = random_tags(rng, scheme)
        assert codec.spans(tags) == [Span(first, last + 1, kind) for kind, first, last in get_entities(tags)], tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_f1_is_seqevals(scheme):
    from seqeval.metrics import classification_report

    rng = np.random.default_rng(3)
    wanted = [codec.write(random_spans(rng, 9), 9, scheme) for _ in range(60)]
    found = [tags if rng.random() < 0.5 else codec.write(random_spans(rng, 9), 9, scheme) for tags in wanted[:40]] + [
        random_tags(rng, scheme if scheme != "IOB1" else "none", 9) for _ in range(20)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = classification_report(
            wanted, found, mode="strict", scheme=seqeval_scheme(scheme), output_dict=True, zero_division=0
        )
    ours = F1()
    for a, b in zip(wanted, found, strict=True):
        ours.add(codec.spans(a, scheme), codec.spans(b, scheme))
    rows = {"micro avg": ours.scores(), **ours.by_type()}
    for name, row in rows.items():
        theirs = report[name]
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [theirs["precision"], theirs["recall"], theirs["f1-score"]]
        )
    assert {k: v["spans"] for k, v in ours.by_type().items()} == {k: report[k]["support"] for k in "AB"}


def test_f1_of_nothing_is_0():
    assert F1().scores() == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert F1().by_type() == {}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_legal_is_what_some_spans_write(scheme):
    """Every pair of tags that some placing of spans writes is legal, and none else."""
    names = codec.names(("A", "B"), scheme)
    pairs, first, last = np.zeros((len(names),) * 2, bool), np.zeros(len(names), bool), np.zeros(len(names), bool)
    rng = np.random.default_rng(4)
    for _ in range(2000):
        n = int(rng.integers(1, 8))
        numbers = [names.index(tag) for tag in codec.write(random_spans(rng, n), n, scheme)]
        pairs[numbers[:-1], numbers[1:]] = True
        first[numbers[0]] = last[numbers[-1]] = True
    for ours, seen in zip(codec.legal(names, scheme), (pairs, first, last), strict=True):
        np.testing.assert_array_equal(ours, seen)


@pytest.mark.parametrize("scheme", ["IOB2", "BIOES"])
def test_broken_is_what_strict_reading_loses(scheme):
    rng = np.random.default_rng(5)
    for _ in range(500):
        tags = random_tags(rng, scheme)
        kept = codec.broken(tags, scheme) is None
        assert kept == (codec.write(codec.spans(tags, scheme), len(tags), scheme) == tags)


@pytest.mark.parametrize(
    ("scheme", "tags", "word", "why"),
    [
        ("IOB2", "O I-A", 1, "'I-A' can't follow 'O' in IOB2"),
        ("IOB2", "I-A", 0, "'I-A' can't be the first in IOB2"),
        ("IOB2", "B-A I-B", 1, "'I-B' can't follow 'B-A' in IOB2"),
        ("IOB1", "O B-A", 1, "'B-A' can't follow 'O' in IOB1"),
        ("IOB2", "B-A E-A", 1, "'E-A' can't follow 'B-A' in IOB2"),
        ("IOB1", "S-A", 0, "'S-A' can't be the first in IOB1"),
        ("BIOES", "B-A O", 1, "'O' can't follow 'B-A' in BIOES"),
        ("BIOES", "O B-A", 1, "'B-A' can't be the last in BIOES"),
    ],
)
def test_what_is_broken_is_named(scheme, tags, word, why):
    assert codec.broken(tags.split(), scheme) == (word, why)


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        (["DT NN VB"], "none"),
        (["O O"], "none"),
        ([], "none"),
        (["B- O"], "none"),
        (["O I-A I-A"], "IOB1"),
        (["B-A", "O B-B"], "IOB2"),
        (["B-A I-A", "I-A"] + ["B-A"] * 3, "IOB2"),  # one break, by far the smaller number
        (["S-A"], "BIOES"),
    ],
)
def test_detection(sentences, scheme):
    assert codec.detect([tags.split() for tags in sentences]) == scheme


def test_tags_are_learnt_in_one_scheme_and_come_out_in_another():
    data = [tags.split() for tags in ("I-A I-A B-A O", "I-B O")]
    tags = codec.fit(data)
    assert (tags.scheme, tags.source) == ("BIOES", "IOB1")
    assert tags.names == ("O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B")
    for sentence in data:
        assert tags.decode(tags.encode(sentence, "x")) == sentence
    assert codec.fit(data, "IOB2").names == ("O", "B-A", "I-A", "B-B", "I-B")
    assert Tags.model_validate(tags.model_dump(mode="json")) == tags


def test_plain_tags():
    tags = codec.fit([["VB", "NN"], ["NN"]])
    assert tags == Tags(names=("NN", "VB"), scheme="none", source="none")
    assert tags.decode(tags.encode(["VB", "NN"], "x")) == ["VB", "NN"]
    assert tags.mistakes([0, 1, 1], [0, 0, 1]) == (1, 3)
    assert all(part.all() for part in tags.legal())


def test_mistakes_are_1_minus_f1():
    tags = codec.fit([["B-A", "I-A", "O", "B-B"]])
    wanted, found = (tags.encode(t.split(), "x") for t in ("B-A I-A O B-B O B-A", "B-A I-A O B-A O B-A"))
    score = F1()
    score.add(tags.spans(wanted), tags.spans(found))
    wrong, count = tags.mistakes(wanted, found)
    assert 1 - wrong / count == pytest.approx(score.scores()["f1"])


def test_bad_tags_are_named():
    tags = codec.fit([["B-A", "I-A", "O", "B-LOC"]])
    with pytest.raises(
        DataError,
        match=r"^'f', sentence 3, word 2: 'I-A' can't follow 'O' in IOB2; mend the file, or train with repair",
    ):
        tags.encode(["O", "I-A"], "'f', sentence 3")
    assert tags.decode(tags.encode(["O", "I-A"], "x", repair=True)) == ["O", "B-A"]
    with pytest.raises(DataError, match=r"^s, word 1: the tag 'B-LOK' is unknown; did you mean 'B-LOC'\?"):
        tags.encode(["B-LOK"], "s")
    with pytest.raises(DataError, match="the tag 'NN' is unknown"):
        codec.fit([["DT"]]).encode(["NN"], "s")
    with pytest.raises(DataError, match="these tags are plain"):
        codec.fit([["DT"]], "IOB2")
