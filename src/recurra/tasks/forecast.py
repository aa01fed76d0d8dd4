"""Forecast: all horizons of a series from its newest state.

    h_t        = core(features of step t, h_{t-1})                      one causal state a series
    r_t        = relu(W [h_t, c_t, anchors_t, known_{t+1..t+H}])        anchors: naive answers at t (codec/scaling.py)
                                                                       c_t: with `attention`, of the newest h (nn/lookback.py)
    base_k     = sum_a softmax(gate r_t)_{k,a} anchor_{t,k,a}           the naive answers, weighed anew each step
    output_k   = base_k + (V r_t)_k                                     k = 1..H, P numbers each (codec/distribution.py)

Every step is an origin in training, and every horizon is read from the state that has seen the latest observation
(multi-horizon forking sequences: Wen et al., MQ-RNN, 2017; the anchors are the level and seasonality of Smyl's ES-RNN,
2020, as inputs). What the head learns is a correction to the naive answers, so an untrained model is already one.
"""

import math
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from recurra.codec.distribution import MIN_SPREAD, normal_quantile
from recurra.codec.series import NEAR, SeriesCodec
from recurra.config import config
from recurra.data.batch import Batch
from recurra.nn.lookback import LookBack
from recurra.nn.recurrent import GRU, LSTM, RNN
from recurra.tasks.task import Core, CoreState, Export, Task, arrays

LAYERS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
FAR = 1e4  # targets are held to this many scales: one broken value must not outweigh a table


@config
class Forecast:
    """Forecast every series of a table `horizon` steps ahead, with quantiles or a distribution."""

    horizon: int = Field(description="steps ahead", ge=1)
    output: Literal["quantiles", "mean", "gaussian", "student_t", "negative_binomial"] = Field(
        default="quantiles", description="what is forecast (negative_binomial is for counts)"
    )
    quantiles: tuple[float, ...] = Field(
        default=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        description="probabilities to forecast; 0.5 is the point forecast",
    )
    scaling: Literal["seasonal", "running", "frozen"] = Field(
        default="seasonal", description="level and scale of a series, as they move with it"
    )
    seasons: tuple[int, ...] | None = Field(
        default=None, description="lengths of the seasons in steps; none: those usual for the time step"
    )
    calendar: bool = Field(
        default=False, description="give hour, weekday, month ... of every step as inputs known ahead"
    )
    attention: int = Field(
        default=0, ge=0, description="newest states that the head attends to; 0: it reads the last one alone"
    )
    head: int = Field(default=256, ge=1, description="units of the head's hidden layer")
    balance: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="an error counts by its series' scale (0, as MASE), by its value (1, as sMAPE), or between; "
        "none: 0.5 for positive series, else 0",
    )
    skip: int | None = Field(
        default=None,
        ge=0,
        description="first steps of a series whose forecasts are not learnt from; none: the shortest season, or 4",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.quantiles or any(not 0 < q < 1 for q in self.quantiles):
            raise ValueError("every quantile must lie between 0 and 1")
        if tuple(sorted(set(self.quantiles))) != tuple(self.quantiles) or 0.5 not in self.quantiles:
            raise ValueError("quantiles must ascend and hold 0.5, the point forecast")
        if self.attention == 1:
            raise ValueError("attention to 1 state is the last one, which the head reads anyway: set 0, or at least 2")
        return self


class Forecaster(Task):
    """The network of `Forecast`, for series as `codec` gives them."""

    name = "forecast"

    def __init__(self, config: Forecast, core: Core, codec: SeriesCodec) -> None:
        super().__init__()
        self.config, self.core_config, self.codec = config, core, codec
        self.horizon, self.choices, self.outputs = codec.horizon, codec.scaling.choices, codec.parameters
        self.core = LAYERS[core.cell](
            codec.features,
            core.hidden,
            num_layers=core.layers,
            batch_first=True,
            dropout=core.dropout if core.layers > 1 else 0.0,
        )
        self.lookback = LookBack(core.hidden, config.attention) if config.attention else None
        self.read = nn.Linear((2 if self.lookback else 1) * core.hidden + codec.context, config.head)
        self.drop = nn.Dropout(core.dropout)
        self.correct = nn.Linear(config.head, self.horizon * self.outputs)
        self.gate = nn.Linear(config.head, self.horizon * self.choices)
        self.df = nn.Parameter(torch.tensor(1.0), requires_grad=config.output == "student_t")
        relative = codec.scaling.transform != "identity"
        self.balance = (0.5 if relative else 0.0) if config.balance is None else config.balance
        self.register_buffer("levels", torch.tensor(codec.levels), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        with torch.no_grad():
            self.gate.weight.zero_()
            self.gate.bias.zero_()
            self.correct.weight.zero_()
            bias = self.correct.bias.view(self.horizon, self.outputs).zero_()
            if self.config.output == "quantiles":
                bias += torch.from_numpy(normal_quantile(np.asarray(self.codec.levels))).float()
            if self.core_config.cell == "lstm":  # remember at first: Jozefowicz et al., 2015
                for k in range(self.core_config.layers):
                    forget = slice(self.core_config.hidden, 2 * self.core_config.hidden)
                    getattr(self.core, f"bias_ih_l{k}")[forget] += 1.0

    def forward(self, batch: Batch, state: CoreState | None = None) -> tuple[Tensor, CoreState]:
        """Raw head output [B, T, horizon, P] in the codec's units, and the core's state after the batch."""
        assert batch.context is not None  # data/series.py gives it, and units
        memory, state = self._remember(batch.values, state)
        anchors, known = batch.context.split([self.horizon * self.choices, self.codec.known], dim=-1)
        near = anchors.clamp(-NEAR, NEAR) * 0.25
        hidden = self.drop(torch.relu(self.read(torch.cat([memory, near, known], dim=-1))))
        raw = self.correct(hidden).unflatten(-1, (self.horizon, self.outputs))
        weights = self.gate(hidden).unflatten(-1, (self.horizon, self.choices)).softmax(-1)
        base = (anchors.unflatten(-1, (self.horizon, self.choices)) * weights).sum(-1, keepdim=True)
        if self.config.output == "quantiles":
            return raw + base, state
        return torch.cat([raw[..., :1] + base, raw[..., 1:]], dim=-1), state

    def _remember(self, values: Tensor, state: CoreState | None) -> tuple[Tensor, CoreState]:
        """What the head reads of the past, [B, T, H or 2 H], and the state: the core's, and then what is attended to."""
        if self.lookback is None:
            return self.core(values, state)
        *before, kept = state or (None, None)
        memory, after = self.core(values, tuple(before) if len(before) > 1 else before[0])
        context, kept = self.lookback(memory, kept)
        return torch.cat([memory, context], -1), (*after, kept) if isinstance(after, tuple) else (after, kept)

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of the quantile loss, squared error, or negative log-likelihood, over known targets."""
        assert batch.units is not None
        known = torch.isfinite(batch.targets) & (batch.weights > 0)
        z = torch.where(known, batch.targets, 0.0).clamp(-FAR, FAR)
        weight = torch.where(known, batch.weights, 0.0)
        count = weight.sum()
        each = self._each(output, z, batch.units)
        if self.balance and self.config.output in ("quantiles", "mean"):
            power = 2.0 * self.balance if self.config.output == "mean" else self.balance
            weight = weight * batch.units[..., 1:] ** power
        return (each * weight).sum(), count

    def _each(self, output: Tensor, z: Tensor, units: Tensor) -> Tensor:
        """The loss of each target z [B, T, h]; units [B, T, 2]: level and scale."""
        kind = self.config.output
        if kind == "quantiles":
            error = z.unsqueeze(-1) - output
            return 2.0 * torch.maximum(self.levels * error, (self.levels - 1.0) * error).mean(-1)  # type: ignore[operator]
        location = output[..., 0]
        if kind == "mean":
            return (z - location) ** 2
        second = MIN_SPREAD + nn.functional.softplus(output[..., 1])
        if kind == "gaussian":
            return 0.5 * ((z - location) / second) ** 2 + second.log()
        if kind == "student_t":
            df = self.degrees
            u = (z - location) / second
            constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * torch.log(df * math.pi)
            return second.log() - constant + (df + 1) / 2 * torch.log1p(u * u / df)
        level, scale = units[..., :1], units[..., 1:]
        counts = torch.expm1((level + scale * z).clamp(0, 30)).round()
        mean = torch.expm1((level + scale * location).clamp(1e-3, 30))
        size = 1.0 / second
        log_probability = (
            torch.lgamma(counts + size)
            - torch.lgamma(size)
            - torch.lgamma(counts + 1)
            + size * torch.log(size / (size + mean))
            + counts * torch.log(mean / (size + mean))
        )
        return -log_probability

    @property
    def degrees(self) -> Tensor:
        """Student t's degrees of freedom, above 2 so that the variance exists."""
        return 2.05 + nn.functional.softplus(self.df) * 4.0

    def export(self) -> Export:
        """The layers as the runtime plays them (runtime/forecast.py)."""
        weights = arrays(self.core, "core")
        for name in ("read", "correct", "gate"):
            weights |= arrays(getattr(self, name), name)
        if self.lookback:
            weights |= arrays(self.lookback.attention, "lookback")
        weights["df"] = self.degrees.detach().cpu().float().numpy().reshape(1)
        layers = [
            {"kind": self.core_config.cell, "name": "core", "layers": self.core_config.layers},
            {"kind": "linear", "name": "read"},
            {"kind": "linear", "name": "correct"},
            {"kind": "linear", "name": "gate"},
        ]
        if self.lookback:
            window, attention = self.lookback.window, self.lookback.attention
            layers.insert(
                1,
                {"kind": "attention", "name": "lookback", "score": attention.score, "heads": attention.heads}
                | {"coverage": attention.covers, "window": window},
            )
        return Export(layers, weights)
