"""Training a classifier from a table to a model file: what is learnt, what it starts from, and what is refused."""

import gzip
import io
import json

import numpy as np
import polars as pl
import pytest
import torch

import recurra
from recurra import Classify, Documents, Fit, modelfile
from recurra.data.batch import Batch
from recurra.errors import DataError, ModelFileError, RecipeError
from recurra.report import describe
from recurra.runtime.model import load
from recurra.tasks.classify import Classifier
from recurra.tasks.generate import Generate, LanguageModel
from recurra.tasks.task import Core

EIGHT = pl.DataFrame(
    {
        "text": [
            "a fine film",
            "a poor film",
            "what a score",
            "what a bore",
            "we laughed a lot",
            "we slept a lot",
            "see it twice",
            "leave it alone",
        ],
        "label": ["good", "bad"] * 4,
    }
)
SMALL = recurra.Core(hidden=16, layers=1, dropout=0.0)


def train(tmp_path, table, *, task=None, core=SMALL, fit=None, name="model", **data):
    options = {"validation": 0} | ({} if "values" in data else {"minimum": 1}) | data
    task = task or recurra.Classify(embedding=16, input_dropout=0.0, word_dropout=0.0)
    fit = fit or recurra.Fit(epochs=2, learning_rate=1e-2)
    return recurra.train(
        task, recurra.Documents(table, **options), core=core, fit=fit, out=tmp_path / name, progress=False
    )


def test_the_validation_part_may_be_a_frame(tmp_path):
    model = train(tmp_path, EIGHT, validation=EIGHT)
    assert model.manifest["training"]["history"][-1]["validation_loss"] > 0


@pytest.mark.parametrize("direction", ["both", "forward"])
def test_eight_texts_are_learnt_by_heart(tmp_path, direction):
    task = recurra.Classify(direction=direction, embedding=16, input_dropout=0.0, word_dropout=0.0)
    model = train(tmp_path, EIGHT, task=task)
    scored = model.evaluate(EIGHT)
    assert scored.rows["model"]["accuracy"] == 1
    assert scored.rows["majority"]["accuracy"] == 0.5
    assert model.predict(EIGHT)["label"].to_list() == EIGHT["label"].to_list()
    assert model.predict(EIGHT.select("text"))["label"].to_list() == EIGHT["label"].to_list()
    facts = describe(tmp_path / "model", model)
    assert facts["labels"] == ["bad", "good"]
    assert (facts["state bytes"] is None) == (direction == "both")
    json.dumps(facts)


def test_several_labels(tmp_path):
    table = EIGHT.with_columns(label=pl.Series(["good|short", "bad", "good", "", "good|long", "long", "good", "bad"]))
    task = recurra.Classify(many=True, embedding=16, input_dropout=0.0, word_dropout=0.0)
    model = train(tmp_path, table, task=task, fit=recurra.Fit(epochs=4, learning_rate=1e-2), separator="|")
    scored = model.evaluate(table)
    assert scored.rows["model"]["subset accuracy"] == 1
    assert model.predict(table)["label"].to_list()[:4] == [["good", "short"], ["bad"], ["good"], []]
    with pytest.raises(DataError, match="many = true"):
        train(tmp_path, table, name="other", separator="|")


def test_rare_classes_count_as_much_as_common_ones(tmp_path):
    table = pl.DataFrame({"text": ["one film"] * 30, "label": ["common"] * 27 + ["rare"] * 3})
    for balance, share in ((False, 0.1), (True, 0.5)):
        task = recurra.Classify(balance=balance, embedding=4, input_dropout=0.0, word_dropout=0.0)
        model = train(tmp_path, table, task=task, name=f"model{balance}")
        assert model.predict(["one film"])["p_rare"][0] == pytest.approx(share, abs=0.05)


def waves(n, seed, channels=1):
    """Series of unequal length with gaps: a rising or a falling saw."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for i in range(n):
        t = np.arange(rng.integers(12, 30))
        wave = (t % 5 if i % 2 else -t % 5) + rng.normal(0, 0.1, len(t)) + 100
        wave[rng.random(len(t)) < 0.1] = np.nan
        wave[-1] = 100
        rows.append([None if np.isnan(v) else float(v) for v in wave])
        labels.append("up" if i % 2 else "down")
    return pl.DataFrame({"wave": rows, "label": labels})


@pytest.mark.parametrize("direction", ["both", "forward"])
def test_series_of_unequal_length_with_gaps(tmp_path, direction):
    task = recurra.Classify(direction=direction)
    model = train(tmp_path, waves(40, 0), task=task, fit=recurra.Fit(epochs=6, learning_rate=1e-2), values=("wave",))
    assert model.values.flags
    assert model.evaluate(waves(40, 1)).rows["model"]["accuracy"] >= 0.95
    assert model.streams == (direction == "forward")


def test_long_series_are_read_in_frames(tmp_path):
    table = pl.DataFrame({"wave": [np.sin(np.arange(300) * k / 9).tolist() for k in (1, 2) * 4], "label": [1, 2] * 4})
    model = train(tmp_path, table, values=("wave",), fit=recurra.Fit(epochs=1))
    assert model.values.together == 5
    assert model.labels.names == ("1", "2")
    assert len(model.predict(table)) == 8


def test_ucr_files_and_plain_text_files(tmp_path):
    with gzip.open(tmp_path / "Saw_TRAIN.tsv.gz", "wt") as file:
        for i in range(12):
            file.write("\t".join([str(i % 2), *(f"{v}" for v in (np.arange(10) * (1 if i % 2 else -1)))]) + "\n")
    unasked = train(tmp_path, str(tmp_path / "Saw_TRAIN.tsv.gz"), name="unasked", minimum=2)
    assert unasked.values is not None
    model = train(tmp_path, str(tmp_path / "Saw_TRAIN.tsv.gz"), values=("*",))
    assert model.evaluate(str(tmp_path / "Saw_TRAIN.tsv.gz")).rows["model"]["accuracy"] == 1
    (tmp_path / "train.txt").write_text("".join(f"{n}:fine {t}\n" for t, n in EIGHT.rows()), encoding="latin-1")
    options = {"label_until": ":", "encoding": "latin-1"}
    model = train(tmp_path, str(tmp_path / "train.txt"), name="questions", **options)
    assert model.evaluate(str(tmp_path / "train.txt")).rows["model"]["accuracy"] == 1


def test_a_validation_part_gives_scores_and_a_temperature(tmp_path):
    rng = np.random.default_rng(0)
    words = EIGHT["text"].to_list()
    picked = rng.integers(0, 8, 200)
    noise = rng.random(200) < 0.2
    texts = [f"{words[k]} {i}" for i, k in enumerate(picked)]
    labels = [("bad", "good")[int((k % 2 == 0) != flip)] for k, flip in zip(picked, noise, strict=True)]
    model = train(tmp_path, pl.DataFrame({"text": texts, "label": labels}), validation=0.3)
    stored = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert stored["rows"]["model"]["accuracy"] > 0.6
    assert set(stored["details"]) == {"labels", "confidence"}
    assert float(model._temperature) != 1.0
    assert stored["rows"]["model"]["log loss"] < 0.7


def test_what_cannot_be_learnt_or_scored_is_said(tmp_path):
    one = EIGHT.with_columns(label=pl.lit("good"))
    with pytest.raises(DataError, match="every document has the label 'good'"):
        train(tmp_path, one)
    model = train(tmp_path, EIGHT, fit=recurra.Fit(epochs=1))
    with pytest.raises(DataError, match="label 'superb' is unknown"):
        model.evaluate(EIGHT.with_columns(label=pl.lit("superb")))
    with pytest.raises(DataError, match="no text in column 'text'"):
        model.predict(pl.DataFrame({"text": ["fine", ""]}))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="empty"):
        train(tmp_path, str(tmp_path / "empty.csv"), name="other")
    with pytest.raises(RecipeError, match=r"vectors = 'v\.vec' is for texts"):
        train(tmp_path, waves(8, 0), task=recurra.Classify(vectors="v.vec"), name="other", values=("wave",))
    assert len(model.predict([])) == 0


def language_model(tmp_path, codec):
    """A model folder as `generate` writes it, untrained."""
    core = Core(hidden=9, layers=2, dropout=0.0)
    task = LanguageModel(Generate(embedding=6), core, codec.size)
    export = task.export()
    manifest = {"task": "generate", "codec": codec.manifest(), "layers": export.layers, "data": "none"}
    manifest["config"] = {"task": {}, "core": {"cell": "lstm"}, "fit": {}}
    modelfile.write(tmp_path / "lm", manifest, export.weights, codec.to_files())
    return task


def test_it_starts_from_a_language_model(tmp_path):
    codec = recurra.Documents(EIGHT, minimum=1).fit(recurra.Documents(EIGHT, validation=0).parts()[0])
    lm = language_model(tmp_path, codec)
    task = recurra.Classify(
        encoder=str(tmp_path / "lm"), direction="forward", embedding=6, unfreeze=True, discriminate=2.6
    )
    core = recurra.Core(hidden=9, layers=2, dropout=0.0)
    frozen = recurra.Fit(epochs=1, average=0.0)
    with pytest.warns(RuntimeWarning, match="4 groups of layers an epoch: after 1 some are as they were"):
        model = train(tmp_path, EIGHT, task=task, core=core, fit=frozen, minimum=2)
    weights = modelfile.read(tmp_path / "model").weights
    for name, value in lm.encoder.state_dict().items():
        assert np.array_equal(weights[f"encoder.{name}"], value.numpy()), "in the first epoch the head learns alone"
    assert model.text.size == codec.size
    train(tmp_path, EIGHT, task=task, core=core, fit=recurra.Fit(epochs=4, average=0.0), name="whole", minimum=2)
    weights = modelfile.read(tmp_path / "whole").weights
    assert not np.array_equal(weights["encoder.embedding.weight"], lm.encoder.embedding.weight.detach().numpy())
    with pytest.raises(
        RecipeError, match=r"has cell = lstm, layers = 2, hidden = 9, embedding = 6, but the recipe says"
    ):
        train(tmp_path, EIGHT, task=task, core=recurra.Core(hidden=8, layers=2), name="other", minimum=2)
    other = recurra.Classify(encoder=str(tmp_path / "model"), direction="forward")
    with pytest.raises(ModelFileError, match="for the task 'classify'"):
        train(tmp_path, EIGHT, task=other, core=core, name="other", minimum=2)


def test_it_starts_from_word_vectors(tmp_path):
    (tmp_path / "v.vec").write_text("".join(f"{word} {i} 0 1\n" for i, word in enumerate(["fine", "poor", "never"])))
    task = recurra.Classify(vectors=str(tmp_path / "v.vec"), embedding=3)
    model = train(tmp_path, EIGHT, task=task, fit=recurra.Fit(epochs=1, learning_rate=1e-9, average=0.0))
    weight = modelfile.read(tmp_path / "model").weights["encoder.embedding.weight"]
    assert np.allclose(weight[model.text.encode("poor")[0]], [1, 0, 1], atol=1e-5)
    with pytest.raises(RecipeError, match="vectors of 3 numbers, but embedding = 5: say embedding = 3"):
        train(tmp_path, EIGHT, task=recurra.Classify(vectors=str(tmp_path / "v.vec"), embedding=5), name="other")
    with pytest.raises(RecipeError, match="vectors are for words, not for characters"):
        train(tmp_path, EIGHT, task=task, name="other", unit="characters")


def test_a_model_folder_that_was_mended_by_hand_is_refused(tmp_path):
    model = train(tmp_path, EIGHT, fit=recurra.Fit(epochs=1))
    file = modelfile.read(tmp_path / "model")
    with pytest.raises(ModelFileError, match="no classifier that can be played"):
        type(model)(file.manifest, file.weights | {"classify.bias": np.zeros(3, np.float32)}, "", {})
    texts = {"tokenizer.json": file.read_text("tokenizer.json")}
    wrong = file.weights | {"classify.weight": np.zeros((3, 32), np.float32), "classify.bias": np.zeros(3, np.float32)}
    with pytest.raises(ModelFileError, match="must map 32 values to 2 labels"):
        type(model)(file.manifest, wrong, "", texts)
    assert load(tmp_path / "model", "classify").digest == model.digest


def test_few_documents_don_t_make_sure_of_themselves(tmp_path):
    """Ten held-out documents, all of them right: the temperature stays near 1 (it ran to the edge of what was tried)."""
    torch.manual_seed(0)
    task = Classifier(Classify(), Core(hidden=4, layers=1, dropout=0.0), classes=2, channels=1)
    task.forward = lambda batch, state=None: (batch.values[:, 0], ())  # type: ignore[method-assign]

    def batch(n):
        targets = torch.arange(n) % 2
        logits = torch.nn.functional.one_hot(targets, 2).float() * 2.0
        return Batch(logits[:, None], torch.ones(n, dtype=torch.long), targets, torch.ones(n))

    task.calibrate([batch(10)])
    assert 0.4 < float(task.temperature) < 1.0
    task.calibrate([batch(5000)])
    assert float(task.temperature) < 0.35, "many documents are believed"


def test_a_short_document_beside_a_long_one_learns_as_alone():
    torch.manual_seed(0)
    task = Classifier(
        Classify(direction="forward", embedding=4),
        Core(hidden=5, layers=1, dropout=0.0),
        classes=2,
        vocabulary=9,
        chunk=5,
    )
    task.eval()
    ids = torch.randint(2, 9, (2, 60))

    def gradient(rows, lengths, which):
        task.zero_grad()
        found, _ = task(
            Batch(ids[rows, : max(lengths)], torch.tensor(lengths), torch.zeros(len(rows)), torch.ones(len(rows)))
        )
        found[which].sum().backward()
        return [p.grad.clone() for p in task.encoder.parameters()]

    together, alone = gradient([0, 1], [18, 60], 0), gradient([0], [18], 0)
    assert any(bool(g.abs().max() > 0) for g in alone)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(together, alone, strict=True))


def test_predict_leaves_out_the_labels_of_plain_text(tmp_path):
    lines = [f"{'NUM' if i % 2 else 'HUM'}:x {'how many' if i % 2 else 'who is'} word{i % 7}" for i in range(80)]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "b.txt").write_text("\n".join(line.split(maxsplit=1)[1] for line in lines) + "\n")
    data = Documents(str(tmp_path / "a.txt"), label_until=":")
    model = recurra.train(
        Classify(embedding=8), data, core=Core(hidden=8), fit=Fit(epochs=1), out=tmp_path / "m", progress=False
    )
    assert model.predict(tmp_path / "a.txt").equals(model.predict(tmp_path / "b.txt"))


def test_a_label_that_occurs_once_is_learnt(tmp_path):
    rows = [{"text": f"word{i} and more", "label": f"rare{i}" if i % 4 == 0 else "often"} for i in range(200)]
    learnt, held_out = Documents(pl.DataFrame(rows)).parts()
    assert held_out is not None
    assert {d.labels for d in held_out} <= {d.labels for d in learnt}
    assert 10 < len(list(held_out)) < 25


def test_a_run_that_diverges_is_no_model(tmp_path):
    rows = [{"text": f"word{i} and more", "label": "ab"[i % 2]} for i in range(60)]
    with pytest.raises(RecipeError, match="not a number any more, in epoch 1: lower learning_rate = 1e\\+30"):
        recurra.train(
            Classify(embedding=4),
            Documents(pl.DataFrame(rows)),
            core=Core(hidden=4),
            fit=Fit(learning_rate=1e30, epochs=2),
            out=tmp_path / "m",
            progress=False,
        )
    assert not list(tmp_path.iterdir())


def test_options_that_would_do_nothing_are_refused(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("so it is, and so it was\n" * 40)
    words = recurra.Text(text, unit="words", validation=0)
    recurra.train(Generate(), words, core=SMALL, fit=Fit(epochs=1), out=tmp_path / "lm", progress=False)
    task = Classify(encoder=str(tmp_path / "lm"), direction="forward", embedding=16, unfreeze=True)
    with pytest.raises(
        RecipeError, match=r"Documents.lower = True would do nothing: the text is read as '.*lm' reads it"
    ):
        train(tmp_path, EIGHT, task=task, minimum=2, lower=True)
    with pytest.raises(RecipeError, match=r"Documents.unit = 'bpe' would do nothing: numbers are classified"):
        Documents("table.csv", values=("*",), unit="bpe")
    for fit in (Fit(optimiser="ntasgd", average=0, schedule="constant"), Fit(schedule="plateau")):
        with pytest.raises(RecipeError, match="watches the validation loss, and validation = 0"):
            train(tmp_path, EIGHT, fit=fit)
    with pytest.raises(RecipeError, match=r"Fit.window = 9 would do nothing: 'classify' has no windows"):
        train(tmp_path, EIGHT, fit=Fit(window=9))
    with pytest.raises(RecipeError, match="chunk = 50 would do nothing: 'tag' learns from whole texts"):
        recurra.train(recurra.Tag(), recurra.Sentences(text), fit=Fit(chunk=50), out=tmp_path / "tag")
    with pytest.raises(RecipeError, match="no token of the text occurs as often as minimum asks"):
        train(tmp_path, EIGHT, minimum=50)
    lines = recurra.Text(str(text), validation=text)
    with pytest.warns(RuntimeWarning, match="is what is learnt from: its scores say nothing about other data"):
        recurra.train(Generate(), lines, core=SMALL, fit=Fit(epochs=1), out=tmp_path / "heart", progress=False)


@pytest.mark.parametrize("unit", ["characters", "words", "bpe", "unigram"])
def test_a_document_of_lines_streams_as_it_is_predicted(tmp_path, unit):
    table = EIGHT.with_columns(pl.col("text").str.replace(" ", "\n"))
    task = recurra.Classify(direction="forward", embedding=8)
    model = train(tmp_path, table, task=task, unit=unit, vocabulary=300 if unit in ("bpe", "unigram") else None)
    for text, p in zip(table["text"], model.predict(table)["p_good"], strict=True):
        out = io.StringIO()
        assert model.lines(["\n", *text.splitlines(keepends=True)], out) == 0
        assert json.loads(out.getvalue().splitlines()[-1])["p"]["good"] == pytest.approx(p, abs=1e-6)
