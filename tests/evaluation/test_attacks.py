import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lightning_mmix.evaluation.attacks import FGSM, PGD, Ball, gradient

WIDE = (-10.0, 10.0)
X = torch.tensor([[0.5, 0.3, 0.9], [0.1, 0.7, 0.4]], dtype=torch.float64)
W = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
NORMS = ["linf", "l2"]
SURE = PGD(0.3, "l2", steps=40, step_size=0.3)  # that the start is forgotten
ATTACKS = [FGSM(0.3), FGSM(0.3, "l2"), PGD(0.3), SURE]
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def margin(x):
    return x.flatten(1) @ W.to(x.dtype)


def loss(x):
    return -margin(x)


def attacked(attack, x=X, loss=loss, bounds=WIDE, seed=0):
    return attack.perturb(x, loss, bounds, np.random.default_rng(seed))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 1), nn.Flatten(0)).double()


@each
def test_the_margin_of_a_linear_model_falls_by_eps_times_the_dual_norm(attack):
    dual = W.abs().sum() if attack.norm == "linf" else W.square().sum().sqrt()
    fallen = margin(X) - margin(attacked(attack))
    torch.testing.assert_close(fallen, (0.3 * dual).expand(2), rtol=0, atol=1e-6)


def test_ten_default_steps_turn_from_anywhere_to_the_best_direction():
    x = torch.zeros(500, 3, dtype=torch.float64)
    share = -margin(attacked(PGD(0.3, "l2"), x)) / (0.3 * W.square().sum().sqrt())
    assert (share > 0.95).all()
    assert (share <= 1 + 1e-12).all()


@pytest.mark.parametrize(
    ("norm", "step"), [("linf", W.sign()), ("l2", W / W.square().sum().sqrt())]
)
def test_a_step_is_the_signed_or_the_normalised_gradient(norm, step):
    torch.testing.assert_close(attacked(FGSM(0.3, norm)), X - 0.3 * step, rtol=0, atol=1e-15)


@pytest.mark.parametrize("eps", [0.05, 0.3, 2.0])
def test_the_best_of_ball_and_box_is_reached(eps):
    best = (X - eps * W.sign()).clamp(0, 1)
    reached = attacked(PGD(eps), bounds=(0.0, 1.0))
    torch.testing.assert_close(reached, best, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_many_steps_climb_a_peak_that_one_step_jumps_over(norm):
    def peak(x):
        return -(x - X - 0.05).square().sum(1)

    one, many = (peak(attacked(kind(0.3, norm), loss=peak)) for kind in (FGSM, PGD))
    assert (many > one).all()
    assert (many > -0.02).all()


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_from_the_sample_is_the_fast_gradient_method(norm):
    once = PGD(0.3, norm, steps=1, step_size=0.3, random_start=False)
    net = network()
    expected = attacked(FGSM(0.3, norm), loss=net)
    torch.testing.assert_close(attacked(once, loss=net), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("step_size", [None, 0.01, 5.0])
def test_all_iterates_lie_within_ball_and_box(norm, step_size):
    seen = []
    net = network()
    attack = PGD(0.3, norm, steps=7, step_size=step_size)
    last = attacked(attack, loss=lambda x: [seen.append(x.detach()), net(x)][1], bounds=(0.0, 1.0))
    assert len(seen) == 7
    for x in [*seen, last]:
        length = torch.linalg.vector_norm(x - X, math.inf if norm == "linf" else 2, dim=1)
        assert (length <= 0.3 + 1e-12).all()
        assert 0 <= x.min() <= x.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_the_steps_add_up_to_two_and_a_half_radii_by_default(norm):
    net = network()
    explicit = attacked(PGD(0.3, norm, steps=5, step_size=0.15), loss=net)
    assert torch.equal(attacked(PGD(0.3, norm, steps=5), loss=net), explicit)


@each
def test_a_sample_is_attacked_as_if_it_were_alone(attack):
    net = network()
    if isinstance(attack, PGD):
        attack = PGD(attack.eps, attack.norm, random_start=False)
    alone = torch.cat([attacked(attack, x[None], net) for x in X])
    torch.testing.assert_close(attacked(attack, loss=net), alone, rtol=0, atol=1e-12)


@each
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 5), (3, 2, 1, 4)])
def test_samples_have_any_shape(attack, shape):
    x = torch.zeros(shape)
    moved = attacked(attack, x, lambda x: x[..., None].flatten(1).sum(1))
    length = attack.eps if attack.norm == "linf" else attack.eps / math.sqrt(x[0].numel())
    torch.testing.assert_close(moved, torch.full(shape, length))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [FGSM, PGD])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_radius_of_zero_gives_the_sample_back(norm, kind, dtype):
    x = X.to(dtype)
    assert torch.equal(attacked(kind(0, norm), x, bounds=(0.0, 1.0)), x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_flat_loss_gives_the_sample_back(norm):
    def flat(x):
        return (0 * x).sum(1)

    assert torch.equal(attacked(FGSM(0.3, norm), loss=flat), X)
    assert torch.equal(attacked(PGD(0.3, norm, random_start=False), loss=flat), X)


@each
def test_a_nearly_flat_loss_is_climbed_all_the_same(attack):
    x = X.float()
    expected = attacked(attack, x)
    torch.testing.assert_close(attacked(attack, x, lambda x: 1e-30 * loss(x)), expected)


@each
def test_small_steps_are_not_lost_in_half_precision(attack):
    x = torch.full((2, 3), 0.9, dtype=torch.bfloat16)
    wide = attacked(attack, x.double())
    torch.testing.assert_close(attacked(attack, x), wide.bfloat16(), rtol=0, atol=2**-8)


@each
def test_the_loss_is_given_the_dtype_of_the_data(attack):
    def picky(x):
        assert x.dtype == torch.bfloat16
        return loss(x)

    attacked(attack, X.bfloat16(), picky)


@each
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_gradients_of_parameters_stay_as_they_are(attack, mode):
    net = network()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    with mode():
        attacked(attack, loss=net)
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert net[2].weight.grad is None


@each
def test_a_network_may_begin_in_place(attack):
    net = network()
    expected = attacked(attack, loss=lambda x: net(x.relu()))
    x = X.clone()
    assert torch.equal(attacked(attack, x, lambda x: net(x.relu_())), expected)
    assert torch.equal(x, X)


def test_data_that_require_a_gradient_get_none():
    x = X.clone().requires_grad_()
    assert not attacked(PGD(0.3), x).requires_grad
    assert x.grad is None


@pytest.mark.parametrize(
    ("wrong", "got"), [(lambda x: loss(x).mean(), "()"), (lambda x: x, "(2, 3)")]
)
def test_a_loss_that_is_none_of_each_sample_is_refused(wrong, got):
    with pytest.raises(
        ValueError, match=re.escape(f"expected a loss of each sample, of shape (2,), but got {got}")
    ):
        gradient(wrong, X, X.dtype)


class Held(nn.Module):
    """A network that keeps its input out of the graph, or uses what inference mode has made."""

    def __init__(self, mode):
        super().__init__()
        self.mode, self.body, self.head = mode, nn.Linear(3, 3), nn.Linear(3, 1)
        with torch.inference_mode():
            self.kept = torch.ones(3)

    def forward(self, x):
        if self.mode == "kept":
            return self.head(self.body(x) * self.kept)[:, 0]
        if self.mode == "detach":
            return self.head(self.body(x).detach())[:, 0]
        with self.mode():
            return self.head(self.body(x))[:, 0]


def decorated(mode, part):
    net = Held(mode).double()
    if part == "body":
        return lambda x: net.head(mode()(net.body)(x))[:, 0]
    return mode()(net.forward) if part == "all" else net


NO_GRADIENT = (
    "expected a network whose output follows from its input, but there is no gradient from one to "
    "the other, which attacks need; does forward run under no_grad or inference_mode, or detach?"
)
OF_INFERENCE = (
    "expected a network whose output follows from its input, but it computes with tensors of "
    "inference mode, through which attacks find no gradient; leave inference_mode out of forward, "
    "and make what it keeps under no_grad"
)


@each
@pytest.mark.parametrize(
    ("mode", "part", "message"),
    [
        (torch.no_grad, "all", NO_GRADIENT),
        (torch.no_grad, "inside", NO_GRADIENT),
        (torch.no_grad, "body", NO_GRADIENT),
        (torch.inference_mode, "all", NO_GRADIENT),
        (torch.inference_mode, "inside", NO_GRADIENT),
        (torch.inference_mode, "body", OF_INFERENCE),
        ("detach", "", NO_GRADIENT),
        ("kept", "", OF_INFERENCE),
    ],
)
def test_a_network_without_a_gradient_is_refused_in_a_sentence(attack, mode, part, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        attacked(attack, loss=decorated(mode, part))
    assert str(error.value) == message


def test_another_error_of_the_network_keeps_its_words():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gradient(nn.Linear(5, 1).double(), X, X.dtype)


def test_a_random_start_is_uniform_in_the_cube():
    like = torch.zeros(5_000, 3, dtype=torch.float64)
    drawn = Ball(0.3, "linf").draw(like, np.random.default_rng(1)).numpy()
    assert stats.kstest(drawn.ravel(), stats.uniform(-0.3, 0.6).cdf).pvalue > 0.01


def test_a_random_start_is_uniform_in_the_ball():
    like = torch.zeros(5_000, 3, dtype=torch.float64)
    drawn = Ball(0.3, "l2").draw(like, np.random.default_rng(1))
    volumes = (drawn.norm(dim=1) / 0.3) ** 3
    heights = drawn[:, 2] / drawn.norm(dim=1)  # uniform on a sphere (Archimedes)
    assert stats.kstest(volumes.numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(heights.numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_the_projection_on_the_ball_is_the_nearest_point_of_it():
    inside, outside = [0.1, -0.2, 0.0], [3.0, 0.0, -4.0]
    projected = Ball(0.5, "l2").project(torch.tensor([inside, outside]))
    torch.testing.assert_close(projected, torch.tensor([inside, [0.3, 0.0, -0.4]]))


@pytest.mark.parametrize("kind", [FGSM, PGD])
@pytest.mark.parametrize("eps", [-1, math.nan, math.inf])
def test_an_eps_out_of_range_is_refused(kind, eps):
    with pytest.raises(ValueError, match=f"expected a finite eps ≥ 0, but got {eps}"):
        kind(eps)


@pytest.mark.parametrize("kind", [FGSM, PGD])
def test_an_unknown_norm_is_refused(kind):
    with pytest.raises(ValueError, match=r"expected norm in \('linf', 'l2'\), but got 'l1'"):
        kind(0.1, "l1")


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_out_of_range_are_refused(steps):
    with pytest.raises(ValueError, match=f"expected steps ≥ 1, but got {steps}"):
        PGD(0.1, steps=steps)


@pytest.mark.parametrize("size", [0, -1, math.inf])
def test_a_step_size_out_of_range_is_refused(size):
    with pytest.raises(
        ValueError, match=f"expected a finite step_size > 0 or None, but got {size}"
    ):
        PGD(0.1, step_size=size)
