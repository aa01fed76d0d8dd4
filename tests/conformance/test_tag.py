"""Taggers: runtime = torch; alone = among others; word by word = whole; what is learnt, and what is refused."""

import io

import numpy as np
import pytest
import torch

from recurra.errors import DataError, ModelFileError, StateError, UnsupportedError
from recurra.runtime.stream import State
from recurra.runtime.tag import TagModel
from recurra.tasks.tag import Tag
from recurra.tasks.task import Core
from recurra.textfile import Sentence
from taggers import KINDS, NER, POS, build, random_sentences

torch.set_num_threads(1)
FORWARD = [name for name, kind in KINDS.items() if kind.direction == "forward"]


def same(a, b):
    """The same tags, with the same bits of confidence."""
    return [(x.tag, x.confidence.hex()) for x in a] == [(x.tag, x.confidence.hex()) for x in b]


@pytest.mark.parametrize("data", [NER, POS], ids=["spans", "plain"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("name", KINDS)
def test_the_runtime_gives_what_torch_gives(name, cell, data):
    if data is POS and KINDS[name].scheme == "IOB2":
        pytest.skip("plain tags have no scheme")
    made = build(data, KINDS[name], Core(cell=cell, hidden=7, layers=2, dropout=0.3), seed=3)
    model = made.model()
    some = [Sentence(tuple(words), None) for words in random_sentences(40)]
    with torch.no_grad():
        scores, _ = made.task(made.batch(some))
    found = list(model._scored([list(s.words) for s in some]))
    chain = made.task.chain()
    for theirs, (words, ours) in zip(scores.numpy(), found, strict=True):
        np.testing.assert_allclose(ours, theirs[: len(words)], atol=2e-5)
        if not model.streams:
            assert model._decided(ours) == chain.best(theirs[: len(words)])[0].tolist()


@pytest.mark.parametrize("name", KINDS)
def test_a_sentence_has_the_same_bits_alone_and_among_others(name):
    model = build(NER, KINDS[name], seed=1).model()
    sentences = random_sentences(150, seed=2)
    together = model.predict(sentences)
    assert len(together) == sum(map(len, sentences))
    for i in range(0, 150, 7):
        alone = model.tag(sentences[i])
        rows = together.filter(together["sentence"] == i + 1)
        assert rows["word"].to_list() == sentences[i]
        assert rows["tag"].to_list() == [answer.tag for answer in alone]
        assert [p.hex() for p in rows["confidence"]] == [answer.confidence.hex() for answer in alone]
    n_best = model.n_best(sentences[0], 5)
    assert n_best == model.n_best(list(sentences[0]), 5)


@pytest.mark.parametrize("data", [NER, POS], ids=["spans", "plain"])
@pytest.mark.parametrize("name", FORWARD)
def test_word_by_word_is_the_whole_bit_for_bit(name, data):
    model = build(data, KINDS[name], seed=4).model()
    sentences = random_sentences(20, seed=5)
    whole = [model.tag(words) for words in sentences]
    for words, wanted in zip(sentences, whole, strict=True):
        state, found = model.start(), []
        for t, word in enumerate(words):
            before = state.to_bytes()
            answers, after = model.step(state, word)
            assert state.to_bytes() == before
            assert (answers[0] is None) == (t < model.ahead)
            found += [answer for answer in answers if answer is not None]
            state = State.from_bytes(after.to_bytes(), model.digest)
        assert same(found + model.finish(state)[0], wanted)
    together = model.start(3)  # three side by side, each its own word
    rows = [words for words in sentences if len(words) >= 4][:3]
    found = [[], [], []]
    for t in range(4):
        answers, together = model.step(together, [words[t] for words in rows])
        for row, answer in enumerate(answers):
            found[row] += [] if answer is None else [answer]
    for row, answers in enumerate(model.finish(together)):
        assert same(found[row] + answers, model.tag(rows[row][:4]))


@pytest.mark.parametrize("name", FORWARD)
def test_no_word_beyond_the_look_ahead_matters(name):
    model = build(NER, KINDS[name], seed=6).model()
    words = random_sentences(1, seed=7, longest=30)[0]
    whole = model.tag(words)
    for n in range(model.ahead + 1, len(words)):
        kept = n - model.ahead - 1 if model.ahead else n
        assert same(model.tag(words[:n])[:kept], whole[:kept])


@pytest.mark.parametrize("name", KINDS)
def test_answers_keep_to_the_scheme(name):
    made = build(NER, KINDS[name], seed=8, spread=3.0)
    model = made.model()
    for words in random_sentences(50, seed=9):
        tags = [answer.tag for answer in model.tag(words)]
        assert model.tags.encode(tags, "x")  # raises where IOB2 is broken
        assert all(0 <= answer.confidence <= 1 for answer in model.tag(words))


@pytest.mark.parametrize("name", ["both", "cnn"])
def test_a_span_is_as_sure_as_all_sequences_that_hold_it(name):
    made = build(NER, KINDS[name], seed=10)
    model = made.model()
    for words in random_sentences(8, seed=11, longest=4):
        every = model.n_best(words, 100_000)
        assert sum(p for _, p in every) == pytest.approx(1, abs=1e-9)
        answers = model.tag(words)
        spans = model.tags.spans(model.tags.encode([a.tag for a in answers], "x"))
        for span in spans:
            holds = [p for tags, p in every if span in model.tags.spans(model.tags.encode(tags, "x"))]
            assert answers[span.first].confidence == pytest.approx(sum(holds), abs=1e-9)
        inside = {t for span in spans for t in range(span.first, span.end)}
        for t in set(range(len(words))) - inside:
            assert answers[t].confidence == pytest.approx(sum(p for tags, p in every if tags[t] == "O"), abs=1e-9)
        assert every[0][0] == [a.tag for a in answers]


def learn(made, data, steps=150):
    optimiser = torch.optim.Adam(made.task.parameters(), lr=0.02)
    batch = made.batch(data)
    made.task.train()
    for _ in range(steps):
        total, count = made.task.loss(made.task(batch)[0], batch)
        optimiser.zero_grad()
        (total / count).backward()
        optimiser.step()
    made.task.eval()
    with torch.no_grad():
        wrong, _ = made.task.error(made.task(batch)[0], batch)
    return float(wrong)


@pytest.mark.parametrize("name", KINDS)
def test_eight_sentences_are_learnt_by_heart(name):
    made = build(NER, KINDS[name], Core(cell="lstm", hidden=24, layers=1, dropout=0.0))
    learn(made, NER)
    scored = made.model().evaluate(NER)
    with torch.no_grad():
        batch = made.batch(NER)
        wrong, count = made.task.error(made.task(batch)[0], batch)
    assert scored.rows["model"]["f1"] == pytest.approx(1 - float(wrong / count))
    assert scored.rows["model"]["f1"] == 1.0
    assert scored.rows["most frequent tag"]["f1"] < 1.0
    assert "IOB2" in scored.caption


def test_plain_tags_are_learnt_and_scored_beside_the_floor():
    made = build(POS, None, Core(cell="lstm", hidden=24, layers=1, dropout=0.0))
    assert learn(made, POS) == 0
    scored = made.model().evaluate([*POS, Sentence(("cats",), ("VERB",))])
    assert scored.rows["model"]["accuracy"] > 0.8
    assert set(scored.rows["model"]) == {"accuracy", "of unknown words"}


def test_training_takes_words_that_occur_once_for_unknown():
    made = build(NER, Tag(unknown=0.5), Core(cell="lstm", hidden=5, layers=1, dropout=0.0))
    batch = made.batch(NER)
    made.task.train()
    torch.manual_seed(0)
    first, second = made.task(batch)[0], made.task(batch)[0]
    assert not torch.equal(first, second)
    made.task.once.zero_()
    assert torch.equal(made.task(batch)[0], made.task(batch)[0])


def test_what_lies_in_the_padding_does_not_matter():
    made = build(NER, Tag(), seed=2)
    batch = made.batch(NER)
    made.task.eval()
    loss = made.task.loss(made.task(batch)[0], batch)
    for i, n in enumerate(batch.lengths.tolist()):
        batch.values[i, n:] = 3
        batch.targets[i, n:] = 99
        batch.characters[i, n:] = 2
    again = made.task.loss(made.task(batch)[0], batch)
    torch.testing.assert_close(loss, again, rtol=0, atol=0)


def test_lines():
    model = build(NER, KINDS["forward"], seed=1).model()
    given = "EU\nrejects\tNNP\tO\n\n\nPeter Blackburn\n \nx\n"
    out = io.StringIO()
    assert model.lines(given.splitlines(keepends=True), out) == 0
    assert model.lines(["\tO\n"], io.StringIO()) == 1
    rows = out.getvalue().split("\n")
    wanted = [model.tag(words) for words in (["EU", "rejects"], ["Peter"], ["x"])]
    lines = [
        [f"{w}\t{a.tag}\t{a.confidence:.6f}" for w, a in zip(ws, answers, strict=True)]
        for ws, answers in zip((["EU", "rejects"], ["Peter"], ["x"]), wanted, strict=True)
    ]
    assert rows == [*lines[0], "", *lines[1], "", *lines[2], ""]


def test_a_model_that_reads_both_ways_refuses_to_stream():
    model = build(NER).model()
    assert not model.streams
    for ask in (model.start, lambda: model.lines(["x"], io.StringIO())):
        with pytest.raises(UnsupportedError, match='train with direction = "forward" to stream'):
            ask()


def test_bad_input():
    model = build(NER, KINDS["forward"]).model()
    with pytest.raises(DataError, match="sentence 1 is empty"):
        model.tag([])
    with pytest.raises(DataError, match="sentence 2 is empty"):
        model.predict([["x"], []])
    with pytest.raises(DataError, match="lists of words, not of texts"):
        model.predict(["a text"])
    with pytest.raises(DataError, match=r"^the list, sentence 2: 2 words, but 1 tags"):
        model.evaluate([NER[0], Sentence(("a", "b"), ("O",))])
    with pytest.raises(DataError, match=r"^the list, sentence 1, word 2: 'I-PER' can't follow 'O' in IOB2"):
        model.evaluate([Sentence(("a", "b"), ("O", "I-PER"))])
    with pytest.raises(
        DataError, match=r"^the list, sentence 1, word 1: the tag 'B-PRE' is unknown; did you mean 'B-PER'"
    ):
        model.evaluate([Sentence(("a",), ("B-PRE",))])
    with pytest.raises(DataError, match="no sentence to score"):
        model.evaluate([])
    with pytest.raises(DataError, match="one word a row, 1, not 2"):
        model.step(model.start(), ["a", "b"])
    other = State("e" * 64, model.start().arrays)
    with pytest.raises(StateError, match="belongs to the model"):
        model.step(other, "a")
    with pytest.raises(StateError, match="belongs to the model"):
        model.finish(other)
    state = model.start()
    state.arrays["previous"][0] = 99
    with pytest.raises(StateError, match="broken at 'previous'"):
        model.step(state, "a")
    assert len(model.predict([])) == 0


def test_a_broken_model_is_refused():
    made = build(NER)
    good = made.model()
    export = made.task.export()
    for name, value in {"read.weight": np.zeros((3, 3), np.float32), "crf.start": np.full(17, np.nan)}.items():
        with pytest.raises(ModelFileError, match="this is no tagger that can be played"):
            TagModel(good.manifest, {**export.weights, name: value}, "d", files_of(made))
    with pytest.raises(ModelFileError, match="this is no tagger that can be played"):
        TagModel({**good.manifest, "codec": {}}, export.weights, "d", files_of(made))


def files_of(made):
    return {**made.text.to_files(), "floor.json": '{"most": "O", "words": {}}'}
