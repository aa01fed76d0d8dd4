"""Attention of a recurrent layer to its own newest states: each step asks those of the last `window` steps, its own among them.

context_t = sum_s weights_{t,s} h_s,    weights_t = softmax over s of h_t . W h_s,    s = t - window + 1 ... t
                                                   (the score `general` of nn/attention.py: Luong et al. 2015)
"""

import torch
from torch import Tensor, nn

from recurra.nn.attention import Attention


class LookBack(nn.Module):
    """`window` states of `hidden` numbers, kept from chunk to chunk."""

    def __init__(self, hidden: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attention = Attention(hidden, hidden, score="general")

    def forward(self, states: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """states [B, T, H] -> their contexts [B, T, H], and what to give as `kept` with the next chunk, [B, at most window - 1, H].

        kept None: nothing was before.
        """
        whole = states if kept is None else torch.cat([kept, states], 1)
        before, steps = whole.shape[1] - states.shape[1], whole.shape[1]
        newest = torch.arange(before, steps, device=states.device).unsqueeze(1)
        at = torch.arange(steps, device=states.device)
        there = (at <= newest) & (at > newest - self.window)
        memory = self.attention.read(whole, torch.full((len(whole),), steps))
        context, _, _ = self.attention(states, memory, there=there)
        return context, whole[:, max(0, steps - self.window + 1) :]
