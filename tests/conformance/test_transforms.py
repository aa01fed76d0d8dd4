"""Compiled, exported, mapped and differentiated in every mode: one node a scan, the same numbers, dropout intact."""

import io

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, export

from recurra import nn
from recurra.errors import UnsupportedError
from tolerance import DROP_IN, error
from zoo import LAYER_ROWS, by, needs_core

REGULARISED = {"dropout": 0.5, "recurrent_dropout": 0.3, "zoneout_h": 0.1, "weight_drop": 0.2, "layer_norm": True}
pytestmark = needs_core


def scans(graph):
    """How many nodes of the kernel a graph has."""
    return sum(str(node.target) in ("recurra.scan", "recurra.scan.default") for node in graph.nodes)


def counting(graphs, backend="aot_eager"):
    """A compiler that notes each graph and hands it on."""

    def compiler(gm, example):
        graphs.append(gm.graph)
        return torch._dynamo.lookup_backend(backend)(gm, example)

    return compiler


def gradients(layer, x, output):
    return torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("options", [{}, REGULARISED], ids=["plain", "regularised"])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_compiled_is_eager_and_one_node_a_scan(row, options, bidirectional):
    layer = row.ours(5, 7, 2, bidirectional=bidirectional, dtype=torch.float64, **row.options, **options)
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    graphs = []
    compiled = torch.compile(layer, fullgraph=True, backend=counting(graphs))
    torch.manual_seed(3)
    want = layer(x)[0]
    torch.manual_seed(3)
    got = compiled(x)[0]
    assert error(got, want) <= DROP_IN
    pairs = zip(gradients(layer, x, got), gradients(layer, x, want), strict=True)
    assert all(error(a, b) <= DROP_IN for a, b in pairs)
    assert [scans(graph) for graph in graphs] == [4 if bidirectional else 2]


def test_compiled_dropout_differs_from_call_to_call_and_ends_in_evaluation():
    """torch.nn.LSTM compiled loses its dropout silently (torch 2.13)."""
    layer = nn.LSTM(5, 7, 2, dropout=0.5)
    x = torch.randn(6, 3, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert not torch.equal(compiled(x)[0], compiled(x)[0])
    both = torch.compile(lambda x: (layer(x)[0], layer(x)[0]), fullgraph=True, backend="aot_eager")
    assert not torch.equal(*both(x)), "two calls in one graph draw two seeds"
    layer.eval()
    assert torch.equal(compiled(x)[0], compiled(x)[0])
    assert error(compiled(x)[0], layer(x)[0]) == 0


def test_compiled_with_lengths_resets_and_states():
    layer = nn.LSTM(5, 7, 2, bidirectional=True, batch_first=True, peepholes=True, proj_size=3, dtype=torch.float64)
    x = torch.randn(3, 6, 5, dtype=torch.float64, requires_grad=True)
    lengths, reset = torch.tensor([6, 0, 4]), torch.rand(3, 6) < 0.3
    f = lambda x: layer(x, lengths=lengths, reset=reset, states=True)  # noqa: E731
    got, want = torch.compile(f, fullgraph=True, backend="aot_eager")(x), f(x)
    for a, b in zip(torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(want), strict=True):
        assert error(a, b) <= DROP_IN
    total = lambda result: result[0].sum() + result[1][1].square().sum() + result[2][0].c.square().sum()  # noqa: E731
    grads = [torch.autograd.grad(total(result), [x, *layer.parameters()]) for result in (got, want)]
    assert all(error(a, b) <= DROP_IN for a, b in zip(*grads, strict=True))


def test_one_graph_for_every_time_and_batch():
    layer = nn.LSTM(5, 7, 2, dropout=0.5, zoneout_h=0.1)
    graphs = []
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counting(graphs))
    for steps, rows in ((6, 3), (9, 4), (31, 2)):
        x = torch.randn(steps, rows, 5, requires_grad=True)
        torch.manual_seed(3)
        want = layer(x)[0]
        torch.manual_seed(3)
        got = compiled(x)[0]
        assert torch.equal(got, want)
        pairs = zip(gradients(layer, x, got), gradients(layer, x, want), strict=True)
        assert all(error(a, b) <= 1e-6 for a, b in pairs)
    assert [n for graph in graphs if (n := scans(graph))] == [2]


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # torch's, wherever a graph breaks
@pytest.mark.parametrize("mixed", [False, True], ids=["bfloat16", "autocast"])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_compiled_in_half_precision(row, mixed):
    """Torch's own op, which can't be in a graph if it is an LSTM's: the graph breaks there, as at torch.nn.LSTM."""
    dtype = torch.float32 if mixed else torch.bfloat16
    layer, x = row.ours(5, 7, 2, **row.options, dtype=dtype), torch.randn(6, 3, 5, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        got, want = torch.compile(layer, backend="aot_eager")(x)[0], layer(x)[0]
    pairs = [torch.autograd.grad(y.float().square().sum(), list(layer.parameters())) for y in (got, want)]
    assert all(error(a.float(), b.float()) <= 0.05 for a, b in [(got, want), *zip(*pairs, strict=True)])


def test_one_graph_in_half_precision_is_the_loops():
    layer, x = nn.LSTM(5, 7, dtype=torch.bfloat16), torch.randn(6, 3, 5, dtype=torch.bfloat16)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="kernel 'aten': torch can't compile its LSTM on a CPU"):
        torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    layer.kernel = "loop"
    assert error(torch.compile(layer, backend="aot_eager", fullgraph=True)(x)[0].float(), layer(x)[0].float()) <= 0.05


@pytest.mark.slow
def test_compiled_by_inductor():
    layer = nn.LSTM(5, 7, 2, bidirectional=True, **REGULARISED)
    x = torch.randn(6, 3, 5, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True)
    torch.manual_seed(3)
    want = layer(x)[0]
    torch.manual_seed(3)
    got = compiled(x)[0]
    assert error(got, want) <= 1e-6
    pairs = zip(gradients(layer, x, got), gradients(layer, x, want), strict=True)
    assert all(error(a, b) <= 1e-5 for a, b in pairs)
    assert not torch.equal(compiled(x)[0], got)


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluated"])
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_exported_with_any_time_and_batch(row, strict, training):
    layer = row.ours(5, 7, 2, bidirectional=True, **row.options, **REGULARISED).train(training)
    steps, rows = Dim("steps"), Dim("rows")
    program = export(layer, (torch.randn(6, 3, 5),), dynamic_shapes=({0: steps, 1: rows},), strict=strict)
    assert scans(program.graph) == 4
    assert scans(program.run_decompositions().graph) == 4
    for shape in ((9, 4, 5), (2, 31, 5)):
        x = torch.randn(shape)
        torch.manual_seed(3)
        want = layer(x)[0]
        torch.manual_seed(3)
        assert torch.equal(program.module(check_guards=False)(x)[0], want)


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_mapped_over_inputs(row):
    layer = row.ours(5, 7, 2, bidirectional=True, batch_first=True, dtype=torch.float64, **row.options)
    xs = torch.randn(4, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([[6, 1, 3], [2, 2, 0], [6, 6, 6], [5, 4, 3]])
    one = lambda x, lengths: layer(x, lengths=lengths, states=True)[::2]  # noqa: E731
    got = torch.vmap(one)(xs, lengths)
    want = [one(x, n) for x, n in zip(xs, lengths, strict=True)]
    assert error(got[0], torch.stack([w[0] for w in want])) <= DROP_IN
    assert error(got[1][0][-1], torch.stack([w[1][0][-1] for w in want])) <= DROP_IN
    grads = [
        torch.autograd.grad(sum(value.square().sum() for value in values), [xs, *layer.parameters()])
        for values in ((got[0],), tuple(w[0] for w in want))
    ]
    assert all(error(a, b) <= DROP_IN for a, b in zip(*grads, strict=True))
    shared = torch.vmap(layer, in_dims=(None, 0))  # only the state is mapped
    if row.name != "LSTM":
        hx = torch.randn(4, 4, 3, 7, dtype=torch.float64)
        assert error(shared(xs[0], hx)[0][2], layer(xs[0], hx[2])[0]) <= DROP_IN


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_ensembles_and_gradients_of_each_example(row):
    options = {"dtype": torch.float64, **row.options}
    layers = [row.ours(5, 7, 2, **options) for _ in range(3)]
    weights, buffers = torch.func.stack_module_state(layers)
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    call = lambda w, b, x: torch.func.functional_call(layers[0], (w, b), (x,))[0]  # noqa: E731
    together = torch.vmap(call, (0, 0, None))(weights, buffers, x)
    assert all(error(together[k], layers[k](x)[0]) <= DROP_IN for k in range(3))

    own = {name: value.detach() for name, value in layers[0].named_parameters()}
    loss = lambda w, row: call(w, {}, row.unsqueeze(1)).square().sum()  # noqa: E731
    each = torch.vmap(torch.func.grad(loss), (None, 1))(own, x)
    for k in range(4):
        alone = torch.autograd.grad(layers[0](x[:, k : k + 1])[0].square().sum(), list(layers[0].parameters()))
        assert all(error(each[name][k], grad) <= DROP_IN for name, grad in zip(own, alone, strict=True))


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_forward_mode_is_the_transpose_of_backward(row):
    layer = row.ours(5, 7, 2, dtype=torch.float64, **row.options)
    x, v = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    value, tangent = torch.func.jvp(lambda x: layer(x)[0], (x,), (v,))
    assert error(value, layer(x)[0]) <= DROP_IN
    u = torch.randn_like(value)
    x.requires_grad_()
    back = torch.autograd.grad(layer(x)[0], x, u)[0]
    assert torch.allclose((back * v).sum(), (u * tangent).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), v)
        assert error(torch.autograd.forward_ad.unpack_dual(layer(dual)[0]).tangent, tangent) <= DROP_IN


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_second_derivatives_are_the_loops(row):
    """A gradient penalty, with weights that stand in two places."""
    options = {"bidirectional": True, "dtype": torch.float64, **row.options}
    layer, loop = row.ours(5, 7, 1, **options), row.ours(5, 7, 1, kernel="loop", **options)
    loop.load_state_dict(layer.state_dict())
    found = []
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    for each in (layer, loop):
        each.weight_hh_l0_reverse = each.weight_hh_l0
        first = torch.autograd.grad(each(x)[0].square().sum(), x, create_graph=True)[0]
        found.append(torch.autograd.grad(first.square().sum(), [x, *each.parameters()], allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        assert a is None or error(a, b) <= DROP_IN


def test_saved_tensor_hooks_and_checkpointing_see_what_is_kept():
    layer = nn.LSTM(5, 7, dtype=torch.float64)
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    want = gradients(layer, x, layer(x)[0])
    again = torch.utils.checkpoint.checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
    assert all(torch.equal(a, b) for a, b in zip(gradients(layer, x, again), want, strict=True))
    with torch.autograd.graph.save_on_cpu():
        assert all(torch.equal(a, b) for a, b in zip(gradients(layer, x, layer(x)[0]), want, strict=True))
    output = layer(x)[0]
    with torch.no_grad():
        layer.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_only_what_backward_reads_is_kept(row):
    """x, the state, the weights, outputs and the flat memory: neither h_n, c_n nor any c that was asked for."""
    layer, kept = row.ours(5, 7, **row.options), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.dim()) or tensor, lambda tensor: tensor
    ):
        layer(torch.randn(6, 3, 5), states=True)
    parts = 2 if row.name == "LSTM" else 1
    assert sorted(kept) == sorted([3, *[2] * parts, 2, 2, 1, 1, 3, 1])


@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_many_gradients_at_once(row):
    """is_grads_batched=True: the gradients of several outputs' directions in one backward pass."""
    layer = row.ours(5, 7, 2, bidirectional=True, dtype=torch.float64, **row.options)
    x = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    output, inputs = layer(x)[0], [x, *layer.parameters()]
    vectors = torch.randn(3, *output.shape, dtype=torch.float64)
    many = torch.autograd.grad(output, inputs, vectors, is_grads_batched=True, retain_graph=True)
    for k, vector in enumerate(vectors):
        one = torch.autograd.grad(output, inputs, vector, retain_graph=True)
        assert all(error(a[k], b) <= DROP_IN for a, b in zip(many, one, strict=True))


@pytest.mark.parametrize("options", [{}, {"lengths": [6, 1, 0], "states": True}], ids=["plain", "ragged"])
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_shapes_without_numbers(row, options):
    with FakeTensorMode():
        layer, x = row.ours(5, 7, 2, bidirectional=True, **row.options), torch.empty(6, 3, 5, requires_grad=True)
        output = layer(x, **options)[0]
        output.sum().backward()
    assert output.shape == (6, 3, 14)
    assert [each.grad.shape for each in (x, *layer.parameters())] == [each.shape for each in (x, *layer.parameters())]


class Model(torch.nn.Module):
    """A layer inside a model."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


WAYS_OUT = r"use torch.export or torch.compile, .*recurra.nn.convert\(model, back=True\)"


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:DeprecationWarning", "ignore:Converting a tensor:torch.jit.TracerWarning"
)
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_traced_as_torch_nn_is(row):
    """torch.jit.trace keeps torch's own ops, which take any T and B; a loop's steps would be so many for ever."""
    layer = row.ours(4, 8, 2, bidirectional=True, **row.options).eval()
    traced = torch.jit.trace(Model(layer), torch.randn(5, 3, 4))
    for shape in ((7, 2, 4), (2, 6, 4)):
        x = torch.randn(shape)
        assert error(traced(x), layer(x)[0]) <= 1e-6
    layer.zoneout_h = 0.1
    with pytest.raises(UnsupportedError, match=f"torch.jit.trace would keep .*: {WAYS_OUT}"):
        torch.jit.trace(Model(layer), torch.randn(5, 3, 4))
    layer.kernel = "loop"
    x = torch.randn(5, 6, 4)
    assert error(torch.jit.trace(Model(layer), torch.randn(5, 3, 4))(x), layer(x)[0]) <= 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Converting a tensor:torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:Exporting a model to ONNX with a batch_size other than 1")
def test_the_older_onnx_exporter_finds_an_lstm():
    onnx = pytest.importorskip("onnx")
    file = io.BytesIO()
    torch.onnx.export(Model(nn.LSTM(4, 8, 2, bidirectional=True)), (torch.randn(5, 3, 4),), file, dynamo=False)
    nodes = onnx.load_from_string(file.getvalue()).graph.node
    assert sum(node.op_type == "LSTM" for node in nodes) == 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Converting a tensor:torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:Exporting a model to ONNX with a batch_size other than 1")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_older_onnx_exporter_is_told_of_the_ways_out_for_a_layer_by_itself(kind):
    pytest.importorskip("onnx")
    layer, x = kind(4, 8), torch.randn(5, 3, 4)
    with pytest.raises(
        UnsupportedError, match=r"export a module around it, or recurra.nn.convert\(layer, back=True\)$"
    ):
        torch.onnx.export(layer, (x,), io.BytesIO(), dynamo=False)
    torch.onnx.export(Model(layer), (x,), io.BytesIO(), dynamo=False)
    torch.onnx.export(nn.convert(layer, back=True), (x,), io.BytesIO(), dynamo=False)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_what_scripts_and_symbols_is_refused_with_the_ways_out(kind):
    for model in (kind(4, 8), Model(kind(4, 8))):
        with pytest.raises(UnsupportedError, match=f"torch.jit.script can't compile .*: {WAYS_OUT}"):
            torch.jit.script(model)
        with pytest.raises(UnsupportedError, match=f"torch.fx can't trace into .*: {WAYS_OUT}"):
            torch.fx.symbolic_trace(model)
    torch.jit.script(nn.convert(Model(kind(4, 8)), back=True))
