"""Texts drawn token by token, all sentences side by side."""

from collections.abc import Callable, Sequence

import numpy as np

from recurra.search.beam import Advance, Hypothesis, Task
from recurra.search.sampling import Sampling, draw, probabilities


def sample(
    advance: Advance,
    tasks: Sequence[Task],
    sampling: Sampling,
    seeds: Sequence[int],
    *,
    start: int,
    ends: Callable[[tuple[int, ...]], bool],
    banned: Sequence[int] = (),
) -> list[Hypothesis]:
    """A text for each task, drawn from its own seed: neighbours change nothing. The rest as in `beam.search`; phrases are not looked at."""
    found = [Hypothesis((), 0.0, False)] * len(tasks)
    open_ = list(range(len(tasks)))
    rows = np.arange(len(tasks))
    seen: list[list[np.ndarray]] = [[] for _ in tasks]
    while open_:
        ids = np.array([found[i].ids[-1] if found[i].ids else start for i in open_], np.int64)
        logp, weights = advance(rows, ids)
        logp = np.array(logp, np.float64)
        logp[:, np.asarray(banned, np.int64)] = -np.inf
        left: list[int] = []
        for row, i in enumerate(open_):
            before, task = found[i], tasks[i]
            n = len(before.ids)
            if n < len(task.prefix):
                token = task.prefix[n]
            else:
                token = draw(probabilities(logp[row], sampling, np.array(before.ids, np.int64)), seeds[i], n)
            nats = -float(logp[row, token])
            seen[i] += [] if weights is None else [weights[row, : task.positions]]
            all_ids, total = (*before.ids, token), before.logp - nats
            found[i] = Hypothesis(all_ids, total, ends(all_ids), total, (*before.nats, nats))
            if not found[i].ended and len(all_ids) < task.most:
                left.append(row)
        rows, open_ = np.array(left, np.int64), [open_[row] for row in left]
    return [
        Hypothesis(h.ids, h.logp, h.ended, h.score, h.nats, np.stack(w) if w else None)
        for h, w in zip(found, seen, strict=True)
    ]
