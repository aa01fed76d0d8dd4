"""The pointer-generator against its equation in plain probabilities, at its edges, and by finite differences."""

import pytest
import torch

from recurra.nn.decoder import Decoded
from recurra.nn.pointer import Pointer, coverage_loss

torch.set_num_threads(1)
V = 5
SOURCE = torch.tensor([[2, 5, 2, 6, 1], [3, 5, 4, 0, 0]])  # the last two of the second row: padding, no weight


def decoded(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    weights = torch.rand(2, 3, 5, generator=g, dtype=torch.float64)
    weights[1, :, 3:] = 0
    weights = weights / weights.sum(2, keepdim=True)
    parts = [torch.randn(2, 3, n, generator=g, dtype=torch.float64) for n in (4, 3, 2)]
    made = Decoded(torch.zeros(2, 3, 1), weights, *parts)
    return Decoded(*(part.to(dtype) for part in made)), torch.randn(2, 3, V, generator=g, dtype=torch.float64).to(dtype)


def pointer_of(dtype=torch.float64):
    torch.manual_seed(0)
    return Pointer(9).to(dtype)


def test_against_the_equation_word_by_word():
    pointer, (made, logits) = pointer_of(), decoded()
    vocabulary = logits.softmax(2)
    found = pointer.log_probabilities(made, logits.log_softmax(2), SOURCE.unsqueeze(1)).exp().detach()
    assert found.shape == (2, 3, 7)
    for b in range(2):
        for t in range(3):
            x = torch.cat([made.context[b, t], made.top[b, t], made.embedded[b, t]])
            p = torch.sigmoid(pointer.weight[0] @ x + pointer.bias[0]).detach()
            for w in range(7):
                copied = sum(made.weights[b, t, s] for s in range(5) if SOURCE[b, s] == w)
                wanted = p * (vocabulary[b, t, w] if w < V else 0) + (1 - p) * copied
                assert float(found[b, t, w]) == pytest.approx(float(wanted), rel=1e-12, abs=1e-300)


def test_a_distribution_sums_to_one():
    for dtype in (torch.float32, torch.float64):
        pointer, (made, logits) = pointer_of(dtype), decoded(dtype)
        found = pointer.log_probabilities(made, logits.log_softmax(2), SOURCE.unsqueeze(1))
        assert found.dtype == dtype
        torch.testing.assert_close(found.exp().sum(2), torch.ones(2, 3, dtype=dtype))


def test_one_target_is_its_place_in_the_whole():
    pointer, (made, logits) = pointer_of(), decoded()
    whole = pointer.log_probabilities(made, logits.log_softmax(2), SOURCE.unsqueeze(1))
    targets = torch.tensor([[2, 5, 6], [0, 5, 6]])  # 6 is no word of the second row's source
    found = pointer.log_probability(made, logits.log_softmax(2), SOURCE.unsqueeze(1), targets)
    torch.testing.assert_close(found, whole.gather(2, targets.unsqueeze(2)).squeeze(2))
    assert torch.isfinite(found).all()


def test_without_new_words_the_ids_are_the_vocabularys():
    pointer, (made, logits) = pointer_of(), decoded()
    assert pointer.log_probabilities(made, logits.log_softmax(2), SOURCE.clamp(max=4).unsqueeze(1)).shape == (2, 3, V)


def test_gradients():
    pointer, (made, logits) = pointer_of(), decoded()
    targets = torch.tensor([[2, 5, 1], [0, 5, 4]])

    def loss(weights, context, logits, weight):
        given = Decoded(made.output, weights, context, made.top, made.embedded)
        mine, log_vocabulary = pointer_of(), logits.log_softmax(2)
        del mine.weight
        mine.weight = weight
        whole = mine.log_probabilities(given, log_vocabulary, SOURCE.unsqueeze(1))
        # what nobody points at lies at the clamp, where a difference has no meaning: of the whole, an id that is written alone, and
        # one that both sources have
        return mine.log_probability(given, log_vocabulary, SOURCE.unsqueeze(1), targets), whole[..., [0, 5]]

    weights = made.weights.clamp(min=0.05).requires_grad_()
    given = (weights, made.context.requires_grad_(), logits.requires_grad_(), pointer.weight.detach().requires_grad_())
    assert torch.autograd.gradcheck(loss, given)


@pytest.mark.parametrize("gate", [-1e30, -1e4, -200.0, 0.0, 200.0, 1e4, 1e30])
@pytest.mark.parametrize("logit", [0.0, 1e4])
def test_never_nan(gate, logit):
    """p at 0 and 1, weights at exactly 0, a vocabulary sure of one word, targets that nobody can write."""
    pointer, (made, logits) = pointer_of(torch.float32), decoded(torch.float32)
    with torch.no_grad():
        pointer.weight.zero_()
        pointer.bias.fill_(gate)
    weights = torch.zeros(2, 3, 5)
    weights[:, :, 0] = 1
    made = made._replace(weights=weights.requires_grad_(), context=made.context.requires_grad_())
    logits[:, :, 3] += logit
    logits.requires_grad_()
    log_vocabulary = logits.log_softmax(2)
    every = pointer.log_probabilities(made, log_vocabulary, SOURCE.unsqueeze(1))
    picked = pointer.log_probability(made, log_vocabulary, SOURCE.unsqueeze(1), torch.tensor([[6, 5, 2], [6, 1, 4]]))
    assert torch.isfinite(every).all()
    assert torch.isfinite(picked).all()
    (every.sum() + picked.sum()).backward()
    for part in (pointer.weight, pointer.bias, made.weights, made.context, logits):
        assert torch.isfinite(part.grad).all()


def test_half_precision_is_mixed_in_single():
    pointer, (made, logits) = pointer_of(torch.float32), decoded(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        log_vocabulary = logits.log_softmax(2, dtype=torch.float32)
        found = pointer.log_probabilities(made, log_vocabulary, SOURCE.unsqueeze(1))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp().sum(2), torch.ones(2, 3), atol=2e-2, rtol=0)


def test_coverage_loss_against_the_loop():
    weights, lengths = decoded()[0].weights.clone(), torch.tensor([3, 2])
    wanted = 0.0
    for b, n in enumerate(lengths.tolist()):
        covered = torch.zeros(5, dtype=torch.float64)
        for t in range(n):
            wanted += float(torch.minimum(weights[b, t], covered).sum())
            covered += weights[b, t]
    weights[1, 2] = torch.nan
    weights.requires_grad_()
    found = coverage_loss(weights, lengths)
    assert found.item() == pytest.approx(wanted)
    found.backward()
    assert torch.isfinite(weights.grad).all()
    assert (weights.grad[1, 2] == 0).all()


def test_what_is_looked_at_once_costs_nothing():
    assert float(coverage_loss(torch.eye(4).unsqueeze(0), torch.tensor([4]))) == 0
    assert float(coverage_loss(torch.eye(4)[:1].repeat(4, 1).unsqueeze(0), torch.tensor([4]))) == 3
