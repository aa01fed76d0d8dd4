"""The CRF against the sum over all sequences, finite differences, and the search that decodes it."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from recurra.codec import tags
from recurra.nn.crf import CRF
from recurra.search.viterbi import Chain

torch.set_num_threads(1)


def crf_of(k, seed, forbidden=0.0):
    rng = np.random.default_rng(seed)
    allowed = [rng.random(shape) >= forbidden for shape in ((k, k), k, k)]
    for part in allowed:
        part[0] = True
        part[..., 0] = True
    made = CRF(*allowed).double()
    with torch.no_grad():
        for part in made.parameters():
            part.copy_(torch.from_numpy(rng.normal(size=part.shape)))
    return made


def sentences(k, lengths, seed=0, dtype=torch.float64):
    """Scores with NaN, and tags out of range, behind each length."""
    g = torch.Generator().manual_seed(seed)
    t = max(lengths)
    scores = torch.randn(len(lengths), t, k, generator=g, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, k, (len(lengths), t), generator=g)
    for i, n in enumerate(lengths):
        scores[i, n:] = torch.nan
        labels[i, n:] = 99
    return scores, labels, torch.tensor(lengths)


@pytest.mark.parametrize("forbidden", [0.0, 0.3])
@pytest.mark.parametrize(("k", "lengths"), [(1, [1, 3]), (3, [5, 1, 3]), (4, [2, 4])])
def test_against_every_sequence(k, lengths, forbidden):
    crf = crf_of(k, 1, forbidden)
    scores, labels, n = sentences(k, lengths)
    transitions, start, end = (part.detach() for part in crf.weights())
    found = crf(scores, labels, n)
    for i, length in enumerate(lengths):
        worth = {}
        for path in product(range(k), repeat=length):
            worth[path] = start[path[0]] + end[path[-1]] + sum(scores[i, t, tag] for t, tag in enumerate(path))
            worth[path] += sum(transitions[a, b] for a, b in pairwise(path))
        whole = torch.logsumexp(torch.stack(list(worth.values())), 0)
        wanted = whole - worth[tuple(labels[i, :length].tolist())]
        torch.testing.assert_close(found[i], wanted, atol=1e-9, rtol=1e-9)


def test_gradients():
    crf = crf_of(3, 2, 0.2)
    scores, labels, n = sentences(3, [4, 2, 1])
    scores = torch.nan_to_num(scores).requires_grad_()
    names = [name for name, _ in crf.named_parameters()]

    def loss(scores, *parameters):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(crf, given, (scores, labels.clamp(max=2), n))

    assert torch.autograd.gradcheck(loss, (scores, *crf.parameters()))


def test_what_is_forbidden_is_never_trained_and_padding_gets_no_gradient():
    crf = CRF(*tags.legal(tags.names(("A",), "BIOES"), "BIOES"))
    scores, _, n = sentences(5, [3, 2], dtype=torch.float32)
    scores.requires_grad_()
    labels = torch.tensor([[1, 2, 3], [0, 4, 9]])
    crf(scores, labels, n).sum().backward()
    for name, part in crf.named_parameters():
        allowed = getattr(crf, f"{name}_allowed")
        assert (part.grad[~allowed] == 0).all()
        assert (part.grad[allowed] != 0).any()
    assert (crf.weights()[0][~crf.transitions_allowed] == -1e4).all()
    assert (scores.grad[1, 2:] == 0).all()
    assert torch.isfinite(scores.grad).all()


def test_gradients_of_the_scores_are_the_searchs_marginals():
    crf = crf_of(4, 5, 0.2)
    scores, labels, n = sentences(4, [6])
    scores.requires_grad_()
    (crf(scores, labels, n).sum()).backward()
    one = torch.nn.functional.one_hot(labels, 4)
    allowed = crf.transitions_allowed, crf.start_allowed, crf.end_allowed
    parts = [
        np.where(mask, part.detach(), -np.inf)
        for mask, part in zip(allowed, (crf.transitions, crf.start, crf.end), strict=True)
    ]
    marginals = Chain(*parts).marginals(scores[0].detach().numpy())
    np.testing.assert_allclose((scores.grad + one)[0], marginals, atol=1e-9)


def test_float32_keeps_up_over_long_sentences_and_large_scores():
    crf = crf_of(5, 3, 0.2)
    scores, labels, n = sentences(5, [2000, 1])
    found = crf.float()((scores * 20).float(), labels, n).detach()
    allowed = crf.transitions_allowed, crf.start_allowed, crf.end_allowed
    parts = zip(allowed, (crf.transitions, crf.start, crf.end), strict=True)
    chain = Chain(*(np.where(mask, part.detach().double(), -np.inf) for mask, part in parts))
    for i, length in enumerate(n.tolist()):
        own = (scores[i, :length] * 20).float().double().numpy()
        path = labels[i, :length].numpy()
        worth = chain.start[path[0]] + own[np.arange(length), path].sum() + chain.end[path[-1]]
        worth += chain.transitions[path[:-1], path[1:]].clip(-1e4).sum()
        assert float(found[i]) == pytest.approx(chain.log_z(own) - worth, rel=1e-5, abs=1e-4)
