"""recurra.nn's layers against torch.nn's, and what torch's can't do against what it should mean."""

import copy
import pickle

import pytest
import torch

from tolerance import DROP_IN, error
from zoo import KERNEL_ROWS, LAYER_ROWS, by

SIZES = [(1, 1, 1), (5, 7, 2), (7, 63, 3)]  # input, hidden, layers


def pair(row, size, **options):
    """Ours and torch's, made from the same seed, in float64."""
    options = {"dtype": torch.float64, **row.options, **options}
    torch.manual_seed(0)
    ours = row.ours(*size, **options)
    torch.manual_seed(0)
    options.pop("kernel", None)
    return ours, row.oracle(*size, **options)


def states(layer, rows):
    """An initial state that is nowhere zero, as the layer takes it."""
    shape = (layer.num_layers * (2 if layer.bidirectional else 1), rows, layer.hidden_size)
    parts = [torch.randn(shape, dtype=torch.float64) for _ in range(2 if layer.mode == "LSTM" else 1)]
    return tuple(parts) if len(parts) > 1 else parts[0]


def tensors(result):
    """output, h_n and, of an LSTM, c_n."""
    output, state = result
    return [output, *(state if isinstance(state, tuple) else (state,))]


def everything(layer, x, hx, **options):
    """Outputs, final states and every gradient, by name."""
    x = x.clone().requires_grad_()
    hx = tuple(part.clone().requires_grad_() for part in (hx if isinstance(hx, tuple) else (hx,)))
    result = tensors(layer(x, hx if len(hx) > 1 else hx[0], **options))
    g = torch.Generator().manual_seed(1)
    loss = sum((v * torch.randn(v.shape, generator=g, dtype=v.dtype)).sum() for v in result)
    named = {"x": x, **{f"hx {i}": part for i, part in enumerate(hx)}, **dict(layer.named_parameters())}
    grads = torch.autograd.grad(loss, list(named.values()))
    return {f"result {i}": v for i, v in enumerate(result)} | {
        f"gradient of {n}": v for n, v in zip(named, grads, strict=True)
    }


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_same_weights_shapes_numbers_and_gradients_as_torch(row, size, bias, bidirectional):
    ours, oracle = pair(row, size, bias=bias, bidirectional=bidirectional, batch_first=True)
    assert list(ours.state_dict()) == list(oracle.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), oracle.state_dict().values(), strict=True))
    x = torch.randn(3, 7, size[0], dtype=torch.float64)
    hx = states(ours, 3)
    got, want = everything(ours, x, hx), everything(oracle, x, hx)
    assert not {n: e for n in want if not (e := error(got[n], want[n])) <= DROP_IN}
    assert ours(x)[0].stride() == oracle(x)[0].stride()


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_unbatched_time_first_and_copies(row):
    ours, oracle = pair(row, (5, 7, 2), bidirectional=True)
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    for layer in (ours, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        for value in (x, x[:, 0]):
            for a, b in zip(tensors(layer(value)), tensors(oracle(value)), strict=True):
                assert a.shape == b.shape
                assert error(a, b) <= DROP_IN


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.lengths and row.reset]))
def test_ragged_rows_are_their_own_runs_both_ways(kernel, row):
    ours, oracle = pair(row, (5, 7, 2), bidirectional=True, batch_first=True, kernel=kernel.name)
    lengths = torch.tensor([7, 1, 4])
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    hx = states(ours, 3)
    for b, length in enumerate(lengths.tolist()):
        x[b, length:] = float("nan")
    got = everything(ours, x, hx, lengths=lengths)
    want: dict[str, list] = {}
    for b, length in enumerate(lengths.tolist()):
        one = tuple(part[:, b : b + 1] for part in hx) if isinstance(hx, tuple) else hx[:, b : b + 1]
        alone = tensors(oracle(x[b : b + 1, :length], one))
        want.setdefault("result 0", []).append(torch.nn.functional.pad(alone[0], (0, 0, 0, 7 - length)))
        for i, part in enumerate(alone[1:], 1):
            want.setdefault(f"result {i}", []).append(part)
    for name, parts in want.items():
        assert error(got[name], torch.cat(parts, 0 if name == "result 0" else 1)) <= DROP_IN
    assert not any(value.isnan().any() for value in got.values()), "NaN of the padding leaked"


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_resets_are_physically_split_sequences_both_ways(row):
    ours, oracle = pair(row, (5, 7, 1), bidirectional=True, batch_first=True)
    x = torch.randn(1, 9, 5, dtype=torch.float64)
    reset = torch.zeros(1, 9, dtype=torch.bool)
    reset[0, [3, 4]] = True
    got = ours(x, reset=reset)[0]
    want = torch.cat([oracle(part)[0] for part in (x[:, :3], x[:, 3:4], x[:, 4:])], 1)
    assert error(got, want) <= DROP_IN
    # with the last two frames padding, and a cut at the end of the row that cuts nothing
    reset[0, 7] = True
    got = ours(x, reset=reset, lengths=[7])[0][:, :7]
    want = torch.cat([oracle(part)[0] for part in (x[:, :3], x[:, 3:4], x[:, 4:7])], 1)
    assert error(got, want) <= DROP_IN


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_a_reversed_run_is_the_backward_half(row):
    both, _ = pair(row, (5, 7, 1), bidirectional=True)
    back, _ = pair(row, (5, 7, 1))
    with torch.no_grad():
        for name, value in back.named_parameters():
            value.copy_(getattr(both, f"{name}_reverse"))
    x = torch.randn(9, 2, 5, dtype=torch.float64)
    assert error(both(x)[0][..., 7:], back(x.flip(0))[0].flip(0)) <= DROP_IN


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_dropout_is_torchs_own_between_the_layers_only(row):
    ours, oracle = pair(row, (5, 7, 3), dropout=0.4)
    x = torch.randn(9, 2, 5, dtype=torch.float64)
    torch.manual_seed(5)
    got = ours(x)[0]
    torch.manual_seed(5)
    assert error(got, oracle(x)[0]) <= DROP_IN
    assert not torch.equal(got, ours(x)[0])
    assert torch.equal(ours.eval()(x)[0], ours(x)[0])


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_tied_and_frozen_weights_and_two_backward_passes(row):
    ours, oracle = pair(row, (5, 7, 1), bidirectional=True)
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    for layer in (ours, oracle):
        layer.bias_ih_l0_reverse = layer.bias_ih_l0
        layer.weight_hh_l0.requires_grad_(False)
        loss = layer(x)[0].square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
    for name, value in oracle.named_parameters():
        grad = ours.get_parameter(name).grad
        assert (grad is None) == (value.grad is None)
        assert value.grad is None or error(grad, value.grad) <= DROP_IN
