"""The language model: the runtime gives what torch gives, a state carried, saved or forked goes on as if nothing had happened."""

import json
import math

import numpy as np
import pytest
import torch

from recurra.codec import text as text_codec
from recurra.config import dump
from recurra.data.batch import Batch
from recurra.errors import DataError, ModelFileError, RecipeError, StateError, UnsupportedError
from recurra.runtime.cache import Cache
from recurra.runtime.dynamic import Dynamic
from recurra.runtime.generate import GenerateModel
from recurra.runtime.generation import pieces
from recurra.runtime.stream import State
from recurra.runtime.surprise import Part
from recurra.search.sampling import Sampling
from recurra.tasks.generate import Generate, LanguageModel
from recurra.tasks.task import Core
from recurra.training import dynamic

TEXT = "the cat sat on the mat\nthe dog sat on the log\nnaïve café, 東京\n" * 3
CODEC = text_codec.fit([TEXT], unit="characters")
MANIFEST = CODEC.manifest() | {"pattern": "*.txt", "encoding": "utf-8"}


def task(config: Generate | None = None, cell: str = "lstm", layers: int = 2, seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    core = Core(cell=cell, hidden=17, layers=layers, dropout=0.2)  # type: ignore[arg-type]
    made = LanguageModel(config or Generate(embedding=7), core, CODEC.size)
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter, -0.6, 0.6)
    return made.eval()


def player(made: LanguageModel) -> GenerateModel:
    export = made.export()
    manifest = {"task": "generate", "codec": MANIFEST, "layers": json.loads(json.dumps(export.layers))}
    return GenerateModel(manifest, export.weights, "digest", CODEC.to_files())


def batch(ids: np.ndarray) -> Batch:
    row = torch.from_numpy(ids.astype(np.int64))[None]
    weights = torch.ones(1, row.shape[1] - 1)
    return Batch(row[:, :-1], torch.tensor([row.shape[1] - 1]), row[:, 1:], weights)


KINDS = {
    "tied": Generate(embedding=7),
    "untied": Generate(embedding=7, tied=False),
    "adaptive": Generate(embedding=7, tied=False, cutoffs=(5, 11)),
}


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_runtime_is_as_surprised_as_torch(cell: str, layers: int, kind: str) -> None:
    made = task(KINDS[kind], cell, layers)
    model = player(made)
    given = batch(np.concatenate([CODEC.encode("\n"), CODEC.encode(TEXT)]))
    with torch.no_grad():
        output, _ = made(given)
        total, count = made.loss(output, given)
        logp = made.log_probabilities(output)
    found = model.score(TEXT)
    assert found.total / len(found.nats) == pytest.approx(float(total / count), rel=1e-5)
    np.testing.assert_allclose(model.peek(model.read(TEXT[:20])), logp[:, 20], rtol=1e-4, atol=1e-5)
    want = torch.nn.functional.cross_entropy(logp[0], given.targets[0], reduction="none")
    np.testing.assert_allclose(found.nats, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache", [None, Cache(size=9, theta=0.2, weight=0.3)])
def test_token_by_token_is_the_whole_to_the_last_bit(kind: str, cache: Cache | None) -> None:
    model = player(task(KINDS[kind])).with_cache(cache)
    whole = model.score(TEXT)
    state = model.start()
    logp = model.peek(state)
    for i, token in enumerate(CODEC.encode(TEXT)):
        assert -float(logp[0, token]) == whole.nats[i]
        logp, state = model.step(state, int(token))
    assert state.to_bytes() == whole.state.to_bytes()
    assert model.read(TEXT[30:], model.read(TEXT[:30])).to_bytes() == state.to_bytes()


def test_a_row_is_the_same_alone_and_among_others() -> None:
    model = player(task()).with_cache(Cache(size=4))
    states = [model.read(text) for text in ("the cat", "on", "naïve café")]
    together = states[0].append(states[1]).append(states[2])
    logp, after = model.step(together, [5, 6, 7])
    for row, state in enumerate(states):
        alone, one = model.step(state, [5, 6, 7][row])
        np.testing.assert_array_equal(logp[row], alone[0])
        assert after.take([row]).to_bytes() == one.to_bytes()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_k=5, repetition_penalty=1.3)])
@pytest.mark.parametrize("cache", [None, Cache(size=9)])
def test_from_a_saved_state_the_text_goes_on_as_without_the_break(sampling: Sampling, cache: Cache | None) -> None:
    model = player(task()).with_cache(cache)
    whole = model.generate("the ", tokens=60, sampling=sampling, seed=3)
    text = "".join(whole)
    state = model.read("the ")
    pieces, ids = [], []
    for tokens in (1, 19, 40):
        part = model.generate(
            state=State.from_bytes(state.to_bytes(), model.digest), tokens=tokens, sampling=sampling, seed=3
        )
        pieces.append("".join(part))
        ids += part.ids
        state = part.state
    assert "".join(pieces) == text == CODEC.decode(whole.ids)
    assert ids == whole.ids
    assert state.to_bytes() == whole.state.to_bytes()


def test_a_fork_leaves_the_state_that_it_came_from() -> None:
    model = player(task())
    state = model.read("the cat")
    before = state.to_bytes()
    texts = ["".join(model.generate(state=state, tokens=30, seed=seed)) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert state.to_bytes() == before


@pytest.mark.parametrize("unit", ["characters", "words", "bpe", "unigram"])
def test_pieces_of_text_are_whole_and_go_on_from_any_token(unit: text_codec.Unit) -> None:
    codec = text_codec.fit(
        [TEXT * 3], unit=unit, vocabulary=300 if unit in ("bpe", "unigram") else None, ends=unit == "words"
    )
    text = "the mat 東京 café\ncat é" if unit != "words" else "the mat 東京 dog\ncat sat"
    ids = codec.encode(text).tolist()
    for begin in range(len(ids)):
        push = pieces(codec, ids[:begin])
        found = [push(i) for i in ids[begin:]]
        assert "�" not in "".join(found)
        if begin == 0:
            assert "".join(found) == text
        whole = list(codec.decode_each(iter(ids)))[: len(ids)]
        assert found == whole[begin:]


def test_greedy_takes_the_most_probable_token() -> None:
    model = player(task())
    made = model.generate("the", tokens=10, sampling=Sampling(greedy=True))
    "".join(made)
    state = model.read("the")
    for token in made.ids:
        logp = model.peek(state)[0]
        assert token == 2 + int(np.argmax(logp[2:]))
        _, state = model.step(state, token)


def test_a_stop_string_ends_the_text_and_is_no_part_of_it() -> None:
    model = player(task())
    text = "".join(model.generate("the ", tokens=100, seed=1))
    stop = text[40:43]
    made = model.generate("the ", tokens=100, seed=1, stop=["never there", stop])
    assert "".join(made) == text[: text.index(stop)]
    assert made.stopped == stop
    assert len(made.ids) == text.index(stop) + 3


def test_a_stop_string_that_does_not_come_true_is_text() -> None:
    model = player(task())
    text = "".join(model.generate("the ", tokens=50, seed=1))
    made = model.generate("the ", tokens=50, seed=1, stop=[text[-3:] + "x", text[10:13] + "\0"])
    assert "".join(made) == text
    assert made.stopped is None


def test_neither_padding_nor_the_unknown_word_is_ever_written() -> None:
    made = task(KINDS["untied"])
    with torch.no_grad():
        made.softmax.bias[:2] = 50.0  # type: ignore[index]
    assert not {0, 1} & set(list_ids(player(made)))


def list_ids(model: GenerateModel) -> list[int]:
    made = model.generate(tokens=50)
    "".join(made)
    return made.ids


def test_a_wide_beam_finds_the_most_probable_text_of_all() -> None:
    model = player(task())
    start = model.read("the")

    def best(state: State, tokens: int) -> list[tuple[float, tuple[int, ...]]]:
        logp = model.peek(state)[0].astype(float)
        found = []
        for token in range(2, CODEC.size):
            tail = best(model.step(state, token)[1], tokens - 1) if tokens > 1 else [(0.0, ())]
            found += [(logp[token] + more, (token, *ids)) for more, ids in tail]
        return found

    want = sorted(best(start, 2), key=lambda pair: -pair[0])[:5]
    found = model.beam(state=start, width=CODEC.size**2, tokens=2)[:5]
    assert [text for text, _ in found] == [CODEC.decode(ids) for _, ids in want]
    np.testing.assert_allclose([logp for _, logp in found], [logp for logp, _ in want], rtol=1e-6)
    # the score of a hypothesis is that of its text
    assert model.score(found[0][0], start).total == pytest.approx(-found[0][1], rel=1e-6)
    assert model.beam(state=start, width=1, tokens=5)[0][0] == "".join(
        model.generate(state=start, tokens=5, sampling=Sampling(greedy=True))
    )


def test_a_beam_ends_with_its_stop() -> None:
    model = player(task())
    stop = model.beam("the", width=3, tokens=5)[0][0][2]
    found = model.beam("the", width=3, tokens=12, stop=stop)
    assert all(stop not in text for text, _ in found), "it is no part of the text, as where text is drawn"
    assert any(len(text) < len(model.beam("the", width=3, tokens=12)[0][0]) for text, _ in found)


def test_a_beam_ends_with_a_stop_within_a_token() -> None:
    codec = text_codec.fit([TEXT], unit="words")
    torch.manual_seed(0)
    made = LanguageModel(Generate(embedding=7), Core(cell="lstm", hidden=9, layers=1, dropout=0.0), codec.size).eval()
    export = made.export()
    manifest = {"task": "generate", "codec": codec.manifest() | {"pattern": "*", "encoding": "utf-8"}}
    model = GenerateModel(manifest | {"layers": export.layers}, export.weights, "digest", codec.to_files())
    text, _ = model.beam("the", width=2, tokens=5)[0]
    word = max(text.split(), key=len)
    stop = word[:-1]
    assert len(stop) > 1
    found = model.beam("the", width=2, tokens=5, stop=stop)
    assert found
    assert all(stop not in text for text, _ in found)
    with pytest.raises(RecipeError, match="takes one stop string"):
        model.beam("the", stop=["x"])  # type: ignore[arg-type]


def test_cache_and_dynamic_evaluation_help_where_a_text_repeats() -> None:
    model = player(task())
    text = "dog log cat mat\n" * 40
    plain = model.score(text).total
    assert model.with_cache(Cache(size=100, theta=1.0, weight=0.6)).score(text).total < 0.8 * plain
    assert model.score(text, dynamic=Dynamic(rate=3.0)).total < 0.8 * plain
    assert model.score(text).total == plain  # nothing of it stays


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_network_learns_from_a_text_that_repeats(kind: str) -> None:
    export = task(KINDS[kind]).export()
    config = {"task": dump(KINDS[kind]), "core": {"cell": "lstm", "hidden": 17, "layers": 2, "dropout": 0.2}}
    ids = CODEC.encode("dog log cat mat\n" * 40)
    still, learnt, back = (
        dynamic.surprise(dynamic.restored({"config": config}, export.weights, CODEC.size), ids, Dynamic(**options))
        for options in ({"rate": 1e-30}, {"rate": 0.3}, {"rate": 0.3, "decay": 0.5})
    )
    np.testing.assert_allclose(
        still, player(task(KINDS[kind])).score(CODEC.decode(ids[1:]), read(kind, ids[:1])).nats, rtol=1e-4
    )
    assert learnt.sum() < back.sum() < still.sum()
    assert learnt.sum() < 0.92 * still.sum()
    with pytest.raises(DataError, match="two tokens"):
        dynamic.surprise(task(), ids[:1], Dynamic())


def read(kind: str, ids: np.ndarray) -> State:
    """The state after `ids` from zeros, without a line's end before them."""
    model = player(task(KINDS[kind]))
    state = model._blank(1)
    for token in ids:
        _, state = model.step(state, int(token))
    return state


def test_with_the_cache_probabilities_still_sum_to_one() -> None:
    model = player(task()).with_cache(Cache(size=5, theta=2.0, weight=0.4))
    assert np.exp(model.peek(model.read(TEXT[:30])).astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_the_floors_stand_beside_the_model() -> None:
    model = player(task())
    ids = CODEC.encode(TEXT)
    scored = model.evaluate(Part(ids, len(TEXT), train=ids))
    assert list(scored.rows) == ["model", "unigram", "bigram", "Kneser-Ney 5-gram"]
    model_row = scored.rows["model"]
    assert model_row["perplexity"] == pytest.approx(model.score(TEXT).perplexity)
    assert model_row["bits/char"] == pytest.approx(model.score(TEXT).total / len(TEXT) / math.log(2))
    shares = scored.details["where the surprise lies"]
    assert shares["' '"]["times"] == TEXT.count(" ")
    assert sum(row["share"] for row in shares.values()) < 1
    assert scored.rows["unigram"]["perplexity"] > scored.rows["bigram"]["perplexity"]
    assert list(model.evaluate(Part(ids, len(TEXT))).rows) == ["model"]


def test_activation_regularisers_count_in_training_alone() -> None:
    plain, regularised = (task(Generate(embedding=7, alpha=alpha, beta=alpha)) for alpha in (0.0, 2.0))
    given = batch(CODEC.encode(TEXT))
    output, _ = plain(given)
    assert torch.equal(plain.loss(output, given)[0], regularised.loss(output, given)[0])
    for made in (plain, regularised):
        made.output_dropout = 0.0
        made.train()
    extra = 2.0 * output.square().mean() + 2.0 * (output[:, 1:] - output[:, :-1]).square().mean()
    count = given.weights.sum()
    torch.testing.assert_close(
        regularised.loss(output, given)[0] - plain.loss(output, given)[0], count * extra, rtol=1e-3, atol=1e-3
    )


def test_a_tied_matrix_is_saved_once() -> None:
    weights = task(KINDS["tied"]).export().weights
    assert "softmax.weight" not in weights
    assert weights["encoder.embedding.weight"].shape == (CODEC.size, 7)


@pytest.mark.parametrize("prompt", ["", "ΩΨ"])
def test_a_prompt_that_says_nothing_is_refused(prompt: str) -> None:
    with pytest.raises(DataError, match="the prompt"):
        player(task()).generate(prompt)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tokens": 0}, "tokens = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"stop": [""]}, "stop"),
        ({"stop": "abc"}, "stop"),
    ],
)
def test_absurd_settings_are_refused(options: dict, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        player(task()).generate("the", **options)


def test_states_of_others_and_foreign_ids_are_refused() -> None:
    model = player(task())
    with pytest.raises(StateError):
        model.step(State("another", model.start().arrays), 3)
    with pytest.raises(StateError, match="cache"):
        model.step(model.with_cache(Cache(size=3)).start(), 3)
    for ids in (CODEC.size, -1, [3, 4], 1.5):
        with pytest.raises(DataError, match="ids must"):
            model.step(model.start(), ids)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="one stream"):
        model.generate(state=model.start(2))
    with pytest.raises(DataError, match="empty"):
        model.score("")
    with pytest.raises(UnsupportedError, match="adaptive"):
        player(task(KINDS["adaptive"])).score("the", dynamic=Dynamic())


def test_wrong_cutoffs_are_refused() -> None:
    with pytest.raises(RecipeError, match="tied"):
        Generate(cutoffs=(5,))
    with pytest.raises(RecipeError, match="ascend"):
        Generate(tied=False, cutoffs=(5, 5))
    with pytest.raises(RecipeError, match="below"):
        task(Generate(tied=False, cutoffs=(5, 5000)))


def test_a_broken_model_file_is_refused() -> None:
    export = task().export()
    manifest = {"task": "generate", "codec": MANIFEST, "layers": export.layers}
    for layers, weights in (
        (export.layers[1:], export.weights),
        (export.layers, {k: v for k, v in export.weights.items() if k != "softmax.bias"}),
        (export.layers, export.weights | {"encoder.embedding.weight": np.zeros((CODEC.size, 8), np.float32)}),
        (export.layers, export.weights | {"encoder.embedding.weight": np.zeros((3, 7), np.float32)}),
    ):
        with pytest.raises(ModelFileError):
            GenerateModel(manifest | {"layers": layers}, weights, "digest", CODEC.to_files())
