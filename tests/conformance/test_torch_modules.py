"""PyTorch's own cases for RNN, GRU and LSTM (ModuleInfo, which ships with torch) under the checks that PyTorch runs on every module.

Torch's classes are rows beside ours: a check that torch does not pass is not torch's check.
"""

import copy
import io
import re

import pytest
import torch

pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest: make setup")

from torch.testing._internal.common_modules import ModuleErrorEnum, ModuleInfo, make_packed_sequence, module_db

from recurra import nn
from tolerance import DROP_IN, error

OURS = {torch.nn.RNN: nn.RNN, torch.nn.GRU: nn.GRU, torch.nn.LSTM: nn.LSTM}
TORCH = [info for info in module_db if info.module_cls in OURS]


def our_info(theirs: ModuleInfo) -> ModuleInfo:
    """Torch's description of a module, with our class in its place."""
    return ModuleInfo(
        OURS[theirs.module_cls],
        module_inputs_func=theirs.module_inputs_func,
        module_error_inputs_func=theirs.module_error_inputs_func,
        train_and_eval_differ=theirs.train_and_eval_differ,
    )


INFOS = [pytest.param(info, id=f"torch.{info.module_cls.__name__}") for info in TORCH]
INFOS += [pytest.param(our_info(info), id=f"recurra.{info.module_cls.__name__}") for info in TORCH]
MODES = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
HALVES = [torch.bfloat16, torch.float16]
pytestmark = [
    pytest.mark.filterwarnings("ignore:a plain loop runs"),  # in half precision, a projection
    pytest.mark.parametrize("info", INFOS),
    pytest.mark.filterwarnings(
        "ignore:LSTM with projections is not supported with oneDNN"
    ),  # torch's own, once a process
]


def cases(info, dtype, training=True, requires_grad=False):
    """(module, args, kwargs, reference) of every case of torch's, and of packed sequences, which torch's own list leaves out by default."""
    torch.manual_seed(0)
    found = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=requires_grad, training=training)
    for seed, case in enumerate(found):
        torch.manual_seed(seed)
        made = info.module_cls(*case.constructor_input.args, **case.constructor_input.kwargs, dtype=dtype)
        yield made.train(training), case.forward_input.args, case.forward_input.kwargs, case.reference_fn
    for both in (False, True):
        for lengths in ([5, 3], [5, 3, 3, 2, 2]):
            torch.manual_seed(both)
            made = info.module_cls(2, 3, 2, bidirectional=both, dtype=dtype).train(training)
            x = torch.randn(5, len(lengths), 2, dtype=dtype, requires_grad=requires_grad)
            yield made, (make_packed_sequence(x, torch.tensor(lengths)),), {}, None


def flat(value):
    """The tensors of an output, in order; of a PackedSequence its data."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return [value.data]
    return [tensor for part in value for tensor in flat(part)]


def replaced(value, change):
    """The same arguments with every tensor changed; a PackedSequence keeps its lengths."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return value._replace(data=change(value.data))
    return tuple(replaced(part, change) for part in value)


def same(a, b, dtype):
    limit = DROP_IN if dtype == torch.float64 else 1e-6
    return all(error(x.double(), y.double()) <= limit for x, y in zip(flat(a), flat(b), strict=True))


@MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALVES], ids=str)
def test_forward(info, dtype, training):
    for made, args, kwargs, reference in cases(info, dtype, training):
        out = made(*args, **kwargs)
        assert all(value.dtype == dtype for value in flat(out))
        assert same(made(*args, **kwargs), out, dtype), "two calls, two answers"
        if reference is not None and dtype not in HALVES:
            assert same(out, reference(made, *args, **kwargs), dtype)


@DTYPES
def test_same_numbers_gradients_and_strides_as_torch(info, dtype):
    """What the table of cases is for: every one of them, the class beside torch's, with the same seed."""
    theirs = next(t for t in TORCH if OURS[t.module_cls].__name__ == info.module_cls.__name__)
    pairs = [list(cases(one, dtype, requires_grad=True)) for one in (info, theirs)]
    for (made, args, kwargs, _), (oracle, same_args, _, _) in zip(*pairs, strict=True):
        assert same(made.state_dict().values(), oracle.state_dict().values(), dtype)
        got, want = made(*args, **kwargs), oracle(*same_args, **kwargs)
        assert [v.stride() for v in flat(got)] == [v.stride() for v in flat(want)]
        assert same(got, want, dtype)
        for layer, out, given in ((made, got, args), (oracle, want, same_args)):
            leaves = [*flat(given), *layer.parameters()]
            loss = sum((v * torch.arange(v.numel(), dtype=dtype).view_as(v).sin()).sum() for v in flat(out))
            layer.grads = torch.autograd.grad(loss, leaves)
        limit = DROP_IN if dtype == torch.float64 else 2e-6
        assert max(error(a, b) for a, b in zip(made.grads, oracle.grads, strict=True)) <= limit


@MODES
def test_constructor_honours_device_and_dtype(info, training):
    for case in info.module_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
    ):
        given = case.constructor_input
        for options in ({"dtype": torch.float64}, {"dtype": torch.bfloat16}, {"device": "meta"}):
            made = info.module_cls(*given.args, **given.kwargs, **options).train(training)
            want = {"dtype": torch.float32, "device": "cpu", **options}
            assert {(p.dtype, p.device.type) for p in made.parameters()} == {(want["dtype"], want["device"])}


@MODES
def test_shows_itself(info, training):
    for made, *_ in cases(info, torch.float32, training):
        assert re.fullmatch(rf"{info.module_cls.__name__}\(2, [23], .*num_layers=2.*\)", repr(made))
        assert str(made) == repr(made)


@MODES
@DTYPES
def test_pickle_and_copy(info, dtype, training):
    for made, args, kwargs, _ in cases(info, dtype, training):
        out = made(*args, **kwargs)
        file = io.BytesIO()
        torch.save(made, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        for twin in (loaded, copy.deepcopy(made), copy.deepcopy(loaded)):
            assert twin.training == training
            assert all(torch.equal(a, b) for a, b in zip(flat(twin(*args, **kwargs)), flat(out), strict=True))
            assert all(a is b for a, b in zip(twin.parameters(), twin._flat_weights, strict=True))


@MODES
@DTYPES
def test_non_contiguous_tensors(info, dtype, training):
    """Every argument alone, and all together, as every second element of a larger tensor of NaN: same outputs, same gradients."""

    def spread(tensor):
        wide = torch.full((*tensor.shape, 2), float("nan"), dtype=tensor.dtype)
        wide[..., 0] = tensor.detach()
        return wide[..., 0].requires_grad_(tensor.requires_grad)

    for made, args, kwargs, _ in cases(info, dtype, training, requires_grad=True):
        leaves = flat(args)
        out = made(*args, **kwargs)
        grads = torch.autograd.grad(sum(v.square().sum() for v in flat(out)), [*leaves, *made.parameters()])
        for chosen in ([leaf] for leaf in leaves) if len(leaves) > 1 else [leaves]:
            ids = {id(leaf) for leaf in chosen}
            other = replaced(args, lambda t, ids=ids: spread(t) if id(t) in ids else t.detach().requires_grad_())
            got = made(*other, **kwargs)
            assert same(got, out, dtype)
            again = torch.autograd.grad(sum(v.square().sum() for v in flat(got)), [*flat(other), *made.parameters()])
            assert all(
                error(a, b) <= (1e-14 if dtype == torch.float64 else 2e-6) for a, b in zip(again, grads, strict=True)
            )


def derivatives(check, info, training, every=1, **options):
    """gradcheck or gradgradcheck over everything that can have a gradient: arguments and parameters."""
    for made, args, kwargs, _ in list(cases(info, torch.float64, training, requires_grad=True))[::every]:
        names = [name for name, _ in made.named_parameters()]
        leaves = flat(args)

        def outputs(*given, made=made, args=args, kwargs=kwargs, leaves=leaves, names=names):
            change = {id(old): new for old, new in zip(leaves, given, strict=False)}
            put = replaced(args, lambda t: change[id(t)])
            weights = dict(zip(names, given[len(leaves) :], strict=True))
            return tuple(flat(torch.func.functional_call(made, weights, put, kwargs)))

        # torch's test run looks along random directions too (fast_mode); every entry is looked at under the mark `slow`
        assert check(outputs, (*leaves, *made.parameters()), **options)


@MODES
def test_grad(info, training):
    derivatives(torch.autograd.gradcheck, info, training, fast_mode=True)


@MODES
def test_gradgrad(info, training):
    # every third case, which meets every value of every option; all of them under the mark `slow`
    derivatives(torch.autograd.gradgradcheck, info, training, every=3, fast_mode=True)


@pytest.mark.slow
def test_grad_and_gradgrad_entry_by_entry(info):
    derivatives(torch.autograd.gradcheck, info, True)
    derivatives(torch.autograd.gradgradcheck, info, True)


def test_train_and_eval_differ_by_dropout_only(info):
    assert info.train_and_eval_differ
    for made, args, kwargs, _ in cases(info, torch.float32):
        trained, evaluated = made.train()(*args, **kwargs), made.eval()(*args, **kwargs)
        assert same(trained, evaluated, torch.float32)
        made.dropout = 0.9
        assert same(made.eval()(*args, **kwargs), evaluated, torch.float32)
        assert any(not same(made.train()(*args, **kwargs), evaluated, torch.float32) for _ in range(20))


@pytest.mark.parametrize("swap", [False, True], ids=["set data", "swap tensors"])
@torch.no_grad()
def test_to_another_dtype_and_device(info, swap):
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        for made, args, kwargs, _ in cases(info, torch.float32):
            before = [id(p) for p in made.parameters()]
            want = made(*args, **kwargs)
            made.to(torch.float64)
            assert [id(p) for p in made.parameters()] == before
            assert all(p is w for p, w in zip(made.parameters(), made._flat_weights, strict=True))
            got = made(*replaced(args, lambda t: t.double()), **kwargs)
            assert all(v.dtype == torch.float64 for v in flat(got))
            assert same(want, got, torch.float32)
            made.to("meta")
            assert all(p.device.type == "meta" for p in made._flat_weights)
            made.to_empty(device="cpu").reset_parameters()
            assert same(made(*replaced(args, lambda t: t.double()), **kwargs), got, torch.float64) is False
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@DTYPES
def test_errors(info, dtype):
    found = info.module_error_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=True)
    assert len(found) > 10
    for wrong in found:
        given, forward = wrong.module_error_input.constructor_input, wrong.module_error_input.forward_input
        if wrong.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(wrong.error_type, match=wrong.error_regex):
                info.module_cls(*given.args, **given.kwargs)
        else:
            made = info.module_cls(*given.args, **given.kwargs)
            with pytest.raises(wrong.error_type, match=wrong.error_regex):
                made(*forward.args, **forward.kwargs)
