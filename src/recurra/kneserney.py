"""Interpolated Kneser-Ney n-grams with modified discounts: the floor that a language model must beat.

    P(w | c) = max(n(c w) - D(n(c w)), 0) / n(c .)  +  (sum over v of D(n(c v))) / n(c .)  P(w | c without its first token)

n counts occurrences at the highest order and, below, how many different tokens come before; the lowest order falls back on 1 / V. The
discounts D(1), D(2), D(3 and more) follow from the counts of counts of their order (Chen and Goodman 1999).

An n-gram is the number that it has among those of its length, and is looked up as (number of its first n - 1 tokens, last token), so a
table is two sorted arrays whatever n is. The text is one stream: a context goes back over the ends of lines.
"""

from dataclasses import dataclass

import numpy as np

from recurra.errors import DataError


@dataclass(frozen=True)
class _Order:
    """The n-grams of one length. keys [N]: (first n - 1) * V + last, ascending; counts [N]; total and spare [contexts]: n(c .) and the sum
    of discounts; discount [N]: D of each n-gram.
    """

    keys: np.ndarray
    counts: np.ndarray
    discount: np.ndarray
    total: np.ndarray
    spare: np.ndarray


class KneserNey:
    """The model of a text. ids [T]: its tokens, from 0 to vocabulary - 1. Raises DataError for an empty text or an order below 1."""

    def __init__(self, ids: np.ndarray, vocabulary: int, order: int = 5) -> None:
        ids = np.asarray(ids, np.int64)
        if not len(ids) or order < 1:
            raise DataError(f"n-grams need a text and an order from 1 on, not {len(ids)} tokens and order {order}")
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise DataError(f"the ids must lie below the vocabulary of {vocabulary}, not reach {int(ids.max())}")
        self.vocabulary, self.order = vocabulary, order
        number = np.zeros(len(ids) + 1, np.int64)  # of the n-gram that begins at each place; n = 0: there is one
        shorter, contexts = number, 1
        found: list[tuple[np.ndarray, np.ndarray, int]] = []
        for n in range(1, min(order, len(ids)) + 1):
            keys, first, number, counts = np.unique(
                number[: len(ids) - n + 1] * vocabulary + ids[n - 1 :],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            if found:  # the order below counts the different tokens before: one for each n-gram that ends in it
                below, _, before = found[-1]
                found[-1] = below, np.bincount(shorter[first + 1], minlength=len(below)), before
            found.append((keys, counts, contexts))
            shorter, contexts = number, len(keys)
        self._orders = [_order(keys, counts, before, vocabulary) for keys, counts, before in found]

    def log_probabilities(self, ids: np.ndarray) -> np.ndarray:
        """ids [T] of any text -> log P of each token after those before it, in nats, float64 [T]. Raises DataError for a foreign id."""
        ids = np.asarray(ids, np.int64)
        if len(ids) and (ids.min() < 0 or ids.max() >= self.vocabulary):
            raise DataError(f"the ids must lie below the vocabulary of {self.vocabulary}")
        p = np.full(len(ids), 1.0 / self.vocabulary)
        context = np.zeros(
            len(ids), np.int64
        )  # number of the n - 1 tokens before each place; -1: never seen, or before the text
        numbers: list[np.ndarray] = []
        for n, order in enumerate(self._orders, start=1):
            if n > 1:  # the number of the (n-1)-gram that ended one place before
                context = np.concatenate([[-1], numbers[-1][:-1]]) if len(ids) else context
            number = np.full(len(ids), -1)
            seen = context >= 0
            key = context[seen] * self.vocabulary + ids[seen]
            at = np.minimum(np.searchsorted(order.keys, key), len(order.keys) - 1)
            hit = order.keys[at] == key
            number[seen] = np.where(hit, at, -1)
            numbers.append(number)
            total = order.total[context[seen]]
            some = total > 0  # a context at the text's very end has nothing after it
            kept = np.where(hit, order.counts[at] - order.discount[at], 0.0)
            here = np.flatnonzero(seen)[some]
            p[here] = (kept[some] + order.spare[context[here]] * p[here]) / total[some]
        return np.log(p)


def _order(keys: np.ndarray, counts: np.ndarray, contexts: int, vocabulary: int) -> _Order:
    discounts = np.concatenate([[0.0], _discounts(counts)])
    discount = discounts[np.minimum(counts, 3)]
    context = keys // vocabulary
    return _Order(
        keys,
        counts.astype(np.int32),
        discount.astype(np.float32),
        np.bincount(context, weights=counts, minlength=contexts),
        np.bincount(context, weights=discount.astype(np.float32), minlength=contexts),
    )


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D(1), D(2), D(3 and more), each between 0 and its count; where the text is too short to estimate them, Ney's single one, or 0.5."""
    n1, n2, n3, n4 = (float((counts == k).sum()) for k in (1, 2, 3, 4))
    single = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    modified = [
        k - (k + 1) * single * above / below if above and below else single
        for k, below, above in ((1, n1, n2), (2, n2, n3), (3, n3, n4))
    ]
    return np.array([d if 0 < d < k else single for k, d in enumerate(modified, start=1)])
