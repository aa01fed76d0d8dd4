"""Running text as batches: streams side by side, chunk after chunk, the state carried from one to the next."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from recurra.codec.tokenizer import PADDING
from recurra.data.batch import Batch, Batches, rank
from recurra.errors import DataError


class Streams(Batches):
    """B streams of a text, each a stretch of it; in each batch the next `chunk` tokens of all, and as targets those that follow.

    ids: int [N].  start: the id that is read before the first one, so that each of the N is a target once.
    vary: chunks of random length, about `chunk` long and now and then half as long, by (seed, epoch), so that the gradient is
    not always cut at the same tokens; the learning rate of a step is scaled by its chunk's length over `chunk` (Merity et al. 2018).
    The last chunk is what is left.
    Raises DataError where there is no token.
    """

    def __init__(
        self,
        ids: np.ndarray,
        *,
        batch_size: int,
        chunk: int,
        seed: int = 0,
        vary: bool = False,
        start: int = PADDING,
    ) -> None:
        super().__init__()
        if not len(ids):
            raise DataError("there is no text: not one token is left")
        self.ids, self.chunk, self.seed, self.vary, self.start = ids, chunk, seed, vary, start
        # as even as can be, the longer ones first
        streams = min(batch_size, len(ids))
        self.lengths = len(ids) // streams + (np.arange(streams) < len(ids) % streams)
        self.begin = np.cumsum(self.lengths) - self.lengths

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        return len(self._borders(epoch)) - 1

    def _borders(self, epoch: int) -> list[int]:
        """Where chunks begin, and the end."""
        end = int(self.lengths[0])
        if not self.vary:
            return [*range(0, end, self.chunk), end]
        rng = np.random.default_rng((self.seed, epoch))
        borders = [0]
        while borders[-1] < end:
            mean = self.chunk if rng.random() < 0.95 else self.chunk / 2
            length = max(min(5, self.chunk), int(rng.normal(mean, 5)))
            borders.append(min(borders[-1] + length, end))
        return borders

    def __iter__(self) -> Iterator[Batch]:
        place, ranks = rank()
        begin, lengths = self.begin[place::ranks, None], self.lengths[place::ranks]
        if not len(begin):
            raise DataError(f"{len(self.begin)} streams are too few for {ranks} processes: raise batch_size")
        borders = self._borders(self.epoch)
        for t0, t1 in itertools.pairwise(borders):
            steps = np.arange(t0, t1)
            valid = steps < lengths[:, None]
            at = np.where(valid, begin + steps, 0)
            targets = np.where(valid, self.ids[at], PADDING).astype(np.int64)
            values = np.where(at > 0, self.ids[at - 1], self.start)
            yield Batch(
                values=torch.from_numpy(np.where(valid, values, PADDING).astype(np.int64)),
                lengths=torch.from_numpy(np.clip(lengths - t0, 0, t1 - t0)),
                targets=torch.from_numpy(targets),
                weights=torch.from_numpy(valid.astype(np.float32)),
                fresh=t0 == 0,
                scale=(t1 - t0) / self.chunk if self.vary else 1.0,
            )
