"""recurra.nn's layers against torch.nn's, and what torch's can't do against what it should mean."""

import copy
import pickle

import pytest
import torch

from recurra.kernels import masks
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


def weighted(values):
    """A sum of all values, each with a weight of its own."""
    g = torch.Generator().manual_seed(1)
    return sum((v * torch.randn(v.shape, generator=g, dtype=v.dtype)).sum() for v in values)


def everything(layer, x, hx, **options):
    """Outputs, final states and every gradient, by name."""
    x = x.clone().requires_grad_()
    hx = tuple(part.clone().requires_grad_() for part in (hx if isinstance(hx, tuple) else (hx,)))
    result = tensors(layer(x, hx if len(hx) > 1 else hx[0], **options))
    loss = weighted(result)
    named = {"x": x, **{f"hx {i}": part for i, part in enumerate(hx)}, **dict(layer.named_parameters())}
    grads = torch.autograd.grad(loss, list(named.values()))
    return {f"result {i}": v for i, v in enumerate(result)} | {
        f"gradient of {n}": v for n, v in zip(named, grads, strict=True)
    }


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
@pytest.mark.parametrize("kernel", **by(KERNEL_ROWS))
def test_same_weights_shapes_numbers_and_gradients_as_torch(kernel, row, size, bias, bidirectional):
    ours, oracle = pair(row, size, bias=bias, bidirectional=bidirectional, batch_first=True, kernel=kernel.name)
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
    assert not any(value.isnan().any() for value in got.values()), "NaN of the padding leaked"
    clean, parts = torch.nan_to_num(x).requires_grad_(), []
    start = tuple(part.clone().requires_grad_() for part in (hx if isinstance(hx, tuple) else (hx,)))
    for b, length in enumerate(lengths.tolist()):
        one = tuple(part[:, b : b + 1] for part in start)
        alone = tensors(oracle(clean[b : b + 1, :length], one if len(one) > 1 else one[0]))
        parts.append([torch.nn.functional.pad(alone[0], (0, 0, 0, 7 - length)), *alone[1:]])
    result = [torch.cat(values, 1 if i else 0) for i, values in enumerate(zip(*parts, strict=True))]
    named = {"x": clean, **{f"hx {i}": part for i, part in enumerate(start)}, **dict(oracle.named_parameters())}
    grads = torch.autograd.grad(weighted(result), list(named.values()))
    want = {f"result {i}": v for i, v in enumerate(result)}
    want |= {f"gradient of {n}": v for n, v in zip(named, grads, strict=True)}
    assert not {n: e for n in want if not (e := error(got[n], want[n])) <= DROP_IN}


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
def test_dropout_is_torchs_between_the_layers_only(row):
    """torch's numbers come from another generator, so the mask is read off and given to torch's layers one by one."""
    ours, _ = pair(row, (5, 7, 3), dropout=0.4, bidirectional=True)
    x = torch.randn(9, 2, 5, dtype=torch.float64)
    torch.manual_seed(5)
    seed = masks.new_seed()
    want = x
    for k in range(3):
        _, oracle = pair(row, ((5, 14)[k > 0], 7, 1), bidirectional=True)
        weights = {name.replace("l0", f"l{k}"): value for name, value in oracle.named_parameters()}
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(ours.get_parameter(name))
        want = oracle(want)[0]
        if k < 2:
            want = want * masks.factors(0.4, seed, 8 * 2 * k, want)
    torch.manual_seed(5)
    got = ours(x)[0]
    assert error(got, want) <= DROP_IN
    assert not torch.equal(got, ours(x)[0])
    assert torch.equal(ours.eval()(x)[0], ours(x)[0])


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_all_dropped_is_finite(row):
    ours, oracle = pair(row, (5, 7, 2), dropout=1.0)
    x = torch.randn(9, 2, 5, dtype=torch.float64)
    assert error(ours(x)[0], oracle(x)[0]) <= DROP_IN  # both see zeros


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_autocast_gives_torchs_types(row, dtype):
    ours, oracle = row.ours(5, 7, 2, **row.options), row.oracle(5, 7, 2, **row.options)
    oracle.load_state_dict(ours.state_dict())
    x = torch.randn(6, 3, 5, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = tensors(ours(x))
        got[0].float().sum().backward()
        try:
            want = tensors(oracle(x))
        except RuntimeError as failed:  # oneDNN has a bfloat16 LSTM with gradients on some processors only
            if "primitive descriptor" not in str(failed):
                raise
            with torch.autocast("cpu", enabled=False):
                want = [value.bfloat16() for value in tensors(oracle(x.float()))]
    assert [value.dtype for value in got] == [value.dtype for value in want]
    assert all(torch.allclose(a.float(), b.float(), atol=0.03) for a, b in zip(got, want, strict=True))
    assert ours.weight_ih_l0.grad.dtype == torch.float32


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.options is None]))
def test_projection_is_torchs(kernel, bias, bidirectional):
    row = LAYER_ROWS[2]
    options = {"bias": bias, "bidirectional": bidirectional, "proj_size": 3}
    ours, oracle = pair(row, (5, 7, 2), kernel=kernel.name, **options)
    assert list(ours.state_dict()) == list(oracle.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), oracle.parameters(), strict=True))
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    parts = 4 if bidirectional else 2
    hx = tuple(torch.randn(parts, 3, width, dtype=torch.float64) for width in (3, 7))
    got, want = everything(ours, x, hx), everything(oracle, x, hx)
    assert not {n: e for n in want if not (e := error(got[n], want[n])) <= DROP_IN}


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_expanded_states_empty_batches_and_single_rows(row):
    ours, oracle = pair(row, (5, 7, 2))
    hx = states(ours, 1)
    wide = tuple(part.expand(2, 3, 7) for part in hx) if isinstance(hx, tuple) else hx.expand(2, 3, 7)
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    for a, b in zip(tensors(ours(x, wide)), tensors(oracle(x, wide)), strict=True):
        assert error(a, b) <= DROP_IN
    empty = ours(x[:, :0])
    assert [value.shape for value in tensors(empty)] == [value.shape for value in tensors(oracle(x[:, :0]))]
    empty[0].sum().backward()
    assert all((value.grad == 0).all() for value in ours.parameters())


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_functional_call_and_parametrised_weights(row):
    ours, oracle = pair(row, (5, 7, 1))
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    other = {name: torch.randn_like(value) for name, value in ours.named_parameters()}
    for a, b in zip(*(tensors(torch.func.functional_call(m, other, (x,))) for m in (ours, oracle)), strict=True):
        assert error(a, b) <= DROP_IN
    for layer in (ours, oracle):
        torch.nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
        torch.nn.utils.parametrizations.orthogonal(layer, "weight_ih_l0")
    oracle.load_state_dict(ours.state_dict())
    assert error(ours(x)[0], oracle(x)[0]) <= DROP_IN
    ours(x)[0].sum().backward()
    assert ours.parametrizations.weight_hh_l0.original1.grad is not None


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
