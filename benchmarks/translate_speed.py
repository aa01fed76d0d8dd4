"""Sentences a second of a translator: the runtime, the same model in plain torch with a loop over steps, and ONNX Runtime for the step.

    python benchmarks/translate_speed.py [--rounds 7] [--threads 1] [--results FILE]

GNMT's shape, two layers of 256, 8,001 ids, random weights (from a seed); sources of 5 to 25 random ids, 15 ids written about each. Greedy
and a beam of 5, one sentence at a time and 64 together. All write the same ids, which is checked. In turns in one process, medians.
Then tokens a second of a training step (forward, loss, backward; 64 sentences of 15 ids) in GNMT's shape and with input feeding.
ONNX Runtime (greedy and beam as the torch loop has them, the step alone exported) needs onnx and onnxruntime, and is left out without.
"""

import argparse
import importlib.util
import io
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "translate_speed.json"
VOCABULARY, WIDTH, LAYERS, WRITTEN, SENTENCES = 8001, 256, 2, 15, 64
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


def network(shape: str = "gnmt") -> Any:
    import torch

    from recurra.nn.sequence import EncoderDecoder

    torch.manual_seed(0)
    made = EncoderDecoder(VOCABULARY, WIDTH, WIDTH, LAYERS, shape=shape)
    for parameter in made.parameters():
        torch.nn.init.uniform_(parameter, -0.12, 0.12)
    return made


def sources() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(2, VOCABULARY - 1, rng.integers(5, 26)) for _ in range(SENTENCES)]


# -- the three ----------------------------------------------------------------------------------------------------------


def ours(beam: int) -> Callable[[list[np.ndarray]], list[list[int]]]:
    """The runtime and its search."""
    from recurra.runtime.sequence import EncoderDecoder
    from recurra.search import beam as beam_search
    from recurra.search.settings import Search

    player = EncoderDecoder(*network().export())
    search = Search(beam=beam, length_penalty=0.0, max_length=WRITTEN)

    def write(batch: list[np.ndarray]) -> list[list[int]]:
        read = player.encode(batch)
        rows = [player.start(read)]

        def advance(taken: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            logp, weights, rows[0] = player.step(read, rows[0].take(taken), ids)
            return logp, weights

        tasks = [beam_search.Task(WRITTEN, positions=len(one)) for one in batch]
        found = beam_search.search(advance, tasks, search, start=player.end, ends=lambda ids: ids[-1] == player.end)
        return [list(best[0].ids) for best in found]

    return write


def plain(beam: int, step: Callable[..., Any] | None = None) -> Callable[[list[np.ndarray]], list[list[int]]]:
    """torch.nn.LSTM, step by step; beams of all sentences side by side. step: another than torch's own (ONNX Runtime)."""
    import torch

    model = PlainTorch()
    advance = step or model.step

    @torch.no_grad()
    def write(batch: list[np.ndarray]) -> list[list[int]]:
        n, longest = len(batch), max(map(len, batch))
        ids = torch.zeros(n, longest, dtype=torch.long)
        for row, some in zip(ids, batch, strict=True):
            row[: len(some)] = torch.from_numpy(some)
        lengths = torch.tensor([len(some) for some in batch])
        values, keys, mask, state = model.read(ids, lengths)
        last = torch.full((n,), VOCABULARY - 1)
        logp, *state = advance(last, values, keys, mask, *state)
        scores, tokens = logp.topk(beam, dim=1)
        origin = torch.arange(n).repeat_interleave(beam)
        values, keys, mask = values[origin], keys[origin], mask[origin]
        state = [part[:, origin] for part in state]
        texts = tokens.view(-1, 1)
        for _ in range(WRITTEN - 1):
            logp, *state = advance(texts[:, -1].contiguous(), values, keys, mask, *state)
            scores, flat = (scores.view(-1, 1) + logp).view(n, -1).topk(beam, dim=1)
            taken = (flat // VOCABULARY + torch.arange(n)[:, None] * beam).flatten()
            state = [part[:, taken] for part in state]
            texts = torch.cat([texts[taken], (flat % VOCABULARY).view(-1, 1)], 1)
        return texts.view(n, beam, -1)[:, 0].tolist()

    return write


def onnx(beam: int) -> Callable[[list[np.ndarray]], list[list[int]]]:
    """The torch loop with its step in ONNX Runtime."""
    import onnxruntime
    import torch

    model = PlainTorch()
    values, keys, mask, state = model.read(torch.ones(3, 7, dtype=torch.long), torch.tensor([7, 5, 6]))
    names = ["ids", "values", "keys", "mask", "h", "c"]
    axes = {"ids": {0: "n"}, **{name: {0: "n", 1: "s"} for name in ("values", "keys", "mask")}}
    axes |= {name: {1: "n"} for name in ("h", "c", "h_out", "c_out")} | {"logp": {0: "n"}}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Stepped(model).eval(),
            (torch.full((3,), 5), values, keys, mask, *state),
            file,
            input_names=names,
            output_names=["logp", "h_out", "c_out"],
            dynamic_axes=axes,
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])

    def step(*given: Any) -> list[Any]:
        feeds = {name: part.numpy() for name, part in zip(names, given, strict=True)}
        return [torch.from_numpy(part) for part in session.run(None, feeds)]

    return plain(beam, step)


def PlainTorch() -> Any:
    """The network of `network` in modules of torch.nn alone."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, WIDTH)
            self.encoder = nn.ModuleList(
                [
                    nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True),
                    nn.LSTM(2 * WIDTH, WIDTH, batch_first=True),
                ]
            )
            self.bridge = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
            self.decoder = nn.ModuleList(
                [nn.LSTM(WIDTH, WIDTH, batch_first=True), nn.LSTM(2 * WIDTH, WIDTH, batch_first=True)]
            )
            self.key, self.query = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
            self.v = nn.Linear(WIDTH, 1, bias=False)
            self.out = nn.Linear(2 * WIDTH, WIDTH)
            self.softmax = nn.Linear(WIDTH, VOCABULARY)
            self._load()

        def _load(self) -> None:
            given = {name: value.detach() for name, value in network().named_parameters()}
            attention = "decoder.attention."
            with torch.no_grad():
                self.embedding.weight.copy_(given["encoder.embedding.weight"] * WIDTH**0.5)
                for k in range(LAYERS):
                    for part, name in (
                        (self.encoder, f"encoder.stack.layers.{k}."),
                        (self.decoder, f"decoder.layers.{k}."),
                    ):
                        for inner, value in part[k].named_parameters():
                            value.copy_(given[name + inner])
                    self.bridge[k].weight.copy_(given[f"bridge.{k}.weight"])
                    self.bridge[k].bias.copy_(given[f"bridge.{k}.bias"])
                self.key.weight.copy_(given[attention + "key.weight"])
                self.key.bias.copy_(given[attention + "b"])
                self.query.weight.copy_(given[attention + "query.weight"])
                v = given[attention + "v"]
                self.v.weight.copy_((given[attention + "g"] * v / v.norm())[None])
                self.out.weight.copy_(given["decoder.read.weight"])
                self.out.bias.copy_(given["decoder.read.bias"])
                self.softmax.weight.copy_(given["encoder.embedding.weight"])
                self.softmax.bias.copy_(given["softmax.bias"])

        @torch.no_grad()
        def read(self, ids: Any, lengths: Any) -> Any:
            packed = nn.utils.rnn.pack_padded_sequence(self.embedding(ids), lengths, True, enforce_sorted=False)
            for layer in self.encoder:
                packed, (h, _) = layer(packed)
            values, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
            mask = torch.where(torch.arange(values.shape[1]) < lengths[:, None], 0.0, -torch.inf)
            first = torch.stack([layer(h[-1]).tanh() for layer in self.bridge])
            return values, self.key(values), mask, [first, torch.zeros_like(first)]

        def step(self, ids: Any, values: Any, keys: Any, mask: Any, h: Any, c: Any) -> Any:
            top, (h0, c0) = self.decoder[0](self.embedding(ids)[:, None], (h[:1], c[:1]))
            weights = (self.v((self.query(top) + keys).tanh())[..., 0] + mask).softmax(-1)
            context = weights[:, None] @ values
            top, (h1, c1) = self.decoder[1](torch.cat([top, context], 2), (h[1:], c[1:]))
            out = self.out(torch.cat([top, context], 2)).tanh()[:, 0]
            return self.softmax(out).log_softmax(-1), torch.cat([h0, h1]), torch.cat([c0, c1])

    return Model().eval()


def Stepped(model: Any) -> Any:
    """The step as a module's forward, which is what an exporter takes."""
    from torch import nn

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> Any:
            return self.model.step(*given)

    return Step()


# -- measured -----------------------------------------------------------------------------------------------------------


def writing(beam: int, batch: int, rounds: int) -> dict[str, Any]:
    """Sentences a second of each, in turns."""
    makers: dict[str, Callable[[int], Any]] = {"recurra": ours, "torch, loop": plain}
    makers |= {"onnxruntime, step": onnx} if ONNX else {}
    given = sources()
    count = SENTENCES if batch > 1 else 8
    groups = [given[i : i + batch] for i in range(0, count, batch)]
    writers = {name: make(beam) for name, make in makers.items()}
    found = {name: [text for group in groups for text in write(group)] for name, write in writers.items()}
    for name, texts in found.items():
        assert texts == found["recurra"], f"{name} writes other ids"
    times: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(rounds):
        for name, write in writers.items():
            began = time.perf_counter()
            for group in groups:
                write(group)
            times[name].append(count / (time.perf_counter() - began))
    row: dict[str, Any] = {"beam": beam, "batch": batch}
    row |= {f"{name} sentences/s": round(statistics.median(rates), 1) for name, rates in times.items()}
    for name in list(times)[1:]:
        row[f"ratio to {name}"] = round(statistics.median(np.divide(times["recurra"], times[name])), 2)
    return row


def training(rounds: int) -> dict[str, Any]:
    """Target tokens a second of a training step, in both shapes, in turns."""
    import torch

    rng = np.random.default_rng(0)
    source, targets = (torch.from_numpy(rng.integers(2, VOCABULARY - 1, (SENTENCES, WRITTEN))) for _ in range(2))
    lengths = torch.full((SENTENCES,), WRITTEN)
    networks = {shape: network(shape).train() for shape in ("gnmt", "feeding")}

    def step(one: Any) -> None:
        total, count = one.loss(one(source, lengths, one.inputs(targets)), source, targets, lengths)
        (total / count).backward()
        one.zero_grad()

    times: dict[str, list[float]] = {shape: [] for shape in networks}
    for round_ in range(rounds + 1):
        for shape, one in networks.items():
            began = time.perf_counter()
            step(one)
            if round_:
                times[shape].append(SENTENCES * WRITTEN / (time.perf_counter() - began))
    row: dict[str, Any] = {f"{shape} tokens/s": round(statistics.median(rates)) for shape, rates in times.items()}
    return row | {"gnmt over feeding": round(statistics.median(np.divide(times["gnmt"], times["feeding"])), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    rows = []
    for beam in (1, 5):
        for batch in (1, 64):
            rows.append(writing(beam, batch, options.rounds))
            print(json.dumps(rows[-1]), flush=True)
    rows.append(training(options.rounds))
    print(json.dumps(rows[-1]), flush=True)
    options.results.write_text(
        json.dumps(
            {
                "command": f"python benchmarks/translate_speed.py --rounds {options.rounds} --threads {options.threads}",
                "date": str(date.today()),
                "machine": f"{platform.machine()}, {options.threads} thread(s), torch {torch.__version__}",
                "rows": rows,
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
