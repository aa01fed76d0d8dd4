"""A PackedSequence in and out: values, states and gradients are torch's, in the caller's order."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from recurra import nn
from recurra.errors import DataError
from tolerance import DROP_IN, error
from zoo import KERNEL_ROWS, LAYER_ROWS, by

LENGTHS = {"sorted": [7, 4, 4, 1], "unsorted": [1, 7, 4, 5], "equal": [7, 7, 7, 7]}
PROJECTED = pytest.param(LAYER_ROWS[2], {"proj_size": 3}, id="LSTM-projected")
ROWS = [*(pytest.param(row, {}, id=row.name) for row in LAYER_ROWS), PROJECTED]


def everything(layer, x, lengths, hx, is_sorted):
    """Padded output, states and every gradient of a packed call, with the packed output."""
    x = x.clone().requires_grad_()
    hx = None if hx is None else tuple(part.clone().requires_grad_() for part in hx)
    packed = pack_padded_sequence(x, lengths, batch_first=layer.batch_first, enforce_sorted=is_sorted)
    result, state = layer(packed, hx if hx is None or len(hx) > 1 else hx[0])
    output, _ = pad_packed_sequence(result, batch_first=layer.batch_first)
    values = [output, *(state if isinstance(state, tuple) else (state,))]
    g = torch.Generator().manual_seed(1)
    loss = sum((value * torch.randn(value.shape, generator=g, dtype=value.dtype)).sum() for value in values)
    return values, torch.autograd.grad(loss, [x, *(hx or ()), *layer.parameters()]), packed, result


@pytest.mark.parametrize("given", [True, False], ids=["hx", "no hx"])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("row", "options"), ROWS)
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.lengths]))
def test_is_torchs(kernel, row, options, lengths, given):
    options = {"bidirectional": True, "batch_first": True, "dtype": torch.float64, **row.options, **options}
    ours, oracle = row.ours(5, 7, 2, kernel=kernel.name, **options), row.oracle(5, 7, 2, **options)
    oracle.load_state_dict(ours.state_dict())
    x = torch.randn(4, 7, 5, dtype=torch.float64)
    widths = (ours.proj_size or 7, 7)[: 2 if ours.mode == "LSTM" else 1]
    hx = tuple(torch.randn(4, 4, width, dtype=torch.float64) for width in widths) if given else None
    got, grads, packed, result = everything(ours, x, LENGTHS[lengths], hx, lengths == "sorted")
    want, oracles, _, _ = everything(oracle, x, LENGTHS[lengths], hx, lengths == "sorted")
    assert all(error(a, b) <= DROP_IN for a, b in zip(got, want, strict=True))
    assert all(error(a, b) <= DROP_IN for a, b in zip(grads, oracles, strict=True))
    assert isinstance(result, PackedSequence)
    assert result.batch_sizes is packed.batch_sizes
    assert result.sorted_indices is packed.sorted_indices
    assert result.unsorted_indices is packed.unsorted_indices


@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.lengths]))
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_is_the_padded_call_with_every_option(kernel, row):
    """In evaluation, where no mask tells packed rows from padded ones."""
    torch.manual_seed(0)
    options = {"recurrent_dropout": 0.3, "zoneout_h": 0.2, "weight_drop": 0.2, "layer_norm": True}
    options |= {"peepholes": True, "zoneout_c": 0.1, "proj_size": 3} if row.name == "LSTM" else {}
    layer = row.ours(
        5, 7, 2, dropout=0.5, bidirectional=True, dtype=torch.float64, kernel=kernel.name, **row.options, **options
    ).eval()
    x, lengths = torch.randn(7, 4, 5, dtype=torch.float64), [3, 7, 1, 4]
    packed, state = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
    padded, want = layer(x, lengths=lengths)
    assert error(pad_packed_sequence(packed)[0], padded) <= DROP_IN
    for a, b in zip(state, want, strict=True):
        assert error(a, b) <= DROP_IN


def test_dropout_of_packed_frames_is_fresh_each_call_and_gone_in_evaluation():
    layer = nn.GRU(5, 7, 2, dropout=0.5)
    packed = pack_padded_sequence(torch.randn(7, 3, 5), [7, 4, 2])
    one, two = layer(packed)[0].data, layer(packed)[0].data
    assert not torch.equal(one, two)
    layer.eval()
    assert torch.equal(layer(packed)[0].data, layer(packed)[0].data)


def test_a_wrong_state_is_said_which_torch_takes_silently():
    packed = pack_padded_sequence(torch.zeros(4, 2, 5), [2, 4], enforce_sorted=False)
    with pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size \(1, 2, 7\), got \[1, 3, 7\]"):
        nn.LSTM(5, 7)(packed, (torch.zeros(1, 3, 7), torch.zeros(1, 3, 7)))
    with pytest.raises(RuntimeError, match=r"Expected hidden size \(1, 2, 7\), got \[1, 1, 7\]"):
        nn.GRU(5, 7)(packed, torch.zeros(1, 1, 7))
    with pytest.raises(RuntimeError, match=r"input.size\(-1\) must be equal to input_size. Expected 5, got 6"):
        nn.GRU(5, 7)(pack_padded_sequence(torch.zeros(4, 2, 6), [4, 2]))


@pytest.mark.parametrize(
    "wrong", [{"lengths": [4, 2]}, {"reset": torch.zeros(2, 4)}, {"states": True}], ids=lambda w: next(iter(w))
)
def test_what_a_packed_batch_has_not(wrong):
    with pytest.raises(DataError, match="pass the padded tensor"):
        nn.LSTM(5, 7)(pack_padded_sequence(torch.zeros(4, 2, 5), [4, 2]), **wrong)
