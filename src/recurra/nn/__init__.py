"""Layers over time."""

from recurra.nn.convert import convert
from recurra.nn.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "convert"]
