"""What stays out of reach, an example each, as the guide to targets lists it."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from fitting import Net, Steps, batches, fit, loader, trainer

from lightning_mmix import ManifoldMixup, MixPlan, check, mixing

X, Y = batches(size=6)[0]
FLIPS = [True, False, True, True, False, False]


def said(step, batch=(X, Y), **kwargs):
    """What was said in a fit of one batch."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Steps(step), ManifoldMixup(layers=["net.0"], **kwargs), data=[copy.deepcopy(batch)])
    return [str(w.message) for w in caught if "said once" in str(w.message)]


def found(step, batch=(X, Y), **kwargs):
    mixup = ManifoldMixup(layers=["net.0"], **kwargs)
    return check(Steps(step), loader([batch]), mixup=mixup, trainer=trainer())


@torch.jit.script
def scripted(z, y):
    return F.cross_entropy(z, y)


@pytest.mark.parametrize(
    "term",
    [
        lambda z, y: F.cross_entropy(z, torch.tensor(y)),
        lambda z, y: F.cross_entropy(z, torch.as_tensor(y, dtype=torch.uint8).long()),
        scripted,
    ],
)
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor", "ignore:.*torch.jit.script")
def test_a_copy_or_kernel_that_reads_memory_is_seen_by_the_check_alone(term):
    def step(module, batch):
        z = module(batch[0])
        return F.cross_entropy(z, batch[1]) + term(z, batch[1])

    assert said(step) == []
    checked = found(step)
    assert not checked.is_exact
    assert "none of the known reasons was noticed" in checked.findings[0]


def test_a_number_made_of_losses_is_that_of_the_mix_for_both_targets():
    def step(module, batch):
        z = module(batch[0])
        loss, other = F.cross_entropy(z, batch[1]), F.multi_margin_loss(z, batch[1])
        return loss + other * (loss.item() / other.item())

    assert said(step) == []
    assert not found(step).is_exact


def test_flags_of_python_that_change_the_target_after_the_network_are_not_seen():
    target = torch.randn(6, 5)

    def flipped(rows):
        return torch.stack([row.flip(-1) if f else row for row, f in zip(rows, FLIPS, strict=True)])

    def step(module, batch):
        z = module(flipped(batch[0]))
        return F.mse_loss(z, flipped(batch[1]))

    assert said(step, (X, target)) == []
    assert found(step, (X, target)).is_exact  # as the naive form, that flips the partner's likewise


def test_what_a_step_keeps_of_the_network_is_mixed_and_the_labels_are_not():
    def step(module, batch):
        module.kept = module(batch[0]).detach(), batch[1].clone()
        return F.cross_entropy(module(batch[0]), batch[1])

    module = Steps(step)
    before = copy.deepcopy(module)
    fit(module, ManifoldMixup(layers=["net.0"]))
    logits, labels = module.kept
    assert not torch.allclose(logits, before(X))
    assert labels.tolist() == Y.tolist()


def test_a_gradient_by_hand_is_that_of_the_own_label_where_gradients_are_off():
    module, plan = Net(), MixPlan("net.0", torch.tensor(0.75), torch.arange(6).roll(1))
    with mixing(module, plan, Y.clone()) as y:
        z = module(X)
        z.retain_grad()
        with torch.no_grad():
            slope = z.softmax(1) - F.one_hot(y, 5)
        z.backward(slope)
    torch.testing.assert_close(z.grad, z.detach().softmax(1) - F.one_hot(Y, 5))


def test_state_that_a_step_writes_and_reads_again_holds_own_labels():
    def step(module, batch):
        z = module(batch[0])
        module.counts[batch[1]] += 1
        return F.cross_entropy(z, batch[1])

    module = Steps(step)
    module.register_buffer("counts", torch.zeros(5))
    fit(module, ManifoldMixup(layers=["net.0"]))
    assert module.counts.tolist() == [1.0] * 5


def test_the_soft_labels_of_a_teacher_are_the_samples_own():
    teacher = torch.nn.Linear(4, 5).requires_grad_(requires_grad=False)

    def step(module, batch):
        z = module(batch[0])
        module.soft = teacher(batch[0]).softmax(1)
        return F.cross_entropy(z, batch[1]) + F.kl_div(z.log_softmax(1), module.soft)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "reduction: 'mean' divides")
        module = Steps(step)
        fit(module, ManifoldMixup(layers=["net.0"]), data=[(X.clone(), Y.clone())])
        assert said(step) == []
    torch.testing.assert_close(module.soft, teacher(X).softmax(1))


def test_what_the_network_takes_and_an_inputs_length_are_the_samples_own_without_a_word():
    class Masks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(5))

        def forward(self, z, mask):
            return z * self.scale * mask[:, None]

    masks, mask, lengths = Masks(), torch.tensor([1.0, 0, 1, 1, 0, 1]), torch.arange(1.0, 7.0)

    def step(module, batch):
        z = masks(module(batch["x"]), batch["mask"])
        return (F.cross_entropy(z, batch["label"], reduction="none") / batch["x_len"]).mean()

    assert said(step, {"x": X, "mask": mask, "x_len": lengths, "label": Y}) == []


def test_an_entry_that_is_watched_is_of_a_subclass():
    seen = []

    def step(module, batch):
        seen.append(type(batch[0]) is torch.Tensor)
        return F.cross_entropy(module(batch[0]), batch[1])

    fit(Steps(step), ManifoldMixup(layers=["net.0"], stop=1.0), data=batches(5))
    assert seen == [False, False, True, False, True]


@pytest.mark.parametrize("target", [None, 1])
def test_a_row_for_each_box_is_said_if_they_are_as_many_as_the_images(target):
    def step(module, batch):
        x, boxes = batch
        owners, classes = boxes[:, :2].long().unbind(1)
        return F.cross_entropy(module(x)[owners], classes)

    boxes = torch.cat([torch.arange(6)[:, None], Y[:, None], torch.rand(6, 4)], 1)
    assert said(step, (X, boxes), target=target) == [
        "the first column of the target counts the samples, as a table of boxes does; a row takes "
        "its number along to its partner, so the partner's boxes are compared with the partner's "
        "image, and the loss is that of a sample's own label; pad the boxes to (B, M, ...); this "
        "is said once"
    ]
    assert said(step, (X, boxes[[0, 0, 1, 3, 4, 5]]), target=target) == []  # sorted by chance


class Opaque:
    """A batch that shows none of its entries to the outside."""

    def __init__(self, x, y, weight):
        self.x, self.y, self.weight = x, y, weight


def test_an_entry_of_an_object_that_lists_none_is_not_watched():
    def step(module, batch):
        z = module(batch.x)
        return (F.cross_entropy(z, batch.y, reduction="none") * batch.weight).mean()

    data = Opaque(X, Y, torch.linspace(0.1, 1, 6))
    assert said(step, data, target="y", verify=False) == []


def weighs(module, batch):
    x, y, weight = batch
    return (F.cross_entropy(module(x), y, reduction="none") * weight).mean()


def takes_values(module, batch):
    weight = torch.tensor([1.0 + int(label) for label in batch[1]])
    return (F.cross_entropy(module(batch[0]), batch[1], reduction="none") * weight).mean()


def test_in_a_compiled_network_entries_are_not_watched_but_values_are():
    def compiled(step):
        def first(module, batch):
            module.net.compile(backend="eager")
            return step(module, batch)

        return first

    torch.compiler.reset()
    batch = (X, Y, torch.linspace(0.1, 1, 6))
    module = Steps(weighs)
    module.net.compile(backend="eager")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*said once")
        fit(module, ManifoldMixup(layers=["net.0"], target=1), data=[batch])
    (text,) = said(compiled(takes_values))
    assert "(int at test_limits.py:" in text
    torch.compiler.reset()


def test_of_manual_optimisation_values_are_said_without_a_trial():
    class Manual(Steps):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(self.step(self, batch))

    with pytest.warns(UserWarning, match="a loss that depends on it is not exact"):
        fit(Manual(takes_values), ManifoldMixup(layers=["net.0"]))


def test_a_loop_without_lightning_is_not_watched():
    module, plan = Net(), MixPlan("net.0", torch.tensor(0.75), torch.arange(6).roll(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with mixing(module, plan, Y.clone()) as y:
            takes_values(module, (X, y)).backward()
