"""What lies between samples of different classes, mixed by hand."""

import pytest
import torch
from torch import nn

from lightning_mmix.evaluation.boundaries import (
    interpolate_between,
    other_class,
    probabilities_on_grid,
    share_below,
)
from lightning_mmix.evaluation.predictions import Predictor

X, Y = torch.randn(7, 4), torch.tensor([0, 1, 2, 0, 1, 2, 2])
LAYERS = ["input", "0", "1"]
each = pytest.mark.parametrize("layer", LAYERS)


def network(classes=3):
    torch.manual_seed(1)
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, classes)]
    return nn.Sequential(*layers)


def by_hand(model, layer, lam):
    """The probabilities where the state of each sample is mixed with its partner's."""
    split = 0 if layer == "input" else int(layer) + 1
    states = model.eval()[:split](X)
    mixed = [lam * states[i] + (1 - lam) * states[j] for i, j in enumerate(other_class(Y))]
    return model[split:](torch.stack(mixed)).softmax(1).detach()


@each
def test_the_states_are_mixed_as_by_hand(layer):
    found, partner = interpolate_between(network(), (X, Y), layer, steps=4), other_class(Y).tolist()
    assert found.lam.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    for i, lam in enumerate(found.lam):
        probs = by_hand(network(), layer, lam)
        own = torch.stack([p[y] for p, y in zip(probs, Y, strict=True)])
        other = torch.stack([p[Y[j]] for p, j in zip(probs, partner, strict=True)])
        expected = torch.stack([probs.max(1).values, own, other]).mean(1)
        values = torch.stack([found.confidence[i], found.own[i], found.partner[i]])
        torch.testing.assert_close(values, expected)


def test_an_input_that_is_not_recognised_is_told_by_a_predictor():
    batch = {"pic": X, "label": Y}
    with pytest.raises(
        ValueError, match=r"say where: Predictor\(model, input=<key, index or path>"
    ):
        interpolate_between(network(), batch)
    interpolate_between(Predictor(network(), input="pic"), batch)


@each
def test_the_ends_are_the_networks_own_confidences(layer):
    found, probs = interpolate_between(network(), (X, Y), layer), network().eval()(X).softmax(1)
    assert len(found.lam) == 11
    for end in (0, -1):
        assert float(found.confidence[end]) == pytest.approx(float(probs.max(1).values.mean()))
    own = probs.gather(1, Y[:, None]).mean()
    assert [float(found.own[-1]), float(found.partner[0])] == pytest.approx([float(own)] * 2)


@each
def test_network_and_batch_are_left_as_they_were(layer):
    model, x, y = network().train(), X.clone(), Y.clone()
    memory = x.data_ptr()
    interpolate_between(model, {"image": x, "label": y}, layer)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())
    assert (type(x), x.data_ptr(), type(y)) == (torch.Tensor, memory, torch.Tensor)
    assert torch.equal(x, X)


class Last(nn.Module):
    """A network that fails on what is mixed."""

    def __init__(self):
        super().__init__()
        self.first, self.calls = nn.Linear(4, 3), 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 2:
            raise KeyError
        return self.first(x)


@pytest.mark.parametrize("layer", ["input", "first"])
def test_an_exception_leaves_no_gate_behind_and_the_input_as_it_was(layer):
    model, x = Last(), X.clone()
    with pytest.raises(KeyError):
        interpolate_between(model, (x, Y), layer)
    assert model.calls == 3
    assert not model.first._forward_hooks
    assert model.training
    assert torch.equal(x, X)


def test_pairs_within_a_class_that_is_too_large_do_not_count():
    y = torch.tensor([0, 0, 0, 0, 0, 1, 2])
    found, probs = interpolate_between(network(), (X, y)), network().eval()(X).softmax(1)
    paired = [i for i, j in enumerate(other_class(y).tolist()) if y[i] != y[j]]
    assert len(paired) == 4
    assert float(found.own[-1]) == pytest.approx(sum(float(probs[i, y[i]]) for i in paired) / 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool, torch.float32])
@pytest.mark.parametrize("classes", [1, 2])
def test_two_classes_may_have_one_score_and_labels_of_any_type(classes, dtype):
    found = interpolate_between(network(classes), (X[:6], (torch.arange(6) % 2).to(dtype)))
    logits = network(classes).eval()(X[:6])
    scores = logits[:, 0] if classes == 1 else logits[:, 1] - logits[:, 0]
    confidence = scores.abs().sigmoid().mean()
    assert float(found.confidence[0]) == pytest.approx(float(confidence))


def test_probabilities_are_taken_as_such():
    model = nn.Sequential(network(), nn.Softmax(1))
    found = interpolate_between(Predictor(model, form="probabilities"), (X, Y))
    expected = interpolate_between(network(), (X, Y))
    torch.testing.assert_close(vars(found), vars(expected))


@pytest.mark.parametrize(
    ("batch", "layer", "message"),
    [
        ((X, Y), "3.0", "there is no layer '3.0'; did you mean"),
        ((X, 0 * Y), "input", r"at least two classes, but got int64 \(7,\) of one class"),
        ((X, torch.eye(7)), "input", r"labels of shape \(B,\) .* but got float32 \(7, 7\)"),
    ],
)
def test_what_can_not_be_interpolated_is_refused(batch, layer, message):
    with pytest.raises(ValueError, match=message):
        interpolate_between(network(), batch, layer)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 2, 1), (2, 2, 2, 1), (5, 5), (4, 1, 1, 1, 1)])
def test_all_partners_are_of_another_class_if_no_class_exceeds_half(sizes):
    generator = torch.Generator().manual_seed(5)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    for _ in range(9):
        y = labels[torch.randperm(len(labels), generator=generator)]
        partner = other_class(y)
        assert sorted(partner.tolist()) == list(range(len(y)))
        assert (y != y[partner]).all()


@pytest.mark.parametrize("largest", [0, 1, 2])
def test_of_a_class_that_exceeds_half_as_many_are_paired_as_there_are_others(largest):
    y = torch.tensor([largest] * 6 + [(largest + 1) % 3] * 2 + [(largest + 2) % 3])
    partner = other_class(y)
    assert sorted(partner.tolist()) == list(range(9))
    assert (y != y[partner]).sum() == 6


@pytest.mark.parametrize("y", [torch.tensor([2, 2]), torch.tensor([]).long(), torch.zeros(2, 2)])
def test_labels_of_no_or_one_class_are_refused(y):
    with pytest.raises(ValueError, match=r"expected labels of shape \(B,\) and at least two clas"):
        other_class(y)


class Plane(nn.Module):
    """Two classes, whose logits are x and 10·y."""

    def forward(self, points):
        return points * torch.tensor([1.0, 10.0])


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_a_grid_has_rows_that_go_up_in_y_and_columns_in_x(form):
    head = nn.Identity() if form == "logits" else nn.Softmax(1)
    model = nn.Sequential(nn.Dropout(0.5), Plane(), head)
    probs = probabilities_on_grid(model, (-1, 1, -2, 4), 3, form=form)
    assert probs.shape == (3, 3, 2)
    for i, y in enumerate([-2.0, 1.0, 4.0]):
        for j, x in enumerate([-1.0, 0.0, 1.0]):
            torch.testing.assert_close(probs[i, j], torch.tensor([x, 10 * y]).softmax(0))
    assert model.training


def test_the_share_below_a_confidence_leaves_that_one_out():
    probs = torch.tensor(
        [[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.05, 0.95]]], dtype=torch.float64
    )
    assert share_below(probs, 0.9) == 0.5
    assert [share_below(probs, c) for c in (0.5, 0.95, 1.0)] == [0, 0.75, 1]


def test_samples_of_an_ignored_label_are_in_no_pair():
    torch.manual_seed(4)
    model, x, target = nn.Linear(4, 3), torch.randn(9, 4), torch.arange(9) % 3
    voided = target.clone()
    voided[[0, 4, 5]] = -1
    kept = voided != -1
    found = interpolate_between(Predictor(model, ignore_index=-1), (x, voided), steps=3)
    expected = interpolate_between(model, (x[kept], target[kept]), steps=3)
    for name in ("lam", "confidence", "own", "partner"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
