"""What stands before the C++ kernel: nothing that a caller hands in, or does afterwards, reads or writes another's memory."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

from recurra import nn
from recurra.errors import DataError, RecipeError
from zoo import needs_core

pytestmark = needs_core


@pytest.mark.parametrize("lengths", [[6, 3, 1], [5, 3, -7], [5, 3, 5000]])
def test_lengths_of_a_compiled_call_are_checked_when_it_runs(lengths):
    compiled = torch.compile(nn.LSTM(4, 8), backend="aot_eager", fullgraph=True)
    with pytest.raises(ValueError, match="lengths must be between 0 and 5"):
        compiled(torch.randn(5, 3, 4), lengths=torch.tensor(lengths))


@pytest.mark.parametrize("sizes", [[3, 300_000_000], [3, 3, 3], [1, 3], [4, 0]])
def test_batch_sizes_must_be_those_of_the_frames(sizes):
    with pytest.raises(DataError, match="batch_sizes must fall"):
        nn.LSTM(4, 8)(PackedSequence(torch.randn(4, 4), torch.tensor(sizes)))


def test_gradients_where_nothing_was_kept():
    layer, x = nn.LSTM(4, 8), torch.randn(5, 3, 4)
    with torch.no_grad():
        exported = torch.export.export(layer, (x,)).module()
    exported(x)[0].sum().backward()
    got = [weight.grad.clone() for weight in exported.parameters()]
    layer.zero_grad()  # the exported module has the same parameters
    layer(x)[0].sum().backward()
    assert all(torch.equal(a, b.grad) for a, b in zip(got, layer.parameters(), strict=True))


def test_lengths_and_resets_may_be_overwritten_before_backward():
    layer, x = nn.GRU(4, 8, dtype=torch.float64), torch.randn(6, 3, 4, dtype=torch.float64)
    lengths, reset = torch.tensor([6, 2, 4]), torch.rand(3, 6) < 0.4
    want = torch.autograd.grad(layer(x, lengths=lengths, reset=reset)[0].sum(), list(layer.parameters()))
    output = layer(x, lengths=lengths, reset=reset)[0]
    lengths.zero_(), reset.fill_(True)
    got = torch.autograd.grad(output.sum(), list(layer.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_saved_tensor_may_come_back_with_other_strides():
    layer, x = nn.LSTM(4, 8, dtype=torch.float64), torch.randn(6, 3, 4, dtype=torch.float64)
    want = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))

    def other_strides(tensor):
        return tensor if tensor.dim() < 2 else tensor.transpose(0, 1).contiguous().transpose(0, 1)

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, other_strides):
        output = layer(x)[0].square().sum()
    assert all(
        torch.equal(a, b) for a, b in zip(torch.autograd.grad(output, list(layer.parameters())), want, strict=True)
    )


@pytest.mark.parametrize("k", ["7", "100000", "1" + "0" * 23])
def test_a_checkpoint_further_than_the_end_is_the_end(k):
    layer, x = nn.LSTM(4, 8, dtype=torch.float64), torch.randn(6, 3, 4, dtype=torch.float64)
    want = torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))
    layer.checkpoint = f"every {k}"
    got = torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_kept_unit_is_its_old_value_whatever_the_new_one_is():
    layer = nn.RNN(4, 16, nonlinearity="relu", zoneout_h=0.5)
    x = torch.full((1, 2, 4), float("nan"))
    output = layer(x)[0]
    assert 0 < output.isnan().sum() < output.numel()


def test_a_negated_view_is_its_values():
    layer, x = nn.LSTM(4, 8), torch.randn(5, 3, 4)
    assert torch.equal(layer(torch._neg_view(x))[0], layer(-x)[0])


@pytest.mark.parametrize("option", ["coupled", "layer_norm", "peepholes"])
def test_a_switch_is_true_or_false(option):
    with pytest.raises(RecipeError, match=f"{option} must be True or False, not 'no'"):
        nn.LSTM(4, 8, **{option: "no"})


def test_a_reset_is_true_or_false():
    with pytest.raises(DataError, match="reset must be"):
        nn.LSTM(4, 8)(torch.randn(5, 3, 4), reset=torch.rand(3, 5))
    layer, x = nn.LSTM(4, 8), torch.randn(5, 1, 4)
    reset = [[False, True, False, False, True]]
    assert torch.equal(layer(x, reset=reset)[0], layer(x, reset=torch.tensor(reset))[0])
