import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy

from lightning_mmix import mixed_loss
from lightning_mmix.core import losses
from lightning_mmix.pairing import fast
from lightning_mmix.pairing.arguments import is_paired
from lightning_mmix.pairing.lending import borrow
from lightning_mmix.pairing.pair import LatePair, Pair, pair_of

LABELS = torch.tensor([0, 1, 2])


@pytest.fixture
def logits():
    return torch.randn(3, 4, dtype=torch.float64, requires_grad=True)


def paired(step, target):
    target = target.clone()
    borrow(step, [target])
    return target


class Counted(TorchDispatchMode):
    """Counts the calls of each operation."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"ignore_index": 1},
        {"weight": torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64)},
        {"label_smoothing": 0.1},
        {"label_smoothing": 0.1, "ignore_index": 2},
    ],
)
def test_a_cross_entropy_is_the_mixed_one(options, step, logits):
    loss = F.cross_entropy(logits, paired(step, LABELS), **options)
    other = logits.detach().clone().requires_grad_()
    expected = mixed_loss(lambda p, y: F.cross_entropy(p, y, **options), other, LABELS, step.plan)
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), expected)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(logits.grad, other.grad)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 2, 5), (3, 4, 2, 3, 2)])
def test_a_cross_entropy_of_maps_is_the_mixed_one(shape, step):
    logits, labels = torch.randn(shape), torch.randint(4, (shape[0], *shape[2:]))
    loss = F.cross_entropy(logits, paired(step, labels))
    expected = mixed_loss(F.cross_entropy, logits, labels, step.plan)
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), expected)


@pytest.mark.filterwarnings("ignore:size_average and reduce")
def test_its_old_arguments_mean_what_they_did(step, logits):
    loss = F.cross_entropy(logits, paired(step, LABELS), reduce=False)
    expected = mixed_loss(
        lambda p, y: F.cross_entropy(p, y, reduction="none"), logits, LABELS, step.plan
    )
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1, "weight": torch.rand(4).double()}]
)
def test_its_softmax_is_computed_once(options, step, logits):
    labels = paired(step, LABELS)
    with Counted() as counted:
        F.cross_entropy(logits, labels, **options)
    assert counted.names.count("aten::_log_softmax") == 1
    assert counted.names.count("aten::nll_loss_forward") == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_under_autocast_it_is_as_wide_as_without_a_pair(dtype, step):
    logits = torch.randn(3, 4).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(logits, paired(step, LABELS))
        expected = mixed_loss(F.cross_entropy, logits, LABELS, step.plan)
    assert loss.dtype == expected.dtype
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), expected)


CHANGES = {
    "divided": lambda loss: loss / 4,
    "scaled": lambda loss: 3 * loss * 0.5,
    "copied": lambda loss: loss.clone(),
    "shifted": lambda loss: 1 + loss - 3,
    "added up": lambda loss: sum([loss, loss.clone(), loss / 2]),
    "in turns": lambda loss: (loss.clone() / 2).mul(3).clone(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_loss_is_exact_also_if_it_goes_on_into_another(name, step, logits):
    change = CHANGES[name]

    def criterion(prediction, labels):
        return change(F.cross_entropy(prediction, labels)).exp()

    loss = criterion(logits, paired(step, LABELS))
    other = logits.detach().clone().requires_grad_()
    expected = mixed_loss(criterion, other, LABELS, step.plan)
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(logits.grad, other.grad)


@pytest.mark.parametrize("name", CHANGES)
def test_only_the_mix_of_a_changed_loss_is_computed(name, step, logits):
    loss = F.cross_entropy(logits, paired(step, LABELS))
    changed = CHANGES[name](loss)
    assert is_paired(changed)
    assert not pair_of(changed)._is_settled
    expected = CHANGES[name](loss.detach().as_subclass(torch.Tensor))
    torch.testing.assert_close(changed.detach().as_subclass(torch.Tensor), expected)
    changed.backward()
    assert not pair_of(changed)._is_settled


@pytest.mark.parametrize(
    "change",
    [
        lambda loss: torch.mul(input=loss, other=2.0),
        lambda loss: torch.add(input=loss, other=loss),
        lambda loss: torch.add(loss, loss, alpha=3),
        lambda loss: loss.sub(other=loss.detach(), alpha=0.5),
        lambda loss: torch.div(loss, 0.3, rounding_mode="floor"),
    ],
)
def test_arguments_by_keyword_mean_what_they_do(change, step, logits):
    def criterion(z, y):
        return change(F.cross_entropy(z, y))

    found = criterion(logits, paired(step, LABELS))
    expected = mixed_loss(criterion, logits, LABELS, step.plan)
    torch.testing.assert_close(found.as_subclass(torch.Tensor), expected)


def test_a_detached_loss_stays_without_a_graph(step, logits):
    weight = F.cross_entropy(logits, paired(step, LABELS)).detach()
    assert isinstance(pair_of(weight), LatePair)
    assert not weight.requires_grad
    assert not pair_of(weight).first.requires_grad
    assert pair_of(weight).first != pair_of(weight).second


def test_what_was_copied_before_a_write_keeps_its_sides(step, logits):
    loss = F.cross_entropy(logits, paired(step, LABELS))
    copied, first = loss.clone(), pair_of(loss).first.detach().clone()
    loss += 1
    torch.testing.assert_close(pair_of(copied).first.detach(), first)
    torch.testing.assert_close(pair_of(loss).first.detach(), first + 1)


def test_a_hook_on_a_changed_loss_sees_its_gradients_on_either_way(step, logits):
    for use in (lambda x: x * 2, lambda x: x * torch.tensor(2.0)):
        seen = []
        changed = F.cross_entropy(logits, paired(step, LABELS)) / 4
        handle = changed.register_hook(lambda grad, seen=seen: seen.append(float(grad)))
        use(changed).backward()
        assert sum(seen) == pytest.approx(2)
        handle.remove()
        assert not changed._backward_hooks


def test_a_loss_that_was_formed_before_the_layer_ran_is_not_taken_for_a_mix(step, logits):
    step.fired = False
    loss = F.cross_entropy(logits, paired(step, LABELS))
    assert loss.item() == pytest.approx(F.cross_entropy(logits, LABELS).item())
    step.fired = True
    expected = mixed_loss(F.cross_entropy, logits, LABELS, step.plan)
    torch.testing.assert_close((loss / 2).as_subclass(torch.Tensor), expected / 2)


def test_a_detached_loss_that_requires_a_gradient_again_gets_it(step, logits):
    leaf = F.cross_entropy(logits, paired(step, LABELS)).detach().requires_grad_()
    (leaf * 3).backward()
    assert leaf.grad == 3
    with pytest.raises(ValueError, match="exact only if"):  # it hangs on no side
        (leaf * 3).exp()


def test_a_loss_that_is_changed_without_gradients_has_sides_without_them(step, logits):
    loss = F.cross_entropy(logits, paired(step, LABELS))
    with torch.no_grad():
        halved = loss / 2
    assert not pair_of(halved).first.requires_grad


@pytest.mark.parametrize("loss", [F.mse_loss, F.binary_cross_entropy_with_logits])
def test_of_a_loss_of_a_mixed_target_no_side_is_computed_before_it_is_asked_for(loss, step, logits):
    target = paired(step, torch.rand(3, 4, dtype=torch.float64))
    with Counted() as counted:
        value = loss(logits, target)
        (value / 2).backward()
    passes = [name for name in counted.names if name.endswith(("mse_loss", "with_logits"))]
    assert len(passes) == (2 if loss is F.mse_loss else 1)  # a constant, and the loss
    assert not pair_of(value)._is_settled
    expected = [loss(logits, pair_of(target)[side]) for side in (0, 1)]
    torch.testing.assert_close([*pair_of(value).sides], expected)


def test_a_weight_that_is_written_into_before_the_sides_are_needed_is_refused(step, logits):
    weight, target = torch.ones(4), paired(step, torch.rand(3, 4, dtype=torch.float64))
    loss = F.binary_cross_entropy_with_logits(logits, target, weight)
    weight.zero_()
    with pytest.raises(ValueError, match="or a weight, was written into"):
        loss.exp()


def test_a_step_that_a_hook_ends_within_the_backward_pass_leaves_an_ordinary_loss(step, logits):
    logits.register_hook(lambda _: step.close())
    loss = F.cross_entropy(logits, paired(step, LABELS))
    loss.backward()
    assert type(loss) is torch.Tensor
    assert (loss / 2).item() == pytest.approx(loss.item() / 2)


def test_of_a_sum_of_losses_the_mix_alone_is_computed(step, logits):
    target = paired(step, torch.rand(3, 4, dtype=torch.float64))

    def terms(logits, target):
        error = F.mse_loss(logits, target)
        return error + F.binary_cross_entropy_with_logits(logits, target) / 2 - error.detach()

    total = terms(logits, target)
    assert not pair_of(total)._is_settled
    assert not any(late()._is_settled for late in step.late if late() is not None)
    expected = [terms(logits, pair_of(target)[side]) for side in (0, 1)]
    torch.testing.assert_close([*pair_of(total).sides], expected)
    torch.testing.assert_close(
        total.detach().as_subclass(torch.Tensor), expected[0].lerp(expected[1], 0.25).detach()
    )


def test_a_sum_of_very_many_losses_has_its_sides(step, logits):
    target = paired(step, torch.rand(3, 4, dtype=torch.float64))
    total = F.mse_loss(logits, target)
    for _ in range(3000):
        total = total + F.mse_loss(logits, target)
    expected = 3001 * F.mse_loss(logits, pair_of(target).first)
    torch.testing.assert_close(pair_of(total).first, expected)


def test_half_precision_does_not_round_the_target(step):
    logits, target = torch.randn(3, 4).bfloat16(), torch.rand(3, 4).bfloat16()
    loss = F.mse_loss(logits, paired(step, target))
    assert type(pair_of(loss)) is Pair


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sides_that_are_asked_for_after_autocast_are_those_within(dtype, step):
    logits, target = torch.randn(3, 4, dtype=dtype), torch.rand(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.mse_loss(logits, paired(step, target))
        expected = [F.mse_loss(logits, each) for each in (target, target[step.plan.partner])]
    torch.testing.assert_close([*pair_of(loss).sides], expected)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_target_that_is_broadcast_goes_the_general_way(reduction, step):
    logits, target = torch.randn(3, 1), torch.rand(3)
    loss = F.mse_loss(logits, paired(step, target), reduction=reduction)
    expected = mixed_loss(
        lambda z, y: F.mse_loss(z, y, reduction=reduction), logits, target, step.plan
    )
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), expected)


def test_an_option_that_is_not_known_goes_the_general_way(step, logits, monkeypatch):
    def cross_entropy(logits, labels, **options):
        seen.append(options)
        return F.cross_entropy(logits, labels)

    seen, labels = [], paired(step, LABELS)
    monkeypatch.setitem(fast._LOSSES, cross_entropy, fast._cross_entropy)
    monkeypatch.setitem(losses._USUAL, cross_entropy, losses._USUAL[F.cross_entropy])
    fast._way.cache_clear()
    options = {**losses._USUAL[F.cross_entropy], "z_loss": 0.1}
    assert fast.answer_to(cross_entropy, (logits, labels), options) is None
    assert fast.answer_to(cross_entropy, (logits, labels), losses._USUAL[F.cross_entropy])
    fast._way.cache_clear()


def test_a_gradient_of_the_gradient_is_the_naive_one(step, logits):
    def penalised(z, y):
        (slope,) = torch.autograd.grad(F.cross_entropy(z, y), z, create_graph=True)
        return slope.square().sum()

    other = logits.detach().clone().requires_grad_()
    penalised(logits, paired(step, LABELS)).backward()
    mixed_loss(penalised, other, LABELS, step.plan).backward()
    torch.testing.assert_close(logits.grad, other.grad)


def test_backward_takes_what_it_takes_of_any_tensor(step, logits):
    loss = F.cross_entropy(logits, paired(step, LABELS))
    loss.backward(retain_graph=True)
    once, logits.grad = logits.grad, None
    assert type(loss) is not torch.Tensor
    loss.backward(torch.tensor(2.0), inputs=[logits])
    torch.testing.assert_close(logits.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    assert is_paired(loss)


def test_a_metric_counts_own_labels_as_ordinary_ones(step, logits):
    labels, accuracy = paired(step, LABELS), MulticlassAccuracy(4, average="micro")
    found = accuracy(logits.detach(), labels)
    assert type(found) is torch.Tensor
    assert found == (logits.argmax(1) == LABELS).float().mean()
    assert is_paired(labels == 1)  # outside of it they are paired


def test_a_metric_compares_with_own_labels_at_once(step, logits):
    class Hits(Metric):
        is_differentiable = False

        def __init__(self):
            super().__init__()
            self.add_state("hits", torch.tensor(0), "sum")

        def update(self, found, labels):
            same = found == labels
            assert type(same) is torch.Tensor
            self.hits += same.sum()

        def compute(self):
            return self.hits

    labels, found = paired(step, LABELS), logits.argmax(1)
    assert Hits()(found, labels) == (found == LABELS).sum()


def test_a_metric_that_has_a_gradient_is_followed(step):
    preds = torch.randn(3, requires_grad=True)
    target = paired(step, torch.rand(3))
    error = MeanSquaredError()(preds, target)
    expected = mixed_loss(F.mse_loss, preds, pair_of(target).first, step.plan)
    torch.testing.assert_close(error.as_subclass(torch.Tensor), expected)
