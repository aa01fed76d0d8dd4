"""torch's own recurrent ops: oneDNN or plain loops on a CPU, cuDNN on a GPU. Padded batches only."""

import torch
from torch import Tensor

from recurra.kernels.request import Request, Scan

NAME = "aten"
OPS = {"lstm": torch._VF.lstm, "gru": torch._VF.gru, "rnn_tanh": torch._VF.rnn_tanh, "rnn_relu": torch._VF.rnn_relu}


def refuses(request: Request) -> str | None:
    """Why it can't, or None."""
    asked = [
        (request.lengths is not None, "lengths"),
        (request.reset is not None, "reset"),
        (request.states, "states=True"),
        (request.trace, "trace=True"),
    ]
    for is_asked, name in asked:
        if is_asked:
            return f"torch's ops have no {name}"
    if request.cell.name not in OPS:
        return f"torch has no op for the cell '{request.cell.name}'"
    return None


def run(request: Request) -> Scan:
    """One call of torch's op."""
    cell = request.cell
    weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    hx: list[Tensor] = [part.unsqueeze(0).contiguous() for part in request.state]
    # has_biases, num_layers, dropout, train, bidirectional, batch_first
    options = (True, 1, 0.0, torch.is_grad_enabled(), False, False)
    outputs, *last = OPS[cell.name](request.x, hx if len(hx) > 1 else hx[0], weights, *options)
    return Scan(outputs, cell.State(*(part.squeeze(0) for part in last)), None, None, NAME, "")
