"""One evaluation under many conditions, against the same by hand, and what it leaves alone."""

import random
from dataclasses import asdict
from io import StringIO

import naive
import numpy as np
import pytest
import rich
import torch
import torch.nn.functional as F
from fitting import Net
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from lightning_mmix.evaluation.attacks import FGSM, PGD
from lightning_mmix.evaluation.condition import Condition
from lightning_mmix.evaluation.distortions import (
    Corruption,
    Rotation,
    Shear,
    Zoom,
)
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.evaluation.robustness import Evaluation, Row, Units, evaluate
from lightning_mmix.evaluation.standard import Clean, GaussianNoise
from lightning_mmix.metrics.scores import Tally

UNITS = Units(-1.0, 3.0, mean=(0.5, 1.5), std=(2.0, 0.25))
MEAN, STD = (torch.tensor(v)[:, None, None] for v in (UNITS.mean, UNITS.std))
DATA = torch.rand(11, 2, 3, 5, generator=torch.Generator().manual_seed(2)) * 4 - 1
X, Y = (DATA - MEAN) / STD, torch.arange(11) % 4
RANDOM = [PGD(0.3, steps=2), GaussianNoise(0.4), Rotation(40), Shear(30)]


def network():
    torch.manual_seed(1)
    layers = [nn.Flatten(), nn.Linear(30, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(7, 4)).eval()


def batches(size=4, x=X, y=Y):
    return list(zip(x.split(size), y.split(size), strict=True))


def rows(model, conditions, loader=None, **kwargs):
    kwargs = {"units": UNITS, "progress": False, **kwargs}
    return evaluate(model, batches() if loader is None else loader, conditions, **kwargs)


def scores(row):
    return [row.samples, row.accuracy, row.nll, row.brier, row.ece, row.smece, row.gap]


@pytest.mark.parametrize("conditions", [Clean(), Clean, [Clean], "clean", None])
def test_conditions_are_a_list_of_them(conditions):
    with pytest.raises(ValueError, match=r"expected a list of conditions, as \[Clean\(\)\]"):
        rows(network(), conditions)
    assert len(rows(network(), iter([Clean()]))) == 1


def test_of_a_predictor_its_own_argument_is_named():
    batch = {"pic": X, "label": Y}
    with pytest.raises(ValueError, match=r"; say where: input=<key, index or path>$"):
        rows(Predictor(network()), [FGSM(0.1)], [batch])
    assert len(rows(Predictor(network(), input="pic"), [FGSM(0.1)], [batch])) == 1


def test_a_clean_row_is_the_tally_of_the_predictions():
    model, tally = network(), Tally()
    tally.update(model(X), Y)
    (row,) = rows(model, [Clean()])
    assert (row.condition, row.family, row.strength, row.unit) == ("clean", "clean", 0, "")
    names = ("samples", "accuracy", "nll", "brier", "ece", "smece", "gap")
    assert scores(row) == pytest.approx([float(tally.compute()[name]) for name in names])
    assert isinstance(row.samples, int)


def attacked(model, x, y, eps):
    """The fast gradient method on one image, with all of its units by hand."""
    data = (x * STD + MEAN).requires_grad_()
    F.cross_entropy(model(((data - MEAN) / STD)[None]), y[None]).backward()
    stepped = (data.detach() + eps * data.grad.sign()).clamp(-1.0, 3.0)
    return (stepped - MEAN) / STD


@pytest.mark.parametrize("eps", [0.1, 1.0])
def test_the_fast_gradient_method_is_that_by_hand(eps):
    model = network()
    x = torch.stack([attacked(model, *pair, eps) for pair in zip(X, Y, strict=True)])
    (row,) = rows(model, [FGSM(eps)])
    logits = model(x).detach()
    assert row.accuracy == pytest.approx(naive.accuracy(logits, Y)) != naive.accuracy(model(X), Y)
    assert row.nll == pytest.approx(float(naive.negative_log_likelihood(logits, Y)), rel=1e-5)
    assert (row.condition, row.strength, row.unit) == (f"FGSM {eps:g}", eps, "ε")


class Seen(Condition):
    """Tells what it is given, and puts all in the middle."""

    family, axis = "seen", "middle"
    middle = 1.0

    def perturb(self, x, loss, bounds, rng):
        self.x, self.losses, self.bounds = x, loss(x), bounds
        return torch.full_like(x, self.middle)


def test_a_condition_is_given_data_in_their_units_and_the_loss_of_each():
    model, seen = network(), Seen()
    (row,) = rows(model, [seen], [(X, Y)])
    torch.testing.assert_close(seen.x, DATA)
    torch.testing.assert_close(seen.losses, F.cross_entropy(model(X), Y, reduction="none"))
    assert not seen.losses.requires_grad
    assert seen.bounds == (-1.0, 3.0)
    logits = model((torch.ones_like(X) - MEAN) / STD)
    assert row.nll == pytest.approx(F.cross_entropy(logits, Y).item(), rel=1e-6)


def test_vectors_and_one_number_for_all_channels_have_units_too():
    x = torch.randn(3, 4)
    torch.testing.assert_close(Units(-99, 99, 1.0, 2.0).of_data(x), 2 * x + 1)
    units = Units(-99, 99, mean=[1.0, 2, 3, 4], std=[4.0, 3, 2, 1])
    expected = x * torch.tensor(units.std) + torch.tensor(units.mean)
    torch.testing.assert_close(units.of_data(x), expected)
    torch.testing.assert_close(units.of_network(expected), x)


def test_rounding_out_of_the_range_is_clamped_and_half_precision_widened():
    data = Units().of_data(torch.tensor([-5e-4, 0.5, 1.0005]).bfloat16())
    assert data.dtype == torch.float32
    assert data.tolist() == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_rows_are_the_same_for_a_seed_whatever_else_is_evaluated(seed):
    model = network()
    together = rows(model, RANDOM, seed=seed)
    assert together == [rows(model, [each], seed=seed)[0] for each in RANDOM]
    assert together == rows(model, RANDOM[::-1], seed=seed)[::-1]


@pytest.mark.parametrize("condition", RANDOM)
def test_another_seed_and_each_batch_draw_anew(condition):
    model = network()
    assert rows(model, [condition], seed=1) != rows(model, [condition], seed=2)
    twice = rows(model, [condition], [batches()[0]] * 2)
    assert twice[0].nll != rows(model, [condition], [batches()[0]])[0].nll


@pytest.mark.parametrize("condition", [Clean(), FGSM(0.3), Zoom(0.7), Corruption("contrast", 3)])
def test_batches_of_any_size_and_order_have_the_same_row(condition):
    model = network()
    (expected,) = rows(model, [condition], batches(11))
    for loader in (batches(1), batches(7)[::-1]):
        (found,) = rows(model, [condition], loader)
        assert scores(found) == pytest.approx(scores(expected), rel=1e-5)


def state_of(model):
    numpy_state = np.random.get_state()
    return {
        "flags": [module.training for module in model.modules()],
        "buffers": [b.tolist() for b in model.buffers()],
        "grads": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "hooks": [len(m._forward_hooks) for m in model.modules()],
        "random": (torch.get_rng_state().tolist(), numpy_state[1].tolist(), random.getstate()),
        "enabled": torch.is_grad_enabled(),
    }


def test_model_batch_and_global_generators_are_left_as_they_were():
    model, x, y = network().train(), X.clone(), Y.clone()
    model[3].eval()
    model[1].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones(4, 7)
    before = state_of(model)
    loader = DataLoader(list(zip(x, y, strict=True)), 4, shuffle=True)
    rows(model, [Clean(), FGSM(0.3), *RANDOM], loader)
    rows(model, [FGSM(0.3)], [(x, y)])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        rows(model, [FGSM(0.3)], [(x, y), (x[:, :, 1:], y)])
    assert state_of(model) == before
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


def test_a_network_that_writes_into_its_input_keeps_the_batch_and_the_other_conditions():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x.mul_(2))

    x = X.clone()
    one, both = InPlace(), [FGSM(0.3), GaussianNoise(0.2)]
    together = rows(one, both, [(x, Y)])
    assert torch.equal(x, X)
    assert together == [rows(one, [each], [(X.clone(), Y)])[0] for each in both]


@pytest.mark.parametrize("x", [X[:, :, 0, :1].flatten(1), X])
def test_inputs_outside_of_the_range_are_refused(x):
    message = (
        r"the inputs lie in \[-?\d\S+, \d\S+\], outside of the data's range \[0, 1\]; give their "
        "range, or the mean and std that they were normalised by"
    )
    with pytest.raises(ValueError, match=message):
        rows(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), [FGSM(0.1)], [(x, Y)], units=None)


SEGMENTED = torch.rand(3, 2, 4, 5), torch.arange(60).view(3, 4, 5) % 2


@pytest.mark.parametrize(
    ("model", "batch", "condition", "message"),
    [
        (
            nn.Embedding(5, 4),
            (Y.int(), Y),
            FGSM(0.1),
            "FGSM 0.1 needs a floating-point input, but got t",
        ),
        (nn.Identity(), (torch.rand(11, 4), Y), Rotation(9), r"rotation ±9° needs images of shape"),
        (nn.Identity(), (torch.rand(11, 4), Y), Corruption("jpeg", 1), r"jpeg 1 .* got \(11, 4\)"),
        (
            nn.Identity(),
            SEGMENTED,
            Rotation(9),
            "rotation ±9° would move the pixels, but not their",
        ),
        (nn.Identity(), SEGMENTED, Shear(9), "shear ±9° would move the pixels, but not their lab"),
        (nn.Identity(), SEGMENTED, Zoom(1.2), "zoom 1.2 would move the pixels, but not their lab"),
    ],
)
def test_a_condition_that_does_not_fit_the_batch_is_refused(model, batch, condition, message):
    assert rows(model, [Clean()], [batch])[0].samples == batch[1].numel()
    with pytest.raises(ValueError, match=message):
        rows(model, [condition], [batch], units=None)


def test_a_segmentation_is_attacked_and_blurred_pixel_by_pixel():
    x, y = SEGMENTED
    found = rows(nn.Identity(), [FGSM(0.1), Corruption("gaussian_blur", 2)], [(x, y)], units=None)
    sign = 1 - 2 * F.one_hot(y, 2).movedim(-1, 1)
    logits = (x + 0.1 * sign).clamp(0, 1)
    assert found[0].nll == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-6)
    assert found[1].samples == 60


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match=r"a range with low < high, but got \(1, 1\)"):
        Units(1, 1)


def test_a_progress_bar_is_shown_only_if_asked_for(monkeypatch):
    screen = StringIO()
    terminal = Console(file=screen, force_terminal=True, _environ={})
    monkeypatch.setattr(rich, "_console", terminal)
    rows(network(), [Clean()])
    assert not screen.getvalue()
    rows(network(), [Clean()], progress=True)
    assert "evaluating" in screen.getvalue()


MIXED = [Clean(), FGSM(0.3), Rotation(30)]


@pytest.mark.parametrize(
    "batch",
    [
        lambda x, y: {"image": x, "label": y, "id": "a"},
        lambda x, y: {"label": y, "id": torch.zeros(len(y), 2), "image": x},
        lambda x, y: [x, y],
    ],
)
def test_a_batch_of_another_kind_gives_the_same_rows(batch):
    model, loader = network(), [batch(x, y) for x, y in batches()]
    assert rows(model, MIXED, loader) == rows(model, MIXED)


def test_a_predictor_says_where_a_batch_holds_what():
    class Second(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, a, b):
            return {"other": a[:, :4], "scores": self.net(b).softmax(1)}

    where = {"form": "probabilities", "target": "c.0", "input": "b", "output": "scores"}
    loader = [{"a": torch.rand(len(x), 9), "b": x, "c": [y]} for x, y in batches()]
    found = rows(Predictor(Second(), **where), MIXED, loader)
    for one, other in zip(found, rows(network(), MIXED), strict=True):
        assert scores(one) == pytest.approx(scores(other), rel=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiled_model_gives_the_same_rows():
    assert rows(torch.compile(network(), backend="eager"), MIXED) == rows(network(), MIXED)


def test_a_lightning_module_gives_the_rows_of_its_network():
    module, x = Net(), torch.rand(7, 4)
    loader = [(x, torch.arange(7) % 5)]
    found = rows(module, [Clean(), FGSM(0.1)], loader, units=None)
    assert found == rows(module.net, [Clean(), FGSM(0.1)], loader, units=None)
    assert module.training


def test_a_network_in_half_precision_gets_half_precision():
    model = network().bfloat16()
    found = rows(model, MIXED, batches(x=X.bfloat16()))
    for one, other in zip(found, rows(network(), MIXED), strict=True):
        assert one.nll == pytest.approx(other.nll, rel=0.1)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_batch_of_inference_mode_can_be_attacked(mode):
    evaluation = Evaluation(Predictor(network()), MIXED, units=UNITS)
    for i, (x, y) in enumerate(batches()):
        with mode():
            evaluation.update((x.clone(), y.clone()), i)
    assert evaluation.rows() == rows(network(), MIXED)


def test_only_the_first_samples_count_if_so_many_are_asked_for():
    evaluation = Evaluation(Predictor(network()), [Clean()], units=UNITS)
    evaluation.update((X, Y), 0, 3)
    assert evaluation.rows() == rows(network(), [Clean()], [(X[:3], Y[:3])])


def test_what_a_distributed_sampler_repeats_is_not_scored():
    data = list(zip(X, Y, strict=True))
    sampler = DistributedSampler(data, num_replicas=3, rank=2, shuffle=False)
    (row,) = rows(network(), [Clean()], DataLoader(data, 3, sampler=sampler))
    assert len(sampler) == 4
    assert row == rows(network(), [Clean()], [(X[2::3], Y[2::3])])[0]


def test_a_row_can_be_made_again_of_its_containers():
    (row,) = rows(network(), [FGSM(0.3)])
    assert Row(**asdict(row)) == row


def test_a_std_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"expected a finite std > 0, but got \[0.2, 0\]"):
        Units(std=[0.2, 0])


@pytest.mark.parametrize("void", [-100, 255])
def test_samples_of_an_ignored_label_count_under_no_condition(void):
    model, target = network(), Y.clone()
    target[::3] = void
    before, kept = target.clone(), target != void
    conditions = [Clean(), FGSM(0.3), PGD(0.2, steps=2, random_start=False), Zoom(0.7)]
    found = rows(model, conditions, [(X, target)], ignore_index=void)
    expected = rows(model, conditions, [(X[kept], Y[kept])])
    for one, other in zip(found, expected, strict=True):
        assert scores(one) == pytest.approx(scores(other), rel=1e-5)
    assert torch.equal(target, before)
    held = Predictor(model, ignore_index=void)
    assert rows(held, conditions, [(X, target)]) == found


def test_pixels_of_an_ignored_label_are_neither_scored_nor_attacked():
    x, y = SEGMENTED
    target = y.clone()
    target[1], target[2, 0] = 255, 255
    seen = Seen()
    found = rows(
        nn.Identity(), [Clean(), FGSM(0.1), seen], [(x, target)], units=None, ignore_index=255
    )
    kept = target != 255
    sign = (1 - 2 * F.one_hot(y, 2).movedim(-1, 1)) * kept[:, None]
    logits = (x + 0.1 * sign).clamp(0, 1)
    for row, preds in zip(found, (x, logits), strict=False):
        assert row.samples == int(kept.sum())
        assert row.nll == pytest.approx(F.cross_entropy(preds, target, ignore_index=255).item())
    assert seen.losses[1] == 0


def test_labels_in_a_column_give_the_rows_of_those_in_a_row():
    model = network()
    assert rows(model, MIXED, [(X, Y[:, None])]) == rows(model, MIXED, [(X, Y)])


@pytest.mark.parametrize("conditions", [[Clean(), FGSM(0.3)], [FGSM(0.3), Clean()]])
def test_what_is_doubted_of_predictions_is_said_once(conditions):
    with pytest.warns(UserWarning, match=r"expected logits, but the predictions, float") as caught:
        rows(nn.Sequential(network(), nn.Softmax(1)), conditions, [(X, Y)])
    assert len(caught) == 1


def test_a_network_that_an_attack_finds_no_gradient_of_is_refused():
    class Still(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        @torch.no_grad()
        def forward(self, x):
            return self.net(x)

    assert rows(Still(), [Clean()]) == rows(network(), [Clean()])
    with pytest.raises(
        ValueError, match="does forward run under no_grad or inference_mode, or det"
    ):
        rows(Still(), [FGSM(0.1)])
