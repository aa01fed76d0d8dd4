"""PyTorch's own module tests, by its samples (`ModuleInfo` of RNN, GRU and LSTM): what torch passes on a CPU, ours pass."""

import copy
import pickle
import warnings

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

from recurra import nn
from tolerance import DROP_IN, error

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

INFOS = {
    name: next(info for info in module_db if info.module_cls is getattr(torch.nn, name))
    for name in ("RNN", "GRU", "LSTM")
}
every_class = pytest.mark.parametrize("name", INFOS)


def samples(name, training=True, dtype=torch.float64):
    """(ours, torch's with the same weights, arguments, the sample) for each of torch's samples."""
    info = INFOS[name]
    packed = {} if name == "LSTM" else {"with_packed_sequence": True}
    for sample in info.module_inputs_func(info, "cpu", dtype, True, training, **packed):
        made = sample.constructor_input
        ours = getattr(nn, name)(*made.args, **made.kwargs, dtype=dtype).train(training)
        oracle = info.module_cls(*made.args, **made.kwargs, dtype=dtype).train(training)
        oracle.load_state_dict(ours.state_dict())
        yield ours, oracle, (sample.forward_input.args, sample.forward_input.kwargs), sample


def leaves(value):
    """The tensors in a nest of tuples and packed sequences."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    return [leaf for part in value or () for leaf in leaves(part)]


@every_class
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluated"])
def test_forward(name, training):
    count = 0
    for ours, oracle, (args, kwargs), sample in samples(name, training):
        got, want = leaves(ours(*args, **kwargs)), leaves(oracle(*args, **kwargs))
        assert all(error(a, b) <= DROP_IN and a.stride() == b.stride() for a, b in zip(got, want, strict=True))
        if sample.reference_fn is not None and not isinstance(args[0], PackedSequence):
            want = leaves(sample.reference_fn(ours, *args, **kwargs))
            assert all(error(a, b) <= DROP_IN for a, b in zip(got, want, strict=True))
        count += 1
    assert count >= 16


@every_class
@pytest.mark.parametrize(
    ("check", "every"),
    [
        pytest.param(torch.autograd.gradcheck, 1, id="grad"),
        pytest.param(torch.autograd.gradgradcheck, 5, id="gradgrad of some"),
        pytest.param(torch.autograd.gradgradcheck, 1, id="gradgrad", marks=pytest.mark.slow),
    ],
)
def test_gradients(name, check, every):
    for ours, _, (args, _), _ in list(samples(name))[::every]:
        weights = dict(ours.named_parameters())
        input, *hx = args
        inputs = leaves(args)

        def f(*tensors, ours=ours, names=tuple(weights), input=input, hx=hx):
            values, x = dict(zip(names, tensors, strict=False)), tensors[len(names)]
            if isinstance(input, PackedSequence):
                x = PackedSequence(x, *input[1:])
            rest = tensors[len(names) + 1 :]
            state = [] if not hx else [rest[0] if isinstance(hx[0], torch.Tensor) else tuple(rest)]
            return tuple(leaves(torch.func.functional_call(ours, values, (x, *state))))

        tensors = [value.detach().requires_grad_() for value in (*weights.values(), *inputs)]
        assert check(f, tensors, fast_mode=True)  # as torch's suite does


@every_class
def test_batched_gradients(name):
    """As torch's test_grad asks it: the gradient of many outputs at once, by vmap."""
    for ours, _, (args, kwargs), _ in list(samples(name))[:4]:
        outputs = leaves(ours(*args, **kwargs))
        inputs = [*leaves(args), *ours.parameters()]
        vectors = [torch.randn(3, *value.shape, dtype=value.dtype) for value in outputs]
        many = torch.autograd.grad(outputs, inputs, vectors, is_grads_batched=True, retain_graph=True)
        for k in range(3):
            one = torch.autograd.grad(outputs, inputs, [vector[k] for vector in vectors], retain_graph=True)
            assert all(error(a[k], b) <= DROP_IN for a, b in zip(many, one, strict=True))


@every_class
def test_inputs_that_are_not_contiguous(name):
    for ours, _, (args, _), _ in samples(name):
        if isinstance(args[0], PackedSequence):
            continue
        apart = [torch.stack([value.detach()] * 2, -1)[..., 0].requires_grad_() for value in leaves(args)]
        state = [] if len(args) == 1 else [apart[1] if isinstance(args[1], torch.Tensor) else tuple(apart[1:])]
        got, want = leaves(ours(apart[0], *state)), leaves(ours(*args))
        grads = [
            torch.autograd.grad(sum(value.square().sum() for value in result), [*inputs, *ours.parameters()])
            for result, inputs in ((got, apart), (want, leaves(args)))
        ]
        assert all(error(a, b) <= DROP_IN for a, b in zip(got, want, strict=True))
        assert all(error(a, b) <= DROP_IN for a, b in zip(*grads, strict=True))


@every_class
def test_pickle_copies_and_repr(name):
    for ours, oracle, (args, kwargs), _ in samples(name):
        want = leaves(ours(*args, **kwargs))
        for other in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
            assert all(torch.equal(a, b) for a, b in zip(leaves(other(*args, **kwargs)), want, strict=True))
        assert repr(ours) == repr(oracle)


@every_class
def test_factory_arguments_and_device(name):
    with torch.device("meta"):
        assert all(value.is_meta for value in getattr(nn, name)(3, 5, 2).parameters())
    half = getattr(nn, name)(3, 5, 2, device="cpu", dtype=torch.bfloat16)
    assert {value.dtype for value in half.parameters()} == {torch.bfloat16}
    assert leaves(half(torch.zeros(4, 2, 3, dtype=torch.bfloat16)))[0].dtype == torch.bfloat16
    assert {value.dtype for value in half.double().parameters()} == {torch.float64}


@every_class
def test_errors(name):
    info = INFOS[name]
    for sample in info.module_error_inputs_func(info, "cpu", torch.float64, False, False):
        made, forward = sample.module_error_input.constructor_input, sample.module_error_input.forward_input
        if sample.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(sample.error_type, match=sample.error_regex):
                getattr(nn, name)(*made.args, **made.kwargs)
        else:
            layer = getattr(nn, name)(*made.args, **made.kwargs)
            with pytest.raises(sample.error_type, match=sample.error_regex):
                layer(*forward.args, **forward.kwargs)
