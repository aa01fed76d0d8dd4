"""Sequence to sequence: an encoder reads the source, a decoder writes the target and attends to what was read.

    e = sqrt(E) embedding                              numbers about 1 in size: with small ones attention is learnt late
    memory, final = encoder(source)                    direction "first": layer 0 reads both ways; "both": every layer; "forward": none
    h_0 of layer k = tanh(W_k final + b_k)             bridge "last"; "zeros": from nothing
    o, weights = decoder(inputs, memory)               nn/decoder.py, nn/attention.py
    log P      = log softmax(W o + b)                  `tied`: W is the target's embedding          Press and Wolf 2017
                 or the pointer-generator's mixture    nn/pointer.py

Ids: END = vocabulary - 1 ends a target, and a target is read from END on: inputs [END, y_1 ... y_n], targets [y_1 ... y_n, END]. Ids beyond
a vocabulary (the pointer's, words of one source alone) are read as UNKNOWN.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recurra.codec.text import UNKNOWN
from recurra.errors import RecipeError
from recurra.nn.attention import Attention, Memory
from recurra.nn.decoder import Decoded, Decoder, DecoderState
from recurra.nn.encoder import RESIDUAL, Encoder, locked
from recurra.nn.pointer import Pointer, coverage_loss
from recurra.nn.smoothed import smoothed_cross_entropy

DIRECTIONS = {"first": "first", "both": True, "forward": False}
BRIDGES = ("last", "zeros")


class EncoderDecoder(nn.Module):
    """The network of translate and summarise, over `vocabulary` target ids, END among them.

    source_vocabulary: ids of the source, END among them; None: the target's, with one embedding for both sides ("joint").
    layers: of the encoder and of the decoder. dropout: locked, see the encoder and the decoder, and on the memory. smoothing: the share
    of the loss that asks for every id alike (Szegedy et al. 2016), in training. The rest as in `Encoder`, `Attention` and `Decoder`.
    Raises RecipeError for what doesn't go together.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int,
        hidden: int,
        layers: int,
        *,
        source_vocabulary: int | None = None,
        cell: str = "lstm",
        direction: str = "first",
        shape: str = "gnmt",
        score: str = "normed",
        heads: int = 1,
        coverage: bool = False,
        bridge: str = "last",
        tied: bool = True,
        pointer: bool = False,
        wait: int | None = None,
        dropout: float = 0.0,
        weight_drop: float = 0.0,
        recurrent_dropout: float = 0.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check(source_vocabulary, direction, bridge, pointer, wait)
        self.vocabulary, self.end, self.smoothing, self.dropout = vocabulary, vocabulary - 1, smoothing, dropout
        self.joint, self.tied = source_vocabulary is None, tied
        self.encoder = Encoder(
            source_vocabulary or vocabulary,
            embedding,
            (hidden,) * layers,
            cell=cell,
            bidirectional=DIRECTIONS[direction],
            residual=True,
            input_dropout=dropout,
            dropout=dropout,
            weight_drop=weight_drop,
            recurrent_dropout=recurrent_dropout,
            scale=embedding**0.5,
        )
        memory = self.encoder.outputs
        self.bridge = nn.ModuleList(nn.Linear(memory, hidden) for _ in range(layers) if bridge == "last")
        words = self.encoder.embedding if self.joint else nn.Embedding(vocabulary, embedding)
        attention = Attention(hidden, memory, score=score, heads=heads, coverage=coverage)
        outputs = embedding if tied else hidden
        self.decoder = Decoder(
            words,
            attention,
            hidden,
            layers,
            outputs,
            cell=cell,
            shape=shape,
            wait=wait,
            dropout=dropout,
            weight_drop=weight_drop,
            recurrent_dropout=recurrent_dropout,
            scale=embedding**0.5,
        )
        self.softmax = nn.Linear(outputs, vocabulary)
        self.pointer = Pointer(attention.outputs + hidden + embedding) if pointer else None
        self._initialise()

    def _initialise(self) -> None:
        with torch.no_grad():
            for embedding in (self.encoder.embedding, self.decoder.embedding):
                nn.init.normal_(embedding.weight, std=embedding.embedding_dim**-0.5)
            self.softmax.bias.zero_()
            if self.tied:
                self.softmax.weight = self.decoder.embedding.weight
            for name, value in self.named_parameters():
                if "bias_ih" in name and self.decoder.cell == "lstm":  # remember at first: Jozefowicz et al., 2015
                    value[self.decoder.hidden : 2 * self.decoder.hidden] += 1.0

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Memory, DecoderState]:
        """source [B, S] (int64), of which `lengths` [B] ids, each 1 to S, are read -> the memory, and the decoder's first state."""
        states, last = self.encoder(_known(source, self.encoder.embedding.num_embeddings), lengths=lengths)
        memory = self.decoder.attention.read(locked(states, self.dropout, self.training), lengths)
        final = torch.cat(tuple(last[-2 if self.decoder.cell == "lstm" else -1]), 1)
        h = [layer(final).tanh() for layer in self.bridge]
        return memory, self.decoder.start(memory, h or None)

    def decode(self, inputs: Tensor, memory: Memory, state: DecoderState) -> tuple[Decoded, DecoderState]:
        """inputs [B, T] (int64), tokens of the target -> what the decoder makes of them, and the state after them."""
        return self.decoder(_known(inputs, self.vocabulary), memory, state)

    def inputs(self, targets: Tensor) -> Tensor:
        """What the decoder reads to say the ids `targets` [B, T]: END, then each but the last, [B, T]."""
        return nn.functional.pad(targets[:, :-1], (1, 0), value=self.end)

    def forward(self, source: Tensor, lengths: Tensor, inputs: Tensor, sampling: float = 0.0) -> Decoded:
        """source [B, S] and `lengths` [B] as in `encode`, inputs [B, T] -> what the decoder makes of them.

        sampling: in training, each token after the first is, with this probability, not the given one but what the network holds most
        likely there, found in a first pass over the given ones (scheduled sampling: Bengio et al. 2015; Mihaylova and Martins 2019).
        """
        memory, state = self.encode(source, lengths)
        if self.training and sampling and inputs.shape[1] > 1:
            with torch.no_grad():
                own = self.log_probabilities(self.decode(inputs, memory, state)[0], source)[:, :-1].argmax(-1)
                taken = torch.rand(own.shape, device=own.device) < sampling
                inputs = torch.cat([inputs[:, :1], torch.where(taken, own, inputs[:, 1:])], 1)
        return self.decode(inputs, memory, state)[0]

    def log_probabilities(self, decoded: Decoded, source: Tensor) -> Tensor:
        """log P of every id after every token, [B, T, V], in nats; with a pointer [B, T, N], N > V where `source` [B, S] holds more."""
        log_vocabulary = self._scores(decoded.output).log_softmax(-1)
        if self.pointer is None:
            return log_vocabulary
        return self.pointer.log_probabilities(decoded, log_vocabulary, source.unsqueeze(1))

    def _scores(self, output: Tensor) -> Tensor:
        """The output layer's scores, [..., V], in float32 at least: P before the softmax."""
        scores = self.softmax(output)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def loss(
        self, decoded: Decoded, source: Tensor, targets: Tensor, lengths: Tensor, coverage: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """(sum, count) of -log P of the ids `targets` [B, T] (int64) up to `lengths` [B], in nats; in training smoothed.

        coverage: weight of the coverage loss, nn/pointer.py. What lies behind a length is not read. Smoothing asks for every id of the
        vocabulary alike: with a pointer, of the vocabulary's part of the mixture.
        """
        valid = torch.arange(targets.shape[1], device=targets.device) < lengths.unsqueeze(1)
        row, _ = valid.nonzero(as_tuple=True)
        chosen, targets = Decoded(*(part[valid] for part in decoded)), targets[valid]
        smoothing = self.smoothing if self.training else 0.0
        if self.pointer is None:
            total = smoothed_cross_entropy(self._scores(chosen.output), targets, smoothing).sum()
        else:
            log_vocabulary = self._scores(chosen.output).log_softmax(-1)
            total = -self.pointer.log_probability(chosen, log_vocabulary, source[row], targets).sum()
            if smoothing:
                total = (1.0 - smoothing) * total - smoothing * log_vocabulary.mean(1).sum()
        if coverage:
            total = total + coverage * coverage_loss(decoded.weights, lengths)
        return total, valid.sum().to(total.dtype)

    @torch.no_grad()
    def greedy(self, source: Tensor, lengths: Tensor, longest: int) -> list[list[int]]:
        """The likeliest id, one after the other, up to END or `longest` ids: each row's, without END. Rows that ended are left out."""
        memory, state = self.encode(source, lengths)
        found: list[list[int]] = [[] for _ in source]
        rows = torch.arange(len(source), device=source.device)
        ids = torch.full_like(rows, self.end).unsqueeze(1)
        for _ in range(longest):
            decoded, state = self.decode(ids, memory, state)
            ids = self.log_probabilities(decoded, source[rows]).argmax(-1)
            going = ids.squeeze(1) != self.end
            if not going.all():
                rows, ids, memory = rows[going], ids[going], Memory(*(part[going] for part in memory))
                layers = tuple(part[:, going] for part in state.layers)
                state = DecoderState(layers, state.output[going], state.past[going], state.step)
            if not len(rows):
                break
            for row, i in zip(rows.tolist(), ids.squeeze(1).tolist(), strict=True):
                found[row].append(i)
        return found

    def export(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """The layers and weights as the runtime plays them. A matrix that two parts share is saved once, under the first's name."""
        decoder, attention = self.decoder, self.decoder.attention
        layers: list[dict[str, Any]] = [{"kind": "embedding", "name": "encoder.embedding"}]
        for k, both in enumerate(self.encoder.stack.both):
            layers.append(_recurrent(decoder.cell, f"encoder.layers.{k}", k) | {"both": both})
        layers += [{"kind": "bridge", "name": f"bridge.{k}"} for k in range(len(self.bridge))]
        layers += [] if self.joint else [{"kind": "embedding", "name": "decoder.embedding"}]
        layers.append(
            {
                "kind": "attention",
                "name": "attention",
                "score": attention.score,
                "heads": attention.heads,
                "coverage": attention.covers,
            }
        )
        for k in range(len(decoder.layers)):
            layers.append(_recurrent(decoder.cell, f"decoder.layers.{k}", k) | {"both": False})
        layers.append({"kind": "linear", "name": "decoder.read", "shape": decoder.shape, "wait": decoder.wait})
        layers.append({"kind": "linear", "name": "softmax", "tied": self.tied})
        layers += [] if self.pointer is None else [{"kind": "pointer", "name": "pointer"}]
        weights = {_saved(name): value.detach().cpu().float().numpy().copy() for name, value in self.named_parameters()}
        return layers, weights


def _recurrent(cell: str, name: str, k: int) -> dict[str, Any]:
    return {"kind": cell, "name": name, "residual": k >= RESIDUAL}


def _saved(name: str) -> str:
    """A parameter's name in the model file."""
    return name.replace("encoder.stack.", "encoder.").replace("decoder.attention.", "attention.")


def _known(ids: Tensor, vocabulary: int) -> Tensor:
    return ids.masked_fill(ids >= vocabulary, UNKNOWN)


def _check(source_vocabulary: int | None, direction: str, bridge: str, pointer: bool, wait: int | None) -> None:
    if direction not in DIRECTIONS:
        raise RecipeError(f"an encoder's direction is {', '.join(DIRECTIONS)}, not '{direction}'")
    if bridge not in BRIDGES:
        raise RecipeError(f"a bridge is {' or '.join(BRIDGES)}, not '{bridge}'")
    if pointer and source_vocabulary is not None:
        raise RecipeError(
            "a pointer copies ids, so both sides need one vocabulary: set joint = true, or pointer = false"
        )
    if wait is not None and (direction != "forward" or bridge != "zeros"):
        raise RecipeError('wait writes before the source ends: it needs direction = "forward" and bridge = "zeros"')
