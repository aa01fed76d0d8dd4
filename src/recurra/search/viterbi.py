"""Linear chains: the best sequences of tags, and what each tag and each span is worth.

    score(y) = start_{y_1} + sum_t scores_{t, y_t} + sum_t transitions_{y_t, y_{t+1}} + end_{y_T}          p(y) = e^score(y) / Z

Viterbi (1967); n best: list Viterbi (Seshadri and Sundberg, 1994); marginals: forward-backward (Rabiner, 1989); spans: constrained
forward-backward (Culotta and McCallum, 2004). Everything in float64, sentence by sentence, so that an answer depends on nothing but its
sentence. -inf forbids: no answer ever holds a forbidden tag or transition.
"""

import numpy as np

from recurra.errors import DataError, ModelFileError


class Chain:
    """transitions [K, K]: from the row's tag to the column's; start and end [K]: of the first and of the last tag."""

    def __init__(self, transitions: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
        """Raises ModelFileError where the shapes don't fit, or a number is NaN or +inf."""
        self.transitions, self.start, self.end = (np.array(part, np.float64) for part in (transitions, start, end))
        self.size = len(self.start)
        if (
            self.transitions.shape != (self.size, self.size)
            or self.start.shape != self.end.shape
            or self.start.ndim != 1
        ):
            shapes = f"{self.transitions.shape}, {self.start.shape}, {self.end.shape}"
            raise ModelFileError(f"a chain has transitions [K, K], start [K] and end [K], not {shapes}")
        if not all((part < np.inf).all() for part in (self.transitions, self.start, self.end)):
            raise ModelFileError("a chain's scores must be numbers, or -inf where something is forbidden")
        self._into = np.ascontiguousarray(self.transitions.T)  # row: the tag that is entered

    def best(self, scores: np.ndarray) -> tuple[np.ndarray, float]:
        """The best tags [T] of scores [T, K], and their score; of equals the lower number. Raises DataError."""
        scores = self._checked(scores)
        back = np.zeros((len(scores), self.size), np.intp)
        at = self.start + scores[0]
        columns = np.arange(self.size)
        for t in range(1, len(scores)):
            ways = self._into + at
            back[t] = ways.argmax(1)
            at = ways[columns, back[t]] + scores[t]
        at = at + self.end
        tags = np.empty(len(scores), np.int64)
        tags[-1] = at.argmax()
        for t in range(len(scores) - 1, 0, -1):
            tags[t - 1] = back[t, tags[t]]
        return tags, float(at[tags[-1]])

    def n_best(self, scores: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The n best sequences [n, T] of scores [T, K] and their scores [n], best first; fewer where there are no more. Exact.

        Raises DataError.
        """
        scores = self._checked(scores)
        if n < 1:
            raise DataError(f"n must be at least 1, not {n}")
        at = (self.start + scores[0])[:, None]  # [K, ways to come here], best first
        back: list[np.ndarray] = []  # of each: the tag before, and which of the ways to come there
        for step in scores[1:]:
            ways = (self._into[:, :, None] + at).reshape(self.size, -1)
            order = np.argsort(-ways, axis=1, kind="stable")[:, :n]
            back.append(np.stack(np.divmod(order, at.shape[1])))
            at = np.take_along_axis(ways, order, 1) + step[:, None]
        final = (at + self.end[:, None]).ravel()
        order = np.argsort(-final, kind="stable")[:n]
        order = order[final[order] > -np.inf]
        tag, way = np.divmod(order, at.shape[1])
        paths = np.empty((len(order), len(scores)), np.int64)
        paths[:, -1] = tag
        for t in range(len(scores) - 2, -1, -1):
            tag, way = back[t][:, tag, way]
            paths[:, t] = tag
        return paths, final[order]

    def marginals(self, scores: np.ndarray) -> np.ndarray:
        """p(y_t = k) of scores [T, K]: [T, K], each row sums to 1. Raises DataError."""
        forward, backward, whole = self._both(self._checked(scores))
        return np.exp(forward + backward - whole)

    def log_z(self, scores: np.ndarray) -> float:
        """log Z of scores [T, K]: what a sequence's score must be lessened by, to be the log of its probability. Raises DataError."""
        return self._both(self._checked(scores))[2]

    def spans(self, scores: np.ndarray, tags: np.ndarray, spans: list[tuple[int, int, np.ndarray]]) -> np.ndarray:
        """The probability of each span, float64 [spans]: that the words first to end - 1 have the tags that `tags` [T] gives them, and
        that the word after, if there is one, has a tag that goes with it: span = (first, end, after [K] of truth values).

        Raises DataError.
        """
        scores = self._checked(scores)
        forward, backward, whole = self._both(scores)
        found = np.zeros(len(spans))
        for i, (first, end, after) in enumerate(spans):
            inside = forward[first, tags[first]]
            for t in range(first + 1, end):
                inside = inside + self.transitions[tags[t - 1], tags[t]] + scores[t, tags[t]]
            if end == len(scores):
                rest = self.end[tags[end - 1]]
            else:
                ways = self.transitions[tags[end - 1]] + scores[end] + backward[end]
                rest = _sum(np.where(after, ways, -np.inf)[None])[0]
            found[i] = np.exp(min(inside + rest - whole, 0.0))
        return found

    def online(self, scores: np.ndarray, ends: bool) -> tuple[np.ndarray, np.ndarray]:
        """Tags [T] of scores [T, K], each decided when its scores are there and never changed, and how probable each is then, [T].

        ends: that the last is the last is known when it is decided. Raises DataError.
        """
        scores = self._checked(scores)
        tags, sure = np.empty(len(scores), np.int64), np.empty(len(scores))
        at, previous = None, None
        for t, step in enumerate(scores):
            at, previous, sure[t] = self.decide(at, previous, step, last=ends and t == len(scores) - 1)
            tags[t] = previous
        return tags, sure

    def decide(
        self, at: np.ndarray | None, previous: int | None, scores: np.ndarray, *, last: bool
    ) -> tuple[np.ndarray, int, float]:
        """One step of `online`: the filter, log p(y_t = k | scores up to t) [K], the tag, and how probable it is, from the filter and
        the tag of the step before (None: this is the first) and the scores [K] of this one.

        The tag is the most probable of those that may follow the one before, of which there must be one. last: it ends the sentence.
        """
        now = self.start + scores if at is None else _sum(self._into + at) + scores
        now = shown = now - _sum(now[None])[0]
        if last:
            shown = now + self.end
            shown = shown - _sum(shown[None])[0]
        allowed = (self.start if previous is None else self.transitions[previous]) > -np.inf
        tag = int(np.where(allowed, shown, -np.inf).argmax())
        return now, tag, float(np.exp(shown[tag]))

    def _checked(self, scores: np.ndarray) -> np.ndarray:
        scores = np.asarray(scores, np.float64)
        if scores.ndim != 2 or scores.shape[1] != self.size or not len(scores):
            raise DataError(f"scores must be [T, {self.size}] with T >= 1, not {list(scores.shape)}")
        if not np.isfinite(scores).all():
            raise DataError("the scores of a sentence are not finite: the model's weights are broken")
        return scores

    def _both(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """log of the sums over all beginnings and over all ends, [T, K] each, and log Z."""
        forward, backward = np.empty_like(scores), np.empty_like(scores)
        forward[0], backward[-1] = self.start + scores[0], self.end
        for t in range(1, len(scores)):
            forward[t] = _sum(self._into + forward[t - 1]) + scores[t]
        for t in range(len(scores) - 2, -1, -1):
            backward[t] = _sum(self.transitions + (scores[t + 1] + backward[t + 1]))
        return forward, backward, float(_sum((forward[-1] + self.end)[None])[0])


def _sum(x: np.ndarray) -> np.ndarray:
    """log sum e^x along the last axis; of -inf alone: -inf."""
    top = x.max(-1)
    safe = np.where(top > -np.inf, top, 0.0)
    with np.errstate(divide="ignore"):
        return safe + np.log(np.exp(x - safe[..., None]).sum(-1))
