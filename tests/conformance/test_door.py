"""What stands before the C++ kernel: nothing that a caller hands in, or does afterwards, reads or writes another's memory."""

import subprocess
import sys

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

from recurra import nn
from recurra.errors import DataError, RecipeError
from tolerance import DROP_IN, error
from zoo import LAYER_ROWS, by, needs_core

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


EMPTY = """
import numpy as np, torch
from recurra import nn
from recurra.runtime.layers import Recurrent
layer = Recurrent("rnn", {"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.ones((1, 1))}, layers=1)
layer(np.zeros((0, 3, 1)), layer.start(0))
for kind in (nn.LSTM, nn.GRU, nn.RNN):
    for options in ({}, {"layer_norm": True}, {"checkpoint": "every 2"}):
        layer = kind(4, 8, **options)
        layer(torch.zeros(5, 0, 4))[0].sum().backward()
        assert all((weight.grad == 0).all() for weight in layer.parameters())
"""


def test_an_empty_batch_may_be_the_first_call():
    """No memory has been taken by then, so none may be touched."""
    subprocess.run([sys.executable, "-c", EMPTY], check=True)


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


def set_first(y):
    y[0] = 0.5


CHANGES = {
    "add": lambda y: y.add_(1),
    "relu": lambda y: y.relu_(),
    "one frame": set_first,
    "detached": lambda y: y.detach().mul_(2),
}


@pytest.mark.parametrize("options", [{}, {"batch_first": True, "num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_outputs_may_be_changed_in_place_before_backward(row, change, options):
    """As torch.nn's may (but for its float32 LSTM), any number of times; nothing is copied for it."""
    made = [kind(4, 7, **row.options, **options, dtype=torch.float64) for kind in (row.ours, row.oracle)]
    made[1].load_state_dict(made[0].state_dict())
    x, found = torch.randn(5, 3, 4, dtype=torch.float64), []
    for layer in made:
        y, state = layer(x)
        h = state[0] if isinstance(state, tuple) else state
        CHANGES[change](y)
        CHANGES[change](h)
        loss = y.square().sum() + h.square().sum()
        for _ in range(2):
            found.append(torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True))
    for a, again, b, _ in zip(*found, strict=True):
        assert torch.equal(a, again)
        assert error(a, b) <= DROP_IN


KEEPING = {
    "save_on_cpu": torch.autograd.graph.save_on_cpu,
    "the tensor itself": lambda: torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept),
    "a copy": lambda: torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda kept: kept),
}


@pytest.mark.parametrize("keep", KEEPING.values(), ids=KEEPING)
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_outputs_may_be_changed_under_hooks_that_hide_it_from_torch(row, keep):
    layer, x = row.ours(4, 7, **row.options), torch.randn(5, 3, 4)
    want = torch.autograd.grad(layer(x)[0].relu().sum(), list(layer.parameters()))
    with keep():
        y = layer(x)[0].relu_()
    again = torch.utils.checkpoint.checkpoint(lambda x: layer(x)[0].relu_(), x, use_reentrant=False)
    for changed in (y, y, again):
        got = torch.autograd.grad(changed.sum(), list(layer.parameters()), retain_graph=changed is y)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_outputs_may_be_changed_within_a_compiled_graph(row, backend):
    torch._dynamo.reset()
    layer, x = row.ours(4, 7, 2, **row.options, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)
    want = torch.autograd.grad(layer(x)[0].relu().square().sum(), list(layer.parameters()))
    compiled = torch.compile(lambda x: layer(x)[0].relu_().square().sum(), fullgraph=True, backend=backend)
    got = torch.autograd.grad(compiled(x), list(layer.parameters()))
    assert all(error(a, b) <= DROP_IN for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    "options", [{"zoneout_h": 0.3, "recurrent_dropout": 0.3}, {"checkpoint": "every 2"}, {"proj_size": 3}], ids=str
)
def test_outputs_that_were_changed_are_computed_again_to_the_bit(options):
    layer, x = nn.LSTM(4, 7, **options), torch.randn(5, 3, 4)
    found = []
    for change in (torch.relu, torch.relu_):
        torch.manual_seed(3)
        y = change(layer(x, lengths=[5, 2, 0])[0])
        found.append(torch.autograd.grad(y.square().sum(), list(layer.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_other_tensors_that_were_changed_are_an_error():
    layer, x = nn.GRU(4, 7), torch.randn(5, 3, 4)
    y = layer(x)[0].relu_()
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


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


@pytest.mark.parametrize(
    ("make", "name", "shape"),
    [
        (lambda: nn.GRU(8, 64), "bias_ih_l0", (1,)),
        (lambda: nn.LSTM(8, 64), "bias_hh_l0", (8,)),
        (lambda: nn.LSTM(8, 64, proj_size=5), "weight_hr_l0", (5, 6)),
        (lambda: nn.GRU(8, 64), "weight_ih_l0", (8, 8)),
        (lambda: nn.RNN(8, 64), "weight_hh_l0", (3, 3)),
        (lambda: nn.LSTM(8, 64, 2), "weight_ih_l1", (256, 3)),
        (lambda: nn.LSTM(8, 64, peepholes=True), "weight_peephole_l0", (3,)),
    ],
)
def test_a_weight_of_another_shape_reaches_no_address(make, name, shape):
    """Surgery that forgets one tensor: the kernel knows sizes from weight_hh alone."""
    layer = make()
    setattr(layer, name, torch.nn.Parameter(torch.randn(shape)))
    with pytest.raises(DataError, match=r"must have shape \[.*\], not \["):
        layer(torch.randn(5, 3, 8))


def test_a_hidden_size_that_is_not_the_weights():
    layer = nn.LSTM(8, 8)
    layer.hidden_size = 4
    with pytest.raises(DataError, match="must have shape"):
        layer(torch.randn(5, 3, 8))


def test_memory_that_is_gone_before_backward():
    layer, x = nn.LSTM(8, 6), torch.randn(5, 3, 8)
    y, _ = layer(x)
    total = y.sum()
    y.untyped_storage().resize_(0)
    with pytest.raises(DataError, match="between forward and backward"):
        total.backward()
    x = x.requires_grad_()
    y, _ = layer(x)
    x.data = torch.zeros(1, 1, 1)
    with pytest.raises(DataError):
        y.sum().backward()
