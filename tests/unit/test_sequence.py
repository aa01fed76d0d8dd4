"""The encoder-decoder: what it learns, what padding can't change, what its search finds, what it saves."""

import pytest
import torch

from recurra.errors import RecipeError
from recurra.nn.sequence import EncoderDecoder
from recurra.nn.smoothed import smoothed_cross_entropy

torch.set_num_threads(1)
V = 13
END = V - 1


def made(**options):
    torch.manual_seed(0)
    return EncoderDecoder(V, 8, 10, 3, **options)


def pairs(extra=0):
    """Three sources with END, ragged, and targets; behind the lengths ids that mean something."""
    g = torch.Generator().manual_seed(2)
    source, targets = (
        torch.randint(2, END + extra, (3, 7), generator=g),
        torch.randint(2, END + extra, (3, 5), generator=g),
    )
    lengths, steps = torch.tensor([7, 2, 4]), torch.tensor([5, 1, 3])
    source[torch.arange(3), lengths - 1] = targets[torch.arange(3), steps - 1] = END
    inputs = torch.cat([torch.full((3, 1), END), targets[:, :-1]], 1)
    return source, lengths, inputs, targets, steps


OPTIONS = [
    {},
    {"shape": "feeding", "bridge": "zeros", "tied": False},
    {"source_vocabulary": V, "direction": "both", "cell": "gru"},
    {"direction": "forward", "score": "dot", "cell": "rnn"},
    {"score": "heads", "heads": 2},
    {"score": "location", "shape": "feeding"},
    {"direction": "forward", "bridge": "zeros", "wait": 2},
    {"score": "additive", "coverage": True, "pointer": True},
    {"score": "additive", "coverage": True, "pointer": True, "shape": "feeding", "direction": "both"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_what_lies_behind_a_length_changes_nothing(options):
    network = made(**options, smoothing=0.1).double()
    extra = 2 if options.get("pointer") else 0
    source, lengths, inputs, targets, steps = pairs(extra)
    other = [part.clone() for part in (source, inputs, targets)]
    for part, n in zip(other, (lengths, steps, steps), strict=True):
        for i, k in enumerate(n.tolist()):
            part[i, k:] = 0
    found = []
    for ids, read, wanted in ((source, inputs, targets), other):
        network.zero_grad()
        total, count = network.loss(network(ids, lengths, read), ids, wanted, steps, coverage=1.0)
        total.backward()
        found.append([total, *(part.grad for part in network.parameters())])
        assert int(count) == 9
    for a, b in zip(*found, strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_batchs_loss_is_the_sum_of_its_rows(options):
    network = made(**options).double().eval()
    source, lengths, inputs, targets, steps = pairs(2 if options.get("pointer") else 0)
    whole, _ = network.loss(network(source, lengths, inputs), source, targets, steps, coverage=1.0)
    alone = 0.0
    for i, (n, k) in enumerate(zip(lengths.tolist(), steps.tolist(), strict=True)):
        one = slice(i, i + 1)
        decoded = network(source[one, :n], lengths[one], inputs[one, :k])
        alone += network.loss(decoded, source[one, :n], targets[one, :k], steps[one], coverage=1.0)[0]
    torch.testing.assert_close(whole, alone)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_loss_is_read_off_the_log_probabilities(options):
    network = made(**options, smoothing=0.1).double().eval()
    source, lengths, inputs, targets, steps = pairs(2 if options.get("pointer") else 0)
    decoded = network(source, lengths, inputs)
    log = network.log_probabilities(decoded, source)
    torch.testing.assert_close(log.exp().sum(2), torch.ones(3, 5, dtype=torch.float64))
    each = -log.gather(2, targets.unsqueeze(2)).squeeze(2)
    total, _ = network.loss(decoded, source, targets, steps)
    torch.testing.assert_close(total, sum(each[i, :k].sum() for i, k in enumerate(steps.tolist())))


def test_smoothing_is_torchs_and_for_training_alone():
    network = made(smoothing=0.1).double()
    source, lengths, inputs, targets, steps = pairs()
    decoded = network(source, lengths, inputs)
    valid = torch.arange(5) < steps.unsqueeze(1)
    logits = network.softmax(decoded.output)[valid]
    for smoothing in (0.1, 0.0):
        wanted = torch.nn.functional.cross_entropy(logits, targets[valid], label_smoothing=smoothing, reduction="sum")
        torch.testing.assert_close(network.train(smoothing > 0).loss(decoded, source, targets, steps)[0], wanted)


@pytest.mark.parametrize("options", OPTIONS)
def test_greedy_is_the_argmax_of_the_whole_sequence(options):
    """What greedy search finds step by step, teacher forcing over the found ids finds again; rows leave as they end."""
    network = made(**options).double().eval()
    with torch.no_grad():
        for part in network.parameters():
            part.copy_(torch.randn(part.shape) * 1.5)
        network.encoder.embedding.weight /= 8**0.5  # as large as the others once it is scaled
        network.softmax.bias[END] = 4.0
    source = torch.randint(2, END + (2 if options.get("pointer") else 0), (40, 7))
    lengths = torch.randint(1, 8, (40,))
    found = network.greedy(source, lengths, 6)
    assert len({len(ids) for ids in found}) > 1
    for i, (ids, n) in enumerate(zip(found, lengths.tolist(), strict=True)):
        one = source[i : i + 1, :n]
        decoded = network(one, lengths[i : i + 1], torch.tensor([[END, *ids]]))
        wanted = [*ids, END] if len(ids) < 6 else ids
        assert network.log_probabilities(decoded, one)[0].argmax(1).tolist()[: len(wanted)] == wanted


@pytest.mark.parametrize(
    "options", [{"tied": False}, {"shape": "feeding"}, {"score": "additive", "coverage": True, "pointer": True}]
)
def test_eight_sentences_are_learnt_by_heart_reversed(options):
    torch.manual_seed(0)
    network = EncoderDecoder(20, 24, 32, 2, **options)
    g = torch.Generator().manual_seed(3)
    lengths = torch.randint(2, 7, (8,), generator=g)
    words = [
        torch.randint(2, 22 if options.get("pointer") else 19, (n,), generator=g).tolist() for n in lengths.tolist()
    ]
    words = [
        [w + (w >= 19) for w in sentence] for sentence in words
    ]  # 19 is END; from 20 on: words that a pointer must copy
    source, targets, inputs = (torch.zeros(8, 7, dtype=torch.int64) for _ in range(3))
    for i, sentence in enumerate(words):
        n = len(sentence)
        source[i, : n + 1] = torch.tensor([*sentence, 19])
        targets[i, : n + 1] = torch.tensor([*sentence[::-1], 19])
        inputs[i, : n + 1] = torch.tensor([19, *sentence[::-1]])
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(150):
        total, count = network.loss(network(source, lengths + 1, inputs), source, targets, lengths + 1)
        optimiser.zero_grad()
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    network.eval()
    assert network.greedy(source, lengths + 1, 10) == [sentence[::-1] for sentence in words]


@pytest.mark.parametrize("shape", ["gnmt", "feeding"])
def test_scheduled_sampling_reads_the_networks_own_tokens(shape, monkeypatch):
    network = made(shape=shape)
    source, lengths, inputs, *_ = pairs()
    own = network.log_probabilities(network(source, lengths, inputs), source).argmax(2)
    wanted = torch.cat([inputs[:, :1], own[:, :-1]], 1)
    read = []

    def decode(ids, memory, state):
        read.append(ids)
        return EncoderDecoder.decode(network, ids, memory, state)

    monkeypatch.setattr(network, "decode", decode)
    network(source, lengths, inputs, sampling=1.0)
    assert torch.equal(read[0], inputs)
    assert torch.equal(read[1], wanted)
    torch.manual_seed(0)
    network(source.repeat(100, 1), lengths.repeat(100), inputs.repeat(100, 1), sampling=0.25)
    changed = read[3] != inputs.repeat(100, 1)
    possible = (wanted != inputs).repeat(100, 1)
    assert not changed[~possible].any()
    assert float(changed[possible].float().mean()) == pytest.approx(0.25, abs=0.05)
    network.eval()(source, lengths, inputs, sampling=1.0)
    assert torch.equal(read[4], inputs)


def test_an_id_beyond_the_vocabulary_is_read_as_unknown():
    network = made(score="additive", pointer=True).eval()
    source, lengths, inputs, *_ = pairs()
    source[0, 1] = inputs[0, 1] = V + 2
    found = network(source, lengths, inputs)
    source[0, 1] = inputs[0, 1] = 1
    torch.testing.assert_close(found, network(source, lengths, inputs), rtol=0, atol=0)


def test_the_first_layer_reads_both_ways_and_the_third_adds_its_input():
    network = made(direction="first").eval()
    source, lengths, *_ = pairs()
    x = 8**0.5 * network.encoder.embedding(source)
    for k, layer in enumerate(network.encoder.stack.layers):
        inputs = (8, 20, 10)[k]
        other = torch.nn.LSTM(inputs, 10, batch_first=True, bidirectional=k == 0)
        other.load_state_dict(layer.state_dict())
        y, (h, _) = other(torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
        x = x + y if k == 2 else y
    memory, state = network.encode(source, lengths)
    torch.testing.assert_close(memory.values, x)
    for k, layer in enumerate(network.bridge):
        torch.testing.assert_close(state.layers[2 * k][0], torch.tanh(layer(h[0])))
        assert not state.layers[2 * k + 1].any()


def test_the_memory_s_dropout_holds_for_all_steps():
    network = made(dropout=0.5)
    source, lengths, *_ = pairs()
    memory, _ = network.encode(source, lengths)
    dropped = memory.values[0] == 0
    assert dropped.any()
    assert (dropped == dropped[:1]).all()
    assert not dropped.all()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_an_lstm_remembers_at_first(cell):
    gates = [part.view(-1, 10) for name, part in made(cell=cell).named_parameters() if "bias_ih" in name]
    assert len(gates) == 7  # the first layer has two
    for part in gates:
        assert float(part[1].mean().detach()) == pytest.approx(1.0 if cell == "lstm" else 0.0, abs=0.3)
        assert float(part[0].mean().detach()) == pytest.approx(0.0, abs=0.3)


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_saved(options):
    network = made(**options)
    layers, weights = network.export()
    names = [layer["name"] for layer in layers]
    assert len(names) == len(set(names))
    for name in weights:  # every weight is of a layer
        assert sum(name.startswith(f"{layer}.") for layer in names) == 1, name
    for name in names:
        assert any(weight.startswith(f"{name}.") for weight in weights) or options.get("score") == "dot", name
    saved = sum(array.size for array in weights.values())
    assert saved == sum(part.numel() for part in network.parameters())
    assert ("decoder.embedding.weight" in weights) == ("source_vocabulary" in options)
    kept = [layer["name"] for layer in layers if layer.get("both")]
    direction = options.get("direction", "first")
    assert kept == [f"encoder.layers.{k}" for k in range({"first": 1, "both": 3, "forward": 0}[direction])]
    assert "encoder.layers.0.weight_ih_l0" in weights
    assert "decoder.layers.2.weight_hh_l0" in weights


@pytest.mark.filterwarnings("ignore:a plain loop runs")
def test_autocast_keeps_probabilities_in_float32():
    network = made(score="additive", coverage=True, pointer=True, shape="feeding")
    source, lengths, inputs, targets, steps = pairs(2)
    wanted, _ = network.loss(network(source, lengths, inputs), source, targets, steps, coverage=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = network.loss(network(source, lengths, inputs), source, targets, steps, coverage=1.0)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, wanted, rtol=0.02, atol=0)
    total.backward()
    assert all(torch.isfinite(part.grad).all() for part in network.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"direction": "backward"}, "first, both, forward, not 'backward'"),
        ({"bridge": "rope"}, "last or zeros, not 'rope'"),
        ({"pointer": True, "source_vocabulary": 9}, "both sides need one vocabulary"),
        ({"wait": 3}, 'needs direction = "forward" and bridge = "zeros"'),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        made(**options)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("ids", [1, 2, 31])
def test_smoothed_cross_entropy_is_torchs(ids, smoothing):
    g = torch.Generator().manual_seed(ids)
    x = (20 * torch.randn(7, ids, generator=g, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(ids, (7,), generator=g)
    want = torch.nn.functional.cross_entropy(x, targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(smoothed_cross_entropy(x, targets, smoothing), want)
    assert torch.autograd.gradcheck(lambda x: smoothed_cross_entropy(x, targets, smoothing), x)
    far = torch.tensor([[1e4, -1e4, 0.0]])
    assert smoothed_cross_entropy(far, torch.tensor([1]), smoothing).isfinite().all()
