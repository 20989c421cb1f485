import copy
import pickle

import losses
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_mmix.paired import Paired, is_paired
from lightning_mmix.plan import MixPlan
from lightning_mmix.step import Step
from lightning_mmix.targets import borrow

PLAN = MixPlan("0", torch.tensor(0.75), torch.tensor([2, 0, 1]))


@pytest.fixture
def step():
    step = Step(PLAN)
    step.fired = True
    yield step
    step.close()


def paired(step, values=(0, 1, 2)):
    target = torch.tensor(values)
    borrow(step, [target])
    return target


def test_a_float_is_the_mix_and_an_integer_the_dominant_one(step):
    labels, numbers = paired(step), paired(step, (0.0, 1.0, 2.0))
    assert labels.tolist() == [0, 1, 2]
    assert numbers.tolist() == [0.5, 0.75, 1.75]
    assert (labels * 1.0).tolist() == [0.5, 0.75, 1.75]
    assert (labels * 1.0).pair.second.tolist() == [2.0, 0.0, 1.0]


def test_lam_counts_as_one_until_the_layer_has_run(step):
    step.fired = False
    assert (paired(step) * 1.0).tolist() == [0.0, 1.0, 2.0]


def test_the_graph_of_the_own_value_reaches_both_sides(step):
    weight = torch.tensor([1.0, 10.0, 100.0], requires_grad=True)
    weight[paired(step)].sum().backward()
    assert weight.grad.tolist() == [1.0, 1.0, 1.0]
    (weight[paired(step)] * torch.arange(3)).sum().backward()
    assert weight.grad.tolist() == [1 + 0.25, 1 + 0.75 + 0.5, 1 + 1.5]


def test_without_gradients_it_is_the_first_and_remembers_the_second(step):
    with torch.no_grad():
        one_hot = F.one_hot(paired(step), 3).float()
    assert one_hot.argmax(1).tolist() == [0, 1, 2]
    assert (one_hot * 1)[:, 2].tolist() == [0.25, 0.0, 0.75]


def test_an_in_place_write_makes_an_ordinary_tensor_paired(step):
    ordinary = torch.zeros(3, 3)
    ordinary.scatter_(1, paired(step)[:, None], 1)
    assert is_paired(ordinary)
    assert ordinary.tolist() == [[0.75, 0, 0.25], [0.25, 0.75, 0], [0, 0.25, 0.75]]


def test_an_in_place_write_into_a_paired_tensor_writes_both_sides(step):
    labels = paired(step)
    labels[labels == 2] = -100
    assert labels.tolist() == [0, 1, -100]
    assert labels.pair.second.tolist() == [-100, 0, 1]
    one_hot = F.one_hot(paired(step)).float()
    one_hot.mul_(2)
    assert one_hot[0].tolist() == [1.5, 0, 0.5]


def test_unsqueezing_in_place_keeps_both_sides(step):
    labels = paired(step)
    labels.unsqueeze_(1)
    assert labels.shape == labels.pair.first.shape == labels.pair.second.shape == (3, 1)


@pytest.mark.parametrize("state", ["buffer", "parameter"])
def test_parameters_and_buffers_get_the_first_and_stay_ordinary(state):
    model = nn.Module()
    model.buffer = nn.Buffer(torch.zeros(3))
    model.parameter = nn.Parameter(torch.zeros(3))
    step = Step(PLAN, model)
    step.fired = True
    tensor = getattr(model, state)
    with torch.no_grad():
        tensor.view(3)[:2] += paired(step)[:2] + 1
    assert type(tensor) in (torch.Tensor, nn.Parameter, nn.Buffer)
    assert tensor.tolist() == [1, 2, 0]
    step.close()


def test_metric_states_stay_ordinary_and_see_ordinary_labels():
    model = nn.Module()
    model.accuracy = MulticlassAccuracy(3, average="micro")
    step = Step(PLAN, model)
    step.fired = True
    preds = torch.eye(3)
    assert model.accuracy(preds, paired(step)) == 1
    model.accuracy.update(preds, paired(step))
    step.close()
    assert type(model.accuracy.tp) is torch.Tensor
    assert model.accuracy.compute() == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda t, y: t[:, 0].copy_(y),
        lambda t, y: t.view(-1).scatter_(0, y, 1),
        lambda t, y: torch.add(y, 1, out=t[:, 0].contiguous()),
    ],
)
def test_a_write_that_cannot_be_paired_is_refused(step, write):
    ordinary = torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"write it out of place, or into a \.clone\(\)"):
        write(ordinary, paired(step))
    assert ordinary.eq(0).all()


def test_python_values_are_those_of_the_own_value(step):
    labels, numbers = paired(step), paired(step, (0.0, 1.0, 2.0))
    assert labels.shape == (3,)
    assert len(labels) == 3
    assert int(labels.max()) == 2
    assert [int(label) for label in labels] == [0, 1, 2]
    assert float(numbers[0]) == 0.5
    assert bool(labels[0] == 0)
    assert type(torch.zeros_like(labels)) is torch.Tensor
    assert type(torch.zeros(3, 1).view_as(labels)) is torch.Tensor


def test_random_functions_give_both_sides_the_same_noise(step):
    state = torch.get_rng_state()
    noisy = torch.normal(paired(step) * 1.0, 1.0)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    noise = torch.normal(torch.zeros(3), 1.0)
    assert torch.equal(after, torch.get_rng_state())
    torch.testing.assert_close(noisy.pair.first - torch.arange(3), noise)
    torch.testing.assert_close(noisy.pair.second - torch.tensor([2, 0, 1]), noise)


def test_nothing_is_paired_any_more_after_the_step(step):
    target = torch.tensor([0.0, 1.0, 2.0])
    borrow(step, [target])
    derived, kept = target * 2, [target.sum()]
    step.close()
    assert [type(t) for t in (target, derived, kept[0])] == [torch.Tensor] * 3
    assert target.tolist() == [0.0, 1.0, 2.0]
    assert derived.tolist() == [1.0, 1.5, 3.5]
    assert "pair" not in vars(target)


def test_it_pickles_and_copies_as_its_own_value(step):
    labels = paired(step)
    assert type(pickle.loads(pickle.dumps(labels))) is torch.Tensor
    assert copy.deepcopy(labels).tolist() == [0, 1, 2]


def test_a_custom_function_of_the_target_may_not_be_used_nonlinearly(step):
    logits = torch.randn(3, losses.C, requires_grad=True)
    loss = losses._SquaredError.apply(logits, paired(step))
    assert isinstance(loss / 2, Paired)
    with pytest.raises(ValueError, match="log takes the output of a custom autograd"):
        loss.log()
    with pytest.raises(ValueError, match="mixes exactly only in sums, means and multiples"):
        (loss.mean() + 1) ** 2


def test_it_meets_other_tensor_subclasses(step):
    class Named(torch.Tensor):
        pass

    logits = torch.randn(3, 5).as_subclass(Named).requires_grad_()
    expected = torch.lerp(
        F.cross_entropy(logits, torch.tensor([2, 0, 1])),
        F.cross_entropy(logits, torch.tensor([0, 1, 2])),
        0.75,
    )
    loss = F.cross_entropy(logits, paired(step))
    assert is_paired(loss)
    assert loss.item() == pytest.approx(expected.item())
