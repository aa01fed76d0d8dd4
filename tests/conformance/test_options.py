"""Our options of the layers beside their equations, written here a second time, row by row and step by step."""

import numpy as np
import pytest
import torch

from recurra import nn
from recurra.kernels import masks
from tolerance import DROP_IN, error
from zoo import KERNEL_ROWS, LAYER_ROWS, by

KERNELS = [row for row in KERNEL_ROWS if row.options is None]
RATES = {"recurrent_dropout": 0.4, "zoneout_h": 0.3}
LAYERS = [
    *((row, {"layer_norm": True, **RATES}) for row in LAYER_ROWS),
    (LAYER_ROWS[2], {"peepholes": True}),
    (LAYER_ROWS[2], {"proj_size": 3, "zoneout_c": 0.2}),
    (LAYER_ROWS[2], {"proj_size": 3, "peepholes": True, "layer_norm": True, "zoneout_c": 0.2, **RATES}),
    (LAYER_ROWS[2], {"coupled": True}),
    (LAYER_ROWS[2], {"coupled": True, "peepholes": True, "proj_size": 3, "zoneout_c": 0.2, **RATES}),
    (LAYER_ROWS[2], {"coupled": True, "bias": False}),
    *((row, {"weight_drop": 0.5}) for row in LAYER_ROWS),
]


def sigma(a):
    return 1 / (1 + np.exp(-a))


def by_hand(layer, x, reset, seed):
    """One layer, one direction, in numpy: output [T, B, P] of x [T, B, I], from zeros."""
    w = {name.removesuffix("_l0"): value.detach().numpy() for name, value in layer.named_parameters()}
    steps, rows, _ = x.shape
    hidden, lstm, training = layer.hidden_size, layer.mode == "LSTM", layer.training
    width = layer.proj_size or hidden

    def normed(v, gain, bias):
        return (v - v.mean()) / np.sqrt(v.var() + 1e-5) * gain + bias

    def part(v, side):
        total = w[f"weight_{side}"] @ v
        bias = w.get(f"bias_{side}", 0.0)
        return normed(total, w[f"gain_{side}"], bias) if layer.layer_norm else total + bias

    def drawn(p, kind, t, b, units):
        row, unit = torch.tensor(b), torch.arange(units)
        return masks.dropped(p, seed, kind, t, row, unit).numpy()

    if layer.weight_drop and training:
        units = w["weight_hh"].shape[1]
        gone = np.stack([drawn(layer.weight_drop, masks.WEIGHT, 0, row, units) for row in range(len(w["weight_hh"]))])
        w["weight_hh"] = np.where(gone, 0, w["weight_hh"] / (1 - layer.weight_drop))
    y = np.zeros((steps, rows, width))
    for b in range(rows):
        h, c = np.zeros(width), np.zeros(hidden)
        seen = 1.0
        if layer.recurrent_dropout and training:
            p = layer.recurrent_dropout
            seen = np.where(drawn(p, masks.RECURRENT, 0, b, width), 0, 1 / (1 - p))
        for t in range(steps):
            if reset[b, t]:
                h, c = np.zeros(width), np.zeros(hidden)
            a, r = part(x[t, b], "ih"), part(h * seen, "hh")
            if layer.mode == "LSTM":
                blocks = np.split(a + r, 3 if layer.coupled else 4)
                i, f, g, o = (blocks[0], None, *blocks[1:]) if layer.coupled else blocks
                p_i, p_f, p_o = 0.0, 0.0, 0.0
                if layer.peepholes and layer.coupled:
                    p_i, p_o = np.split(w["weight_peephole"], 2)
                elif layer.peepholes:
                    p_i, p_f, p_o = np.split(w["weight_peephole"], 3)
                i = sigma(i + p_i * c)
                f = 1 - i if f is None else sigma(f + p_f * c)
                c_new = f * c + i * np.tanh(g)
                o = sigma(o + p_o * c_new)
                h_new = o * np.tanh(normed(c_new, w["gain_c"], w["bias_c"]) if layer.layer_norm else c_new)
                if layer.proj_size:
                    h_new = w["weight_hr"] @ h_new
            elif layer.mode == "GRU":
                (ar, az, an), (rr, rz, rn) = np.split(a, 3), np.split(r, 3)
                z = sigma(az + rz)
                h_new, c_new = (1 - z) * np.tanh(an + sigma(ar + rr) * rn) + z * h, c
            else:
                h_new, c_new = np.tanh(a + r) if layer.mode == "RNN_TANH" else np.maximum(a + r, 0), c
            old = h, c
            h, c = h_new, c_new
            if layer.zoneout_h:
                p = layer.zoneout_h
                h = (
                    np.where(drawn(p, masks.ZONEOUT_H, t, b, width), old[0], h)
                    if training
                    else p * old[0] + (1 - p) * h
                )
            if layer.zoneout_c and lstm:
                p = layer.zoneout_c
                c = (
                    np.where(drawn(p, masks.ZONEOUT_C, t, b, hidden), old[1], c)
                    if training
                    else p * old[1] + (1 - p) * c
                )
            y[t, b] = h
    return y


def scrambled(layer):
    """The layer with gains and biases of LayerNorm that are not 1 and 0."""
    with torch.no_grad():
        for value in layer.parameters():
            value.add_(torch.rand_like(value) - 0.5)
    return layer


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluated"])
@pytest.mark.parametrize(("row", "options"), LAYERS, ids=lambda v: v.name if hasattr(v, "name") else "+".join(v))
@pytest.mark.parametrize("kernel", **by(KERNELS))
def test_is_the_equations(kernel, row, options, training):
    torch.manual_seed(0)
    layer = row.ours(5, 7, dtype=torch.float64, kernel=kernel.name, **row.options, **options).train(training)
    scrambled(layer)
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    reset = torch.rand(3, 6) < 0.2
    torch.manual_seed(9)
    seed = masks.new_seed()
    torch.manual_seed(9)
    assert error(layer(x, reset=reset)[0], by_hand(layer, x.numpy(), reset.numpy(), seed)) <= DROP_IN


@pytest.mark.parametrize(("row", "options"), LAYERS, ids=lambda v: v.name if hasattr(v, "name") else "+".join(v))
@pytest.mark.parametrize("kernel", **by(KERNELS))
def test_gradients_under_fixed_masks(kernel, row, options):
    """Central differences with dropout on and two layers, which find a backward pass that draws other masks."""
    options = {"dropout": 0.5, "bidirectional": True, "dtype": torch.float64, **row.options, **options}
    layer = scrambled(row.ours(2, 4, 2, kernel=kernel.name, **options))
    names = [name for name, _ in layer.named_parameters()]

    def f(x, *weights):
        torch.manual_seed(3)
        result = torch.func.functional_call(
            layer, dict(zip(names, weights, strict=True)), (x,), {"lengths": [3, 1], "states": True}
        )
        return torch.utils._pytree.tree_leaves(result)[:2]

    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(f, (x, *layer.parameters()), fast_mode=True)


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_further_parameters_follow_torchs_and_start_as_they_should(row):
    lstm = row.name == "LSTM"
    options = {"layer_norm": True, **({"peepholes": True} if lstm else {})}
    torch.manual_seed(0)
    ours = row.ours(5, 7, 2, bidirectional=True, **row.options, **options)
    torch.manual_seed(0)
    plain = row.oracle(5, 7, 2, bidirectional=True, **row.options)
    names = list(ours.state_dict())
    assert names[: len(plain.state_dict())] == list(plain.state_dict())
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in plain.state_dict().items())
    more = ("weight_peephole", "gain_ih", "gain_hh", "gain_c", "bias_c") if lstm else ("gain_ih", "gain_hh")
    assert names[len(plain.state_dict()) :] == [
        f"{name}_l{k}{way}" for k in range(2) for way in ("", "_reverse") for name in more
    ]
    for _ in range(2):
        assert all((value == 1).all() for name, value in ours.named_parameters() if name.startswith("gain"))
        assert all((value == 0).all() for name, value in ours.named_parameters() if name.startswith("bias_c"))
        scrambled(ours).reset_parameters()
    if lstm:
        assert ours.weight_peephole_l1_reverse.abs().max() <= 7**-0.5
        assert nn.LSTM(5, 7, coupled=True, peepholes=True).weight_peephole_l0.shape == (14,)
        assert nn.LSTM(5, 7, coupled=True).weight_ih_l0.shape == (21, 5)


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_every_state_of_every_layer(row, batch_first):
    layer = row.ours(5, 7, 2, bidirectional=True, batch_first=batch_first, dtype=torch.float64, **row.options)
    x = torch.randn(4, 4, 5, dtype=torch.float64, requires_grad=True)
    output, last, states = layer(x, states=True)
    last = last if row.name == "LSTM" else (last,)
    assert len(states) == 2
    assert torch.equal(states[1].h, output)
    time_first = [[part.transpose(0, 1) if batch_first else part for part in state] for state in states]
    for k, state in enumerate(time_first):
        for part, final in zip(state, last, strict=True):
            assert part.shape == (4, 4, 14)
            assert torch.equal(part[-1, :, :7], final[2 * k])
            assert torch.equal(part[0, :, 7:], final[2 * k + 1])
    grad = torch.autograd.grad(states[0][-1].square().sum(), x)[0]
    assert (grad != 0).any()


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
@pytest.mark.parametrize("kernel", **by(KERNELS))
def test_chunks_are_the_whole_and_detach_cuts_there(kernel, row):
    layer = row.ours(
        5, 7, 2, dtype=torch.float64, kernel=kernel.name, layer_norm=True, zoneout_h=0.2, **row.options
    ).eval()
    x = torch.randn(9, 3, 5, dtype=torch.float64, requires_grad=True)
    whole, _ = layer(x)
    first, state = layer(x[:4])
    assert error(torch.cat([first, layer(x[4:], state)[0]]), whole) <= DROP_IN
    cut = tuple(part.detach() for part in state) if row.name == "LSTM" else state.detach()
    grad = torch.autograd.grad(layer(x[4:], cut)[0].sum(), x)[0]
    assert (grad[:4] == 0).all()
    assert (grad[4:] != 0).any()


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_recomputing_changes_no_number(row):
    x = torch.randn(9, 3, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for checkpoint in ("none", "gates", "every 1", "every 4", "every 100"):
        torch.manual_seed(0)
        layer = row.ours(
            5, 7, 2, bidirectional=True, dtype=torch.float64, checkpoint=checkpoint, zoneout_h=0.2, **row.options
        )
        output = layer(x, lengths=[9, 0, 5])[0]
        found.append((output, *torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])))
    for other in found[1:]:
        assert all(error(a, b) <= DROP_IN for a, b in zip(other, found[0], strict=True))


@pytest.mark.filterwarnings("ignore:a plain loop runs")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_half_precision_runs_with_and_without_options(row, dtype):
    for options in ({}, {"layer_norm": True, "recurrent_dropout": 0.2, "zoneout_h": 0.1}):
        layer = row.ours(5, 7, 2, dropout=0.2, dtype=dtype, **row.options, **options)
        x = torch.randn(6, 3, 5, dtype=dtype, requires_grad=True)
        output = layer(x)[0]
        output.sum().backward()
        assert output.dtype == dtype
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"layer_norm": True, **RATES}], ids=["plain", "regularised"])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
@pytest.mark.parametrize("kernel", **by(KERNELS))
def test_what_stands_in_the_padding_reaches_nothing(kernel, row, options):
    layer = row.ours(
        5, 7, 2, dropout=0.3, bidirectional=True, kernel=kernel.name, dtype=torch.float64, **row.options, **options
    )
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    found = []
    for garbage in (0.0, float("nan"), float("inf"), 1e300):
        filled = x.clone()
        for b, length in enumerate((6, 0, 2, 5)):
            filled[length:, b] = garbage
        torch.manual_seed(1)
        filled.requires_grad_()
        result = torch.utils._pytree.tree_leaves(layer(filled, lengths=[6, 0, 2, 5], states=True))
        found.append(
            (*result, *torch.autograd.grad(sum(v.square().sum() for v in result), [filled, *layer.parameters()]))
        )
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))
