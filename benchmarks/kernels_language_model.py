"""A whole model: one training step of a language model with torch.nn.LSTM, and the same after `recurra.nn.convert(model)`.

Embedding, two layers of 200 or 650 with dropout (Zaremba, Sutskever and Vinyals 2014: T = 35, B = 20, state carried from chunk to chunk,
gradients clipped at 5, SGD), softmax over 10,000 words, embedding and softmax of the layer's width. Words: the Penn Treebank where
RECURRA_DATA has ptb/, else random ones as frequent as words are (Zipf). `python benchmarks/kernels.py --tables language_model`.
Then what AWD-LSTM's regularisers cost, on recurra's own task.
"""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import Bar, Contest

STEPS, ROWS, WORDS = 35, 20, 10_000
SIZES = {200: 0.2, 650: 0.5}  # width: dropout


def tokens() -> Any:
    """[T', B] word numbers, each column a piece of the text."""
    import torch

    data = os.environ.get("RECURRA_DATA")
    file = Path(data or "") / "ptb" / "ptb.train.txt.gz"
    if data and file.exists():
        words = gzip.decompress(file.read_bytes()).decode().replace("\n", " <eos> ").split()
        number = {word: i for i, word in enumerate(sorted(set(words)))}
        flat = torch.tensor([number[word] for word in words])
    else:
        torch.manual_seed(1)
        flat = torch.multinomial(1.0 / torch.arange(1, WORDS + 1), STEPS * ROWS * 40, replacement=True)
    return flat[: len(flat) // ROWS * ROWS].view(ROWS, -1).t().contiguous()


def make(name: str, width: int) -> Callable[[], Any]:
    import torch
    from torch import nn

    import recurra.nn

    class LanguageModel(nn.Module):
        def __init__(self, dropout: float) -> None:
            super().__init__()
            self.embedding = nn.Embedding(WORDS, width)
            self.lstm = nn.LSTM(width, width, 2, dropout=dropout)
            self.dropout = nn.Dropout(dropout)
            self.softmax = nn.Linear(width, WORDS)

        def forward(self, words: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            output, state = self.lstm(self.dropout(self.embedding(words)), state)
            return self.softmax(self.dropout(output)), tuple(part.detach() for part in state)

    torch.manual_seed(0)
    model = LanguageModel(SIZES[width])
    if name == "recurra":
        recurra.nn.convert(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    text = tokens()
    at: list[Any] = [0, tuple(torch.zeros(2, ROWS, width) for _ in range(2))]

    def call() -> tuple[torch.Tensor, ...]:
        start = at[0] if at[0] + STEPS < len(text) else 0
        optimiser.zero_grad()
        scores, at[1] = model(text[start : start + STEPS], at[1])
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), text[start + 1 : start + 1 + STEPS].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        at[0] = start + STEPS
        return (loss.detach(),)

    return call


AWD: dict[str, dict[str, float]] = {
    "no dropout": {},
    "weight drop": {"weight_drop": 0.5},
    "all of AWD-LSTM": {
        "weight_drop": 0.5,
        "word_dropout": 0.1,
        "input_dropout": 0.4,
        "output_dropout": 0.4,
        "alpha": 2.0,
        "beta": 1.0,
    },
}


def regularised(name: str, width: int) -> Callable[[], Any]:
    """The same step of recurra's own language model (tasks/generate.py), with the regularisers of Merity et al. (2018)."""
    import torch

    from recurra.data.batch import Batch
    from recurra.tasks.generate import Generate, LanguageModel
    from recurra.tasks.task import Core, detach

    torch.manual_seed(0)
    options: Any = AWD[name]
    core = Core(hidden=width, layers=2, dropout=0.25 if name.startswith("all") else 0.0)
    model = LanguageModel(Generate(**{"output_dropout": 0.0} | options), core, WORDS)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    text = tokens().t().contiguous()
    at: list[Any] = [0, None]

    def call() -> tuple[torch.Tensor, ...]:
        start = at[0] if at[0] + STEPS < text.shape[1] else 0
        some = text[:, start : start + STEPS + 1]
        batch = Batch(some[:, :-1], torch.full((ROWS,), STEPS), some[:, 1:], torch.ones(ROWS, STEPS))
        optimiser.zero_grad()
        output, state = model(batch, at[1])
        total, count = model.loss(output, batch)
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        at[0], at[1] = start + STEPS, detach(state)
        return (total.detach(),)

    return call


def contests() -> list[Contest]:
    facts = {"tokens_a_step": STEPS * ROWS}
    drop_in = [
        Contest(
            f"language model 2 x {width} training",
            {name: lambda name=name, width=width: make(name, width) for name in ("torch", "recurra")},
            (Bar("torch", "recurra"),),
            facts=facts,
        )
        for width in SIZES
    ]
    awd = [
        Contest(
            f"AWD-LSTM's regularisers, 2 x {width} training",
            {name: lambda name=name, width=width: regularised(name, width) for name in AWD},
            (Bar("weight drop", "no dropout", at_most=1.1), Bar("all of AWD-LSTM", "no dropout")),
            facts=facts,
        )
        for width in SIZES
    ]
    return drop_in + awd
