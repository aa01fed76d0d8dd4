"""Translate and summarise: the runtime is torch; a sentence alone or among others, and in any order, has the same answer."""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from forecasters import command
from recurra import (
    Core,
    Fit,
    Pairs,
    RecurraError,
    Search,
    Summaries,
    Summarise,
    Translate,
    curve,
    load,
    modelfile,
    scorepage,
    train,
)
from recurra.errors import DataError, RecipeError, StateError, UnsupportedError
from recurra.heatmap import figure, save, svg
from recurra.nn.attention import SCORES
from recurra.nn.sequence import EncoderDecoder
from recurra.pairfile import Pair, pairs
from recurra.runtime import sequence
from recurra.runtime.average import average
from recurra.runtime.scored import Scored
from recurra.runtime.simultaneous import lagging
from recurra.runtime.stream import State
from recurra.runtime.summarise import SummariseModel
from recurra.runtime.translate import TranslateModel, as_json, shown
from recurra.search.sampling import Sampling
from recurra.tasks.translate import bleu, matches

V = 23
CASES = [
    {"score": score, "shape": shape, "layers": layers}
    for score, shape, layers in itertools.product(SCORES, ("gnmt", "feeding"), (1, 3))
    if score not in ("dot", "scaled") or layers == 3  # one layer reads both ways: a wider memory
]
CASES += [{"direction": d, "bridge": b, "layers": 2} for d in ("first", "both", "forward") for b in ("last", "zeros")]
CASES += [{"score": score, "coverage": True, "pointer": True} for score in ("normed", "additive", "location")]
CASES += [{"cell": "gru", "pointer": True, "layers": 3}, {"cell": "rnn", "tied": False, "source_vocabulary": 31}]
CASES += [{"direction": "forward", "bridge": "zeros", "wait": 2, "layers": 2}]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_runtime_is_torch(options):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    options = {"layers": 1, "heads": 2 if options.get("score") == "heads" else 1} | options
    network = EncoderDecoder(V, 6, 8, options.pop("layers"), **options).eval()
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, -0.6, 0.6)
    player = sequence.EncoderDecoder(*network.export())
    most = 27 if options.get("pointer") else options.get("source_vocabulary") or V
    sources = [rng.integers(1, most, n) for n in (1, 5, 9, 5)]
    lengths = torch.tensor([len(ids) for ids in sources])
    padded = torch.zeros(4, 9, dtype=torch.long)
    for row, ids in zip(padded, sources, strict=True):
        row[: len(ids)] = torch.from_numpy(ids)
    inputs = torch.from_numpy(rng.integers(0, 26 if options.get("pointer") else V, (4, 7)))
    inputs[:, 0] = network.end
    with torch.no_grad():
        decoded = network(padded, lengths, inputs)
        want = network.log_probabilities(decoded, padded).numpy()
    read = player.encode(sources)
    rows = player.start(read)
    for t in range(7):
        logp, weights, rows = player.step(read, rows, inputs[:, t].numpy())
        there = np.isfinite(logp) & (
            want[:, t, : logp.shape[1]] > -60
        )  # what no weight falls on: -inf here, tiny there
        assert there[:, :V].all() or options.get("pointer")
        np.testing.assert_allclose(np.where(there, logp, 0), np.where(there, want[:, t, : logp.shape[1]], 0), atol=3e-5)
        np.testing.assert_allclose(weights, decoded.weights[:, t].numpy(), atol=1e-5)


WORDS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four", "rot": "red", "blau": "blue", "und": "and"}


def sentences(n, seed=0, longest=6):
    rng = np.random.default_rng(seed)
    return [[str(w) for w in rng.choice(list(WORDS), rng.integers(1, longest))] for _ in range(n)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    some = sentences(400)
    (folder / "a.txt").write_text("\n".join(" ".join(s) for s in some) + "\n")
    (folder / "b.txt").write_text("\n".join(" ".join(WORDS[w] for w in s) for s in some) + "\n")
    for name in "ab":
        (folder / f"{name}.valid.txt").write_text((folder / f"{name}.txt").read_text())
    return folder


def trained(files, out, seed=0, data=None, epochs=6, **task):
    return train(
        Translate(embedding=24, smoothing=0.0, **task),
        Pairs(
            str(files / "a.txt"),
            target=str(files / "b.txt"),
            validation=str(files / "a.valid.txt"),
            validation_target=str(files / "b.valid.txt"),
            **(data or {"unit": "words"}),
        ),
        core=Core(hidden=32, layers=2, dropout=0.0),
        fit=Fit(epochs=epochs, batch_size=8, learning_rate=1e-2, seed=seed),
        out=out,
        overwrite=True,
        progress=False,
    )


@pytest.fixture(scope="module")
def translator(files, tmp_path_factory):
    return trained(files, tmp_path_factory.mktemp("model") / "m")


def test_it_learns_to_translate_and_says_so(translator, files):
    rows = translator.evaluate(str(files / "a.txt"), str(files / "b.txt"))
    assert rows.rows["model"]["BLEU"] > 90 > 5 > rows.rows["source copied"]["BLEU"]
    assert "sacrebleu" in rows.caption
    (answer,) = translator.translate("drei und vier", Search(n_best=3))
    assert answer.text == "three and four"
    assert answer.ended
    assert len({answer.text, *(other.text for other in answer.alternatives)}) == 3
    assert answer.attention.shape == (3, 3)
    assert len(shown(answer).splitlines()) == 4
    assert '"words": ["three", "and", "four"]' in as_json(answer)


def test_attention_is_pictured(translator, files, tmp_path):
    """In a file by matplotlib, and in the report: a cell for each pair of words, the darkest where the word comes from."""
    (answer,) = translator.translate("drei und vier")
    figure(answer).savefig(tmp_path / "attention.png")
    assert (tmp_path / "attention.png").read_bytes()[:4] == b"\x89PNG"
    axes = figure(answer).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["drei", "und", "vier"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["three", "and", "four"]
    scored = Scored.from_json(translator.evaluate(str(files / "a.txt"), str(files / "b.txt")).to_json())
    page = scorepage.render(translator.manifest, {"created": "now"}, scored)
    assert page.count('aria-label="attention"') == 4
    pictured = scored.examples[0]
    assert page.count("<rect") == sum(len(one["source"]) * len(one["words"]) for one in scored.examples)
    best = max(max(row) for row in pictured["attention"])
    assert f": {best:.2f}</title>" in page
    assert svg(["a", "<b>"], ["x"], [[0.0, 1.0]]).count("&lt;b&gt;") == 2


def test_a_picture_has_letters_that_the_usual_font_lacks(translator, tmp_path, monkeypatch):
    """From another font where there is one; where there is none one line says so. Nothing is pictured of an empty line."""
    from matplotlib import font_manager, rcParams

    (answer,) = translator.translate("drei und vier")
    cyrillic = replace(answer, source_words=("три", "и", "четыре"))
    monkeypatch.setitem(rcParams, "font.family", ["cmtt10"])
    figure(cyrillic).savefig(tmp_path / "with.png")  # matplotlib warns of a letter that it can't draw
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    with pytest.warns(RuntimeWarning, match="no installed font has the letters 'еиртчы'") as warned:
        save(cyrillic, tmp_path / "without.png")
    assert len(warned) == 1
    assert (tmp_path / "without.png").exists()
    save(translator.translate("")[0], tmp_path / "empty.png")
    assert not (tmp_path / "empty.png").exists()


@pytest.mark.parametrize(
    "search", [Search(beam=1), Search(beam=5, coverage_penalty=0.1), Search(beam=3, n_best=3)], ids=str
)
def test_a_sentence_never_depends_on_its_batch(translator, search):
    some = [" ".join(s) for s in sentences(60, seed=3, longest=10)]
    alone = [translator.translate([text], search)[0] for text in some]
    order = np.random.default_rng(1).permutation(60)
    for size in (7, 60):
        for first in range(0, 60, size):
            here = order[first : first + size]
            for i, one in zip(here, translator.translate([some[i] for i in here], search), strict=True):
                assert (one.text, one.score, one.alternatives) == (alone[i].text, alone[i].score, alone[i].alternatives)
                assert np.array_equal(one.weights, alone[i].weights)


@pytest.fixture(scope="module", params=["words", "bpe", "characters"])
def waiting(request, files, tmp_path_factory):
    """A translator that begins once two tokens are there."""
    data = {"unit": request.param} | ({"vocabulary": 300} if request.param == "bpe" else {})
    out = tmp_path_factory.mktemp("waiting") / "m"
    return trained(files, out, data=data, direction="forward", bridge="zeros", wait=2)


def test_written_while_it_is_read_is_written_greedily(waiting):
    """Word by word, or the sentence in two parts, through the bytes of the state: the text of the whole sentence."""
    for some in sentences(20, seed=5, longest=9):
        (whole,) = waiting.translate([" ".join(some)], Search(beam=1))
        state, pieces = waiting.start(), []
        for word in some:
            before = state.to_bytes()
            piece, after = waiting.step(state, word)
            assert state.to_bytes() == before, "a state is a value"
            state = State.from_bytes(after.to_bytes(), waiting.digest)
            pieces.append(piece)
        rest, end = waiting.finish(state)
        assert "".join([*pieces, rest]) == whole.text
        logp = end.arrays["decoder.output"]
        half, two = waiting.step(waiting.start(), " ".join(some[:1]))
        more, two = waiting.step(two, " ".join(some[1:])) if some[1:] else ("", two)
        rest, end = waiting.finish(two)
        assert half + more + rest == whole.text
        assert np.array_equal(end.arrays["decoder.output"], logp)


def test_a_translator_that_waits_begins_before_the_end(files, tmp_path, capsys):
    model = trained(files, tmp_path / "m", direction="forward", bridge="zeros", wait=2)
    scored = model.evaluate(str(files / "a.txt"), str(files / "b.txt")).rows["model"]
    assert scored["BLEU"] > 80
    assert 1 < scored["average lagging"] < 3
    out = io.StringIO()
    assert model.lines(["eins\n", "und\n", "zwei drei\n", "\n", "rot\n"], out) == 0
    assert out.getvalue() == "one\nand two\nthree\n\nred\n\n"
    with pytest.raises(DataError, match="takes the next word of a sentence, not ' '"):
        model.step(model.start(), " ")
    assert model.finish(model.start())[0] == ""
    _, over = model.finish(model.step(model.start(), "eins")[1])
    for wrong in (lambda: model.step(over, "zwei"), lambda: model.finish(over)):
        with pytest.raises(StateError, match="this sentence has ended: begin the next"):
            wrong()
    with pytest.raises(StateError, match="belongs to the model"):
        model.step(State("another", model.start().arrays), "eins")


def test_a_poor_translator_stops_where_a_whole_sentence_does(files, tmp_path):
    """Streamed = whole also where no end is found, and where more is said than the model reads, which is then said."""
    data = {"unit": "words", "longest": 6}
    model = trained(files, tmp_path / "m", data=data, epochs=1, direction="forward", bridge="zeros", wait=2)
    kept = modelfile.read(tmp_path / "m")
    kept.weights["softmax.bias"][model.codec.end] = -30.0  # it never comes to an end
    tokenizers = {name: kept.read_bytes(name).decode() for name in model.codec.to_files()}
    model = TranslateModel(kept.manifest, kept.weights, model.digest, tokenizers)
    ended = []
    for text in ("rot", "eins und zwei", "drei und vier und", "blau " * 6):
        (whole,) = model.translate([text], Search(beam=1))
        state, pieces = model.start(), []
        for word in text.split():
            piece, state = model.step(state, word)
            pieces.append(piece)
        assert "".join([*pieces, model.finish(state)[0]]).strip() == whole.text
        ended.append(whole.ended)
    assert not any(ended)
    with pytest.warns(RuntimeWarning, match="reads the first 6 tokens"):
        model.step(model.start(), "eins und " * 4)


@pytest.mark.filterwarnings("ignore:the model knows no")
def test_the_command_leaves_the_search_to_the_model(files, tmp_path):
    """Greedy where it waits, and no wider than a tiny vocabulary allows."""
    model = trained(files, tmp_path / "m", direction="forward", bridge="zeros", wait=1)
    line = "eins und zwei rot"
    ran = command("translate", tmp_path / "m", stdin=line)
    assert ran.out.strip() == model.translate([line], Search(beam=1))[0].text
    tiny = trained(files, tmp_path / "t", data={"unit": "words", "vocabulary": 4})
    assert tiny.search.beam == tiny.codec.vocabulary - 1 < 5
    assert tiny.translate(["eins"])[0].text == command("translate", tmp_path / "t", stdin="eins").out.strip()
    ran = command("translate", tmp_path / "m", "--max-length", 3, "--phrase", "red blue red blue", stdin="eins\nzwei")
    assert (ran.code, len(ran.err)) == (2, 2)  # each line is refused by itself


def test_average_lagging_by_hand():
    assert lagging(source=5, written=5, wait=1) == 1.0
    assert lagging(source=5, written=5, wait=3) == 3.0
    assert lagging(source=4, written=8, wait=4) == 4.0
    assert lagging(source=4, written=8, wait=1) == pytest.approx((1 + 1.5 + 2 + 2.5) / 4)


def test_prefix_phrase_draws_and_lines(translator, capsys):
    (answer,) = translator.translate(["eins und zwei"], prefixes=["red"])
    assert answer.text.split()[0] == "red"
    (answer,) = translator.translate(["eins und zwei"], phrases=[["blue red"]])
    assert "blue red" in answer.text
    for phrases in ("red", [["red"], "red"], [["red"], [""]]):
        with pytest.raises(DataError, match="phrases"):
            translator.translate(["eins", "zwei"], phrases=phrases)
    with pytest.raises(DataError, match="phrases are for 1 texts, and there are 2"):
        translator.translate(["eins", "zwei"], phrases=[["blue red"]])
    a, b = (translator.sample(["eins und zwei", "rot"], Sampling(), seed=s) for s in (1, 1))
    assert [one.text for one in a] == [one.text for one in b]
    assert translator.sample(["rot"], Sampling(), seed=1)[0].text == a[1].text
    assert translator.lines(["eins\n", "\n", "zwei"], sys.stdout) == 0
    assert capsys.readouterr().out.splitlines() == ["one", "", "two"]
    for search in (None, replace(translator.search, beam=1)):
        with pytest.raises(DataError, match="phrases are a list"):
            translator.translate(["eins"], search, phrases=[None])
    frame = translator.predict(["eins", "zwei rot"], Search(n_best=2))
    assert frame["sentence"].to_list() == [1, 1, 2, 2]
    with pytest.raises(RecipeError, match="min_length = 3 would do nothing"):
        translator.sample(["rot"], Sampling(), search=Search(min_length=3))
    with pytest.raises(DataError, match="texts must be a list"):
        translator.translate(5)


def test_pieces_of_words_phrases_and_bounds(files, tmp_path):
    """With BPE a phrase stands as words of its own, a text has at most `max_length` tokens, and no white space at its ends."""
    model = trained(files, tmp_path / "m", data={"vocabulary": 300})
    assert model.codec.target.unit == "bpe"
    given = ["eins und zwei", "drei", "rot und blau und vier", "zwei rot"]
    for phrase in ("red", "three and"):
        for answer in model.translate(given, phrases=[[phrase]] * 4):
            assert f" {phrase} " in f" {answer.text} "
            assert answer.text == answer.text.strip()
    for text in given:  # what an answer holds anyway changes nothing, at its beginning too
        (plain,) = model.translate([text])
        for part in (plain.words[:1], plain.words[-1:], plain.words[:2]):
            for prefixes in (None, [f" {plain.words[0]}\n"]):
                assert model.translate([text], phrases=[[" ".join(part)]], prefixes=prefixes)[0].text == plain.text
    assert model.translate(["drei"], prefixes=["two "])[0].text.split()[0] == "two"
    for most in (1, 2, 3):
        (answer,) = model.translate(["eins und zwei und drei und vier"], Search(max_length=most))
        assert len([token for token in answer.tokens if token != "</s>"]) <= most
        assert len(answer.tokens) == len(answer.weights)
        assert answer.score == Search().score(answer.logp, len(answer.tokens), None)
        if not answer.ended:
            total, _ = model.score([Pair("eins und zwei und drei und vier", answer.text)])
            assert answer.logp > total[0]  # END not counted


def test_several_models_answer_together_and_as_their_mean(translator, files, tmp_path):
    other = trained(files, tmp_path / "n", seed=1)
    both = translator.ensemble(other)
    pairs = [Pair("eins und zwei", "one and two"), Pair("rot", "red")]
    for pair, together in zip(pairs, both.score(pairs)[0], strict=True):
        ids = next(translator.codec.targets([pair.target]))
        each = np.array([log_probabilities(model, pair.source, ids) for model in (translator, other)])
        assert abs(each[0] - each[1]).max() > 1e-3, "the two differ"
        assert together == pytest.approx(np.log(np.exp(each).mean(0)).sum(), abs=1e-9)
    trained(files, tmp_path / "m", seed=1, weight_drop=0.1)  # from the same start
    average([tmp_path / "m", tmp_path / "n"], tmp_path / "mean")
    one, two, mean = (modelfile.read(tmp_path / name).weights for name in ("m", "n", "mean"))
    for name, weight in mean.items():
        want = (one[name].astype(np.float64) + two[name]) / 2
        np.testing.assert_array_equal(weight, want.astype(weight.dtype), err_msg=name)
    assert any((one[name] != two[name]).any() for name in one)
    assert load(tmp_path / "mean").translate("rot")[0].tokens
    with pytest.raises(RecipeError, match="at least two"):
        average([tmp_path / "m"], tmp_path / "x")
    trained(files, tmp_path / "other")
    with pytest.raises(RecipeError, match=r"began from another seed \(0\) than"):
        average([tmp_path / "m", tmp_path / "other"], tmp_path / "x")


def log_probabilities(model, text, ids):
    """log p of each of the ids of a target by one model, in float64: its own network, step by step."""
    (network,) = model.networks
    read = network.encode(list(model.codec.sources([text])))
    rows, last, out = network.start(read), model.codec.end, []
    for i in ids.tolist():
        logp, _, rows = network.step(read, rows, np.array([last]))
        out.append(float(logp[0, i]))
        last = i
    return out


def test_a_file_in_and_a_file_out(translator, files, tmp_path):
    folder = tmp_path / "m"
    trained(files, folder)
    assert "validation part, one in 2 of 400 pairs: 200 sentences; sacrebleu" in command("info", folder).out
    (tmp_path / "in.txt").write_text("drei und vier\n\nrot\n")
    ran = command("predict", folder, tmp_path / "in.txt", "--out", tmp_path / "out.txt", "--beam", 1)
    assert ran.code == 0, ran.err
    assert (tmp_path / "out.txt").read_text() == "three and four\n\nred\n"
    asked = ["--beam", 4, "--n-best", 3, "--length-penalty", 0.0]
    assert command("predict", folder, tmp_path / "in.txt", "--out", tmp_path / "out.jsonl", *asked).code == 0
    rows = pl.read_ndjson(tmp_path / "out.jsonl")
    assert rows["rank"].to_list() == [1, 2, 3, 1, 1, 2, 3]
    assert rows["alignment"][0] == "0-0 1-1 2-2"
    refused = command("predict", folder, tmp_path / "in.txt", "--out", tmp_path / "x.csv", "--n-best", 9, "--beam", 5)
    for out, error in (
        (tmp_path / "in.txt", "is the file that is read"),
        (tmp_path / "no" / "x.txt", "no such folder"),
    ):
        ran = command("predict", folder, tmp_path / "in.txt", "--out", out)
        assert (ran.code, len(ran.err), error in ran.err[0]) == (2, 1, True)
    lines = subprocess.run(
        [sys.executable, "-m", "recurra", "translate", folder], input=b"drei\nrot \xff\n\nrot\n", capture_output=True
    )
    assert (lines.returncode, lines.stdout) == (2, b"three\n\nred\n")
    assert lines.stderr.decode().startswith("recurra: line 2: a text holds what is no Unicode text (a wrong byte")
    assert "n_best = 9 texts need a beam of as many, not 5" in refused.err[0]
    refused = command("predict", folder, tmp_path / "in.txt", "--out", tmp_path / "x.txt", "--n-best", 2)
    assert refused.code == 2
    assert "x.txt has one line a sentence: write a .csv" in refused.err[0]
    refused = command("predict", folder, tmp_path / "in.txt", "--out", tmp_path / "x.txt", "--horizon", 9)
    assert "--horizon 9 is for models of 'forecast'" in refused.err[0]
    assert not (tmp_path / "x.txt").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["translate", "stream"])
def test_a_command_that_waits_for_a_line_is_stopped(files, tmp_path, name):
    trained(files, tmp_path / "m")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "recurra", name, tmp_path / "m"], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as run:
        try:
            run.stdin.write("drei\n")
            run.stdin.flush()
            assert run.stdout.readline() == "three\n"
            time.sleep(0.2)  # it waits for the next line
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=30) == 130
        finally:
            run.kill()
        assert [line[:20] for line in run.stderr] == ["recurra: interrupted"]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".jsonl", ".txt"])
def test_a_file_is_read_as_training_data_are(translator, tmp_path, ending):
    """Of a table the column of the sources, which training has named; of plain text every line, the first one too."""
    texts = ["eins und zwei", "", "rot"]
    frame, path = pl.DataFrame({"n": [1, 2, 3], "source": texts, "target": ["x", "y", "z"]}), tmp_path / f"x{ending}"
    if ending == ".parquet":
        frame.write_parquet(path)
    elif ending == ".jsonl":
        frame.write_ndjson(path)
    elif ending == ".txt":
        path.write_text("".join(f"{text}\n" for text in texts))
    else:
        frame.write_csv(path, separator="\t" if ending == ".tsv" else ",", quote_style="never")
    want = ["one and two", "", "red"]
    for kind in (TranslateModel, SummariseModel):
        assert kind.predict(translator, path, Search())["text"].to_list() == want
    assert translator.predict(frame)["text"].to_list() == want
    if ending != ".txt":
        with pytest.raises(DataError, match="has no column 'source'"):
            translator.predict(frame.select("n", "target"))


@pytest.mark.parametrize(("most", "ended"), [(2, False), (9, True)])
def test_every_alternative_says_whether_it_ended(translator, most, ended):
    """Those that are cut at the longest length did not."""
    search = Search(beam=4, n_best=4, max_length=most)
    (answer,) = translator.translate(["drei und vier"], search)
    assert {answer.ended, *(other.ended for other in answer.alternatives)} == {ended}
    assert answer.alternatives
    assert translator.predict(["drei und vier"], search)["ended"].to_list() == [ended] * (1 + len(answer.alternatives))
    assert [other["ended"] for other in json.loads(as_json(answer))["alternatives"]] == [ended] * len(
        answer.alternatives
    )


@pytest.mark.parametrize(
    "data", [{"unit": "words"}, {"unit": "bpe", "vocabulary": 300}, {"unit": "characters"}], ids=str
)
def test_the_words_of_a_source_that_is_cut_are_those_that_were_read(files, tmp_path, data):
    said = "of a text of more than 3 tokens the model reads the first 3"
    with pytest.warns(RuntimeWarning, match=said):  # where the validation part is scored
        model = trained(files, tmp_path / "m", data=data | {"longest": 3})
    with pytest.warns(RuntimeWarning, match=said) as warned:
        (answer,) = model.translate(["drei und vier rot blau und zwei eins"])
    assert len(warned) == 1
    shown = json.loads(as_json(answer))
    assert answer.source_words == ("drei", "und", "vier")[: answer.attention.shape[1]]
    assert [len(row) for row in shown["attention"]] == [len(shown["source"])] * len(shown["words"])
    figure(answer).savefig(tmp_path / "attention.png")


def test_bad_input_is_one_line(translator, tmp_path):
    with pytest.raises(UnsupportedError, match="trained with wait = 3 or the like"):
        translator.start()
    with pytest.warns(RuntimeWarning, match="knows no word of"):
        translator.translate("xyzzy")
    with pytest.warns(RuntimeWarning, match="a text of 50 tokens is far longer than any in training"):
        translator.translate("eins " * 50)
    for wrong, error in (
        (lambda: translator.translate(["eins"], prefixes=["xyzzy"]), DataError),
        (lambda: translator.translate([3]), DataError),
        (lambda: translator.translate("eins", Search(beam=1000)), RecipeError),
        (lambda: Translate(wait=3), RecipeError),
        (lambda: Translate(attention="dot", heads=2), RecipeError),
    ):
        with pytest.raises(error) as caught:
            wrong()
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, RecurraError)


def documents(noisy=False):
    """Every subject has a name, which its summary says; noisy: and then two words that nobody can know."""
    rng = np.random.default_rng(0)
    lines = []
    for name in rng.permutation([f"name{i}" for i in range(300)] * 2):
        noise = " ".join(rng.choice(["the", "a", "of", "in", "to"], 5))
        more = " " + " ".join(rng.choice(["the", "a", "of", "in", "to"], 2)) if noisy else ""
        lines.append({"document": f"{noise} subject {name} {noise}", "summary": f"about {name}{more}"})
    return pl.DataFrame(lines)


def summariser(out, table, data=None, **task):
    return train(
        Summarise(embedding=16, **task),
        Summaries(table, vocabulary=30, minimum=3, **(data or {})),
        core=Core(hidden=24, layers=1, dropout=0.0),
        fit=Fit(epochs=6, batch_size=4, learning_rate=1e-2),
        out=out,
        progress=False,
    )


def test_a_summary_copies_words_that_the_vocabulary_lacks(tmp_path):
    model = summariser(tmp_path / "s", documents())
    rows = model.evaluate([Pair(f"the of subject new{i} a in the", f"about new{i}") for i in range(30)]).rows
    assert rows["model"]["ROUGE-1"] > 80
    assert rows["model"]["ROUGE-1"] > rows["lead-2"]["ROUGE-1"]
    marks = model.evaluate(
        [Pair("the of, subject name1 a.", "about: name1, a.")]
    ).rows  # a mark is a word, on both sides
    assert list(marks) == ["model", "lead-6"]
    for words, fewest, most in ((1, 1, 1), (2, 2, 2), (5, 4, 6)):
        short = model.summarise("the of subject new1 , - a in the", replace(model.search, no_repeat=None), words=words)[
            0
        ]
        assert fewest <= sum(word not in ",-" for word in short.text.split()) <= most
    for words, error in (
        (8, "7 words has no summary of about 8"),
        (0, "words = 0"),
        (2.5, "words = 2.5"),
        ("a", "words = a"),
    ):
        with pytest.raises(RecurraError, match=error):
            model.summarise("the of subject new1 a , in the", words=words)


def test_coverage_begins_by_itself_and_is_in_the_model_that_is_kept(tmp_path):
    model = summariser(tmp_path / "s", documents(noisy=True), attention="location")
    history = model.manifest["training"]["history"]
    (begun,) = (k for k, row in enumerate(history) if row.get("begins") == "coverage")
    assert "begins coverage" in curve.section(model.manifest)
    overlap = [row["validation_error"] - row["validation_loss"] for row in history]
    kept = min(range(len(history)), key=lambda k: history[k]["validation_error"])
    assert kept > begun
    assert 0 < overlap[kept] < 0.7 * overlap[begun]
    never = summariser(tmp_path / "n", documents(noisy=True), attention="location", cover=0.0)
    assert all(row["validation_error"] == row["validation_loss"] for row in never.manifest["training"]["history"])
    assert not any("begins" in row for row in never.manifest["training"]["history"])
    blind = summariser(tmp_path / "b", documents(noisy=True), {"validation": 0.0})  # by the loss in training
    assert sum("begins" in row for row in blind.manifest["training"]["history"]) == 1


@pytest.mark.parametrize("attention", ["none", "dot"])
def test_attention_without_weights_is_a_model_too(files, tmp_path, attention):
    model = train(
        Translate(embedding=8, attention=attention),
        Pairs(str(files / "a.txt"), target=str(files / "b.txt"), unit="words"),
        core=Core(hidden=8, layers=2),
        fit=Fit(epochs=1),
        out=tmp_path / "m",
        progress=False,
    )
    assert load(tmp_path / "m").translate("eins")[0].text == model.translate("eins")[0].text


def test_bleu_is_sacrebleus(translator):
    """Of the sums over sentences, also where no n-gram of some length is right (smoothing), and with a penalty for brevity."""
    from sacrebleu.metrics import BLEU

    rng = np.random.default_rng(0)
    oracle = BLEU(tokenize="none", force=True)
    for ids, keep in ((3, 1.0), (3, 0.6), (40, 1.0), (200, 1.0)):
        wanted = [rng.integers(0, ids, rng.integers(4, 20)).tolist() for _ in range(12)]
        found = [
            w[: max(4, round(keep * len(w)))] if i % 3 else rng.integers(0, ids, 9).tolist()
            for i, w in enumerate(wanted)
        ]
        if ids == 200:
            found = [rng.integers(0, ids, 9).tolist() for _ in wanted]
        counts = np.sum([matches(a, b) for a, b in zip(found, wanted, strict=True)], 0).tolist()
        texts = [[" ".join(map(str, one)) for one in side] for side in (found, wanted)]
        assert 100 * bleu(counts) == pytest.approx(oracle.corpus_score(texts[0], [texts[1]]).score, abs=1e-9)
    assert bleu(matches([], [1, 2])) == 0.0


def test_bleu_decides_which_epoch_is_kept(files, tmp_path):
    model = trained(files, tmp_path / "m", watch="bleu")
    errors = [row["validation_error"] for row in model.manifest["training"]["history"]]
    assert 0 <= min(errors) < 0.15 < errors[0] <= 1
    given = list(pairs(str(files / "a.txt"), str(files / "b.txt")))
    texts = [pair.source for pair in given]
    ids = model.codec.targets
    written = [answer.text for answer in model.translate(texts, Search(beam=1))]
    counts = [
        matches(a.tolist()[:-1], b.tolist()[:-1])
        for a, b in zip(ids(written), ids(pair.target for pair in given), strict=True)
    ]
    assert 1 - bleu(np.sum(counts, 0).tolist()) == pytest.approx(min(errors), abs=2e-3)
