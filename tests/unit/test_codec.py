"""The codec: transforms, scaling as a causal recursion (against a slow loop), covariates, and numpy functions that keep a value's bits."""

import math

import numpy as np
import polars as pl
import pytest

import forecasters
from forecasters import Kind, same
from recurra.codec import scaling as scaling_module
from recurra.codec.covariates import CYCLES, Covariates, calendar, calendar_cycles
from recurra.codec.plain import CLIP, FAR, NOTHING, TINY
from recurra.codec.scaling import Scaling
from recurra.codec.series import fit
from recurra.data.series import Series
from recurra.errors import DataError
from recurra.table import Step
from zoo import needs_core

KINDS = ("seasonal", "running", "frozen")
BUILT = [pytest.param(True, id="compiled", marks=needs_core), pytest.param(False, id="numpy")]
# float64 sums in another order, then float32: measured 4e-7 of values up to 10
FEATURE = 3e-6


def slow(scaling: Scaling, y: list[float], horizon: int):
    """One series, one float at a time, as the head of codec/scaling.py says. Per step: features, level, scale, anchors."""
    if scaling.transform == "identity":
        xs = y
    elif scaling.transform == "log":
        xs = [math.log(v) if v > 0 else math.nan for v in y]
    else:
        xs = [math.log1p(max(v, 0.0)) for v in y]
    past: list[float] = []  # from the first value on, missing ones filled
    level = spread = amplitude = 0.0
    scale, taken = 1.0, 0
    profiles = {m: [0.0] * m for m in scaling.seasons}
    out = []
    for x in xs:
        seen, warm, n = not math.isnan(x), bool(past), len(past)
        if not seen and not warm:
            out.append(([0.0] * scaling.features, level, scale, [[0.0] * scaling.choices] * horizon))
            continue
        before, level_before = past[-1] if warm else 0.0, level
        expected = before
        for m in scaling.seasons:
            if n >= m:
                expected = past[-m]
        value = x if seen else expected
        past.append(value)
        n += 1

        def mean(w, past=past, n=n):
            return sum(past[-w:]) / min(n, w)

        step = value - before
        change = step
        if scaling.seasons and n > scaling.seasons[0]:
            change = value - past[-1 - scaling.seasons[0]]
        moving = seen and (scaling.kind != "frozen" or taken < scaling.warmup)
        if scaling.kind == "seasonal":
            level, deviation = mean(scaling.level), abs(change)
        else:
            if moving:
                level += max(1 / (taken + 1), scaling.gain) * (value - level)
            deviation = abs(value - level)
        if not warm:
            deviation = scaling.prior * (abs(value) if scaling.transform == "identity" else 1.0)
        if moving:
            taken += 1
            spread += max(1 / taken, scaling.gain) * (deviation - spread)
        scale = max(spread, TINY * TINY * abs(level) + NOTHING if scaling.transform == "identity" else TINY)
        if seen:
            amplitude += max(1 / n, 1 / max(scaling.level, scaling.memory // 4, 8)) * (abs(value - level) - amplitude)
        swing = max(amplitude, 0.1 * scale)
        row = [
            1.0,
            (value - level) / swing,
            (step if warm else 0.0) / scale,
            (level - level_before if warm else 0.0) / scale,
            math.log(scale) / 2 + 1 if scaling.transform != "identity" else 0.0,
            math.log(swing / scale),
        ]
        row += [(value - mean(w)) / scale for w in scaling.windows]
        for m, gamma in zip(scaling.seasons, scaling.smoothing, strict=True):
            known, residual, old = n > m, value - mean(m), profiles[m][n % m]
            rounds = (n - 1) // m
            if seen or not rounds:
                profiles[m][n % m] = old + max(gamma, 1 / (rounds + 1)) * (residual - old)
            row += [
                float(known),
                (value - past[-1 - m]) / scale if known else 0.0,
                (residual - old) / scale if known else 0.0,
            ]
        row = [row[0], *(max(-CLIP, min(CLIP, v)) for v in row[1:])] if seen else [0.0] * len(row)
        anchors = []
        for k in range(horizon):
            answers = [(value - level) / scale, 0.0]
            for m in scaling.seasons:
                if n >= m - k % m:
                    answers += [
                        (past[-m + k % m] - level) / scale,
                        (profiles[m][(n + 1 + k) % m] + mean(m) - level) / scale,
                    ]
                else:
                    answers += [answers[-1]] * 2
            anchors.append([max(-FAR, min(FAR, v)) for v in answers])
        out.append((row, level, scale, anchors))
    return out


def scaling(kind, transform="identity", seasons=(3, 7), **more):
    return Scaling(
        kind=kind,
        transform=transform,
        seasons=seasons,
        windows=tuple(sorted({2, 5, *seasons})),
        level=seasons[0] if seasons else 1,
        smoothing=(0.3, 0.5)[: len(seasons)],
        warmup=6,
        prior=0.2,
        **more,
    )


def codec_of(y, **options):
    """The codec fitted on one series with integer time."""
    frame = pl.DataFrame({"unique_id": ["a"] * len(y), "ds": range(len(y)), "y": y}).with_columns(
        pl.col("y").fill_nan(None)
    )
    wanted = {"horizon": 4, "output": "quantiles", "levels": (0.1, 0.5, 0.9), "scaling": "seasonal", "seasons": None}
    return fit(Series(frame).read(), **(wanted | {"calendar": False} | options))


def series(n=60, seed=0, missing=True):
    rng = np.random.default_rng(seed)
    y = np.exp(rng.normal(0, 0.3, n).cumsum() / 3 + np.sin(np.arange(n) * 2 * np.pi / 7)) + 0.3
    if missing:
        y[rng.random(n) < 0.2] = np.nan
        y[:2] = np.nan
        y[20:29] = np.nan
    return y


@pytest.mark.parametrize("gain", [0.0, 0.1])
@pytest.mark.parametrize("seasons", [(), (3,), (3, 7)])
@pytest.mark.parametrize("transform", ["identity", "log", "log1p"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("built", BUILT)
def test_recursion_is_the_slow_loop(built, kind, transform, seasons, gain, monkeypatch):
    if not built:
        monkeypatch.setattr(scaling_module, "_core", None)
    y = series() - (2 if transform == "identity" else 0)
    made = scaling(kind, transform, seasons, gain=gain)
    state = made.start(1)
    for t, (features, level, scale, anchors) in enumerate(slow(made, list(y), 9)):
        got = made.observe(state, made.forward(y[t : t + 1]))
        np.testing.assert_allclose(got[0], features, rtol=FEATURE, atol=FEATURE, err_msg=f"features at {t}")
        np.testing.assert_allclose(state["level"][0], level, rtol=1e-12, atol=1e-12, err_msg=f"level at {t}")
        np.testing.assert_allclose(state["scale"][0], scale, rtol=1e-12, atol=1e-12, err_msg=f"scale at {t}")
        np.testing.assert_allclose(
            made.anchors(state, 9)[0], anchors, rtol=FEATURE, atol=FEATURE, err_msg=f"anchors at {t}"
        )


@pytest.mark.parametrize(
    ("y", "transform"),
    [([1.0, 2.0, 0.5], "log"), ([0.0, 3.0, 1.0], "log1p"), ([0.0, 0.5, 1.0], "identity"), ([-1.0, 2.0], "identity")],
)
def test_transform_is_chosen_by_the_values(y, transform):
    assert codec_of(y * 5).scaling.transform == transform


@pytest.mark.parametrize("transform", ["identity", "log", "log1p"])
def test_transform_and_back(transform):
    y = np.array([0.5, 1.0, 7.0, 1e6, 1e-3 if transform != "log" else 0.5, np.nan])
    made = scaling("running", transform)
    np.testing.assert_allclose(made.inverse(made.forward(y)), y, rtol=1e-13)


@pytest.mark.parametrize("zeros", [1, 20, 60, 400])
@pytest.mark.parametrize("kind", KINDS)
def test_values_without_a_logarithm_are_missing(kind, zeros):
    """A shop closed for months: neither level nor scale runs away, and both are back with the values."""
    codec = codec_of(list(series(missing=False)), scaling=kind)
    assert same(codec.scaling.forward(np.array([-3.0, 0.0, 1.0, np.nan])), np.array([np.nan, np.nan, 0.0, np.nan]))
    assert same(scaling("running", "log1p").forward(np.array([-3.0, 0.0])), np.zeros(2))
    y = series(n=160, missing=False)
    whole = np.concatenate([y[:60], np.zeros(zeros), y[60:]])[None]
    gone = np.where(whole > 0, whole, np.nan)
    found, want = (codec.encode(codec.start(1), v, np.array([len(v[0])]), anchors=True) for v in (whole, gone))
    assert same(found.features, want.features)
    assert same(found.anchors, want.anchors)
    plain = codec.encode(codec.start(1), y[None], np.array([160]), anchors=False)
    assert 0.5 < found.scale[0, -1] / plain.scale[0, -1] < 2


def test_a_new_series_may_be_a_thousand_times_smaller_than_all_that_were_learnt():
    codec = codec_of(list(series(missing=False)))
    y = series(missing=False)[None]
    large, small = (codec.encode(codec.start(1), y * k, np.array([60]), anchors=True) for k in (1.0, 1e-3))
    np.testing.assert_allclose(small.features, large.features, atol=1e-5)


def test_no_forecast_below_zero_where_no_value_was():
    model = forecasters.player(
        forecasters.network(Kind(output="gaussian", values="signed"), forecasters.table(values="signed"))
    )
    assert not model.codec.scaling.positive
    frame = forecasters.table(values="signed").with_columns(y=pl.max_horizontal("y", 0.0))
    made = forecasters.player(forecasters.network(Kind(output="gaussian"), frame))
    assert made.codec.scaling.transform == "identity"
    assert made.codec.scaling.positive
    out = made.predict(frame, 9)
    assert all((out[name] >= 0).all() for name in ("y_hat", "q0.1", "q0.5", "q0.8"))
    assert same(made.codec.scaling.inverse(np.array([-1.0, 2.0, 0.0])), np.array([0.0, 2.0, 0.0]))


def test_values_far_away_come_back_finite():
    for transform in ("log", "log1p"):
        assert np.isfinite(scaling("running", transform).inverse(np.array([1e9, -1e9]))).all()


def test_frozen_freezes():
    made = scaling("frozen")
    state, y = made.start(1), np.arange(40.0)
    y[2] = np.nan  # a missing value is none of the six
    for t in range(40):
        made.observe(state, y[t : t + 1])
        if t == 6:
            kept = state["level"].copy(), state["scale"].copy()
            assert kept[0][0] == pytest.approx(np.nanmean(y[:7]))
    assert same(state["level"], kept[0])
    assert same(state["scale"], kept[1])


def test_running_is_the_mean_so_far_of_what_was_seen():
    made = scaling("running")
    state, y = made.start(1), series() - 3
    for t in range(len(y)):
        made.observe(state, y[t : t + 1])
        if np.isfinite(y[: t + 1]).any():
            assert state["level"][0] == pytest.approx(np.nanmean(y[: t + 1]))


@pytest.mark.parametrize("kind", KINDS)
def test_leading_missing_values_leave_no_trace(kind):
    made, y = scaling(kind), series(missing=False)
    plain, led = made.start(1), made.start(1)
    for _ in range(11):
        assert not made.observe(led, np.array([np.nan])).any()
    for t in range(len(y)):
        assert same(made.observe(plain, y[t : t + 1]), made.observe(led, y[t : t + 1]))
    assert all(same(plain[name], led[name]) for name in plain)


@pytest.mark.parametrize("kind", KINDS)
def test_trailing_missing_values_change_no_scale(kind):
    made, y = scaling(kind), series(missing=False)
    state = made.start(1)
    for t in range(len(y)):
        made.observe(state, y[t : t + 1])
    before = {name: array.copy() for name, array in state.items()}
    for _ in range(30):
        features = made.observe(state, np.array([np.nan]))
        assert not features.any(), "a missing step says so: all features are 0"
        assert np.isfinite(made.anchors(state, 9)).all()
    for name in ("spread", "weight", "scale", "amplitude"):
        assert same(state[name], before[name]), name


@pytest.mark.parametrize("value", [0.0, 3.0, 1e9, -50.0])
@pytest.mark.parametrize("kind", KINDS)
def test_constant_series(kind, value):
    """A constant series among others: finite features, and forecasts near the constant."""
    others = forecasters.table(values="signed" if value < 0 else "counts" if value == 0 else "positive")
    constant = forecasters.table((300,), prefix="flat").with_columns(y=pl.lit(value))
    model = forecasters.player(forecasters.network(Kind(scaling=kind, output="gaussian"), others))
    out = model.predict(constant)
    state, seen = model.start(), []
    for _ in range(300):
        prediction, state = model.step(state, value)
        seen.append(prediction.y_hat[0])
    assert np.isfinite(seen).all()
    assert same(out["y_hat"].to_numpy(), seen[-1])
    # the first value's scale is a guess (the prior), and the mean over 300 values still holds a 300th of it
    room = (
        3 * max(1.0 if model.codec.scaling.transform == "log1p" else abs(value), 1e-6) * model.codec.scaling.prior / 30
    )
    assert np.abs(np.array(seen[-1]) - value).max() <= room


@pytest.mark.parametrize("kind", KINDS)
def test_features_know_nothing_of_what_follows(kind):
    codec = codec_of(list(series()), scaling=kind, seasons=(3, 7))
    y = np.stack([series(seed=s) for s in range(5)])
    lengths = np.full(5, 60)
    base = codec.encode(codec.start(5), y, lengths, anchors=True)
    for t in (1, 17, 40, 59):
        other = y.copy()
        other[:, t:] = np.nan_to_num(other[:, t:], nan=3.0) * 50
        found = codec.encode(codec.start(5), other, lengths, anchors=True)
        for name in ("features", "level", "scale", "anchors"):
            assert same(getattr(found, name)[:, :t], getattr(base, name)[:, :t]), f"{name} before {t}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("built", BUILT)
def test_rows_lengths_and_pieces_keep_the_bits(built, kind, monkeypatch):
    if not built:
        monkeypatch.setattr(scaling_module, "_core", None)
    codec = codec_of(list(series()), scaling=kind, seasons=(3, 7))
    lengths = np.array([60, 60, 31, 7, 1, 1])
    y = np.stack([series(seed=s) for s in range(6)])
    for i, n in enumerate(lengths):
        y[i, n:] = np.nan
    state = codec.start(6)
    base = codec.encode(state, y, lengths, anchors=True)
    for i, n in enumerate(lengths):
        alone = codec.start(1)
        for a, b in ((0, 1), (1, 8), (8, 60)):
            width = int(np.clip(n - a, 0, b - a))
            if not width:
                continue
            part = codec.encode(alone, y[i : i + 1, a : a + width], np.array([width]), anchors=True)
            for name in ("features", "level", "scale", "anchors"):
                assert same(getattr(part, name)[0], getattr(base, name)[i, a : a + width]), f"{name}, row {i}, {a}:{b}"
        assert all(same(alone[name][0], state[name][i]) for name in state), f"state of row {i}"


def test_targets_are_the_next_values_in_the_units_of_the_step():
    codec = codec_of(list(series()))
    y = series()[None]
    enc = codec.encode(codec.start(1), y[:, :56], np.array([56]), anchors=False)
    targets = codec.targets(y, enc.level, enc.scale)
    x = codec.scaling.forward(y)
    for t in (0, 13, 55):
        for k in range(4):
            want = np.float32((x[0, t + 1 + k] - enc.level[0, t]) / enc.scale[0, t])
            assert same(targets[0, t, k], want)


def test_what_can_not_be_learnt_is_refused():
    with pytest.raises(DataError, match=r"constant .every value is 3"):
        codec_of([3.0] * 9)
    with pytest.raises(DataError, match=r"counts .* holds 0\.5"):
        codec_of([1.0, 0.5] * 9, output="negative_binomial")
    with pytest.raises(DataError, match=r"counts .* holds -1"):
        codec_of([1.0, -1.0] * 9, output="negative_binomial")
    for season in (1, 18):
        with pytest.raises(DataError, match=f"season {season}: must be at least 2 and below the longest series"):
            codec_of([1.0, 2.0] * 9, seasons=(season,))
    with pytest.raises(DataError, match="calendar features need dates"):
        codec_of([1.0, 2.0] * 9, calendar=True)


# -- covariates -----------------------------------------------------------------------------------------------------


def test_covariates_as_numbers():
    cov = Covariates(past=("wind", "kind"), levels={"kind": ("a", "b", "c")}, moments={"wind": (10.0, 2.0)})
    assert cov.input_width == 5
    assert cov.known_width == 0
    got = cov.block(cov.past, {"wind": np.array([12.0, np.nan, 1e9]), "kind": np.array([1, -1, 2])}, (3,))
    want = [[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [8, 1, 0, 0, 1]]
    assert same(got, np.array(want, np.float32))


def test_moments_of_the_training_part():
    frame = forecasters.table(inputs="covariates", missing=True)
    cov = Covariates.fit(Series(frame, static=("size",), past=("wind",), future=("price", "promo")).read(), False)
    wind = frame["wind"].drop_nulls().to_numpy()
    assert cov.moments["wind"] == (pytest.approx(wind.mean()), pytest.approx(wind.std()))
    assert cov.levels["promo"] == ("half", "no", "yes")


def test_a_constant_covariate_is_no_division_by_zero():
    frame = forecasters.table(inputs="covariates").with_columns(wind=pl.lit(7.0))
    cov = Covariates.fit(Series(frame, past=("wind",)).read(), False)
    assert same(cov.column("wind", np.array([7.0, np.nan])), np.array([[0, 1], [0, 0]], np.float32))


@pytest.mark.parametrize(
    ("unit", "n", "cycles"),
    [
        ("us", 3_600_000_000, ("hour", "weekday", "monthday", "month")),
        ("us", 86_400_000_000, ("weekday", "monthday", "month")),
        ("us", 7 * 86_400_000_000, ("week",)),
        ("month", 1, ("month",)),
        ("month", 12, ()),
    ],
)
def test_cycles_longer_than_the_step(unit, n, cycles):
    assert calendar_cycles(Step(unit=unit, n=n)) == cycles


def test_calendar_phases():
    at = np.array(["2024-02-29T13:00", "1969-12-31T23:59", "2024-12-31", "2024-01-01"], "datetime64[us]")
    want = {
        "hour": [13, 23, 0, 0],
        "weekday": [3, 2, 1, 0],
        "monthday": [28, 30, 30, 0],
        "month": [1, 11, 11, 0],
        "week": [8, 52, 52, 0],
    }
    for cycle, phases in want.items():
        angle = 2 * np.pi * np.array(phases) / CYCLES[cycle]
        np.testing.assert_allclose(calendar(cycle, at), np.stack([np.sin(angle), np.cos(angle)], -1), atol=1e-7)


def test_one_value_of_a_stream():
    cov = Covariates(past=("wind", "kind"), levels={"kind": ("north", "south")}, moments={"wind": (0.0, 1.0)})
    assert cov.code("kind", "south") == 1
    assert cov.code("kind", None) == -1
    assert cov.code("wind", "2.5") == 2.5
    assert math.isnan(cov.code("wind", None))
    assert math.isnan(cov.code("wind", ""))
    for name, value, text in (
        ("kind", "sooth", "unknown category 'sooth'; did you mean 'south'"),
        ("wind", "windy", "'windy' is not a number"),
        ("wind", "inf", "infinite"),
    ):
        with pytest.raises(DataError, match=text):
            cov.code(name, value)


def test_a_number_of_a_stream_is_the_category_of_the_table():
    cov = Covariates(static=("store",), levels={"store": ("007", "1.5", "12", "7")})
    for value in (12, "12", 12.0, "12.0", " 12 ", np.int64(12), np.float32(12)):
        assert cov.code("store", value) == 2, repr(value)
    assert [cov.code("store", value) for value in ("007", 7.0, 1.5, "1.5", float("nan"), "NA")] == [0, 3, 1, 1, -1, -1]
    with pytest.raises(DataError, match=r"unknown category '12.5'"):
        cov.code("store", 12.5)


# -- numpy: what may be called on arrays ------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [np.exp, np.log, np.log1p, np.expm1, np.sqrt, np.tanh], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementwise_functions_keep_a_value_s_bits(function, dtype):
    """A value's result is the same in an array of any length, at any place in it, contiguous or strided."""
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(0, 3, 70)).astype(dtype) + dtype(1e-3)
    want = np.array([function(v) for v in x], dtype)
    alone = np.concatenate([function(x[i : i + 1]) for i in range(70)])
    assert same(alone, want)
    for n in range(1, 71):
        for start in range(min(8, 71 - n)):
            assert same(function(x[start : start + n]), want[start : start + n]), f"{n} values from {start}"
    grid = np.tile(x[:, None], (1, 5))
    assert same(function(grid)[:, 2], want), "in a matrix"
    assert same(function(grid[:, 2]), want), "strided"
    assert same(function(grid.T)[2], want), "transposed"


@pytest.mark.parametrize("window", [*range(2, 71), 168, 364])
def test_sums_over_the_ring_keep_a_row_s_bits(window):
    rng = np.random.default_rng(window)
    ring = rng.normal(0, 1, (70, 364)) * 10.0 ** rng.integers(-6, 6, (70, 1))
    want = np.array([ring[i : i + 1, -window:].sum(axis=1)[0] for i in range(70)])
    for rows in (2, 3, 7, 8, 63, 70):
        assert same(ring[:rows, -window:].sum(axis=1), want[:rows])
        assert same(ring[70 - rows :, -window:].sum(axis=1), want[70 - rows :])
    tight = np.ascontiguousarray(ring[:, -window:])
    assert same(tight[:, -window:].sum(axis=1), want), "in a ring of just this length"
