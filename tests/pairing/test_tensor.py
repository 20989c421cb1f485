import copy
import pickle

import losses
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.classification import MulticlassAccuracy
from torchvision import tv_tensors

from lightning_mmix.core.plan import MixPlan
from lightning_mmix.pairing.arguments import is_paired
from lightning_mmix.pairing.lending import borrow
from lightning_mmix.pairing.refusals import on_partners
from lightning_mmix.pairing.step import Step
from lightning_mmix.pairing.tensor import Paired

PLAN = MixPlan("0", torch.tensor(0.75), torch.tensor([2, 0, 1]))


def paired(step, values=(0, 1, 2)):
    target = torch.tensor(values)
    borrow(step, [target])
    return target


def test_a_target_is_its_own_and_what_is_computed_from_it_the_mix(step):
    labels, numbers = paired(step), paired(step, (0.0, 1.0, 2.0))
    assert labels.tolist() == [0, 1, 2]
    assert numbers.tolist() == [0.0, 1.0, 2.0]
    assert (numbers * 1.0).tolist() == [0.5, 0.75, 1.75]
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
    with pytest.raises(ValueError, match="writes what follows from the target into "):
        write(ordinary, paired(step))
    assert ordinary.eq(0).all()


def test_python_values_are_those_of_the_own_value(step):
    labels, numbers = paired(step), paired(step, (0.0, 1.0, 2.0))
    assert labels.shape == (3,)
    assert len(labels) == 3
    assert int(labels.max()) == 2
    assert [int(label) for label in labels] == [0, 1, 2]
    assert float(numbers[0]) == 0.0
    assert float(numbers.max()) == 2.0
    assert float(numbers.sum() + numbers[0]) == 3.5
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


class Marked(torch.Tensor):
    """A tensor of a class that makes deep copies in its own way."""

    def __deepcopy__(self, memo):
        return self.detach().clone().as_subclass(Marked)


@pytest.mark.parametrize("cls", [torch.Tensor, Marked])
@pytest.mark.parametrize("dtype", [torch.long, torch.float32])
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda y: copy.deepcopy({"y": y})["y"]])
def test_a_copy_is_paired_too(step, make, dtype, cls):
    labels = torch.arange(3).to(dtype).as_subclass(cls)
    borrow(step, [labels])
    copied = make(labels)
    assert copied is not labels
    assert [side.tolist() for side in (copied, copied.pair[0], copied.pair[1])] == [
        [0, 1, 2], [0, 1, 2], [2, 0, 1],
    ]  # fmt: skip
    step.close()
    assert type(labels) is cls
    assert not is_paired(copied)


def test_a_deep_copy_of_an_image_mask_is_a_mask_again(step):
    mask = tv_tensors.Mask(torch.arange(3))
    borrow(step, [mask])
    copied = copy.deepcopy(mask)
    assert [side.tolist() for side in copied.pair] == [[0, 1, 2], [2, 0, 1]]
    step.close()
    assert type(copied) is type(mask) is tv_tensors.Mask


def keeps(step, x, keep):
    step.fired = False
    labels = torch.tensor([0, 1, 2])
    borrow(step, [labels])
    return x[keep(labels)]


@pytest.mark.parametrize(
    "keep",
    [lambda y: y >= 0, lambda y: (y >= 0).nonzero()[:, 0], lambda y: torch.arange(3)[y >= 0]],
)
def test_rows_that_both_sides_choose_alike_are_ordinary(step, keep):
    x = torch.randn(3, 2)
    kept = keeps(step, x, keep)
    assert type(kept) is torch.Tensor
    assert kept.equal(x)


@pytest.mark.parametrize("keep", [lambda y: y > 0, lambda y: y])
def test_rows_that_the_sides_choose_otherwise_are_not(step, keep):
    assert is_paired(keeps(step, torch.randn(3, 2), keep))


def test_what_has_a_gradient_is_chosen_by_each_side(step):
    x = torch.zeros(3, 2, requires_grad=True)  # alike in its values, and not in its gradients
    assert is_paired(keeps(step, x, lambda y: y))


def test_a_function_that_runs_out_of_memory_says_so_itself(step):
    def runs_out(labels):
        if labels[0] == 2:
            raise torch.OutOfMemoryError("nothing left")
        return labels

    with pytest.raises(torch.OutOfMemoryError, match="nothing left"):
        on_partners(runs_out, (torch.tensor([2]),), {})


def test_a_custom_function_of_the_target_may_not_be_used_nonlinearly(step):
    logits = torch.randn(3, losses.C, requires_grad=True)
    loss = losses._SquaredError.apply(logits, paired(step))
    assert isinstance(loss / 2, Paired)
    with pytest.raises(ValueError, match="log stands next to a custom autograd"):
        loss.log()
    with pytest.raises(ValueError, match="only summed, averaged or scaled; use"):
        (loss.mean() + 1) ** 2


@pytest.mark.parametrize(
    "write",
    [
        lambda loss, y: loss.mul_(loss),
        lambda loss, y: loss.add_(y.sum()),
        lambda loss, y: loss.exp_(),
        lambda loss, y: torch.zeros(()).add_(loss).square(),
        lambda loss, y: F.cross_entropy(torch.eye(3), y).add_(loss).square(),
    ],
)
def test_a_custom_function_of_the_target_may_not_be_written_into_nonlinearly(step, write):
    logits, labels = torch.randn(3, losses.C, requires_grad=True), paired(step)
    with pytest.raises(ValueError, match="stands next to a custom autograd"):
        write(losses._SquaredError.apply(logits, labels).mean(), labels)


def test_views_of_what_is_written_into_change_with_it(step):
    loss = F.cross_entropy(torch.eye(3), paired(step))
    view = loss.view(1)
    loss *= 2
    assert view.item() == loss.item()


def test_inference_mode_in_a_step_is_no_custom_function(step):
    loss = F.cross_entropy(torch.eye(3, requires_grad=True), paired(step))
    with torch.inference_mode():
        assert (loss / 2).item() == pytest.approx(loss.item() / 2)


def test_a_running_sum_of_losses_without_gradients_is_that_of_the_mixes(step):
    loss, total = F.cross_entropy(torch.eye(3), paired(step)), torch.zeros(())
    with torch.no_grad():
        total += loss
        total *= 2
    assert total.item() == pytest.approx(2 * loss.item())


@pytest.mark.parametrize(
    "sample",
    [
        lambda p: torch.binomial(torch.full_like(p, 9), p),
        lambda p: torch.distributions.Beta(p, p).sample(),
    ],
)
def test_distributions_give_both_sides_the_same_noise(step, sample):
    with torch.random.fork_rng():
        expected = sample(torch.full((3,), 0.5))
    value = sample(paired(step, (0.5, 0.5, 0.5)))
    assert value.pair.first.tolist() == value.pair.second.tolist() == expected.tolist()


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


class _Exp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value.exp())
        return value.exp()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0]


@pytest.mark.parametrize("inner", [losses._SquaredError.apply, F.cross_entropy])
def test_a_custom_function_may_not_take_what_the_target_went_into(step, inner):
    logits = torch.randn(3, losses.C, requires_grad=True)
    with pytest.raises(ValueError, match="exp stands next to a custom autograd"):
        _Exp.apply(inner(logits, paired(step)))


@pytest.mark.parametrize("alias", [lambda t: t.data, lambda t: t.detach(), lambda t: t.view(-1)])
def test_a_write_into_memory_with_another_owner_is_refused(step, alias):
    ordinary = torch.zeros(3, 3)
    other = alias(ordinary)
    for written in (ordinary, other):
        with pytest.raises(ValueError, match="into memory that other tensors may share"):
            written.add_(paired(step).sum())
    assert ordinary.eq(0).all()


def exchange(target):
    target.data = target + 1


@pytest.mark.parametrize("write", [exchange, lambda y: y.resize_(6)])
def test_exchanging_the_memory_of_a_target_is_refused(step, write):
    with pytest.raises(ValueError, match="by exchanging its memory"):
        write(paired(step))


def test_state_is_told_from_fresh_memory_that_took_its_place():
    model = nn.Module()
    model.count = nn.Buffer(torch.zeros(5, 3))
    step = Step(PLAN, model)
    step.fired = True
    labels = paired(step)
    for _ in range(20):
        model.count[0, labels] += 1  # looks for the model's states
        model.count = torch.ones(5, 3)  # and leaves their memory to others
        fresh = [torch.zeros(3, 3) for _ in range(4)]
        assert all(is_paired(t.scatter_(1, labels[:, None], 1)) for t in fresh)
    step.close()


def test_a_write_into_part_of_a_buffer_gets_the_first():
    model = nn.Module()
    model.bank = nn.Buffer(torch.zeros(6))
    step = Step(PLAN, model)
    step.fired = True
    model.bank[3:] = paired(step) * 1.0
    assert model.bank.tolist() == [0, 0, 0, 0, 1, 2]
    step.close()


def test_a_loss_is_the_mix_for_who_logs_it_without_gradients(step):
    loss = paired(step, (4.0, 0.0, 0.0))[0].square()
    with torch.no_grad():
        logged = (loss.clone() * 2).detach()
    assert logged.item() == 2 * 0.75 * 16
    running = nn.Module()
    running.loss = nn.Buffer(torch.tensor(1.0))
    step._model = running
    with torch.no_grad():
        running.loss.mul_(0.5).add_(loss)
    assert running.loss.item() == 0.5 + 0.75 * 16


def test_a_write_without_gradients_keeps_the_history():
    # as in ArcFace: the angle is changed by value, its gradient goes straight through
    def adjusted(logits, labels):
        with torch.no_grad():
            logits[torch.arange(3), labels] = -1.0
            logits.mul_(2)
        return F.cross_entropy(logits, labels)

    weight = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    step = Step(PLAN)
    step.fired = True
    labels = torch.arange(3)
    first, second = (adjusted(weight * 1, y) for y in (labels, labels[PLAN.partner]))
    (expected,) = torch.autograd.grad(0.75 * first + 0.25 * second, weight)
    adjusted(weight * 1, paired(step)).backward()
    torch.testing.assert_close(weight.grad, expected)
    step.close()


def test_hooks_on_an_intermediate_value_see_both_sides(step):
    weight = torch.tensor([1.0, 10.0, 100.0], requires_grad=True)
    value = weight[paired(step)]
    handle = value.register_hook(lambda grad: 2 * grad)
    value.sum().backward(retain_graph=True)
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]
    handle.remove()
    weight.grad = None
    value.sum().backward()
    assert weight.grad.tolist() == [1.0, 1.0, 1.0]


def test_a_hook_on_the_output_of_a_custom_function_is_called(step):
    logits, seen = torch.randn(3, losses.C, requires_grad=True), []
    loss = losses._SquaredError.apply(logits, paired(step))
    loss.register_hook(seen.append)
    loss.sum().backward()
    assert [grad.tolist() for grad in seen] == [[1.0, 1.0, 1.0]]


def gradients_by(take, step):
    weight = nn.Parameter(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)))
    step._model = nn.ParameterList([weight])
    loss = (F.cross_entropy(weight * 1, paired(step)) * 2).square()
    take(loss, weight)
    return weight.grad


def by_grad(loss, weight):
    (weight.grad,) = torch.autograd.grad(loss, [weight])


def without_grad_mode(loss, weight):
    with torch.no_grad():
        loss.backward()


@pytest.mark.parametrize(
    "take",
    [
        lambda loss, weight: torch.autograd.backward(loss),
        lambda loss, weight: torch.autograd.backward([loss], inputs=[weight]),
        by_grad,
        without_grad_mode,
    ],
)
def test_every_way_to_take_the_gradient_takes_that_of_the_mix(step, take):
    expected = gradients_by(lambda loss, weight: loss.backward(), step)
    found = gradients_by(take, step)
    assert type(found) is torch.Tensor
    assert torch.equal(found, expected)
    assert step.went_backward


def test_a_gradient_by_hand_is_that_of_the_mix(step):
    logits, labels = torch.randn(3, 5, requires_grad=True), paired(step)
    logits.backward(logits.detach().softmax(1) - F.one_hot(labels, 5))
    one_hots = F.one_hot(torch.arange(3), 5) * 0.75 + F.one_hot(PLAN.partner, 5) * 0.25
    torch.testing.assert_close(logits.grad, logits.detach().softmax(1) - one_hots)


def test_a_number_is_formatted_as_an_ordinary_one(step):
    loss = F.cross_entropy(torch.zeros(3, 5, requires_grad=True), paired(step))
    assert f"{loss:.3f}" == "1.609"
    assert f"{paired(step)[2]:2d}" == " 2"


def test_a_gradient_with_respect_to_anything_else_is_paired(step):
    logits, labels = torch.randn(3, 5, requires_grad=True), paired(step)
    (slope,) = torch.autograd.grad(F.cross_entropy(logits.exp(), labels), logits)
    sides = torch.arange(3), PLAN.partner
    for found, target in zip(slope.pair[:2], sides, strict=True):
        (expected,) = torch.autograd.grad(F.cross_entropy(logits.exp(), target), logits)
        torch.testing.assert_close(found, expected)


def test_in_place_noise_and_that_of_a_generator_is_the_same_for_both_sides(step):
    generator = torch.Generator().manual_seed(1)
    noise = (paired(step) * 1.0).uniform_()
    assert torch.equal(noise.pair.first, noise.pair.second)
    drawn = torch.bernoulli(paired(step) * 0.0 + 0.5, generator=generator)
    assert torch.equal(drawn.pair.first, drawn.pair.second)
    state = torch.Generator().manual_seed(1)
    torch.bernoulli(torch.full((3,), 0.5), generator=state)
    assert torch.equal(generator.get_state(), state.get_state())


def test_running_statistics_are_those_of_the_first(step):
    values, norm, expected = paired(step, (0.0, 1.0, 5.0)), nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    step._model = norm
    norm(values[:2, None] + 1)
    expected(torch.tensor([[1.0], [2.0]]))
    torch.testing.assert_close(norm.running_mean, expected.running_mean)
    torch.testing.assert_close(norm.running_var, expected.running_var)


def test_sizes_that_differ_between_the_sides_are_said(step):
    few = paired(step)[:2]
    few = few[few < 2]
    for size in (len, torch.Tensor.numel, lambda t: t.shape):
        with pytest.warns(UserWarning, match="at test_tensor.py:.* masked by the target"):
            size(few)
    assert is_paired(torch.zeros_like(few))
    with pytest.raises(ValueError, match="own label gives 2 tensors and its partner's 1"):
        torch.unbind(few)


def test_arguments_in_a_dict_are_forked_too(step):
    summed = F.cross_entropy(input=torch.zeros(3, 5), target=paired(step))
    assert is_paired(summed)
    assert is_paired(torch.stack([paired(step), paired(step)])[0])


def test_a_target_that_requires_a_gradient_is_refused(step):
    target = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="expected a target without gradient"):
        borrow(step, [target])
    assert type(target) is torch.Tensor


def test_a_target_that_is_the_input_is_refused():
    value = torch.ones(3)
    with pytest.raises(ValueError, match="the target is the input as well"):
        borrow(Step(MixPlan("input", PLAN.lam, PLAN.partner)), [value], value)
    assert value.tolist() == [1, 1, 1]


def test_a_transform_of_torch_func_is_refused(step):
    labels, logits = paired(step), torch.randn(3, 5)
    with pytest.raises(ValueError, match="cross_entropy takes a mixed target within a transform"):
        torch.func.grad(lambda z: F.cross_entropy(z, labels))(logits)
