import pickle
import random

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from scipy import stats

from lightning_mmix.evaluation.attacks import FGSM, PGD
from lightning_mmix.evaluation.condition import Condition
from lightning_mmix.evaluation.distortions import (
    Corruption,
    Rotation,
    Shear,
    Zoom,
)
from lightning_mmix.evaluation.standard import Clean, GaussianNoise, standard_conditions

BOUNDS = (-1.0, 2.0)
ALL = [
    Clean(),
    FGSM(0.4),
    FGSM(0.4, "l2"),
    PGD(0.4, steps=3),
    PGD(0.4, "l2", steps=3),
    GaussianNoise(0.4),
    Rotation(30),
    Shear(30),
    Zoom(0.7),
    Zoom(1.3),
    *(Corruption(kind, 4) for kind in ("gaussian_blur", "brightness", "contrast")),
    *(Corruption(kind, 4) for kind in ("jpeg", "pixelate")),
]
each = pytest.mark.parametrize("condition", ALL, ids=lambda condition: condition.name)


def make(*shape, dtype=torch.float32):
    low, high = BOUNDS
    return torch.from_numpy(np.random.default_rng(5).uniform(low, high, shape)).to(dtype)


def loss(x):
    return (
        (x * torch.linspace(-2, 1, x[0].numel(), dtype=x.dtype).view(x[0].shape)).flatten(1).sum(1)
    )


def perturbed(condition, x, loss=loss, seed=1):
    return condition.perturb(x, loss, BOUNDS, np.random.default_rng(seed))


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_what_comes_out_looks_like_what_went_in(condition, dtype):
    x = make(2, 3, 7, 5, dtype=dtype)
    y = perturbed(condition, x)
    assert (y.shape, y.dtype, y.device, y.requires_grad) == (x.shape, dtype, x.device, False)
    assert y.min() >= BOUNDS[0]
    assert y.max() <= BOUNDS[1]
    assert torch.equal(x, make(2, 3, 7, 5, dtype=dtype))


@each
def test_half_precision_differs_by_its_rounding_only(condition):
    x = make(2, 3, 7, 5).bfloat16()
    close = perturbed(condition, x).double(), perturbed(condition, x.double())
    torch.testing.assert_close(*close, rtol=0.02, atol=0.02)


@each
def test_everything_but_the_clean_data_is_changed(condition):
    x = make(2, 3, 7, 5)
    assert torch.equal(perturbed(condition, x), x) == isinstance(condition, Clean)


@each
def test_the_generator_given_is_the_only_randomness(condition):
    x = make(2, 3, 7, 5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    first, again = perturbed(condition, x), perturbed(condition, x)
    assert torch.equal(first, again)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


@pytest.mark.parametrize(
    "condition", [PGD(0.4, step_size=0.01), GaussianNoise(0.1), Rotation(9), Shear(9)]
)
def test_another_generator_draws_something_else(condition):
    x = make(2, 3, 7, 5)
    assert not torch.equal(perturbed(condition, x, seed=1), perturbed(condition, x, seed=2))


@each
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_is_the_same_where_gradients_are_disabled(condition, mode):
    expected = perturbed(condition, make(2, 3, 7, 5))
    with mode():
        assert torch.equal(perturbed(condition, make(2, 3, 7, 5)), expected)


@each
def test_an_empty_batch_stays_empty(condition):
    empty = make(0, 3, 7, 5)
    y = perturbed(condition, empty, lambda x: x.flatten(1).sum(1))
    assert y.shape == empty.shape


@each
def test_integers_are_refused(condition):
    if not isinstance(condition, Clean):
        with pytest.raises(TypeError, match=r"expected a floating-point x, but got torch.uint8"):
            perturbed(condition, torch.zeros(2, 3, 7, 5, dtype=torch.uint8))


@each
@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, -1.0), (0.0, float("inf"))])
def test_bounds_that_are_no_range_are_refused(condition, bounds):
    if not isinstance(condition, Clean):
        with pytest.raises(ValueError, match=r"expected finite bounds \(low, high\) with low < hi"):
            condition.perturb(make(2, 3, 7, 5), loss, bounds, np.random.default_rng(0))


@each
def test_vectors_will_do_unless_images_are_needed(condition):
    x = make(3, 5)
    if not condition.images_only:
        assert perturbed(condition, x).shape == x.shape
        return
    with pytest.raises(
        ValueError, match=r"expected images of shape \(B, C, H, W\) for .* \(3, 5\)"
    ):
        perturbed(condition, x)


@each
def test_a_condition_can_be_pickled_compared_and_hashed(condition):
    assert {pickle.loads(pickle.dumps(condition))} == {condition}


@pytest.mark.parametrize(
    ("condition", "name", "family", "strength", "unit"),
    [
        (Clean(), "clean", "clean", 0, ""),
        (FGSM(8 / 255), "FGSM 0.0313725", "FGSM", 8 / 255, "ε"),
        (FGSM(1, "l2"), "FGSM L2 1", "FGSM L2", 1, "ε"),
        (PGD(0.1), "PGD 0.1", "PGD", 0.1, "ε"),
        (PGD(0.1, "l2", steps=20), "PGD-20 L2 0.1", "PGD-20 L2", 0.1, "ε"),
        (GaussianNoise(0.1), "Gaussian noise 0.1", "Gaussian noise", 0.1, "std"),
        (Rotation(20), "rotation ±20°", "rotation", 20, "°"),
        (Shear(28.6), "shear ±28.6°", "shear", 28.6, "°"),
        (Zoom(0.8), "zoom 0.8", "zoom", 0.8, ""),
        (Corruption("gaussian_blur", 3), "gaussian blur 3", "gaussian blur", 3, "severity"),
    ],
)
def test_a_condition_says_what_it_is(condition, name, family, strength, unit):
    said = condition.name, condition.family, condition.strength, condition.unit
    assert said == (name, family, strength, unit)


def test_conditions_can_be_written_in_yaml(tmp_path):
    (tmp_path / "it.yaml").write_text(
        "conditions:\n"
        "- lightning_mmix.evaluation.Clean\n"
        "- {class_path: lightning_mmix.evaluation.PGD, init_args: {eps: 0.1, norm: l2}}\n"
        "- {class_path: lightning_mmix.evaluation.Corruption,"
        " init_args: {kind: jpeg, severity: 2}}\n"
    )
    parser = ArgumentParser()
    parser.add_argument("--conditions", type=list[Condition])
    config = parser.parse_path(tmp_path / "it.yaml")
    read = parser.instantiate_classes(config).conditions
    assert read == [Clean(), PGD(0.1, "l2"), Corruption("jpeg", 2)]


def test_clean_data_are_the_data_themselves():
    x = make(2, 3)
    assert perturbed(Clean(), x) is x


def test_noise_is_gaussian_and_of_the_deviation_given():
    x = torch.full((20, 500), 0.5, dtype=torch.float64)
    noise = GaussianNoise(0.1).perturb(x, loss, BOUNDS, np.random.default_rng(3)) - x
    assert stats.kstest(noise.flatten().numpy(), stats.norm(scale=0.1).cdf).pvalue > 0.01


@pytest.mark.parametrize("std", [-1, float("nan"), float("inf")])
def test_a_deviation_out_of_range_is_refused(std):
    with pytest.raises(ValueError, match=f"expected a finite std ≥ 0, but got {std}"):
        GaussianNoise(std)


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_the_standard_conditions_begin_clean_and_have_names_of_their_own(images, fast):
    conditions = standard_conditions(BOUNDS, images=images, fast=fast)
    assert conditions[0] == Clean()
    assert len({each.name for each in conditions}) == len(conditions)
    assert any(each.images_only for each in conditions) == images


def test_the_standard_strengths_grow_with_the_range():
    small = standard_conditions((0, 1), images=True)
    large = standard_conditions((-1, 3), images=True)
    for a, b in zip(small, large, strict=True):
        ratio = 4 if a.unit in {"ε", "std"} else 1
        assert b.strength == pytest.approx(ratio * a.strength)


def test_outliers_do_not_make_the_standard_strengths_strong():
    wide = standard_conditions((-9, 11), images=False, std=1.0)
    assert wide == standard_conditions((0, 4), images=False)
    assert standard_conditions((0, 1), images=False, std=1.0) == standard_conditions(
        (0, 1), images=False
    )


def test_the_standard_conditions_of_an_empty_range_are_refused():
    with pytest.raises(ValueError, match=r"expected finite bounds .* but got \(1, 1\)"):
        standard_conditions((1, 1), images=False)
