"""The equations: one cell a file, one step each. What to read first."""

from recurra.cells.cell import Cell
from recurra.cells.gru import GRU, GRUState
from recurra.cells.lstm import LSTM, LSTMState
from recurra.cells.rnn import ReluRNN, RNNState, TanhRNN

CELLS = {
    "rnn_tanh": TanhRNN,
    "rnn_relu": ReluRNN,
    "lstm": LSTM,
    "gru": GRU,
}

__all__ = ["CELLS", "GRU", "LSTM", "Cell", "GRUState", "LSTMState", "RNNState", "ReluRNN", "TanhRNN"]
