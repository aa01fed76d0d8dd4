"""Sampling: the probabilities are those of the definitions, the draws follow them, absurd settings are refused."""

import numpy as np
import pytest

from recurra.errors import RecipeError
from recurra.search.sampling import Sampling, draw, probabilities

P = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
LOG = np.log(P)


def test_plain_sampling_draws_from_the_models_own_probabilities() -> None:
    np.testing.assert_allclose(probabilities(LOG, Sampling()), P)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 2.5])
def test_temperature_is_a_power(temperature: float) -> None:
    want = P ** (1 / temperature)
    np.testing.assert_allclose(probabilities(LOG, Sampling(temperature=temperature)), want / want.sum())


def test_a_tiny_temperature_is_the_most_probable_token() -> None:
    np.testing.assert_array_equal(probabilities(LOG, Sampling(temperature=1e-300)), [0, 1, 0, 0, 0])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 3, 4]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.01}, [1]),
        ({"top_p": 0.69}, [1, 3]),
        ({"top_p": 0.71}, [1, 3, 4]),
        ({"min_p": 0.7}, [1, 3]),
        ({"min_p": 0.2}, [0, 1, 3, 4]),
        ({"top_k": 4, "top_p": 0.8, "min_p": 0.5}, [1, 3]),
        ({"greedy": True}, [1]),
    ],
)
def test_what_is_cut_and_what_is_left(options: dict, kept: list[int]) -> None:
    want = np.zeros(5)
    want[kept] = P[kept]
    np.testing.assert_allclose(probabilities(LOG, Sampling(**options)), want / want.sum())


def test_a_recent_token_is_less_probable_and_no_other_changes_its_order() -> None:
    found = probabilities(LOG, Sampling(repetition_penalty=1.5), np.array([1, 1, 3]))
    want = P.copy()
    want[[1, 3]] **= 1.5
    np.testing.assert_allclose(found, want / want.sum())


def test_a_token_that_never_comes_is_never_drawn() -> None:
    logp = LOG.copy()
    logp[1] = -np.inf
    found = probabilities(logp, Sampling(top_k=2, repetition_penalty=2.0), np.array([1]))
    assert found[1] == 0
    assert {draw(found, 0, n) for n in range(200)} == {3, 4}


def test_draws_follow_the_probabilities() -> None:
    counts = np.bincount([draw(P, 7, n) for n in range(20_000)], minlength=5)
    assert ((counts - 20_000 * P) ** 2 / (20_000 * P)).sum() < 18.5  # chi square, 4 degrees of freedom: 0.1 %


def test_a_draw_follows_from_seed_and_place_alone() -> None:
    assert [draw(P, 3, n) for n in range(50)] == [draw(P, 3, n) for n in range(50)]
    assert [draw(P, 3, n) for n in range(50)] != [draw(P, 4, n) for n in range(50)]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.2},
        {"min_p": 1.0},
        {"min_p": -0.1},
        {"repetition_penalty": 0.5},
        {"greedy": True, "temperature": 0.5},
        {"warmth": 1.0},
    ],
)
def test_absurd_settings_are_refused_in_one_line(options: dict) -> None:
    with pytest.raises(RecipeError) as error:
        Sampling(**options)
    assert "\n" not in str(error.value)
    assert next(iter(options)) in str(error.value)


@pytest.mark.parametrize("logp", [np.full(4, -np.inf), np.full(4, np.nan)])
def test_nothing_left_to_draw_is_said(logp: np.ndarray) -> None:
    with pytest.raises(RecipeError, match="no token is left"):
        probabilities(logp, Sampling())
