"""State: what a network remembers of its streams, as a typed, named, portable object.

A state holds any number of streams, one a row. It is a value: `step` returns a new one, so keeping the old one is a
fork, and throwing the new one away is a peek. Its bytes are safetensors, bound to the digest of its model.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recurra.errors import StateError

FORMAT = 1


@dataclass(frozen=True)
class State:
    """arrays: name -> [rows, ...], e.g. "core.h" [rows, layers, hidden] float32, "codec.level" [rows] float64.

    digest: of the model that made it.
    """

    digest: str
    arrays: dict[str, np.ndarray]

    @property
    def rows(self) -> int:
        """How many streams it holds."""
        return len(next(iter(self.arrays.values())))

    @property
    def nbytes(self) -> int:
        """Bytes of memory of all its streams."""
        return sum(array.nbytes for array in self.arrays.values())

    def part(self, name: str) -> dict[str, np.ndarray]:
        """The arrays below `name`, e.g. part("codec")."""
        return {key.removeprefix(f"{name}."): v for key, v in self.arrays.items() if key.startswith(f"{name}.")}

    def copy(self) -> Self:
        """A fork."""
        return replace(self, arrays={name: array.copy() for name, array in self.arrays.items()})

    def take(self, rows: np.ndarray | list[int]) -> Self:
        """The streams `rows`, in that order (a row may be taken more than once)."""
        return replace(self, arrays={name: array[rows] for name, array in self.arrays.items()})

    def put(self, rows: np.ndarray | list[int], other: "State") -> Self:
        """This state with the streams `rows` replaced by those of `other`."""
        self.check(other.digest)
        new = self.copy()
        for name, array in other.arrays.items():
            new.arrays[name][rows] = array
        return new

    def append(self, other: "State") -> Self:
        """The streams of both."""
        self.check(other.digest)
        return replace(self, arrays={name: np.concatenate([a, other.arrays[name]]) for name, a in self.arrays.items()})

    def check(self, digest: str) -> None:
        """Raises StateError where it belongs to another model."""
        if self.digest != digest:
            raise StateError(
                f"this state belongs to the model {self.digest[:12]}, not to {digest[:12]}: start a new one, or load that model"
            )

    def check_like(self, other: "State") -> None:
        """Raises StateError where it is not of `other`'s model, or its arrays have other names, shapes (but for the rows)
        or types: an edited file must not reach the kernels.
        """
        self.check(other.digest)
        kinds = {name: (array.shape[1:], array.dtype) for name, array in self.arrays.items()}
        for name, array in other.arrays.items():
            if kinds.pop(name, None) != (array.shape[1:], array.dtype) or len(self.arrays[name]) != self.rows:
                raise StateError(
                    f"this state is broken at '{name}': it was edited, or written by another version; start a new one"
                )
        if kinds:
            raise StateError(
                f"this state holds '{next(iter(kinds))}', which is none of its model's arrays; start a new one"
            )

    def to_bytes(self) -> bytes:
        """As safetensors, with format number and digest; equal states give equal bytes."""
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        # one entry: safetensors writes several in random order
        return save(arrays, metadata={"recurra_state": json.dumps({"format": FORMAT, "digest": self.digest})})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_bytes` to a file, whole or not at all."""
        store(path, self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes, digest: str | None = None) -> Self:
        """Read a state; with `digest`, refuse one of another model. Raises StateError."""
        try:
            arrays = load(data)
            length = int.from_bytes(data[:8], "little")
            note = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("recurra_state")
            metadata = None if note is None else json.loads(note)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(f"these bytes are not a state ({error}): they are truncated or of another kind") from None
        if metadata is None:
            raise StateError("these bytes are safetensors, but no state of recurra")
        if metadata["format"] > FORMAT:
            raise StateError(
                f"this state has format {metadata['format']}, this recurra reads up to {FORMAT}: upgrade recurra"
            )
        state = cls(metadata["digest"], arrays)
        if digest is not None:
            state.check(digest)
        return state


def store(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, whole or not at all: beside it, synced, then renamed."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
