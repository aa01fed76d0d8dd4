"""A classifier: the runtime is torch, a document is alone, and what is streamed is what is read whole."""

import io
import json

import numpy as np
import polars as pl
import pytest
import torch

from classifiers import NAMES, make, series, texts
from recurra.data.batch import Batch
from recurra.errors import DataError, RecipeError, StateError, UnsupportedError
from recurra.tasks.classify import POOLED, Classify
from recurra.tasks.task import Core
from recurra.textfile import Document
from tolerance import CLASSIFY, error

CASES = [
    (direction, pooling, cell) for direction in ("both", "forward") for pooling in POOLED for cell in ("lstm", "gru")
]


def case(direction, pooling, cell, many=False):
    return Classify(direction=direction, pooling=pooling, embedding=5, many=many), Core(
        cell=cell, hidden=7, layers=2, dropout=0.3
    )


def documents_of(numeric, n, seed=0, longest=12):
    if numeric:
        return [Document(None, row, None) for row in series(n, seed, longest)]
    return [Document(text, None, None) for text in texts(n, seed, longest)]


def batch(rows, garbage=0):
    """Encoded rows as a batch, with garbage in the padding."""
    lengths = [len(row) for row in rows]
    x = np.full((len(rows), max(max(lengths), 1), *rows[0].shape[1:]), garbage, rows[0].dtype)
    for j, row in enumerate(rows):
        x[j, : len(row)] = row
    values = torch.from_numpy(x if x.dtype.kind == "f" else x.astype(np.int64))
    return Batch(values, torch.tensor(lengths), torch.zeros(len(rows), dtype=torch.int64), torch.ones(len(rows)))


def same(a, b):
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize(("direction", "pooling", "cell"), CASES)
def test_runtime_is_torch(direction, pooling, cell, numeric):
    task, model = make(*case(direction, pooling, cell), numeric=numeric)
    found = documents_of(numeric, 30)
    with torch.no_grad():
        logits, _ = task(batch([model._encode(document) for document in found]))
    want = torch.softmax(logits / task.temperature, -1)
    got = model.predict(found).select([f"p_{name}" for name in NAMES]).to_numpy()
    assert got.std(0).min() > 1e-3
    assert error(got, want) <= CLASSIFY


def test_several_labels_are_torch():
    task, model = make(*case("both", "concat", "lstm", many=True))
    found = documents_of(False, 30)
    with torch.no_grad():
        want = torch.sigmoid(task(batch([model._encode(document) for document in found]))[0] / task.temperature)
    frame = model.predict(found)
    assert error(frame.select([f"p_{name}" for name in NAMES]).to_numpy(), want) <= CLASSIFY
    assert frame["label"].to_list() == [[n for n, p in zip(NAMES, row, strict=True) if p >= 0.5] for row in want]


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize(("direction", "pooling", "cell"), CASES)
def test_a_document_is_alone(direction, pooling, cell, numeric):
    _, model = make(*case(direction, pooling, cell), numeric=numeric)
    rows = [model._encode(document) for document in documents_of(numeric, 64)]
    if numeric:
        rows = [np.full_like(row, np.nan) if i % 3 == 0 else row for i, row in enumerate(rows)]
    whole = model._classified(rows)
    for chosen in ([1], [4], [1, 4, 5, 7, 10, 13, 62], list(range(63, 0, -1))):
        assert same(model._classified([rows[i] for i in chosen]), whole[chosen])


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize(("direction", "pooling", "cell"), CASES)
def test_padding_is_not_there(direction, pooling, cell, numeric):
    task, model = make(*case(direction, pooling, cell), numeric=numeric)
    rows = [model._encode(document) for document in documents_of(numeric, 20, seed=1)]
    with torch.no_grad():
        whole = task(batch(rows, np.nan if numeric else 3))[0]
        for row, want in zip(rows, whole, strict=True):
            assert error(task(batch([row]))[0][0], want) <= CLASSIFY
    task.train()
    output, _ = task(batch(rows, np.nan if numeric else 3))
    task.loss(output, batch(rows))[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters() if p.grad is not None)


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("pooling", list(POOLED))
def test_streamed_is_whole(pooling, cell, numeric):
    _, model = make(*case("forward", pooling, cell), numeric=numeric)
    for document in documents_of(numeric, 6, seed=2, longest=40):
        row = model._encode(document)
        given = document.values if numeric else row
        assert given is not None
        state = model.start()
        for t in range(len(row)):
            before = state.to_bytes()
            answer, after = model.step(state, given[t : t + 1])
            assert state.to_bytes() == before
            state = after
            assert same(answer.probabilities, model._classified([row[: t + 1]])), f"step {t}"
        cut = len(row) // 3
        if cut > 0:
            _, state = model.step(model.start(), given[None, :cut])
            answer, _ = model.step(state, given[None, cut:])
            assert same(answer.probabilities, model._classified([row]))


def test_long_documents_are_whole_whatever_the_chunk():
    task, model = make(*case("forward", "concat", "lstm"), chunk=5)
    rows = [model._encode(document) for document in documents_of(False, 9, longest=70)]
    with torch.no_grad():
        pieces = task(batch(rows))[0]
        task.chunk = 400
        assert error(task(batch(rows))[0], pieces) <= CLASSIFY


def test_only_the_last_pieces_of_a_long_document_are_learnt_from():
    task, model = make(Classify(direction="forward", pooling="mean", embedding=5), chunk=5)
    row = model._encode(Document(" ".join(["film"] * 20 + ["bore"] * 20), None, None))
    task(batch([row]))[0].sum().backward()
    assert task.encoder.embedding.weight.grad is not None
    touched = task.encoder.embedding.weight.grad.abs().sum(1)
    assert touched[model.text.encode("bore")[0]] > 0
    assert touched[model.text.encode("film")[0]] == 0


def test_a_state_belongs_to_its_model_and_can_be_forked():
    _, model = make(*case("forward", "max", "gru"))
    state = model.start(3)
    answer, state = model.step(state, np.array([2, 3, 4]))
    assert answer.probabilities.shape == (3, 3)
    alone, _ = model.step(model.start(1), np.array([3]))
    assert same(alone.probabilities, answer.probabilities[1:2])
    with pytest.raises(StateError, match="belongs to the model other"):
        model.step(type(state)("other" * 9, state.arrays), np.array([2, 3, 4]))
    with pytest.raises(StateError, match="holds no document"):
        model.step(model.start(0), np.array([2]))
    for wrong in ([2, 3], 2.5, "some film", [[1.0]]):
        with pytest.raises(DataError):
            model.step(state, wrong)
    with pytest.raises(DataError, match="between 0 and"):
        model.step(model.start(1), np.array([999]))


def test_a_model_of_both_directions_says_that_it_cannot_stream():
    _, model = make(*case("both", "max", "lstm"))
    assert not model.streams
    for call in (model.start, lambda: model.lines([], io.StringIO())):
        with pytest.raises(UnsupportedError, match='train with direction = "forward"'):
            call()


def test_lines_give_a_verdict_a_token():
    _, model = make(*case("forward", "max", "lstm"))
    out = io.StringIO()
    assert model.lines(["the film was\n", "a bore\n", "\n", "fine score\n"], out) == 0
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row["token"] for row in found] == ["the", "film", "was", "a", "bore", "fine", "score"]
    want = model.predict(["the film was a bore", "fine score"])
    for place, row in ((4, 0), (6, 1)):
        assert found[place]["label"] == want["label"][row]
        assert found[place]["p"]["bad"] == pytest.approx(want["p_bad"][row], abs=1e-6)


def test_lines_of_numbers_and_refusals(capsys):
    _, model = make(*case("forward", "mean", "gru"), numeric=True)
    out = io.StringIO()
    assert model.lines(["[1, null]\n", "[1, 2, 3]\n", "nonsense\n", "[2, 4]\n"], out) == 2
    assert "line 2" in (err := capsys.readouterr().err)
    assert "line 3" in err
    want = model.predict([Document(None, np.array([[1, np.nan], [2, 4]]), None)])
    assert json.loads(out.getvalue().splitlines()[-1])["p"]["good"] == pytest.approx(want["p_good"][0], abs=1e-6)


def test_evaluate_scores_beside_the_majority():
    _, model = make(*case("both", "max", "lstm"))
    found = [text or "bore" for text in texts(40)]  # a table refuses an empty text
    labels = [NAMES[i % 3] for i in range(40)]
    scored = model.evaluate(pl.DataFrame({"text": found, "label": labels}))
    said = model.predict(found)["label"].to_list()
    right = np.mean([a == b for a, b in zip(said, labels, strict=True)])
    assert scored.rows["model"]["accuracy"] == pytest.approx(right)
    assert scored.rows["majority"]["accuracy"] == pytest.approx(14 / 40)
    assert set(scored.details["labels"]) == set(NAMES)
    json.dumps(scored.to_json())


def test_what_cannot_be_scored_is_said():
    _, model = make(*case("both", "max", "lstm"))
    with pytest.raises(DataError, match="the label 'superb' is unknown"):
        model.evaluate(pl.DataFrame({"text": ["fine"], "label": ["superb"]}))
    with pytest.raises(DataError, match="no document to score"):
        model.evaluate([])
    with pytest.raises(DataError, match="without a label"):
        model.evaluate([Document("fine", None, None)])


def test_an_empty_text_has_a_verdict():
    task, model = make(*case("both", "concat", "lstm"))
    bias = task.classify.bias / task.temperature
    want = torch.softmax(bias, 0)
    got = model.predict([""]).select([f"p_{name}" for name in NAMES]).to_numpy()[0]
    assert error(got, want) <= CLASSIFY
    assert len(model.predict([])) == 0


def test_class_weights_and_loss():
    task, _ = make(*case("both", "max", "lstm"))
    task.class_weights.copy_(torch.tensor([1.0, 4.0, 0.5]))
    output, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    given = Batch(torch.zeros(6, 1), torch.ones(6), targets, torch.tensor([1.0, 1, 1, 1, 1, 0]))
    total, count = task.loss(output, given)
    want = torch.nn.functional.cross_entropy(output[:5], targets[:5], weight=torch.tensor([1.0, 4.0, 0.5]))
    assert torch.isclose(total / count, want)
    wrong, n = task.error(output, given)
    assert n == 5
    assert int(wrong) == int((output[:5].argmax(1) != targets[:5]).sum())


def test_groups_hold_every_parameter_once_and_thaw_from_the_head():
    config = Classify(direction="forward", embedding=5, unfreeze=True, discriminate=2.6)
    task, _ = make(config)
    groups = task.groups()
    assert [factor for _, factor in groups] == pytest.approx([1, 1 / 2.6, 2.6**-2, 2.6**-3])
    inside = [id(p) for group, _ in groups for p in group]
    assert sorted(inside) == sorted(id(p) for p in task.parameters())
    for epoch, thawed in ((0, 1), (1, 2), (9, 4)):
        task.begin(epoch)
        for k, (group, _) in enumerate(groups):
            assert all(p.requires_grad == (k < thawed) for p in group)


def test_the_temperature_is_the_one_of_least_loss():
    task, model = make(*case("both", "max", "lstm"))
    rows = [model._encode(document) for document in documents_of(False, 60)]
    given = batch(rows)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        task.classify.weight.mul_(8.0)  # far too sure
        logits = task(given)[0]
        targets = torch.multinomial(torch.softmax(logits / 3.0, -1), 1, generator=generator)[:, 0]
    given = Batch(given.values, given.lengths, targets, given.weights)
    task.calibrate([given] * 200)  # so many documents that the prior says nothing
    found = float(task.temperature)
    losses = [
        float(torch.nn.functional.cross_entropy(logits / t, targets)) for t in (found * 0.95, found, found * 1.05)
    ]
    assert losses[1] == min(losses)
    assert 1.5 < found < 8


def test_an_encoder_is_taken_or_refused():
    task, _ = make(Classify(direction="forward", embedding=5))
    other, _ = make(Classify(direction="forward", embedding=5), seed=1)
    weights = {name: value.numpy() for name, value in other.encoder.state_dict().items()}
    task.start_from(weights)
    assert all(torch.equal(a, b) for a, b in zip(task.encoder.parameters(), other.encoder.parameters(), strict=True))
    weights["embedding.weight"] = weights["embedding.weight"][:-1]
    with pytest.raises(RecipeError, match=r"is not like this network: .*embedding\.weight"):
        task.start_from(weights)
    with pytest.raises(RecipeError, match='needs direction = "forward"'):
        Classify(encoder="lm")
