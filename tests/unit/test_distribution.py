"""From a head's raw numbers to quantiles (against scipy), and sampled trajectories beyond the trained horizon."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

import forecasters
from forecasters import Kind, same
from recurra.codec import distribution
from recurra.codec.distribution import (
    MIN_SPREAD,
    at_scores,
    negative_binomial_quantile,
    normal_probability,
    normal_quantile,
)
from recurra.errors import DataError

P = np.array([0.001, 0.01, 0.1, 0.25, 0.5, 0.6, 0.9, 0.975, 0.999])
LEVELS = (0.1, 0.25, 0.5, 0.9)


def raw(parameters, seed=0, rows=200):
    return np.random.default_rng(seed).normal(0, 3, (rows, 4, parameters)).astype(np.float32)


def test_normal():
    np.testing.assert_allclose(normal_quantile(P), stats.norm.ppf(P), rtol=1e-12)
    scores = np.linspace(-9, 9, 5001)
    np.testing.assert_allclose(normal_probability(scores), stats.norm.cdf(scores), atol=1e-6)


def test_gaussian():
    values = raw(2)
    got = at_scores("gaussian", values, (), normal_quantile(P), 5.0)
    location, spread = values[..., :1].astype(float), MIN_SPREAD + np.logaddexp(0, values[..., 1:].astype(float))
    np.testing.assert_allclose(got, stats.norm.ppf(P, location, spread), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("df", [2.05, 3.0, 5.0, 30.0, 200.0])
def test_student_t(df):
    got = distribution.student_t_quantile(normal_quantile(P), df)
    np.testing.assert_allclose(got, stats.t.ppf(P, df), rtol=2e-3, atol=1e-6)  # measured 3e-4, at df 2.05 and p 0.001


@pytest.mark.parametrize("mean", [1e-3, 0.5, 3.0, 40.0, 299.0])
@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0, 7.0])
def test_negative_binomial_is_exact_for_small_counts(mean, alpha):
    p = np.random.default_rng(0).uniform(0.001, 0.999, 300)
    got = negative_binomial_quantile(p, np.full(300, mean), np.full(300, alpha))
    assert (got == stats.nbinom.ppf(p, 1 / alpha, 1 / (1 + alpha * mean))).all()


@pytest.mark.parametrize("mean", [301.0, 5e3, 1e8])
@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0])
def test_negative_binomial_is_near_for_large_counts(mean, alpha):
    got = negative_binomial_quantile(P, np.full(len(P), mean), np.full(len(P), alpha))
    want = stats.nbinom.ppf(P, 1 / alpha, 1 / (1 + alpha * mean))
    assert np.abs(got - want).max() <= 0.03 * want[-1]  # measured 0.024, at alpha 1 and p 0.999


@pytest.mark.parametrize("output", ["quantiles", "gaussian", "student_t"])
def test_quantiles_never_cross(output):
    for parameters in (4, 2):
        if parameters == distribution.parameters(output, LEVELS):
            got = at_scores(output, raw(parameters), LEVELS, normal_quantile(P), 2.5)
            assert (np.diff(got, axis=-1) >= 0).all()


def test_counts_never_cross_and_are_counts():
    mean, alpha = np.abs(raw(1)) ** 4, np.abs(raw(1, 1)) + 1e-3
    got = negative_binomial_quantile(P, mean, alpha)
    assert (np.diff(got, axis=-1) >= 0).all()
    assert (got >= 0).all()
    assert (got == np.round(got)).all()


def test_trained_levels_come_back_as_they_are():
    values = raw(4)
    got = at_scores("quantiles", values, LEVELS, normal_quantile(np.asarray(LEVELS)), 1.0)
    assert same(got, np.sort(values.astype(np.float64), axis=-1))


def test_a_quantile_is_the_same_alone_or_with_others():
    for output, parameters in (("quantiles", 4), ("gaussian", 2), ("student_t", 2)):
        values = raw(parameters)
        together = at_scores(output, values, LEVELS, normal_quantile(P), 3.3)
        for i in (0, 7, 199):
            assert same(at_scores(output, values[i : i + 1], LEVELS, normal_quantile(P), 3.3)[0], together[i])
            for j, p in enumerate(P):
                assert same(
                    at_scores(output, values[i], LEVELS, normal_quantile(np.array([p])), 3.3)[..., 0],
                    together[i, ..., j],
                )


def test_counts_are_the_same_alone_or_with_others():
    mean, alpha = np.abs(raw(1))[..., 0] ** 5, np.abs(raw(1, 1))[..., 0] + 1e-3
    together = negative_binomial_quantile(np.full(mean.shape, 0.9), mean, alpha)
    for i in range(0, 200, 9):
        assert same(negative_binomial_quantile(np.full(4, 0.9), mean[i], alpha[i]), together[i])


# -- beyond the trained horizon ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walker():
    """A forecaster that has learnt nothing: the last value, and the quantiles of one step's change."""
    from recurra.tasks.forecast import Forecast, Forecaster
    from recurra.tasks.task import Core

    frame = pl.concat(
        [forecasters.table((40,), values="signed", dates=False, prefix=f"w{i}-", seed=i) for i in range(5)]
    )
    kind = Kind(seasons=(), values="signed")
    codec = forecasters.network(kind, frame).codec
    config = Forecast(horizon=3, quantiles=codec.levels, seasons=())
    return forecasters.player(Forecaster(config, Core(hidden=4, layers=1, dropout=0.1), codec)), frame


def test_intervals_widen(walker):
    model, frame = walker
    out = model.predict(frame, 30)
    width = (out["q0.8"] - out["q0.1"]).to_numpy().reshape(5, 10, 3).mean(axis=(0, 2))
    assert (np.diff(width) > 0).all()
    # a random walk: the spread of block b is that of b independent changes
    np.testing.assert_allclose(width / width[0], np.sqrt(np.arange(1, 11)), rtol=0.2)


@pytest.mark.parametrize("output", forecasters.OUTPUTS)
def test_farther_begins_as_near(output):
    kind = Kind(output=output)
    frame = forecasters.frame_for(kind)
    model = forecasters.player(forecasters.network(kind, frame))
    near, far = model.predict(frame), model.predict(frame, 9, seed=5)
    shorter = model.predict(frame, 2)
    for i in ("s0", "s1", "s2"):
        assert forecasters.one(far, i).head(3).equals(forecasters.one(near, i))
        assert forecasters.one(near, i).head(2).equals(forecasters.one(shorter, i))
    assert np.isfinite(far["y_hat"].to_numpy()).all()
    for low, high in zip(model.levels, model.levels[1:], strict=False):
        assert (far[f"q{low:g}"] <= far[f"q{high:g}"]).all()


def test_trajectories_are_decided_by_the_seed(walker):
    model, frame = walker
    assert model.predict(frame, 9, seed=1).equals(model.predict(frame, 9, seed=1))
    assert not model.predict(frame, 9, seed=1).equals(model.predict(frame, 9, seed=2))


@pytest.mark.parametrize("inputs", ["none", "covariates", "calendar"])
def test_trajectories_do_not_know_their_neighbours(inputs):
    kind = replace(Kind(output="student_t", seasons=(3, 7)), inputs=inputs)
    frame = forecasters.frame_for(kind, (40, 33, 25), missing=False)
    model = forecasters.player(forecasters.network(kind, frame))
    if inputs != "none":  # nine steps of known future
        index = pl.int_range(pl.len()).over("unique_id")
        frame = frame.with_columns(y=pl.when(index < pl.len().over("unique_id") - 9).then("y"))
    together = model.predict(frame, 9)
    for i in ("s0", "s1", "s2"):
        assert model.predict(forecasters.one(frame, i), 9).equals(forecasters.one(together, i))


def test_the_known_future_must_reach_as_far():
    kind = Kind(inputs="covariates")
    frame = forecasters.frame_for(kind, (40,), missing=False)
    model = forecasters.player(forecasters.network(kind, frame))
    with pytest.raises(DataError, match=r"9 steps needs the known future of price, promo in 9"):
        model.predict(forecasters.until(model, frame, 20), 9)
