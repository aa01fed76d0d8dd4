"""`recurra train generate`, `generate`, `score`, `evaluate`, `predict`, `stream`, `info`: a folder of text, from end to end."""

import io
import json
from pathlib import Path

import polars as pl
import pytest

from forecasters import command
from recurra.errors import RecipeError, StateError
from recurra.runtime.cache import Cache
from recurra.runtime.model import load

WORDS = ["the cat sat on the mat", "the dog sat on the log", "naïve 東京 café"]
TINY = ["--hidden", "12", "--layers", "1", "--epochs", "2", "--batch-size", "4", "--chunk", "16"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of text and a model of it."""
    folder = tmp_path_factory.mktemp("generate")
    (folder / "text" / "below").mkdir(parents=True)
    (folder / "text" / "one.txt").write_text("\n".join(WORDS * 30) + "\n", encoding="utf-8")
    (folder / "text" / "below" / "two.txt").write_text("\n".join(reversed(WORDS * 10)), encoding="utf-8")
    (folder / "text" / "empty.txt").write_text("")
    ran = command(
        "train",
        "generate",
        folder / "text",
        "--pattern",
        "*.txt",
        "--unit",
        "characters",
        *TINY,
        "--out",
        folder / "model",
        "--report",
        folder / "report.html",
    )
    assert ran.code == 0, ran.err
    assert "Kneser-Ney 5-gram" in ran.out
    page = (folder / "report.html").read_text()
    assert "where the surprise lies" in page.lower()
    assert "<h2>Learning curve</h2><svg" in page
    return folder


def test_text_comes_and_its_state_goes_on(here: Path, tmp_path: Path) -> None:
    whole = command(
        "generate", here / "model", "--prompt", "the ", "--tokens", "30", "--seed", "4", "--temperature", "0.8"
    )
    assert whole.code == 0
    assert whole.out.startswith("the ")
    state = tmp_path / "state"
    parts = [
        command("generate", here / "model", *given, "--seed", "4", "--temperature", "0.8", "--state", state).out[:-1]
        for given in (["--prompt", "the ", "--tokens", "11"], ["--tokens", "19"])
    ]
    assert "".join(parts) == whole.out[:-1]


def test_beams_are_printed_with_their_probability(here: Path) -> None:
    ran = command("generate", here / "model", "--prompt", "the", "--beam", "3", "--tokens", "4")
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert len(found) == 3
    assert found[0]["logp"] >= found[1]["logp"] >= found[2]["logp"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--temperature", "0"], "temperature"),
        (["--top-k", "0"], "top_k"),
        (["--top-p", "1.5"], "top_p"),
        (["--greedy", "--top-k", "3"], "greedy"),
        (["--tokens", "0"], "tokens"),
        (["--seed", "-1"], "seed"),
        (["--prompt", ""], "prompt is empty"),
        (["--prompt", "ЖЖ"], "knows no character"),
        (["--beam", "0"], "width"),
        (["--cache", "0"], "size"),
        (["--state", "nowhere/state"], "--state"),
        (["--theta", "0.1"], "--theta does nothing without --cache"),
        (["--beam", "2", "--top-p", "0.9"], "--top-p does nothing with --beam"),
        (["--beam", "2", "--seed", "3"], "--seed does nothing with --beam"),
    ],
)
def test_absurd_options_are_one_line_and_exit_code_2(here: Path, options: list[str], said: str) -> None:
    ran = command("generate", here / "model", *options)
    assert ran.code == 2
    assert said in ran.err[0]
    assert len(ran.err) == 1


def test_surprise_is_a_line_a_token(here: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat\nЖ", encoding="utf-8")
    model = load(here / "model")
    found = model.score("the cat\nЖ\n")
    ran = command("score", here / "model", tmp_path / "text.txt", "--json")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["token"] for row in rows] == [*"the cat\n", "<unk>", "\n"]
    assert [row["nats"] for row in rows] == [round(nats, 4) for nats in found.nats]
    assert f"perplexity {found.perplexity:.2f}" in ran.err[0]
    plain = command("score", here / "model", tmp_path / "text.txt", "--cache", "20", "--dynamic", "output")
    assert len(plain.out.splitlines()) == len(rows)
    assert command("score", here / "model", tmp_path / "text.txt", "--dynamic", "all").code == 0
    refused = command("score", here / "model", tmp_path / "text.txt", "--rate", "0.2")
    assert "--rate does nothing without --dynamic" in refused.err[0]


def test_a_state_goes_on_with_its_own_cache_alone(here: Path) -> None:
    model = load(here / "model")
    cached = model.with_cache(Cache(size=7))
    state = cached.read("the cat")
    assert cached.with_cache(Cache(size=7, theta=0.1)).peek(state).shape == (1, model.codec.size)
    for other in (model, model.with_cache(Cache(size=8))):
        with pytest.raises(StateError, match=r"this state has a cache of 7 tokens, the model one of [08]"):
            other.peek(state)
    with pytest.raises(StateError, match="a cache of 0 tokens, the model one of 7"):
        cached.step(model.start(), 3)
    with pytest.raises(RecipeError, match=r"a cache is Cache\(size=2000\) or None, not 3"):
        model.with_cache(3)
    with pytest.raises(RecipeError, match=r"sampling is Sampling\(temperature=0.8\), for one, not \{\}"):
        model.generate("the", sampling={})


def test_evaluate_stands_beside_floors_of_the_given_text(here: Path) -> None:
    text = here / "text" / "one.txt"
    ran = command("evaluate", here / "model", text, "--train", text, "--json")
    assert list(json.loads(ran.out)["rows"]) == ["model", "unigram", "bigram", "Kneser-Ney 5-gram"]
    alone = json.loads(command("evaluate", here / "model", text, "--json").out)
    assert list(alone["rows"]) == ["model"]


def test_predict_and_stream_say_the_same(here: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat\non the log\n", encoding="utf-8")
    out = tmp_path / "surprise.csv"
    assert command("predict", here / "model", tmp_path / "text.txt", "--out", out).code == 0
    nats = pl.read_csv(out)["nats"].to_list()
    written = io.StringIO()
    assert load(here / "model").lines(["the cat\n", "on the log\n"], written) == 0
    rows = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [row["nats"] for row in rows] == pytest.approx([sum(nats[:8]), sum(nats[8:])], abs=1e-3)


def test_info_names_what_it_is(here: Path) -> None:
    ran = command("info", here / "model", "--json")
    facts = json.loads(ran.out)
    assert facts["task"] == "generate"
    assert facts["unit"] == "characters"
    assert facts["scores"]["rows"]["model"]["perplexity"] > 1


def test_empty_text_and_no_file_are_refused(here: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    for path in (tmp_path / "empty.txt", tmp_path / "nothing.txt"):
        for verb in ("score", "evaluate"):
            ran = command(verb, here / "model", path)
            assert ran.code == 2
            assert path.name in ran.err[0]


def test_every_regulariser_at_once_trains(here: Path, tmp_path: Path) -> None:
    options = {
        "unit": "words",
        "no-tied": None,
        "embedding": 8,
        "cutoffs": "4,9",
        "weight-drop": 0.3,
        "word-dropout": 0.1,
        "input-dropout": 0.2,
        "output-dropout": 0.3,
        "alpha": 1,
        "beta": 1,
        "vary": None,
        "optimiser": "ntasgd",
        "schedule": "constant",
        "learning-rate": 5,
        "hidden": 20,
        "epochs": 8,
        "chunk": 12,
    }
    given = [word for name, value in options.items() for word in (f"--{name}", value) if word is not None]
    ran = command("train", "generate", here / "text" / "one.txt", *given, "--out", tmp_path / "model")
    assert ran.code == 0, ran.err
    rows = json.loads((tmp_path / "model" / "metrics.json").read_text())["rows"]
    assert rows["model"]["perplexity"] < 0.8 * load(tmp_path / "model").codec.size


def test_a_run_without_validation_and_a_text_of_one_line_train(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("so it is")
    ran = command("train", "generate", tmp_path / "text.txt", "--validation", "0", *TINY, "--out", tmp_path / "model")
    assert ran.code == 0, ran.err
    assert not (tmp_path / "model" / "metrics.json").exists()
    assert command("generate", tmp_path / "model", "--tokens", "3").code == 0


def test_options_of_another_task_are_refused(here: Path, tmp_path: Path) -> None:
    """They were taken in silence, and a state that was asked for was never written."""
    state, table = tmp_path / "live.state", tmp_path / "out.csv"
    for ran in (
        command("stream", here / "model", "--state", state),
        command("predict", here / "model", here / "text.txt", "--out", table, "--horizon", 3),
        command("evaluate", here / "model", here / "text.txt", "--season", 12),
    ):
        assert ran.code == 2
        assert "is for models of 'forecast', this one is of 'generate'" in ran.err[0]
    assert not state.exists()
    assert not table.exists()


def test_the_texts_of_a_table_are_running_text(here: Path, tmp_path: Path) -> None:
    pl.DataFrame({"review": WORDS * 40, "label": ["good", "bad", "odd"] * 40}).write_ndjson(tmp_path / "t.jsonl")
    (tmp_path / "plain.txt").write_text("\n".join(WORDS * 40) + "\n", encoding="utf-8")
    ran = command("train", "generate", tmp_path / "t.jsonl", *TINY, "--out", tmp_path / "a")
    assert (ran.code, len(ran.err)) == (2, 1)
    assert "is a table: name the column of its text, e.g. --text review" in ran.err[0]
    for source, out, more in ((tmp_path / "t.jsonl", "a", ["--text", "review"]), (tmp_path / "plain.txt", "b", [])):
        assert command("train", "generate", source, *more, *TINY, "--out", tmp_path / out).code == 0
    a, b = load(tmp_path / "a"), load(tmp_path / "b")
    assert a.score("the cat\n").total == b.score("the cat\n").total
    assert a.evaluate(tmp_path / "t.jsonl").rows == b.evaluate(tmp_path / "plain.txt").rows


def test_a_model_s_own_encoding_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(["café noir", "thé vert"] * 60), encoding="latin-1")
    out = tmp_path / "m"
    assert command("train", "generate", tmp_path / "t.txt", "--encoding", "latin-1", *TINY, "--out", out).code == 0
    assert command("score", out, tmp_path / "t.txt").code == 0
    ran = command("stream", out, "--input", tmp_path / "t.txt")
    assert (ran.code, len(ran.err)) == (2, 1)
    assert "t.txt is not UTF-8 text (byte 3): convert it" in ran.err[0]


def test_several_labels_are_one_text_in_csv(tmp_path: Path) -> None:
    rows = [{"text": f"{'red' if i % 2 else 'big'} thing {i % 5}", "label": "r|x" if i % 2 else "b"} for i in range(80)]
    pl.DataFrame(rows).write_csv(tmp_path / "m.csv")
    out = tmp_path / "m"
    options = ["--many", "--separator", "|", "--hidden", "8", "--epochs", "1", "--out", out]
    assert command("train", "classify", tmp_path / "m.csv", *options).code == 0
    ran = command("predict", out, tmp_path / "m.csv", "--out", tmp_path / "p.csv")
    assert ran.code == 0, ran.err
    assert len(pl.read_csv(tmp_path / "p.csv")) == 80


def test_settings_of_a_wrong_kind_end(here: Path) -> None:
    from recurra.errors import RecipeError, StateError

    model = load(here / "model")
    for wrong, error in (
        ({"tokens": 2.5}, RecipeError),
        ({"tokens": "x"}, RecipeError),
        ({"seed": 10**43}, RecipeError),
        ({"state": "y"}, StateError),
    ):
        with pytest.raises(error) as caught:
            model.generate("the", **wrong) if "state" not in wrong else model.generate(**wrong)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
