"""What a classifier says of documents, and how right it is, beside the floor: the training part's shares of the labels.

accuracy, macro F1, log loss             one label a document; macro F1: the mean over the labels that occur or were given
micro F1, macro F1, subset accuracy      several: over all decisions, the mean over labels, the whole set right
ECE     sum over 15 equal bins of the confidence: share of documents * |share that is right - mean confidence|   (Guo et al. 2017)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recurra.runtime.scored import Scored

BINS = 15
LEAST = 1e-12  # a probability counts at least this in the log loss


@dataclass(frozen=True)
class Verdict:
    """labels: of each row one, or a tuple of those with at least even odds. probabilities [rows, classes], in the model's order."""

    labels: list[Any]
    probabilities: np.ndarray


def verdict(probabilities: np.ndarray, names: Sequence[str], many: bool) -> Verdict:
    """The labels that `probabilities` [rows, classes] say."""
    if many:
        return Verdict(
            [tuple(names[int(k)] for k in np.flatnonzero(row >= 0.5)) for row in probabilities], probabilities
        )
    return Verdict([names[int(k)] for k in probabilities.argmax(1)], probabilities)


def score(probabilities: np.ndarray, truth: np.ndarray, names: Sequence[str], counts: np.ndarray, total: int) -> Scored:
    """Scores of `probabilities` [n, classes] where `truth` is [n] (one label each) or bool [n, classes] (several).

    counts [classes]: documents of each label in the training part, of `total`.
    """
    p = probabilities.astype(np.float64)
    share = np.broadcast_to(np.asarray(counts, np.float64) / max(total, 1), p.shape)
    if truth.ndim == 2:
        rows = {"model": _several(p, truth), "majority": _several(share, truth)}
        confidence, right, given = p, truth, p >= 0.5
        wanted, what = truth, "label decisions"
    else:
        rows = {"model": _one(p, truth), "majority": _one(share, truth)}
        confidence, right = p.max(1), p.argmax(1) == truth
        given, wanted = (np.arange(p.shape[1]) == found[:, None] for found in (p.argmax(1), truth))
        what = "documents"
    details = {"labels": _by_label(given, wanted, names), "confidence": reliability(confidence, right)}
    caption = f"{len(p)} documents, {len(names)} labels; ECE over {BINS} equal bins of the confidence of {what}"
    return Scored(rows, caption, details)


def reliability(confidence: np.ndarray, right: np.ndarray) -> dict[str, dict[str, float]]:
    """The bins of the confidence that are not empty: its mean, the share that is right, how many."""
    confidence, right = confidence.ravel(), right.ravel()
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return {
        f"{k / BINS:.2f} to {(k + 1) / BINS:.2f}": {
            "confidence": float(confidence[place == k].mean()),
            "right": float(right[place == k].mean()),
            "count": int((place == k).sum()),
        }
        for k in range(BINS)
        if (place == k).any()
    }


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """ECE: see the module."""
    bins = reliability(confidence, right).values()
    return sum(row["count"] * abs(row["right"] - row["confidence"]) for row in bins) / max(confidence.size, 1)


def _one(p: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    found = p.argmax(1)
    given, wanted = (np.arange(p.shape[1]) == labels[:, None] for labels in (found, truth))
    return {
        "accuracy": float((found == truth).mean()),
        "macro F1": _macro(given, wanted),
        "log loss": float(-np.log(np.maximum(p[np.arange(len(p)), truth], LEAST)).mean()),
        "ECE": calibration_error(p.max(1), found == truth),
    }


def _several(p: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    given = p >= 0.5
    both = np.where(truth, p, 1 - p)
    return {
        "micro F1": float(_f1(*(np.sum(part) for part in (given & truth, given, truth)))),
        "macro F1": _macro(given, truth),
        "subset accuracy": float((given == truth).all(1).mean()),
        "log loss": float(-np.log(np.maximum(both, LEAST)).mean()),
        "ECE": calibration_error(p, truth),
    }


def _f1(hits: Any, given: Any, wanted: Any) -> Any:
    """2 hits / (given + wanted); 0 where nothing was given or wanted."""
    return 2 * hits / np.maximum(given + wanted, 1)


def _macro(given: np.ndarray, wanted: np.ndarray) -> float:
    there = (given | wanted).any(0)
    f1 = _f1((given & wanted).sum(0), given.sum(0), wanted.sum(0))
    return float(f1[there].mean()) if there.any() else 0.0


def _by_label(given: np.ndarray, wanted: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    hits, said, there = (given & wanted).sum(0), given.sum(0), wanted.sum(0)
    return {
        name: {
            "precision": float(hits[k] / max(said[k], 1)),
            "recall": float(hits[k] / max(there[k], 1)),
            "F1": float(_f1(hits[k], said[k], there[k])),
            "documents": int(there[k]),
        }
        for k, name in enumerate(names)
    }
