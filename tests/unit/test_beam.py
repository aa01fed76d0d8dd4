"""Beam search: against all texts there are, option by option; a sentence alone or among others has the same answer, bit for bit."""

import hashlib
from functools import reduce
from itertools import product

import numpy as np
import pytest

from recurra.errors import DataError, RecipeError
from recurra.search.beam import Task, Words, search
from recurra.search.constraints import Progress
from recurra.search.sample import sample
from recurra.search.sampling import Sampling
from recurra.search.settings import Search

END, V, S = 4, 5, 3  # ids 0 to 3 are words
WIDE = Search(beam=400, length_penalty=0.0)


class Network:
    """log p and weights that follow from (sentence, all tokens before) and nothing else."""

    def __init__(self, sentences, size=V):
        self.rows = [(sentence, ()) for sentence in sentences]
        self.size = size

    def __call__(self, rows, ids):
        self.rows = [(self.rows[r][0], (*self.rows[r][1], int(i))) for r, i in zip(rows, ids, strict=True)]
        found = [answer(sentence, tokens, self.size) for sentence, tokens in self.rows]
        return np.stack([logp for logp, _ in found]), np.stack([weights for _, weights in found])


def answer(sentence, tokens, size=V):
    seed = int.from_bytes(hashlib.blake2b(repr((sentence, tokens)).encode(), digest_size=8).digest())
    rng = np.random.default_rng(seed)
    logp = rng.standard_normal(size) * 2
    weights = rng.dirichlet(np.ones(S)).astype(np.float32)
    return logp - np.log(np.exp(logp).sum()), weights


def found(settings, tasks, sentences=None, **options):
    network = Network(sentences if sentences is not None else range(len(tasks)))
    return search(network, tasks, settings, start=END, ends=lambda ids: ids[-1] == END, **options)


def every(sentence, most, settings):
    """All texts that end within `most` tokens, each with (ids, logp, score)."""
    texts = []
    for n in range(most):
        for words in product(range(V - 1), repeat=n):
            ids, logp, covered = (*words, END), 0.0, np.zeros(S)
            for t, token in enumerate(ids):
                p, weights = answer(sentence, (END, *ids[:t]))
                logp += p[token]
                covered = covered + weights
            texts.append((ids, logp, settings.score(logp, len(ids), covered)))
    return sorted(texts, key=lambda text: -text[2])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"length_penalty": 1.0},
        {"length_penalty": 0.0, "length_power": 1.0},
        {"coverage_penalty": 0.5},
        {"length_penalty": 0.7, "coverage_penalty": 0.2, "min_length": 2},
    ],
)
def test_a_wide_beam_finds_the_best_of_all_texts(options):
    settings = Search(**{"beam": 400, "length_penalty": 0.0} | options)
    for sentence in range(3):
        (best,) = found(settings, [Task(4)], [sentence])
        want = [text for text in every(sentence, 4, settings) if len(text[0]) > settings.min_length]
        assert [h.ids for h in best[:20]] == [ids for ids, _, _ in want[:20]]
        np.testing.assert_allclose([h.score for h in best[:20]], [score for _, _, score in want[:20]], rtol=1e-6)
        np.testing.assert_allclose([-sum(h.nats) for h in best], [h.logp for h in best])
        assert all(h.weights.shape == (len(h.ids), S) for h in best)


def test_prefixes_phrases_and_blocked_grams_against_all_texts():
    for sentence in range(3):
        whole = every(sentence, 5, WIDE)
        (best,) = found(WIDE, [Task(5, prefix=(2, 1))], [sentence])
        assert best[0].ids == next(ids for ids, _, _ in whole if ids[:2] == (2, 1))
        (best,) = found(WIDE, [Task(5, phrases=((3, 3), (0,)))], [sentence])
        holds = [ids for ids, _, _ in whole if "33" in "".join(map(str, ids)) and 0 in ids]
        assert best[0].ids == holds[0]
        (best,) = found(Search(beam=400, length_penalty=0.0, no_repeat=1), [Task(5)], [sentence])
        assert best[0].ids == next(ids for ids, _, _ in whole if len(set(ids)) == len(ids))
        (best,) = found(Search(beam=400, length_penalty=0.0, no_repeat=2), [Task(5)], [sentence])
        pairs = [[*zip(h.ids, h.ids[1:], strict=False)] for h in best]
        assert all(len(set(some)) == len(some) for some in pairs)


def test_a_narrow_beam_holds_its_phrases():
    for sentence in range(8):
        (best,) = found(Search(beam=3, length_penalty=0.0), [Task(8, phrases=((1, 2, 3), (0, 0)))], [sentence])
        text = "".join(map(str, best[0].ids))
        assert best[0].ended
        assert "123" in text
        assert "00" in text


def test_greedy_is_the_likeliest_token_each_time():
    (best,) = found(Search(beam=1), [Task(30)], [7])
    tokens = [END]
    while len(tokens) == 1 or tokens[-1] != END:
        tokens.append(int(answer(7, tuple(tokens))[0].argmax()))
    assert best[0].ids == tuple(tokens[1:])


def test_a_sentence_never_depends_on_its_neighbours():
    settings = Search(beam=4, length_penalty=0.6, coverage_penalty=0.1)
    sentences = [int(i) for i in np.random.default_rng(0).permutation(60)]
    alone = {i: found(settings, [Task(3 + i % 9)], [i])[0] for i in sentences}
    for size in (7, 60):
        for first in range(0, 60, size):
            some = sentences[first : first + size]
            for i, best in zip(some, found(settings, [Task(3 + i % 9) for i in some], some), strict=True):
                assert [(h.ids, h.score, h.nats) for h in best] == [(h.ids, h.score, h.nats) for h in alone[i]]


def test_where_no_end_is_found_the_best_are_given_as_they_are():
    (best,) = found(Search(beam=3), [Task(4)], [1], banned=(END,))
    assert len(best) == 3
    assert not any(h.ended for h in best)
    assert {len(h.ids) for h in best} == {4}


def test_draws_follow_from_a_sentence_s_own_seed():
    def drawn(sentences):
        tasks = [Task(20, prefix=(1,))] * len(sentences)
        seeds = [100 + i for i in sentences]
        return sample(Network(sentences), tasks, Sampling(), seeds, start=END, ends=lambda ids: ids[-1] == END)

    together = drawn([3, 1, 2])
    assert [h.ids for h in together] == [drawn([i])[0].ids for i in (3, 1, 2)]
    assert all(h.ids[0] == 1 and -sum(h.nats) == pytest.approx(h.logp) for h in together)
    counts = np.zeros(V)
    for seed in range(4000):
        tasks = [Task(1)]
        ids = sample(Network([0]), tasks, Sampling(), [seed], start=END, ends=lambda _: True)[0].ids
        counts[ids[0]] += 1
    np.testing.assert_allclose(counts / 4000, np.exp(answer(0, (END,))[0]), atol=0.03)


def test_a_broken_off_phrase_gives_its_tokens_back():
    progress = Progress.of([(1, 2, 3), (1, 1)])
    assert progress.after(1).bank == 1
    assert progress.after(1).after(0).bank == 0
    both = progress.after(1).after(2).after(3)
    assert (both.bank, both.open) == (3, ((1, 1),))
    assert both.after(1).after(1).done
    assert both.after(1).after(1).bank == 5


@pytest.mark.parametrize(
    ("error", "wrong", "text"),
    [
        (RecipeError, lambda: Search(beam=0), "beam"),
        (RecipeError, lambda: Search(beam=2, n_best=3), "n_best = 3"),
        (RecipeError, lambda: Search(min_length=5, max_length=2), "max_length = 2"),
        (RecipeError, lambda: Search(beam=9).check(9), "beam = 9: must be below"),
        (RecipeError, lambda: Search(length_penalty=1e6), "length_penalty = 1000000"),
        (DataError, lambda: found(Search(), [Task(6, prefix=(0, 1, 0), phrases=((1, 2, 3),))]), "no room for the 6"),
        (DataError, lambda: found(Search(no_repeat=1), [Task(9, phrases=((1, 1),))]), "let words repeat"),
        (DataError, lambda: found(Search(), [Task(3, phrases=((1, 2, 3),))]), "no room for the 3"),
    ],
)
def test_wrong_options_are_one_line(error, wrong, text):
    with pytest.raises(error, match=text) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_a_prefix_that_begins_a_phrase_needs_no_room_of_its_own():
    (best,) = found(Search(), [Task(5, prefix=(0, 1, 2), phrases=((1, 2, 3),))])
    assert best[0].ids[:4] == (0, 1, 2, 3)


def test_a_phrase_ends_with_a_word():
    """Id 2 only goes on with a word: behind a phrase there is none of it, though it may stand elsewhere."""
    inside = np.array([False, False, True, False, False])
    for sentence in range(20):
        (loose,) = found(WIDE, [Task(5, phrases=((0,),))], [sentence])
        (best,) = found(WIDE, [Task(5, phrases=((0,),))], [sentence], inside=inside)
        closed = [h.ids for h in loose if 2 not in [h.ids[h.ids.index(0) + 1]]]
        assert [h.ids for h in best][:5] == closed[:5]


def test_a_text_has_as_many_words_as_it_is_asked_for():
    """Ids 1 and 3 begin words, 0 and 2 do not; against all texts."""
    begins = np.array([False, True, False, True, False])
    for sentence, (least, most) in product(range(3), ((2, 2), (1, 3), (0, 0))):
        (best,) = found(WIDE, [Task(5, words=Words(least, most, begins))], [sentence])
        want = [ids for ids, _, _ in every(sentence, 5, WIDE) if least <= sum(i in (1, 3) for i in ids) <= most]
        assert [h.ids for h in best[:10]] == want[:10]


def test_where_nothing_may_follow_the_text_is_given_as_it_stands():
    (best,) = found(Search(beam=2, no_repeat=1, min_length=9, max_length=9), [Task(10)])
    assert [(len(h.ids), h.ended) for h in best] == [(4, False)] * 2


def test_a_phrase_may_be_spelt_otherwise_at_the_beginning():
    """(2, 3) is the phrase (0, 1) there; it counts once, and only as the first."""
    start = Progress.of([(0, 1), (1,)], [(2, 3), (1,)])
    assert start.after(2).after(3).open == ((1,),)
    assert start.after(2).after(3).bank == 2
    assert start.after(0).after(1).done
    assert start.after(2).after(1).open == ((0, 1),)
    assert start.after(1).after(2).after(3).open == ((0, 1),)
    assert start.wanted() == [2, 1, 0]
    for sentence in range(5):
        (best,) = found(WIDE, [Task(4, phrases=((0, 1),), first=((2, 3),))], [sentence])
        (plain,) = found(WIDE, [Task(4)], [sentence])
        assert [h.ids for h in best[:5]] == [
            h.ids for h in plain if "01" in "".join(map(str, h.ids)) or h.ids[:2] == (2, 3)
        ][:5]


def test_a_wider_beam_is_no_worse_with_phrases():
    """A text that holds its phrases ends, whatever those that don't are worth."""
    scores = []
    for beam in (2, 8, 60):
        tasks = [Task(7, phrases=((1,), (2, 0)))] * 12
        scores.append([texts[0].score for texts in found(Search(beam=beam), tasks)])
    best = np.array([texts[0].score for texts in found(Search(beam=400), [Task(7, phrases=((1,), (2, 0)))] * 12)])
    assert (best >= np.array(scores) - 1e-12).all()
    assert np.mean(scores[0]) < np.mean(scores[1]) <= np.mean(scores[2])
    assert np.mean(scores[1]) > best.mean() - 0.2


@pytest.mark.parametrize(
    ("phrases", "text", "left"),
    [
        ([(1, 2), (1, 3)], (1, 3, 1, 2), 0),
        ([(1,), (1, 2)], (1, 2), 0),  # "dog park" holds "dog"
        ([(1, 1, 2)], (1, 1, 1, 2), 0),
        ([(1,), (1,)], (1, 2), 1),  # but "dog" twice is asked for twice
        ([(1, 2, 3), (2,)], (1, 2), 1),
        ([(1, 2, 3)], (1, 2, 2), 3),
    ],
)
def test_what_is_there_of_phrases(phrases, text, left):
    progress = reduce(Progress.after, text, Progress.of(phrases))
    assert (progress.left, progress.done) == (left, left == 0)


def test_a_phrase_that_is_longer_at_the_beginning_needs_room_there():
    for beam in (1, 2, 5):
        (best,) = found(Search(beam=beam), [Task(2, phrases=((0,),), first=((1, 2, 3),))])
        assert best[0].ids[:1] == (0,)
