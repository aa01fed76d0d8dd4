"""convert: a model's recurrent layers become ours and go back, and nobody who holds them notices."""

import copy

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize

from recurra import nn
from recurra.errors import RecipeError, UnsupportedError
from recurra.nn import convert
from tolerance import DROP_IN, error


class Model(torch.nn.Module):
    """Two layers of each kind in odd places, one of them twice, an embedding tied to the head."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(11, 6)
        self.first = torch.nn.LSTM(6, 6, 2, dropout=0.2)
        self.again = self.first
        self.more = torch.nn.ModuleDict({"gru": torch.nn.GRU(6, 6), "rnn": torch.nn.RNN(6, 6, nonlinearity="relu")})
        self.head = torch.nn.Linear(6, 11)
        self.head.weight = self.embed.weight

    def forward(self, x):
        x = self.again(self.first(self.embed(x))[0])[0]
        for layer in self.more.values():
            x = layer(x)[0]
        return self.head(x)


def test_both_ways_nothing_but_the_class_changes():
    torch.manual_seed(0)
    model = Model().double().eval()
    seen = []
    model.first.register_forward_hook(lambda module, args, result: seen.append(type(module)))
    model.more["gru"].register_buffer("extra", torch.ones(2))
    held = dict(model.named_modules(remove_duplicate=False))
    parameters = list(model.named_parameters())
    x = torch.randint(11, (5, 3))
    want, text = model(x), repr(model)
    assert convert(model) is model
    assert type(model.first) is nn.LSTM
    assert type(model.more["gru"]) is nn.GRU
    assert type(model.more["rnn"]) is nn.RNN
    assert model.again is model.first
    assert error(model(x), want) <= DROP_IN
    assert seen == [torch.nn.LSTM] * 2 + [nn.LSTM] * 2
    assert all(a is b for (_, a), (_, b) in zip(model.named_parameters(), parameters, strict=True))
    assert all(module is held[name] for name, module in model.named_modules(remove_duplicate=False))
    assert not model.first.training
    assert repr(model) == text
    copy.deepcopy(model)(x)
    model.first.kernel = "loop"
    convert(model, back=True)
    assert type(model.first) is torch.nn.LSTM
    assert "kernel" not in vars(model.first)
    assert torch.equal(model(x), want)


def test_training_goes_on_across_the_swap():
    torch.manual_seed(0)
    model = torch.nn.LSTM(5, 7, 2)
    twin = copy.deepcopy(model)
    x = torch.randn(6, 3, 5)
    losses = []
    for swapped in (model, twin):
        optimiser = torch.optim.Adam(swapped.parameters(), 0.01)
        for step in range(6):
            if swapped is model and step == 3:
                assert type(convert(swapped)) is nn.LSTM
            optimiser.zero_grad()
            loss = swapped(x)[0].square().mean()
            loss.backward()
            optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_parametrised_and_normalised_weights():
    x = torch.randn(6, 3, 5)
    layer = parametrizations.weight_norm(torch.nn.LSTM(5, 7), "weight_hh_l0")
    want = layer(x)[0]
    convert(layer)
    assert isinstance(layer, nn.LSTM)
    assert parametrize.is_parametrized(layer, "weight_hh_l0")
    assert torch.allclose(layer(x)[0], want, atol=1e-6)
    layer(x)[0].sum().backward()
    assert layer.parametrizations.weight_hh_l0.original0.grad is not None
    convert(layer, back=True)
    assert isinstance(layer, torch.nn.LSTM)
    assert torch.allclose(layer(x)[0], want, atol=1e-6)


def test_subclasses_stay():
    class Own(torch.nn.LSTM):
        pass

    model = torch.nn.Sequential(Own(5, 7))
    assert type(convert(model)[0]) is Own


def test_back_refuses_what_torch_lacks_before_it_changes_anything():
    model = torch.nn.Sequential(nn.GRU(5, 7, checkpoint="gates"), nn.LSTM(7, 7, zoneout_h=0.1, layer_norm=True))
    with pytest.raises(UnsupportedError, match=r"torch.nn.LSTM has no layer_norm=True, zoneout_h=0.1; keep recurra's"):
        convert(model, back=True)
    assert type(model[0]) is nn.GRU


@pytest.mark.parametrize("model", [None, [torch.nn.GRU(5, 7)], torch.nn.GRU], ids=["None", "list", "class"])
def test_what_is_no_module(model):
    with pytest.raises(RecipeError, match=f"model must be a torch.nn.Module, not {type(model).__name__}"):
        convert(model)
