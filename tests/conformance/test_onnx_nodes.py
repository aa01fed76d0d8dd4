"""ONNX's LSTM, GRU and RNN: the node tests that ship in the onnx wheel, and onnxruntime with random weights, against recurra.nn's layers.

ONNX has the gates in another order: i o f c (ours i f g o), z r h (ours r z n); peepholes i o f (ours i f o).
"""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="onnx is not installed: make setup")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.backend.test.case import node as onnx_nodes  # noqa: E402

np.random.seed(0)  # noqa: NPY002  two of the cases draw their weights when they are imported
from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: E402, F401

from recurra import nn  # noqa: E402
from tolerance import ONNX, error  # noqa: E402
from zoo import KERNEL_ROWS, by  # noqa: E402

ORDER = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}  # ours as numbers of ONNX's blocks
CASES = [case for case in onnx_nodes._NodeTestCases if case.model.graph.node[0].op_type in ORDER]
KERNELS = pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.lengths]))


def blocks(array, order):
    """The blocks of the last axis, in another order."""
    parts = np.split(array, len(order), -1)
    return np.concatenate([parts[k] for k in order], -1)


def layer_of(node, inputs, kernel):
    """recurra's layer for an ONNX node: the direction 'reverse' is the second half of a layer of both."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    order = ORDER[node.op_type]
    hidden, direction = attributes["hidden_size"], attributes.get("direction", b"forward").decode()
    options = {"kernel": kernel, "bidirectional": direction != "forward", "dtype": torch.float32}
    coupled = bool(attributes.get("input_forget"))
    if node.op_type == "LSTM":
        options |= {"peepholes": "P" in inputs, "coupled": coupled}
    if node.op_type == "RNN" and "activations" in attributes:
        options["nonlinearity"] = attributes["activations"][0].decode().lower()
    options["batch_first"] = bool(attributes.get("layout"))
    layer = getattr(nn, node.op_type)(inputs["W"].shape[-1], hidden, **options)
    width = len(order) * hidden
    found = {name: inputs.get(name) for name in ("W", "R", "B", "P")}
    for d in range(found["W"].shape[0]):
        suffix = "_reverse" if direction == "reverse" or d else ""
        parts = {"weight_ih": found["W"][d].T, "weight_hh": found["R"][d].T}
        bias = np.zeros(2 * width, np.float32) if found["B"] is None else found["B"][d]
        parts |= {"bias_ih": bias[:width], "bias_hh": bias[width:]}
        for name, value in parts.items():
            value = blocks(value, order)
            if coupled:  # rows i g o, without f
                value = np.delete(value, np.s_[hidden : 2 * hidden], -1)
            layer.get_parameter(f"{name}_l0{suffix}").data.copy_(torch.from_numpy(np.ascontiguousarray(value.T)))
        if found["P"] is not None:
            value = blocks(found["P"][d], [0, 1] if coupled else [0, 2, 1])
            layer.get_parameter(f"weight_peephole_l0{suffix}").data.copy_(torch.from_numpy(value))
    return layer, direction


def answers(node, inputs, kernel):
    """Y, Y_h and Y_c of recurra's layer, in ONNX's axes."""
    if node.op_type == "LSTM" and "P" in inputs and any(a.name == "input_forget" and a.i for a in node.attribute):
        i, o, _ = np.split(inputs["P"], 3, -1)
        inputs = {**inputs, "P": np.concatenate([i, o], -1)}
    layer, direction = layer_of(node, inputs, kernel)
    first = slice(1, 2) if direction == "reverse" else slice(0, None)
    x = torch.from_numpy(inputs["X"])
    rows = x.shape[0 if layer.batch_first else 1]
    hx = []
    for name in ("initial_h", "initial_c")[: 2 if node.op_type == "LSTM" else 1]:
        part = torch.zeros(2 if layer.bidirectional else 1, rows, layer.hidden_size)
        if name in inputs:
            given = torch.from_numpy(inputs[name])
            part[first] = given.transpose(0, 1) if layer.batch_first else given
        hx.append(part)
    lengths = torch.from_numpy(inputs["sequence_lens"]) if "sequence_lens" in inputs else None
    with torch.no_grad():
        output, last = layer(x, tuple(hx) if len(hx) > 1 else hx[0], lengths=lengths)
    last = last if isinstance(last, tuple) else (last,)
    output = output.unflatten(-1, (-1, layer.hidden_size))[..., first, :]
    last = [part[first] for part in last]
    if layer.batch_first:
        last = [part.transpose(0, 1) for part in last]
    else:
        output = output.transpose(1, 2)
    return dict(zip(("Y", "Y_h", "Y_c"), (output, *last), strict=False))


def named_inputs(case):
    """The arrays of a node test by ONNX's names for them."""
    node = case.model.graph.node[0]
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", *(["initial_c", "P"] if node.op_type == "LSTM" else [])]
    given = iter(case.data_sets[0][0])
    named = {}
    for name, used in zip(names, node.input, strict=False):
        if used:
            value = next(given)
            named[name] = value if isinstance(value, np.ndarray) else numpy_helper.to_array(value)
    return node, named


def test_there_are_cases():
    assert {case.model.graph.node[0].op_type for case in CASES} == set(ORDER)
    assert len(CASES) >= 15


@KERNELS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_node(case, kernel):
    node, inputs = named_inputs(case)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    steps = inputs["X"].shape[1 if attributes.get("layout") else 0]
    want = dict(zip([name for name in node.output if name], case.data_sets[0][1], strict=True))
    if node.op_type == "GRU" and not attributes.get("linear_before_reset") and steps > 1:
        # another equation: tanh(W x + R (r * h)) where ours, torch's and cuDNN's is tanh(W x + r * (R h)). The same case with it:
        reference = pytest.importorskip("onnx.reference", reason="onnx.reference needs its extras")
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        model.graph.node[0].attribute.append(helper.make_attribute("linear_before_reset", 1))
        given = dict(zip([i.name for i in model.graph.input], inputs.values(), strict=True))
        want = dict(zip(want, reference.ReferenceEvaluator(model).run(None, given), strict=True))
    got = answers(node, inputs, kernel.name)
    wrong = {name: e for name, value in want.items() if not (e := error(got[name], value)) <= ONNX}
    assert not wrong


def oracle(op, inputs, **attributes):
    """onnxruntime's answer, and the node that it ran."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: make setup")
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", *(["initial_c", "P"] if op == "LSTM" else [])]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(op, [name if name in inputs else "" for name in names], outputs, **attributes)
    kinds = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("int32"): TensorProto.INT32}
    infos = [helper.make_tensor_value_info(n, kinds[v.dtype], v.shape) for n, v in inputs.items()]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    graph = helper.make_graph([node], "one", infos, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return node, dict(zip(outputs, session.run(None, inputs), strict=True))


VARIANTS = {
    "LSTM": ("LSTM", {}, ()),
    "LSTM peepholes": ("LSTM", {}, ("P",)),
    "LSTM coupled": ("LSTM", {"input_forget": 1}, ()),
    "LSTM coupled peepholes": ("LSTM", {"input_forget": 1}, ("P",)),
    "GRU": ("GRU", {"linear_before_reset": 1}, ()),
    "RNN": ("RNN", {}, ()),
    "RNN relu": ("RNN", {"activations": ["Relu"]}, ()),
}


@KERNELS
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "ragged"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_is_onnxruntime(variant, direction, ragged, kernel):
    op, attributes, extra = VARIANTS[variant]
    rng = np.random.default_rng(5)
    steps, rows, inputs, hidden, d = 7, 4, 5, 9, 2 if direction == "bidirectional" else 1
    g = len(ORDER[op])
    shapes = {
        "X": (steps, rows, inputs),
        "W": (d, g * hidden, inputs),
        "R": (d, g * hidden, hidden),
        "B": (d, 2 * g * hidden),
        "initial_h": (d, rows, hidden),
        **({"initial_c": (d, rows, hidden)} if op == "LSTM" else {}),
        **({"P": (d, 3 * hidden)} if "P" in extra else {}),
    }
    given = {name: rng.uniform(-0.7, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}
    if "activations" in attributes:
        attributes = {"activations": attributes["activations"] * d}
    if ragged:
        given["sequence_lens"] = np.array([7, 3, 1, 5], np.int32)
    node, want = oracle(op, given, hidden_size=hidden, direction=direction, **attributes)
    got = answers(node, given, kernel.name)
    wrong = {name: e for name, value in want.items() if not (e := error(got[name], value)) <= ONNX}
    assert not wrong
