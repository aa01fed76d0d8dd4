"""The decoder against torch's own layers and the equations, step by step, and without what it may not see."""

import pytest
import torch

from recurra.errors import RecipeError
from recurra.nn.attention import Attention
from recurra.nn.decoder import SHAPES, Decoder, DecoderState

torch.set_num_threads(1)
E, H, M, OUT = 5, 6, 7, 4
LENGTHS = torch.tensor([5, 1, 3])


def made(shape="gnmt", cell="lstm", layers=3, score="normed", coverage=False, **options):
    torch.manual_seed(0)
    attention = Attention(H, M, score=score, coverage=coverage, size=8)
    return (
        Decoder(torch.nn.Embedding(11, E), attention, H, layers, OUT, cell=cell, shape=shape, **options).double().eval()
    )


def given(decoder, steps=6):
    """Tokens, a memory with NaN behind the lengths, and a state that is nowhere zero."""
    g = torch.Generator().manual_seed(1)
    memory = torch.randn(3, 5, M, generator=g, dtype=torch.float64)
    memory[1, 1:] = memory[2, 3:] = torch.nan
    read = decoder.attention.read(memory, LENGTHS)
    h = [torch.randn(3, H, generator=g, dtype=torch.float64).tanh() for _ in decoder.layers]
    return torch.randint(11, (3, steps), generator=g), read, decoder.start(read, h)


def torchs(layer, cell, inputs):
    other = getattr(torch.nn, cell.upper())(inputs, H, batch_first=True).double()
    other.load_state_dict(layer.state_dict())
    return other


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_gnmt_is_a_plain_composition_of_torchs_layers(cell):
    decoder = made(cell=cell, layers=4)
    ids, memory, state = given(decoder)
    parts = 2 if cell == "lstm" else 1
    first = [state.layers[k * parts : (k + 1) * parts] if parts == 2 else state.layers[k] for k in range(4)]
    e = decoder.embedding(ids)
    top, _ = torchs(decoder.layers[0], cell, E)(e, first[0])
    context, weights, _ = decoder.attention(top, memory)
    for k in (1, 2, 3):
        h, _ = torchs(decoder.layers[k], cell, H + M)(torch.cat([top, context], 2), first[k])
        top = h + top if k >= 2 else h
    o = torch.tanh(torch.cat([top, context], 2) @ decoder.read.weight.T + decoder.read.bias)
    found, _ = decoder(ids, memory, state)
    for a, b in zip(found, (o, weights, context, top, e), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_feeding_is_luongs_loop(cell):
    decoder = made("feeding", cell)
    ids, memory, state = given(decoder)
    parts = 2 if cell == "lstm" else 1
    states = [state.layers[k * parts : (k + 1) * parts] if parts == 2 else state.layers[k] for k in range(3)]
    layers = [torchs(layer, cell, H if k else E + OUT) for k, layer in enumerate(decoder.layers)]
    o, outputs, every = torch.zeros(3, 1, OUT, dtype=torch.float64), [], []
    for t in range(6):
        x = torch.cat([decoder.embedding(ids[:, t : t + 1]), o], 2)
        for k, layer in enumerate(layers):
            h, states[k] = layer(x, states[k])
            x = h + x if k == 2 else h
        context, weights, _ = decoder.attention(x, memory)
        o = torch.tanh(torch.cat([x, context], 2) @ decoder.read.weight.T + decoder.read.bias)
        outputs.append(o)
        every.append(weights)
    found, after = decoder(ids, memory, state)
    torch.testing.assert_close(found.output, torch.cat(outputs, 1))
    torch.testing.assert_close(found.weights, torch.cat(every, 1))
    torch.testing.assert_close(after.output, o)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("score", "coverage", "wait"),
    [("normed", False, None), ("additive", True, None), ("location", False, None), ("normed", False, 2)],
)
def test_step_by_step_is_the_whole(shape, cell, score, coverage, wait):
    decoder = made(shape, cell, score=score, coverage=coverage, wait=wait)
    ids, memory, state = given(decoder)
    whole, last = decoder(ids, memory, state)
    every = []
    for part in (ids[:, :1], ids[:, 1:4], ids[:, 4:5], ids[:, 5:]):
        found, state = decoder(part, memory, state)
        every.append(found)
    for name, parts in zip(whole._fields, zip(*every, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(parts, 1), getattr(whole, name), msg=name)
    torch.testing.assert_close(state, last)
    assert state.step == 6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_is_alone(shape):
    """Whatever its neighbours are, and however long their memories."""
    decoder = made(shape)
    ids, memory, state = given(decoder)
    whole, _ = decoder(ids, memory, state)
    for i, n in enumerate(LENGTHS.tolist()):
        one = decoder.attention.read(memory.values[i : i + 1, :n], LENGTHS[i : i + 1])
        layers = tuple(part[:, i : i + 1] for part in state.layers)
        found, _ = decoder(
            ids[i : i + 1], one, DecoderState(layers, state.output[i : i + 1], state.past[i : i + 1, :n], 0)
        )
        torch.testing.assert_close(found.output, whole.output[i : i + 1])
        torch.testing.assert_close(found.weights, whole.weights[i : i + 1, :, :n])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_later_token_changes_no_earlier_output(shape):
    decoder = made(shape)
    ids, memory, state = given(decoder)
    other = ids.clone()
    other[:, 3:] = (ids[:, 3:] + 1) % 11
    (one, _), (two, _) = decoder(ids, memory, state), decoder(other, memory, state)
    assert torch.equal(one.output[:, :3], two.output[:, :3])
    assert not torch.equal(one.output[:, 3:], two.output[:, 3:])


@pytest.mark.parametrize("shape", SHAPES)
def test_with_wait_a_token_sees_what_has_arrived(shape):
    decoder = made(shape, wait=2)
    ids, memory, state = given(decoder)
    found, _ = decoder(ids, memory, state)
    assert found.weights.ne(0).sum(2).tolist() == [[2, 3, 4, 5, 5, 5], [1] * 6, [2, 3, 3, 3, 3, 3]]
    changed = memory.values.clone()
    changed[:, 4] = 9.0
    later, _ = decoder(ids, decoder.attention.read(changed, LENGTHS), state)
    assert torch.equal(found.output[:, :3], later.output[:, :3])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_holds_for_all_steps(shape):
    decoder = made(shape, dropout=0.5).train()
    ids, memory, state = given(decoder)
    read = []
    decoder.layers[1].register_forward_pre_hook(lambda layer, given: read.append(given[0]))
    found, _ = decoder(ids, memory, state)
    for part in (found.output, found.embedded, torch.cat(read, 1)):
        dropped = part == 0
        assert (dropped == dropped[:, :1]).all()
        assert dropped.any()
        assert not dropped.all()
    assert not torch.equal(found.output, decoder(ids, memory, state)[0].output)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_weight_learns(shape):
    decoder = made(shape, score="additive", coverage=True).train()
    ids, memory, state = given(decoder)
    decoder(ids, memory, state)[0].output.sum().backward()
    for name, part in decoder.named_parameters():
        assert torch.isfinite(part.grad).all(), name
        assert part.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": "transformer"}, "gnmt or feeding, not 'transformer'"),
        ({"shape": "feeding", "weight_drop": 0.1}, 'they need shape = "gnmt"'),
        ({"shape": "feeding", "recurrent_dropout": 0.1}, 'they need shape = "gnmt"'),
        ({"wait": 0}, "wait must be at least 1 token, not 0"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        made(**options)
