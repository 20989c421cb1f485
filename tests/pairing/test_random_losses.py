"""Losses made at random, by the fast and by the general way, are the naive ones."""

from functools import partial
from random import Random

import pytest
import torch
import torch.nn.functional as F

from lightning_mmix.core import MixPlan
from lightning_mmix.pairing import Step, tensor
from lightning_mmix.pairing.lending import borrow

B, C = 5, 4
KEPT, WEIGHTS = torch.tensor([True, False, True, True, False]), torch.arange(1.0, C + 1)
REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(chance, maps=False):
    options = {"reduction": chance.choice(REDUCTIONS)}
    if chance.random() < 0.4:
        options["weight"] = torch.rand(C) + 0.1
    if chance.random() < 0.4:
        options["label_smoothing"] = chance.choice([0.05, 0.3, 1.0])
    if chance.random() < 0.3:
        options["ignore_index"] = chance.randrange(C)
    if not maps:
        return partial(F.cross_entropy, **options)
    return lambda z, y: F.cross_entropy(
        z[..., None] * torch.ones(3), y[:, None].repeat(1, 3), **options
    )


def of_labels(chance):
    return chance.choice(
        [
            cross_entropy(chance),
            cross_entropy(chance),
            cross_entropy(chance, maps=True),
            lambda z, y: F.nll_loss(z.log_softmax(1), y, reduction="none"),
            F.multi_margin_loss,
            lambda z, y: (1 - F.cross_entropy(z, y, reduction="none").neg().exp()) ** 2,
            lambda z, y: -z.log_softmax(1).gather(1, y[:, None]).squeeze(1),
            lambda z, y: F.mse_loss(z.softmax(1), F.one_hot(y, C).to(z)),
            lambda z, y: F.cross_entropy(z, torch.where(y == 1, -100, y), reduction="none"),
            lambda z, y: F.cross_entropy(
                z, torch.where(KEPT, y, -100), WEIGHTS.to(z), label_smoothing=0.2
            ),
            lambda z, y: (z * torch.rand(C)[y][:, None].tanh()).square(),
        ]
    )


def of_numbers(chance):
    weight = chance.choice([None, torch.rand(C)])
    reduction = chance.choice(REDUCTIONS)
    return chance.choice(
        [
            lambda z, y: F.binary_cross_entropy_with_logits(
                z, y, weight, reduction=reduction, pos_weight=chance_of(weight)
            ),
            lambda z, y: F.binary_cross_entropy(z.sigmoid(), y, weight, reduction=reduction),
            lambda z, y: F.mse_loss(z, y, reduction=reduction),
            lambda z, y: F.mse_loss(z, y.square() + 1),
            lambda z, y: F.l1_loss(z, y, reduction=reduction),
            F.smooth_l1_loss,
            lambda z, y: F.huber_loss(z[:, :1], y[:, :1]),
            lambda z, y: F.kl_div(z.log_softmax(1), y.softmax(1), reduction="batchmean"),
            lambda z, y: F.cross_entropy(z, y, weight, reduction=reduction, label_smoothing=0.1),
            F.poisson_nll_loss,
            lambda z, y: F.mse_loss(z.sum(1), y.sum(1), reduction=reduction),
        ]
    )


def chance_of(weight):
    return None if weight is None else 1 + weight


CHANGES = [
    lambda x, _z: 2.5 * x,
    lambda x, _z: x / 3,
    lambda x, _z: x / torch.tensor(3.0),
    lambda x, _z: -x,
    lambda x, _z: x + 1,
    lambda x, _z: x - x.clone() / 2,
    lambda x, _z: sum([x, x.detach(), 2 * x]),
    lambda x, _z: x.clone(),
    lambda x, _z: x**2,
    lambda x, _z: torch.log1p(x.abs()),
    lambda x, _z: x * x.detach(),
    lambda x, z: x + 0.1 * z.square().mean(),
    lambda x, z: x * (1 + z.detach().mean()),
    lambda x, _z: torch.stack([x, 2 * x]).logsumexp(0),
    lambda x, _z: (x - 1).relu() + x,
]


def at_random(seed):
    """A loss of logits and target, and a target."""
    chance = Random(seed)
    torch.manual_seed(seed)
    is_labels = chance.random() < 0.6
    bases = [
        (of_labels if is_labels else of_numbers)(chance) for _ in range(chance.choice([1, 1, 2]))
    ]
    reduce = chance.choice([torch.mean, torch.sum, lambda x: (x * x).mean(), lambda x: x.max()])
    changes = [chance.choice(CHANGES) for _ in range(chance.randrange(4))]

    def loss(z, y):
        total = sum(reduce(base(z, y)) for base in bases)
        for change in changes:
            total = change(total, z)
        return total

    return loss, torch.randint(C, (B,)) if is_labels else torch.rand(B, C)


def outcome(loss, z, y):
    """Value and gradient, with the same noise each time."""
    torch.manual_seed(0)
    z = z.clone().requires_grad_()
    value = loss(z, y)
    value.backward()
    return [value.item(), z.grad]


def paired(seed):
    loss, y = at_random(seed)
    lam, partner, z = torch.rand(()), torch.randperm(B), 2 * torch.randn(B, C)
    step = Step(MixPlan("0", lam, partner))
    borrow(step, [y])
    step.fired = True
    found = outcome(loss, z, y)
    step.close()
    return found, [loss, z, y, lam, partner]


def naive(loss, z, y, lam, partner):
    def mixed(z, y):
        first = loss(z, y)
        torch.manual_seed(0)
        return lam * first + (1 - lam) * loss(z, y[partner])

    return outcome(mixed, z, y)


def check(seeds):
    for seed in seeds:
        found, case = paired(seed)
        expected = naive(*case)
        close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11, equal_nan=True)
        close(found[0], expected[0], msg=f"value of seed {seed}")
        close(found[1], expected[1], msg=f"gradient of seed {seed}")


@pytest.fixture
def _generally(monkeypatch):
    """No fast way."""
    for name in ("answer_to", "scaled"):
        monkeypatch.setattr(tensor, name, lambda *_: None)
    monkeypatch.setattr(tensor, "backward", lambda *_, **__: False)


def test_a_loss_at_random_is_the_naive_one(float64):
    check(range(1000))


@pytest.mark.usefixtures("_generally")
def test_so_it_is_by_the_general_way(float64):
    check(range(300))


@pytest.mark.slow
def test_ten_thousand_losses_at_random_are_the_naive_ones(float64):
    check(range(1000, 11_000))
