"""torch's own recurrent ops: oneDNN or plain loops on a CPU, cuDNN on a GPU. Padded or packed, with projection; no option of ours."""

from typing import Any

import torch
from torch import Tensor

from recurra.kernels.request import Request, Scan
from recurra.kernels.tracing import jit_traced

NAME = "aten"
OPS = {"lstm": torch._VF.lstm, "gru": torch._VF.gru, "rnn_tanh": torch._VF.rnn_tanh, "rnn_relu": torch._VF.rnn_relu}


def refuses(request: Request) -> str | None:
    """Why it can't, or None."""
    cell = request.cell
    asked = [
        (request.lengths is not None, "lengths"),
        (request.reset is not None, "reset"),
        (request.states, "states=True"),
        (request.trace, "trace=True"),
        # it has a slow one, which warns at each call
        (getattr(cell, "weight_hr", None) is not None and not request.x.is_cuda, "fast projection on a CPU"),
        (getattr(cell, "peephole", None) is not None, "peepholes"),
        (cell.gain_ih is not None, "LayerNorm"),
        (request.recurrent_dropout > 0 and request.training, "recurrent dropout"),
        (request.zoneout_h > 0 or request.zoneout_c > 0, "zoneout"),
    ]
    for is_asked, name in asked:
        if is_asked:
            return f"torch's ops have no {name}"
    if cell.name not in OPS:
        return f"torch has no op for the cell '{cell.name}'"
    return None


def run(request: Request) -> Scan:
    """One call of torch's op. In reverse the frames are turned round before and after."""
    cell, x, sizes = request.cell, request.x, request.batch_sizes
    weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    weight_hr = getattr(cell, "weight_hr", None)
    if weight_hr is not None:
        weights.append(weight_hr)
    hx: list[Tensor] = [part.unsqueeze(0).contiguous() for part in request.state]
    # has_biases, num_layers, dropout, train (cuDNN's backward needs it; a trace keeps the layer's, as torch.nn does), bidirectional
    options = (True, 1, 0.0, request.training if jit_traced() else torch.is_grad_enabled(), False)
    op, first = _op(cell.name, x), hx if len(hx) > 1 else hx[0]
    if sizes is None:
        outputs, *last = op(x.flip(0) if request.reverse else x, first, weights, *options, False)
        outputs = outputs.flip(0) if request.reverse else outputs
    else:
        back = _turned(sizes).to(x.device) if request.reverse else None
        outputs, *last = op(x if back is None else x[back], sizes, first, weights, *options)
        outputs = outputs if back is None else outputs[back]
    return Scan(outputs, cell.State(*(part.squeeze(0) for part in last)), None, None, NAME, "")


def _op(name: str, x: Tensor) -> Any:
    """torch's op; of an LSTM that would become oneDNN's in a compiled graph, which fails in bfloat16 and in training, one outside it."""
    onednn = name == "lstm" and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    if not onednn or not torch.compiler.is_dynamo_compiling() or torch.compiler.is_exporting():
        return OPS[name]
    torch._dynamo.graph_break(
        msg="kernel 'aten': torch can't compile its LSTM on a CPU; kernel='loop' can be in one graph"
    )
    return torch.compiler.disable(OPS[name])


def _turned(sizes: Tensor) -> Tensor:
    """[N]: for each frame of a packed batch the frame that stands there when each row runs from its end."""
    starts = sizes.cumsum(0) - sizes
    t = torch.repeat_interleave(torch.arange(sizes.shape[0]), sizes)
    row = torch.arange(t.shape[0]) - starts[t]
    lengths = (sizes[:, None] > torch.arange(int(sizes[0]))).sum(0)
    return starts[lengths[row] - 1 - t] + row
