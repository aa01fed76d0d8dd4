"""The encoder: torch's own layers give the same, a mask holds for all steps, a carried state goes on."""

import pytest
import torch

from recurra.errors import RecipeError
from recurra.nn.encoder import Encoder, Stack, locked


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_encoder_gives_what_torchs_layers_give(cell: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    encoder = Encoder(11, 5, (7, 3), cell=cell, bidirectional=bidirectional)
    ids = torch.randint(11, (2, 9))
    x = encoder.embedding(ids)
    for layer, inside, size in zip(encoder.stack.layers, (5, 7 * (1 + bidirectional)), (7, 3), strict=True):
        other = getattr(torch.nn, cell.upper())(inside, size, batch_first=True, bidirectional=bidirectional)
        other.load_state_dict(layer.state_dict())
        x, _ = other(x)
    outputs, state = encoder(ids)
    torch.testing.assert_close(outputs, x)
    assert outputs.shape[-1] == encoder.outputs
    assert [part.shape[-1] for part in state] == ([7, 7, 3, 3] if cell == "lstm" else [7, 3])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_two_halves_are_the_whole(cell: str) -> None:
    encoder = Encoder(11, 5, (7, 3), cell=cell).eval()
    ids = torch.randint(11, (2, 9))
    whole, last = encoder(ids)
    first, state = encoder(ids[:, :4])
    second, after = encoder(ids[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=0)
    torch.testing.assert_close(after, last, rtol=0, atol=0)


def test_steps_beyond_a_rows_length_change_nothing() -> None:
    encoder = Encoder(11, 5, (7,)).eval()
    ids = torch.randint(11, (2, 6))
    outputs, state = encoder(ids, lengths=torch.tensor([6, 2]))
    alone, after = encoder(ids[1:, :2])
    torch.testing.assert_close(outputs[1:, :2], alone)
    torch.testing.assert_close(state[0][:, 1:], after[0])
    assert not outputs[1, 2:].any()


def test_a_mask_holds_for_all_steps_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = locked(torch.ones(50, 4, 40), 0.3, True)
    assert (x == x[:, :1]).all()
    assert sorted(x.unique().tolist()) == pytest.approx([0, 1 / 0.7])
    assert x.mean() == pytest.approx(1, abs=0.05)


def test_a_dropped_word_is_dropped_wherever_it_stands() -> None:
    torch.manual_seed(0)
    encoder = Encoder(40, 6, (3,), word_dropout=0.5)
    ids = torch.arange(40).repeat(2, 2)
    vectors = encoder.embed(ids).view(4, 40, 6)
    dropped = (vectors == 0).all(-1)
    assert (dropped == dropped[0]).all()
    assert 8 < int(dropped[0].sum()) < 32
    torch.testing.assert_close(vectors[0][~dropped[0]], encoder.embedding.weight[~dropped[0]] * 2)


def test_dropout_is_for_training_alone() -> None:
    encoder = Encoder(
        11, 5, (7, 3), word_dropout=0.5, input_dropout=0.5, dropout=0.5, weight_drop=0.5, recurrent_dropout=0.5
    )
    ids = torch.randint(11, (2, 9))
    assert not torch.equal(encoder(ids)[0], encoder(ids)[0])
    encoder.eval()
    assert torch.equal(encoder(ids)[0], encoder(ids)[0])


def test_a_stack_without_layers_is_refused() -> None:
    with pytest.raises(RecipeError, match="at least one layer"):
        Stack(3, ())


def test_a_residual_stack_adds_what_was_not_dropped() -> None:
    torch.manual_seed(0)
    stack = Stack(5, (4, 4, 4, 4), bidirectional="first", residual=True, dropout=0.5)
    assert [layer.bidirectional for layer in stack.layers] == [True, False, False, False]
    assert stack.outputs == 4
    for layer in stack.layers[2:]:  # deaf to what they read, so that only the sum tells whether it was dropped
        torch.nn.init.zeros_(layer.weight_ih_l0)
    lower = Stack(5, (4, 4), bidirectional="first", dropout=0.5)
    lower.layers = stack.layers[:2]
    x, deaf = torch.randn(2, 6, 5), torch.zeros(2, 6, 4)
    torch.manual_seed(1)
    wanted = lower(x)[0] + stack.layers[2](deaf)[0] + stack.layers[3](deaf)[0]
    torch.manual_seed(1)
    torch.testing.assert_close(stack(x)[0], wanted)


@pytest.mark.parametrize(("sizes", "bidirectional"), [((4, 4, 5), False), ((4, 4, 4, 3), False), ((4, 3, 4), True)])
def test_a_layer_adds_only_what_is_as_wide(sizes: tuple[int, ...], bidirectional: bool) -> None:
    with pytest.raises(RecipeError, match="as wide as it, so residual can't take"):
        Stack(3, sizes, bidirectional=bidirectional, residual=True)
    Stack(3, (7, 4, 4), bidirectional=bidirectional, residual=True)
