"""Whatever a paired target can't follow is exact all the same, or is said in a sentence."""

import copy
import random
import sys
import warnings

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, Steps, batches, fit
from lightning.pytorch.loggers.logger import DummyLogger
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix, roc_auc_score
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_mmix import ManifoldMixup

X, Y = batches(size=6)[0]
REAL = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
WEIGHT = torch.linspace(0.1, 1, 6)
NOISE = torch.tensor([True, False, True, True, False, False])
ORDER = torch.tensor([3, 5, 0, 2, 1, 4])


def as_it_is(target):
    """What an oracle replaces by the partner's target, right before the loss."""
    return target


def trained(step, batch, layers=("net.0",), **kwargs):
    """A module after one step, as it was before, the plan, and what was said."""
    module, callback = Steps(step), ManifoldMixup(layers=[*layers], seed=3, **kwargs)
    module.partners = as_it_is
    before = copy.deepcopy(module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, callback, data=[copy.deepcopy(batch)])
    said = [str(w.message) for w in caught if w.category is UserWarning]
    return module, before, callback.plan, [text for text in said if "said once" in text]


def expected(before, plan, batch, where):
    """Loss and gradients of the naive form.

    The targets are exchanged in the batch, or right before the loss, in the rows of the network.
    """
    module = copy.deepcopy(before)

    def hook(_module, args, output):
        return naive.mix(output, plan.lam.to(output.dtype), plan.partner.tolist())

    def one_pass(partner):
        own = copy.deepcopy(batch)
        if where == "loss":
            module.partners = lambda target: target[partner]
        else:
            for key in where:
                own[key] = own[key][partner]
        return module.training_step(own, 0)

    module.net[0].register_forward_hook(hook)
    module.log = lambda *_: None
    first, second = one_pass(torch.arange(6)), one_pass(plan.partner)
    loss = plan.lam.to(first.dtype) * first + (1 - plan.lam.to(first.dtype)) * second
    return loss, torch.autograd.grad(loss, list(module.parameters()))


def assert_exact(step, batch, where, **kwargs):
    """Loss and gradients are those of the naive form, and nothing is said."""
    module, before, plan, said = trained(step, batch, **kwargs)
    loss, gradients = expected(before, plan, batch, where)
    torch.testing.assert_close(module.loss, loss)
    torch.testing.assert_close(module.grads, [*gradients], atol=1e-6, rtol=1e-4)
    assert said == []


def assert_said(step, batch, *parts, **kwargs):
    _, _, _, said = trained(step, batch, **kwargs)
    assert len(said) == 1, said
    for part in parts:
        assert part in said[0]


# The step changes the target before the layer runs: the partner's own is taken.


def flips_some(module, batch):
    x, y = batch
    y = torch.where(NOISE[:, None], y.flip(-1), y)
    return F.mse_loss(module(x), module.partners(y))


def flips_in_a_loop(module, batch):
    x, y = batch
    y = torch.stack([row.flip(-1) if flipped else row for row, flipped in zip(y, NOISE)])  # noqa: B905
    return F.mse_loss(module(x), module.partners(y))


def flips_in_place(module, batch):
    x, y = batch
    y = y.clone()
    for i in range(len(y)):
        if NOISE[i]:
            y[i] = y[i].flip(-1)
    return F.mse_loss(module(x), module.partners(y))


def sorts(module, batch):
    x, y = batch
    order = x[:, 0].argsort()
    x, y = x[order], y[order]
    return F.mse_loss(module(x), module.partners(y))


def mixes_by_itself(module, batch):
    x, y = batch
    x, y = 0.7 * x + 0.3 * x[ORDER], 0.7 * y + 0.3 * y[ORDER]
    return F.mse_loss(module(x), module.partners(y))


def mixes_with_the_last(module, batch):
    x, y = batch
    x, y = 0.7 * x + 0.3 * x.flip(0), 0.7 * y + 0.3 * y.flip(0)
    return F.mse_loss(module(x), module.partners(y))


def divides_by_its_input(module, batch):
    x, y = batch
    y = (y - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    return F.mse_loss(module(x), module.partners(y))


@pytest.mark.parametrize(
    "step",
    [
        flips_some, flips_in_a_loop, flips_in_place, sorts, mixes_by_itself, mixes_with_the_last,
        divides_by_its_input,
    ],
)  # fmt: skip
def test_a_target_that_changes_before_the_layer_runs_is_the_partners_own(step):
    assert_exact(step, [X, REAL], "loss")


def test_a_target_that_is_weighted_before_the_layer_runs_has_the_partners_weight():
    def step(module, batch):
        x, y, weight = batch
        y = y * weight[:, None]
        return F.mse_loss(module(x), module.partners(y))

    assert_exact(step, [X, REAL, WEIGHT], "loss", target=1)


def counts_classes(module, batch):
    x, y = batch
    weight = 1 / (1.0 + torch.bincount(y, minlength=6))[:5]
    return F.cross_entropy(module(x), y, weight=weight)


def compares_all_pairs(module, batch):
    x, y = batch
    alike = (y[:, None] == y[None]) * (1 - torch.eye(6))
    z = F.normalize(module(x), dim=1)
    return -(alike * (z @ z.T).log_softmax(1)).sum() / alike.sum().clamp(min=1)


def takes_rows_apart(module, batch):
    x, y = batch
    rows = [y[i] * torch.arange(1.0, 7.0) for i in range(6)]  # as many columns as rows
    z = module(x)
    return sum(F.mse_loss(z[i].sum() * rows[i], rows[i]) for i in range(6))


def transposes(module, batch):
    x, y = batch
    y = y.T * torch.arange(1.0, 7.0)[:, None]
    return F.mse_loss(module(x).sum(1) * y, y)


@pytest.mark.parametrize(
    ("step", "target"),
    [
        (counts_classes, Y),
        (compares_all_pairs, Y),
        (takes_rows_apart, torch.randn(6, 6)),
        (transposes, torch.randn(6, 6)),
    ],
)
def test_what_follows_the_permutation_by_itself_stays_so_with_as_many_columns_as_rows(step, target):
    assert_exact(step, [X, target], [1])


# The step rearranges what it should not, or too late: it is said.


def sorts_the_input_alone(module, batch):
    x, y = batch
    z = module(x[ORDER])
    return F.cross_entropy(z[ORDER.argsort()], y)


def sorts_the_target_late(module, batch):
    x, y = batch
    z = module(x[ORDER])
    return F.cross_entropy(z, y[ORDER])


def sorts_in_the_call(module, batch):
    x, y = batch
    order = x[:, 0].argsort()
    return F.cross_entropy(module(x[order]), y[order])


@pytest.mark.parametrize("step", [sorts_the_input_alone, sorts_the_target_late, sorts_in_the_call])
def test_rows_that_the_step_puts_into_another_order_are_said(step):
    parts = ("entry '0' of the batch", "(getitem at test_watcher.py:", "on_after_batch_transfer")
    assert_said(step, [X, Y], "were put into another order", "layer 'net.0'", *parts)


def divides_late(module, batch):
    x, y = batch
    return F.mse_loss(module(x), y / x.std(1, keepdim=True))


def flips_late(module, batch):
    x, y = batch
    flips = NOISE.clone()
    z = module(torch.where(flips[:, None], x.flip(-1), x))
    return F.mse_loss(z, torch.where(flips[:, None], y.flip(-1), y))


@pytest.mark.parametrize(("step", "what"), [(divides_late, "div"), (flips_late, "where")])
def test_a_target_that_is_changed_by_its_input_after_the_layer_is_said(step, what):
    parts = ("entry '0'", f"({what} at test_watcher.py:", "on_after_batch_transfer")
    assert_said(step, [X, REAL], "takes the target along with", *parts)


# Other entries of the batch that the loss takes along.


def weighs(module, batch):
    x, y, weight = batch
    return (weight / weight.sum() * F.cross_entropy(module(x), y, reduction="none")).sum()


def test_an_entry_that_the_loss_takes_along_is_said_with_its_name():
    parts = ("entry '2' of the batch (mul at test_watcher.py:", "name it, too, target=[1, 2]")
    assert_said(weighs, [X, Y, WEIGHT], "the loss takes the target along with", *parts, target=1)


def test_an_entry_that_is_named_is_the_partners():
    assert_exact(weighs, [X, Y, WEIGHT], [1, 2], target=[1, 2])


def test_an_entry_that_is_the_same_in_all_rows_is_not_said():
    assert_exact(weighs, [X, Y, torch.full((6,), 0.5)], [1], target=1)


def test_a_second_loss_of_an_entry_that_is_not_named_is_said():
    def step(module, batch):
        z = module(batch["x"])
        return F.cross_entropy(z, batch["label"]) + F.mse_loss(z[:, 0], batch["age"])

    assert_said(step, {"x": X, "label": Y, "age": WEIGHT}, "entry 'age'", "target=['label', 'age']")


def test_an_entry_that_only_the_network_or_a_metric_takes_is_not_said():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(5, 5)

        def forward(self, z, mask):
            return self.head(z * mask[:, None])

    pooled = Pooled()

    def step(module, batch):
        z = module(batch["x"])
        with torch.no_grad():
            module.hits = ((z.argmax(1) == batch["label"]) * batch["age"]).sum()
        module.error = ((z.argmax(1) == batch["label"]) * batch["age"]).sum()
        return F.cross_entropy(pooled(z, batch["mask"]), batch["label"])

    batch = {"x": X, "label": Y, "age": WEIGHT, "mask": NOISE}
    assert_exact(step, batch, ["label"])


def test_a_penalty_of_the_slope_at_the_input_is_not_said():
    def step(module, batch):
        x = batch[0].clone().requires_grad_()
        loss = F.cross_entropy(module(x), batch[1])
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss + slope.square().sum()

    assert_exact(step, [X, Y], [1])


def test_a_penalty_of_the_slope_of_the_output_is_not_said():
    def step(module, batch):
        x = batch[0].clone().requires_grad_()
        z = module(x)
        (slope,) = torch.autograd.grad(z.sum(), x, create_graph=True)
        return F.cross_entropy(z, batch[1]) + slope.square().sum()

    assert_exact(step, [X, Y], [1])


def test_what_goes_along_with_the_target_by_its_name_is_the_partners():
    def step(module, batch):
        loss = F.cross_entropy(module(batch["x"]), batch["label"], reduction="none")
        return (loss * batch["loss_mask"]).sum() / batch["loss_mask"].sum()

    assert_exact(step, {"x": X, "label": Y, "loss_mask": NOISE}, ["label", "loss_mask"])


# Python values.


def by_item(module, batch):
    x, y = batch
    weight = torch.tensor([{0: 1.0, 1: 2.0}.get(label.item(), 3.0) for label in y])
    return (weight * F.cross_entropy(module(x), y, reduction="none")).mean()


def by_array(module, batch):
    x, y = batch
    weight = torch.from_numpy(np.arange(1.0, 6.0)[y.numpy()]).float()
    return (weight * F.cross_entropy(module(x), y, reduction="none")).mean()


def by_list(module, batch):
    x, y = batch
    weight = torch.tensor([1.0 + label for label in y.tolist()])
    return (weight * F.cross_entropy(module(x), y, reduction="none")).mean()


def by_branch(module, batch):
    x, y = batch
    loss = F.cross_entropy(module(x), y, reduction="none")
    return sum(5 * loss[i] if y[i] == y[0] else loss[i] for i in range(6))


def by_range(module, batch):
    x, y = batch
    z = module(x)
    return F.cross_entropy(z, y) + sum(z[0, c] for c in range(int(y[1]) + 1))


def by_assignment(module, batch):
    x, y = batch
    cost = (module(x)[:, :, None] - y[:, None, :]) ** 2
    best = torch.stack([torch.tensor(linear_sum_assignment(c.detach())[1]) for c in cost])
    return cost.gather(2, best[..., None]).mean()


@pytest.mark.parametrize(
    ("step", "what", "target"),
    [
        (by_item, "item", Y), (by_array, "numpy", Y), (by_list, "tolist", Y),
        (by_branch, "bool", Y), (by_range, "int", Y), (by_assignment, "array", REAL),
    ],
)  # fmt: skip
def test_a_python_value_that_the_loss_depends_on_is_said_with_its_line(step, what, target):
    line = step.__code__.co_firstlineno
    batch = [X, target]
    _, _, _, said = trained(step, batch, target=1, alpha=2.0)
    (text,) = said
    place = text.split(f"({what} at test_watcher.py:")[1].partition(")")[0]
    assert line < int(place) < line + 6
    assert "is off by" in text
    assert "keep it a tensor, or use labels='own', ManifoldMixupMixin" in text


def test_a_loss_that_is_not_finite_for_the_partner_is_said():
    def step(module, batch):
        x, y = batch
        z = module(x)
        return sum(z[y == c].mean() for c in range(int(y.max()) + 1)) + z.mean()

    # as a whole the batch has the same labels
    assert_exact(step, [X, torch.tensor([0, 1, 2, 3, 1, 0])], [1])

    def first_row(module, batch):
        x, y = batch
        z = module(x)
        ids = range(int(y[0].max()) + 1)
        return torch.stack([z[0][y[0] == c].mean() for c in ids]).sum() + z.mean()

    masks = torch.stack([torch.arange(5) % n for n in (5, 1, 2, 1, 1, 2)])
    assert_said(first_row, [X, masks], "(int at test_watcher.py:", "is not finite", target=1)


def test_what_is_only_logged_is_not_said(capsys):
    accuracy = MulticlassAccuracy(5)

    def step(module, batch):
        x, y = batch
        z = module(x)
        loss, found = F.cross_entropy(z, y), z.argmax(1)
        confusion_matrix(y.cpu().numpy(), found.cpu().numpy(), labels=range(5))
        module.counts = np.bincount(y.numpy(), minlength=5)
        module.hits = sum(int(found[i] == y[i]) for i in range(6))
        module.seen = y.tolist()
        module.log("accuracy", accuracy(z, y))
        module.log("hits", (found == y).sum().item())
        sys.stdout.write(f"{loss.item():.3f} {loss:.3f} {int(y.max())}\n")
        assert y.min() >= 0
        weight = 1 / (1.0 + torch.bincount(y, minlength=5))
        return F.cross_entropy(z, y, weight=weight)

    assert_exact(step, [X, Y], [1])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" 4")]
    assert len(printed) == 3  # once in the fit and in either pass of the oracle


def test_a_step_that_runs_again_leaves_no_trace():
    def step(module, batch):
        module.steps = getattr(module, "steps", 0) + 1
        random.random()
        return by_item(module, batch)

    module, _, _, said = trained(step, [X, Y])
    assert len(said) == 1
    assert module.steps == 1


def test_a_value_is_said_of_where_a_step_can_not_be_run_again():
    def step(module, batch):
        if getattr(step, "ran", False):
            raise RuntimeError("once only")
        step.ran = True
        return by_item(module, batch)

    assert_said(step, [X, Y], "a loss that depends on it is not exact for the partner's")


def test_each_thing_is_said_once_in_a_fit():
    module = Steps(weighs)
    with pytest.warns(UserWarning, match="entry '2'") as caught:
        fit(module, ManifoldMixup(layers=["net.0"], target=1, stop=1.0), data=[[X, Y, WEIGHT]] * 9)
    assert len([w for w in caught if "entry '2'" in str(w.message)]) == 1


def test_what_comes_up_later_is_found_at_the_next_power_of_two():
    def step(module, batch):
        if module.global_step < 5:
            return F.cross_entropy(module(batch[0]), batch[1])
        return weighs(module, batch)

    for count, found in ((7, False), (8, True)):
        callback = ManifoldMixup(layers=["net.0"], target=1, stop=1.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(Steps(step), callback, data=[[X, Y, WEIGHT]] * count)
        assert any("entry '2'" in str(w.message) for w in caught) is found


# Steps without a loss, and float targets.


@pytest.mark.filterwarnings("ignore:.training_step. returned .None.")
@pytest.mark.parametrize("gradients", [True, False])
def test_a_step_that_returns_no_loss_is_said(gradients):
    class Gathers(Net):
        def training_step(self, batch, batch_idx):
            with torch.set_grad_enabled(gradients):
                self.kept = self(batch[0]), batch[1]

    with pytest.warns(UserWarning, match="no gradient was taken of a loss, though .*'net.0'"):
        fit(Gathers(), ManifoldMixup(layers=["net.0"], stop=1.0))


def test_a_manual_step_that_takes_no_gradient_is_said_at_the_end_of_the_epoch():
    class Idle(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self(batch[0])

    with pytest.warns(UserWarning, match="no gradient was taken of a loss"):
        fit(Idle(), ManifoldMixup(layers=["net.0"], stop=1.0))


def test_float_targets_keep_their_own_labels_for_whoever_takes_them_out():
    y = (REAL > 0).float()

    def step(module, batch):
        x, y = batch
        z = module(x)
        module.area = roc_auc_score(y.cpu().numpy(), z.detach().numpy(), average="micro")
        module.lists = y.tolist(), y[0].tolist(), float(y[1, 2])
        module.kept = [y.detach().cpu(), y.clone(), y.double(), torch.cat([y, y])]
        module.error = (z.detach() - y).abs().mean()
        return F.binary_cross_entropy_with_logits(z, y)

    module, before, plan, said = trained(step, [X, y], target=1)
    assert said == []
    assert module.lists == (y.tolist(), y[0].tolist(), float(y[1, 2]))
    for kept in module.kept:
        torch.testing.assert_close(kept.float(), torch.cat([y, y])[: len(kept)], atol=0, rtol=0)
    torch.testing.assert_close(module.loss, expected(before, plan, [X, y], [1])[0])


def test_numbers_that_are_computed_from_float_targets_keep_the_mix():
    def step(module, batch):
        x, y = batch
        z = module(x)
        module.error = (z.detach() - y).abs().mean().item()
        return F.mse_loss(z, y)

    module, before, plan, _ = trained(step, [X, REAL], target=1)
    hidden = naive.mix(before.net[0](X), plan.lam, plan.partner.tolist())
    z = before.net[2](before.net[1](hidden))
    own, partners = ((z - y).abs().mean() for y in (REAL, REAL[plan.partner]))
    assert module.error == pytest.approx(float(plan.lam * own + (1 - plan.lam) * partners))


def by_labels_that_are_flipped(module, batch):
    x, y = batch
    x, y = torch.where(NOISE[:, None], -x, x), torch.where(NOISE, 4 - y, y)
    module.share = float(np.mean(y.numpy() == 2))
    module.log("share", module.share)
    module.seen = y.tolist()
    return F.cross_entropy(module(x), module.partners(y))


def test_what_is_logged_of_a_target_that_changes_before_the_layer_is_not_said():
    assert_exact(by_labels_that_are_flipped, [X, Y], "loss")


def test_a_value_that_is_taken_before_the_layer_runs_is_said():
    def step(module, batch):
        weight = torch.tensor([1.0 + label for label in batch[1].tolist()])
        loss = F.cross_entropy(module(batch[0]), batch[1], reduction="none")
        return (weight * loss).mean()

    assert_said(step, [X, Y], "(tolist at test_watcher.py:", "is off by")


def test_a_value_that_counts_only_later_is_found_later():
    class Later(Net):
        def training_step(self, batch, batch_idx):
            weight = torch.tensor([1.0 + batch_idx * label for label in batch[1].tolist()])
            loss = F.cross_entropy(self(batch[0]), batch[1], reduction="none")
            return (weight * loss).mean()

    with pytest.warns(UserWarning, match="tolist at test_watcher.py:"):
        fit(Later(), ManifoldMixup(layers=["net.0"], stop=1.0), data=batches(2))


def test_a_value_is_said_once_though_its_effect_is_another_in_each_step():
    with pytest.warns(UserWarning, match="is off by") as caught:
        fit(Steps(by_item), ManifoldMixup(layers=["net.0"], stop=1.0), data=batches(9))
    assert len([w for w in caught if "is off by" in str(w.message)]) == 1


class Counts(DummyLogger):
    """A logger that counts what a step tells it by itself."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def log_metrics(self, metrics, step=None):
        self.count += "own" in metrics


def test_what_a_step_tells_its_logger_is_not_told_again_in_a_trial():
    def step(module, batch):
        module.logger.log_metrics({"own": 1.0})
        return by_item(module, batch)

    logger = Counts()
    with pytest.warns(UserWarning, match="is off by"):
        fit(Steps(step), ManifoldMixup(layers=["net.0"], stop=1.0), logger=logger)
    assert logger.count == 1


def test_one_hots_that_move_with_their_rows_are_not_said():
    def step(module, batch):
        x, y = batch[0], F.one_hot(batch[1], 5).float()
        x, y = x[ORDER], y[ORDER]
        return F.cross_entropy(module(x), module.partners(y))

    assert_exact(step, [X, Y], "loss")


def test_one_hots_that_are_written_are_the_partners_own_too():
    def step(module, batch):
        x, y = batch
        soft = torch.zeros(6, 5).scatter_(1, y[:, None], 1.0)
        share = torch.linspace(0, 1, 6)[:, None]
        soft = soft * (1 - share) + share / 5
        soft[ORDER[:2]] = 0.2
        return F.cross_entropy(module(x), module.partners(soft))

    assert_exact(step, [X, Y], "loss")


def test_an_entry_that_a_network_takes_along_with_the_target_is_said():
    class Weighs(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, z, y, weight):
            weight = 1 / (1 + weight)
            return self.scale * (weight * F.cross_entropy(z, y, reduction="none")).mean()

    weighs = Weighs()

    def step(module, batch):
        return weighs(module(batch[0]), batch[1], batch[2])

    assert_said(step, [X, Y, WEIGHT], "entry '2' of the batch (mul at", target=1)


def test_an_attention_mask_that_the_loss_takes_is_said():
    def step(module, batch):
        active = batch["attention_mask"]
        return F.cross_entropy(module(batch["x"])[active], batch["label"][active])

    assert_said(step, {"x": X, "attention_mask": NOISE, "label": Y}, "entry 'attention_mask'")


def test_a_buffer_with_as_many_rows_is_no_entry():
    def step(module, batch):
        x, y = batch
        return F.cross_entropy(module(x * module.scale), y, weight=module.scale[:5, 0])

    scale = torch.linspace(1, 2, 24).view(6, 4)
    module = Steps(step)
    module.register_buffer("scale", scale)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*said once")
        fit(module, ManifoldMixup(layers=["net.0"], stop=1.0), data=[[X.clone(), Y.clone()]])


def test_a_sparse_matrix_may_go_with_the_input():
    def step(module, batch):
        return F.cross_entropy(module(torch.eye(6).to_sparse() @ batch[0]), batch[1])

    assert_exact(step, [X, Y], [1])


def test_an_entry_called_boxes_is_said_beside_a_table_of_boxes():
    def step(module, batch):
        error = (module(batch["image"]) - batch["table"]).square().mean(1)
        return (error * batch["boxes"]).mean()

    table = torch.cat([torch.arange(6.0)[:, None], torch.rand(6, 4)], 1)
    batch = {"image": X, "table": table, "boxes": WEIGHT}
    said = trained(step, batch, target="table", input="image")[-1]
    assert len(said) == 2
    assert any("entry 'boxes'" in text for text in said)


@pytest.mark.parametrize("by_name", [False, True])
def test_the_lengths_of_what_a_ctc_loss_takes_are_the_inputs_own(by_name):
    def step(module, batch):
        x, labels, lengths, label_lengths = batch
        scores = module(x).log_softmax(-1)[None].repeat(9, 1, 1)
        if by_name:
            named = {"input_lengths": lengths, "target_lengths": label_lengths}
            return F.ctc_loss(scores, labels, **named)
        return F.ctc_loss(scores, labels, lengths, label_lengths)

    lengths = torch.tensor([9, 8, 9, 7, 9, 8]), torch.tensor([1, 2, 3, 1, 2, 3])
    batch = [X, torch.randint(1, 5, (6, 3)), *lengths]
    assert trained(step, batch, target=[1, 3])[-1] == []
    (said,) = trained(step, batch, target=1)[-1]
    assert "entry '3'" in said


def test_a_loss_that_takes_the_value_of_a_metric_is_told_of():
    accuracy = MulticlassAccuracy(5)

    def step(module, batch):
        z = module(batch[0])
        return F.cross_entropy(z, batch[1]) * (1 + accuracy(z, batch[1]))

    assert_said(step, [X, Y], "the value of a metric (mul at test_watcher.py:", target=1)


def test_what_met_the_labels_before_a_cross_entropy_is_told_of():
    def step(module, batch):
        x, y, kept = batch
        return F.cross_entropy(module(x), torch.where(kept, y, -100))

    kept = torch.tensor([True, False, True, True, False, True])
    assert_said(step, [X, Y, kept], "along with entry '2' of the batch (where at", target=1)
