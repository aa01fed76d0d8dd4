"""Rows of unequal length, and the batches of them: like lengths side by side, padded to the longest of each batch."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recurra.data.batch import Batch, Batches, rank
from recurra.errors import DataError


@dataclass(frozen=True)
class Rows:
    """Rows of unequal length end to end: row i is flat[offsets[i] : offsets[i + 1]].

    flat [N, ...]: ids, numbers, or letters of words; offsets int64 [R + 1].
    """

    flat: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [R]."""
        return np.diff(self.offsets)

    def digest(self) -> str:
        """SHA-256 of all of it."""
        state = hashlib.sha256(f"{self.flat.dtype.str} {self.flat.shape[1:]}".encode())
        for part in (self.offsets, self.flat):
            state.update(np.ascontiguousarray(part).data)
        return state.hexdigest()


def stored(rows: Iterable[np.ndarray]) -> Rows:
    """`rows`, each [T, ...], as they come, in a temporary file that goes when the last array on it does."""
    offsets, shape, dtype = [0], (0,), np.dtype(np.int32)
    with tempfile.TemporaryFile() as file:
        for row in rows:
            file.write(np.ascontiguousarray(row).data)
            offsets.append(offsets[-1] + len(row))
            shape, dtype = row.shape[1:], row.dtype
        file.flush()
        shape = (offsets[-1], *shape)
        flat = np.memmap(file, dtype, "r", shape=shape) if offsets[-1] else np.zeros(shape, dtype)
    return Rows(flat, np.array(offsets, np.int64))


class Buckets(Batches):
    """Whole rows, each from a fresh state; B side by side that are about as long as each other.

    rows: ids [T], or numbers [T, F] (NaN = missing), of each row.  targets: one a row, int [R] or several labels' 0 and 1
    [R, K], as an array; or one a step, int [T] of each row, as a sequence like `rows`.  characters: int [T, C] of each row.
    train: lengths are jittered and batches shuffled, by (seed, epoch); else the longest come first.  min_steps: batches an
    epoch at least (a small set is gone through again).  Raises DataError where a row is empty.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray] | Rows,
        targets: np.ndarray | Sequence[np.ndarray] | Rows,
        *,
        batch_size: int,
        train: bool,
        seed: int = 0,
        characters: Sequence[np.ndarray] | Rows | None = None,
        min_steps: int = 1,
    ) -> None:
        super().__init__()
        self.rows, self.targets, self.characters = rows, targets, characters
        self.batch_size, self.train, self.seed = batch_size, train, seed
        self.lengths = rows.lengths if isinstance(rows, Rows) else np.array([len(row) for row in rows], np.int64)
        assert len(targets) == len(self.lengths), "a target, or a row of them, for each row"
        if not len(self.lengths):
            raise DataError("there is nothing to learn from: no row is left")
        if not self.lengths.all():
            raise DataError(f"row {int(np.argmin(self.lengths)) + 1} is empty: leave it out")
        self.rounds = max(1, round(min_steps / self._batches)) if train else 1

    @property
    def _batches(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def steps(self, epoch: int) -> int:
        """Batches of an epoch: the same number in each."""
        return self.rounds * self._batches

    def __iter__(self) -> Iterator[Batch]:
        return map(self._batch, self._groups())

    def _groups(self) -> Iterator[np.ndarray]:
        """The rows of each batch, the longest first."""
        rng = np.random.default_rng((self.seed, self.epoch))
        for _ in range(self.rounds):
            # similar lengths side by side, but not the same neighbours each time
            key = self.lengths * rng.uniform(0.9, 1.1, len(self.lengths)) if self.train else self.lengths
            order = np.argsort(-key, kind="stable")
            groups = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
            if self.train:
                rng.shuffle(groups)
            for group in groups:
                group = group[np.argsort(-self.lengths[group], kind="stable")]
                yield _share(group)

    def _batch(self, group: np.ndarray) -> Batch:
        lengths = self.lengths[group]
        valid = np.arange(lengths[0]) < lengths[:, None]
        if isinstance(self.targets, np.ndarray):
            targets = self.targets[group]
            weights = np.ones((len(group), *(1 for _ in targets.shape[1:])), np.float32)
        else:
            targets, weights = _padded(self.targets, self.lengths, group), valid.astype(np.float32)
        return Batch(
            values=torch.from_numpy(_wide(_padded(self.rows, self.lengths, group))),
            lengths=torch.from_numpy(lengths),
            targets=torch.from_numpy(_wide(targets)),
            weights=torch.from_numpy(weights),
            characters=None
            if self.characters is None
            else torch.from_numpy(_wide(_padded(self.characters, self.lengths, group))),
        )


class PairBuckets(Batches):
    """Pairs of rows, a source and a target; as many side by side as take up at most `tokens` places, padding included.

    sources, targets: ids [S] and [T] of each pair, END last.  copies: ids [S] of each source, as a pointer writes them.
    Sources of about the same length are together, and among them targets. A pair of more than `tokens` places is a batch of its own.
    train, seed, min_steps: as in Buckets; the number of batches may differ from epoch to epoch. Raises DataError where there is no pair.
    """

    def __init__(
        self,
        sources: Rows,
        targets: Rows,
        *,
        tokens: int,
        train: bool,
        seed: int = 0,
        copies: Rows | None = None,
        min_steps: int = 1,
    ) -> None:
        super().__init__()
        self.sources, self.targets, self.copies = sources, targets, copies
        self.tokens, self.train, self.seed = tokens, train, seed
        assert len(sources) == len(targets), "a target for each source"
        self.lengths = np.stack([sources.lengths, targets.lengths], axis=1)
        if not len(self.lengths):
            raise DataError("there is nothing to learn from: no pair is left")
        self.rounds = max(1, round(min_steps / len(self._cut(self.lengths[:, 0])))) if train else 1

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        return len(self._groups(epoch))

    def __iter__(self) -> Iterator[Batch]:
        return map(self._batch, self._groups(self.epoch))

    def _groups(self, epoch: int) -> list[np.ndarray]:
        """The pairs of each batch, the longest source first."""
        rng = np.random.default_rng((self.seed, epoch))
        found: list[np.ndarray] = []
        for _ in range(self.rounds):
            sources = self.lengths[:, 0]
            groups = self._cut(np.rint(sources * rng.uniform(0.9, 1.1, len(sources))) if self.train else sources)
            if self.train:
                rng.shuffle(groups)
            found += groups
        return found

    def _cut(self, key: np.ndarray) -> list[np.ndarray]:
        """All pairs, by falling key [N] and among equal ones by falling length of the target, in groups of at most `tokens` places."""
        order = np.lexsort((-self.lengths[:, 1], -key))
        groups, start = [], 0
        while start < len(order):
            most = max(1, self.tokens // int(self.lengths[order[start]].sum()))
            group = order[start : start + most]
            longest = np.maximum.accumulate(self.lengths[group]).sum(1)  # places of a pair, were it the last
            group = group[: max(1, np.count_nonzero(longest * np.arange(1, len(group) + 1) <= self.tokens))]
            start += len(group)
            groups.append(group[np.argsort(-self.lengths[group, 0], kind="stable")])
        return groups

    def _batch(self, group: np.ndarray) -> Batch:
        group = _share(group)
        lengths, wanted = self.lengths[:, 0], self.lengths[:, 1]
        targets = _padded(self.targets, wanted, group)
        return Batch(
            values=torch.from_numpy(_wide(_padded(self.sources, lengths, group))),
            lengths=torch.from_numpy(lengths[group]),
            targets=torch.from_numpy(_wide(targets)),
            weights=torch.from_numpy((np.arange(targets.shape[1]) < wanted[group][:, None]).astype(np.float32)),
            copies=None if self.copies is None else torch.from_numpy(_wide(_padded(self.copies, lengths, group))),
        )


def _share(group: np.ndarray) -> np.ndarray:
    """What this process takes of a batch: each takes some of every batch, so that all make the same number of steps."""
    place, ranks = rank()
    return group[place::ranks] if len(group) >= ranks else group[[place % len(group)]]


def _padded(rows: Sequence[np.ndarray] | Rows, lengths: np.ndarray, group: np.ndarray) -> np.ndarray:
    """[B, T, ...] of the rows `group`, whose lengths are lengths[group], 0 behind the end of each."""
    first = rows[int(group[0])]
    out = np.zeros((len(group), int(lengths[group].max()), *first.shape[1:]), first.dtype)
    for j, i in enumerate(group.tolist()):
        out[j, : lengths[i]] = rows[i]
    return out


def _wide(values: np.ndarray) -> np.ndarray:
    """int64 or float32."""
    return values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
