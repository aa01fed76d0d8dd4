"""The scores of a classifier against their definitions, written out."""

import numpy as np
import pytest

from recurra.runtime.verdict import BINS, calibration_error, reliability, score, verdict


def some(n, classes, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.random((n, classes)).astype(np.float32)
    return p / p.sum(1, keepdims=True), rng.integers(0, classes, n)


def f1(given, wanted):
    """From precision and recall."""
    hits = (given & wanted).sum()
    if not hits:
        return 0.0
    precision, recall = hits / given.sum(), hits / wanted.sum()
    return 2 * precision * recall / (precision + recall)


def test_one_label():
    p, truth = some(200, 5)
    truth[truth == 3] = 2  # a label that never occurs, but is given
    found = score(p, truth, list("abcde"), np.array([10, 50, 20, 10, 10]), 100)
    model, floor = found.rows["model"], found.rows["majority"]
    said = p.argmax(1)
    assert model["accuracy"] == pytest.approx((said == truth).mean())
    each = [f1(said == k, truth == k) for k in range(5)]
    assert model["macro F1"] == pytest.approx(np.mean(each))
    assert model["log loss"] == pytest.approx(-np.log(p[np.arange(200), truth]).mean())
    assert floor["accuracy"] == pytest.approx((truth == 1).mean())
    assert floor["ECE"] == pytest.approx(abs(0.5 - (truth == 1).mean()))
    rows = found.details["labels"]
    assert [rows[name]["F1"] for name in "abcde"] == pytest.approx(each)
    assert sum(row["documents"] for row in rows.values()) == 200
    assert rows["d"]["documents"] == 0


def test_labels_that_never_occur_are_no_part_of_the_mean():
    p = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]], np.float32)
    found = score(p, np.array([0, 0]), list("abc"), np.ones(3), 3)
    assert found.rows["model"]["macro F1"] == 1


def test_several_labels():
    rng = np.random.default_rng(1)
    p, truth = rng.random((100, 4)).astype(np.float32), rng.random((100, 4)) < 0.3
    found = score(p, truth, list("abcd"), np.array([80, 10, 10, 10]), 100)
    model = found.rows["model"]
    assert model["micro F1"] == pytest.approx(f1((p >= 0.5).ravel(), truth.ravel()))
    assert model["macro F1"] == pytest.approx(np.mean([f1(p[:, k] >= 0.5, truth[:, k]) for k in range(4)]))
    assert model["subset accuracy"] == pytest.approx(((p >= 0.5) == truth).all(1).mean())
    assert model["log loss"] == pytest.approx(-np.log(np.where(truth, p, 1 - p)).mean())
    assert found.rows["majority"]["micro F1"] == pytest.approx(
        f1(np.repeat([True, False, False, False], 100).reshape(4, 100).T.ravel(), truth.ravel())
    )


def test_calibration():
    rng = np.random.default_rng(2)
    confidence = rng.random(200_000)
    assert calibration_error(confidence, rng.random(200_000) < confidence) < 0.01
    assert calibration_error(confidence, np.ones(200_000, bool)) == pytest.approx(0.5, abs=0.01)
    bins = reliability(confidence, confidence > 0.5)
    assert len(bins) == BINS
    assert sum(row["count"] for row in bins.values()) == 200_000
    assert reliability(np.ones(3), np.ones(3, bool)) == {"0.93 to 1.00": {"confidence": 1.0, "right": 1.0, "count": 3}}


def test_verdict():
    p = np.array([[0.6, 0.4], [0.1, 0.9]], np.float32)
    assert verdict(p, ["no", "yes"], many=False).labels == ["no", "yes"]
    assert verdict(np.array([[0.6, 0.5], [0.1, 0.2]]), ["a", "b"], many=True).labels == [("a", "b"), ()]
