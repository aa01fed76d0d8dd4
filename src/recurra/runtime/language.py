"""The layers of a language model, played without torch: ids in, what the output layer reads, and log probabilities out.

A row's bits depend on that row alone: all of a text at once, in pieces or token by token, it gets the same numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recurra.errors import ModelFileError
from recurra.runtime.layers import Linear, Recurrent, log_softmax
from recurra.runtime.weights import under

Arrays = dict[str, np.ndarray]


class Network:
    """The layers of tasks/generate.py's export. Raises ModelFileError, KeyError or ValueError where they are not such."""

    def __init__(self, layers: Sequence[Mapping[str, Any]], weights: Mapping[str, np.ndarray]) -> None:
        first, *core, last = layers
        self.embedding = np.ascontiguousarray(weights[f"{first['name']}.weight"], np.float32)
        self.vocabulary, width = self.embedding.shape
        self._core: list[Recurrent] = []
        for layer in core:
            self._core.append(Recurrent(layer["kind"], under(weights, layer["name"]), layers=layer["layers"]))
            if self._core[-1].inputs != width:
                raise ModelFileError(f"{layer['name']} has {self._core[-1].inputs} inputs after a layer of {width}")
            width = self._core[-1].hidden
        self.width = width
        self.softmax = _adaptive(last, weights) if last["kind"] == "adaptive" else _full(last, weights, self.embedding)
        if (self.softmax.inputs, self.softmax.outputs) != (width, self.vocabulary):
            got, want = (self.softmax.inputs, self.softmax.outputs), (width, self.vocabulary)
            raise ModelFileError(f"the output layer maps {got[0]} to {got[1]}, but this model's {want[0]} to {want[1]}")

    def start(self, rows: int) -> Arrays:
        """The state before the first token: "core.<layer>.<name>" [rows, layers, hidden], zeros."""
        arrays: Arrays = {}
        for k, layer in enumerate(self._core):
            for name, array in zip(layer.state_names, layer.start(rows), strict=True):
                arrays[f"core.{k}.{name}"] = np.ascontiguousarray(np.moveaxis(array, 0, 1))
        return arrays

    def read(self, state: Mapping[str, np.ndarray], ids: np.ndarray) -> tuple[np.ndarray, Arrays]:
        """ids [rows, T] after `state` -> outputs [rows, T, width], and the arrays of the state after them."""
        x = self.embedding[ids]
        new: Arrays = {}
        for k, layer in enumerate(self._core):
            names = [f"core.{k}.{name}" for name in layer.state_names]
            before = tuple(np.ascontiguousarray(np.moveaxis(state[name], 1, 0)) for name in names)
            x, after = layer(x, before)
            for name, array in zip(names, after, strict=True):
                new[name] = np.ascontiguousarray(np.moveaxis(array, 0, 1))
        return x, new

    def output(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """What the output layer reads of a state: the top layer's h, [rows, width]."""
        return state[f"core.{len(self._core) - 1}.h"][:, -1]

    def log_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """outputs [..., width] -> log p of each token [..., vocabulary], float32, in nats."""
        return self.softmax(outputs)


class Softmax:
    """log softmax(W x + b), over all tokens."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.weight, self.bias = weight, bias
        self._linear = Linear(weight, bias)
        self.inputs, self.outputs = self._linear.inputs, self._linear.outputs

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return log_softmax(self._linear(x))


class AdaptiveSoftmax:
    """torch.nn.AdaptiveLogSoftmaxWithLoss: frequent tokens and clusters in the head, each cluster's tokens behind a projection."""

    def __init__(self, head: Linear, tails: Sequence[tuple[Linear, Linear]], cutoffs: Sequence[int]) -> None:
        self._head, self._tails, self._frequent = head, list(tails), cutoffs[0]
        self.inputs = head.inputs
        self.outputs = self._frequent + sum(tail.outputs for _, tail in self._tails)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        head = log_softmax(self._head(x))
        parts = [head[..., : self._frequent]]
        for k, (project, tail) in enumerate(self._tails):
            parts.append(log_softmax(tail(project(x))) + head[..., self._frequent + k, None])
        return np.concatenate(parts, axis=-1)


def _full(layer: Mapping[str, Any], weights: Mapping[str, np.ndarray], embedding: np.ndarray) -> Softmax:
    weight = embedding if layer["tied"] else np.ascontiguousarray(weights[f"{layer['name']}.weight"], np.float32)
    return Softmax(weight, np.ascontiguousarray(weights[f"{layer['name']}.bias"], np.float32))


def _adaptive(layer: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> AdaptiveSoftmax:
    name, cutoffs = layer["name"], layer["cutoffs"]
    head = Linear(weights[f"{name}.head.weight"], weights[f"{name}.head.bias"])
    tails = [
        (Linear(weights[f"{name}.tail.{k}.0.weight"], None), Linear(weights[f"{name}.tail.{k}.1.weight"], None))
        for k in range(len(cutoffs))
    ]
    return AdaptiveSoftmax(head, tails, cutoffs)
