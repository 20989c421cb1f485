"""Every way in which Lightning runs training steps, against a naive loop with the same plans."""

import copy

import lightning.pytorch as L
import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import batches, fit, loader, trainer
from lightning.pytorch.utilities import CombinedLoader
from stepped import (
    SEED,
    Stepped,
    Steps,
    assert_same_weights,
    mixup,
    naive_loss,
    trained_naively,
)
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_mmix.core.plan import Recipe, draw


def assert_trains_naively(module, data=None, keep=lambda step: True, every=1, **kwargs):
    """Fit with the mixup, and with the naive loop over those steps that ``keep`` tells."""
    before, steps, data = copy.deepcopy(module), Steps(), batches(5) if data is None else data
    fit(module, steps, mixup(), data=data, **kwargs)
    assert_same_weights(module, trained_naively(before, list(filter(keep, steps.seen)), every))
    return steps.seen


class Stream(IterableDataset):
    def __iter__(self):
        return iter(batches(5))


def single(count):
    return [(x, y) for xs, ys in batches(5) for x, y in zip(xs, ys, strict=True)][:count]


LOADERS = {
    "IterableDataset": lambda: DataLoader(Stream(), batch_size=None),
    "a last batch that is smaller": lambda: DataLoader(single(15), batch_size=6),
    "a last batch of one": lambda: DataLoader(single(13), batch_size=6),
    "a first batch of one": lambda: DataLoader(
        single(13), batch_sampler=[[12], [1, 5, 3], [0, 2, 9, 4]]
    ),
    "workers": lambda: DataLoader(
        single(30), 5, shuffle=True, num_workers=1, pin_memory=torch.cuda.is_available()
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_any_loader_gives_the_naive_weights(float64, kind):
    module, steps = Stepped(), Steps()
    before = copy.deepcopy(module)
    trainer(steps, mixup(), max_epochs=2).fit(module, LOADERS[kind]())
    assert_same_weights(module, trained_naively(before, steps.seen))


@pytest.mark.parametrize(
    ("count", "kwargs"),
    [
        (5, {}),
        (5, {"inference_mode": False}),
        (5, {"barebones": True}),
        (2, {"fast_dev_run": 2}),
        (3, {"max_steps": 3}),
        (4, {"overfit_batches": 2, "max_epochs": 2}),
        (6, {"limit_train_batches": 3, "max_epochs": 2}),
        (10, {"val_check_interval": 2, "max_epochs": 2}),
        (10, {"val_check_interval": 3, "check_val_every_n_epoch": None, "max_epochs": 2}),
    ],
)
def test_any_trainer_gives_the_naive_weights_and_a_plain_validation(float64, count, kwargs):
    module, steps, data = Stepped(), Steps(), batches(5)
    before, untouched = copy.deepcopy(module), copy.deepcopy(data)
    trainer(steps, mixup(), **kwargs).fit(module, loader(data), loader(data[:1]))
    assert len(steps.seen) == count
    assert_same_weights(module, trained_naively(before, steps.seen))
    torch.testing.assert_close(data, untouched, atol=0, rtol=0)
    x, y = data[0]
    assert module.validated
    for net, loss in module.validated:
        assert torch.equal(loss, F.cross_entropy(net(x), y))


def test_a_module_that_reloads_its_loader_gets_the_naive_weights(float64):
    class Data(L.LightningDataModule):
        def train_dataloader(self):
            return loader(batches(2 + self.trainer.current_epoch))

    module, steps = Stepped(), Steps()
    before, few = copy.deepcopy(module), {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1}
    trainer(steps, mixup(), **few).fit(module, datamodule=Data())
    assert [step[:2] for step in steps.seen][-5:] == [(1, 2), *((2, i) for i in range(4))]
    assert_same_weights(module, trained_naively(before, steps.seen))


@pytest.mark.parametrize("count", [6, 7, 8])
def test_accumulated_gradients_give_the_naive_weights(float64, count):
    module, data = Stepped(), batches(count)
    assert_trains_naively(module, data, every=3, accumulate_grad_batches=3)
    assert module.global_step == 2 + (count > 6)


class Twice(torch.optim.SGD):
    """Sharpness-aware, in a line: the gradient is that of a place uphill."""

    def step(self, closure):
        closure()
        parameters = self.param_groups[0]["params"]
        uphill = [0.5 * p.grad for p in parameters]
        torch._foreach_add_([p.data for p in parameters], uphill)
        loss = closure()
        torch._foreach_sub_([p.data for p in parameters], uphill)
        super().step()
        return loss


@pytest.mark.parametrize("name", ["Twice", "LBFGS"])
def test_every_closure_of_a_step_is_mixed(float64, name):
    class Closing(Stepped):
        def configure_optimizers(self):
            if name == "Twice":
                return Twice(self.parameters(), lr=0.1)
            return torch.optim.LBFGS(self.parameters(), max_iter=3)

    assert_trains_naively(Closing())


def halve(parameters):
    for p in parameters:
        p.grad.mul_(0.5)


def test_overrides_of_the_optimizer_step_and_the_clipping_give_the_naive_weights(float64):
    class Overrides(Stepped):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
            optimizer.param_groups[0]["lr"] = 0.1 + 0.1 * batch_idx
            if batch_idx % 2:
                return optimizer_closure()
            return super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

        def configure_gradient_clipping(self, *args, **kwargs):
            halve(self.parameters())

    module, steps = Overrides(), Steps()
    before = copy.deepcopy(module)
    fit(module, steps, mixup(), data=batches(5))
    assert_same_weights(module, trained_naively(before, steps.seen, clip=halve))


def test_one_module_and_one_callback_in_two_trainers_in_turn_stopped_in_mid_epoch(float64):
    module, steps, callback, data = Stepped(), Steps(), mixup(), batches(5)
    before = copy.deepcopy(module)
    first, second = trainer(steps, callback, max_steps=3), trainer(steps, callback, max_steps=2)
    first.fit(module, loader(data))
    second.fit(module, loader(data))
    first.fit_loop.epoch_loop.max_steps, first.fit_loop.max_epochs = 8, 2
    first.fit(module, loader(data))
    assert [step[:2] for step in steps.seen[:6]] == [(0, 0), (0, 1), (0, 2), (0, 0), (0, 1), (1, 0)]
    assert len(steps.seen) == 10
    assert_same_weights(module, trained_naively(before, steps.seen))


def test_steps_around_a_minus_one_give_the_naive_weights(float64):
    class Stops(Stepped):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    seen = assert_trains_naively(Stops(), keep=lambda step: step[1] < 2, max_epochs=2)
    assert len(seen) == 6


@pytest.mark.filterwarnings("ignore:.training_step. returned .None.")
@pytest.mark.parametrize("returned", [None, {"note": 1}])
def test_steps_that_return_a_dict_or_none_give_the_naive_weights(float64, returned):
    class Returns(Stepped):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if returned is None:
                return None if batch_idx in (1, 2) else loss
            return {"loss": loss, **returned}

    assert_trains_naively(Returns(), keep=lambda step: returned or step[1] not in (1, 2))


def test_two_views_of_a_batch_are_mixed_alike(float64):
    class Views(Stepped):
        def loss_of(self, x, y):
            one, other = self(x), self(x.flip(1))
            far = F.mse_loss(one, other)
            return F.cross_entropy(one, y) + 0.5 * F.cross_entropy(other, y) + far

    assert_trains_naively(Views())


@pytest.mark.parametrize("is_average", [False, True])
def test_a_teacher_is_not_mixed_but_by_the_input(float64, is_average):
    class Distils(Stepped):
        def __init__(self):
            super().__init__()
            self.teacher = copy.deepcopy(self.net).requires_grad_(False)

        def on_train_batch_start(self, batch, batch_idx):
            if is_average:  # copied in the midst of a fit, with all that hangs on it
                self.teacher = copy.deepcopy(self.net).requires_grad_(False)

        def loss_of(self, x, y):
            student = self(x)
            with torch.no_grad():
                soft = self.teacher(x).softmax(1)
            return F.cross_entropy(student, y) + F.cross_entropy(2 * student, soft)

    assert_trains_naively(Distils())


def test_a_manual_step_that_accumulates_gives_the_naive_weights(float64):
    class Manual(Stepped):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            self.manual_backward(self.loss_of(*batch) / 2)
            if batch_idx % 2:
                optimizer.step()
                optimizer.zero_grad()

    module, steps = Manual(), Steps()
    before = copy.deepcopy(module)
    fit(module, steps, mixup(), data=batches(6))
    assert_same_weights(module, trained_naively(before, steps.seen, every=2))


def by_assignment(parameter, grad):
    parameter.grad = grad


def by_addition(parameter, grad):
    parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        parameter.grad.add_(grad)


def by_hand(parameter, grad):
    with torch.no_grad():
        parameter -= 0.1 * grad


@pytest.mark.parametrize("give", [by_assignment, by_addition, by_hand])
def test_gradients_with_a_graph_that_are_given_by_hand_are_those_of_the_mix(float64, give):
    class ByHand(Stepped):
        automatic_optimization = False

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

        def training_step(self, batch, batch_idx):
            self.optimizers().zero_grad()
            used = list(self.net.parameters())
            grads = torch.autograd.grad(self.loss_of(*batch), used, create_graph=True)
            for parameter, grad in zip(used, grads, strict=True):
                give(parameter, grad)
            self.optimizers().step()

    assert_trains_naively(ByHand())


class Adversarial(Stepped):
    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.critic = nn.Linear(5, 5)

    def task(self, x, y):
        z = self(x)
        return F.cross_entropy(z, y) - 0.3 * F.cross_entropy(self.critic(z), y)

    def adversary(self, x, y):
        return F.cross_entropy(self.critic(self(x)), y)

    def configure_optimizers(self):
        return [torch.optim.SGD(m.parameters(), lr=0.2) for m in (self.net, self.critic)]

    def training_step(self, batch, batch_idx):
        for optimizer, loss_of in zip(self.optimizers(), (self.task, self.adversary), strict=True):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(loss_of(*batch))
            optimizer.step()
            self.untoggle_optimizer(optimizer)


def test_two_optimizers_with_two_losses_of_one_target_give_the_naive_weights(float64):
    module, steps = Adversarial(), Steps()
    naively = copy.deepcopy(module)
    fit(module, steps, mixup(), data=batches(5))
    for step in steps.seen:
        losses = (naively.task, naively.adversary)
        for optimizer, loss_of in zip(naively.configure_optimizers(), losses, strict=True):
            optimizer.zero_grad()
            naive_loss(naively, loss_of, *step).backward()
            optimizer.step()
    assert_same_weights(module, naively)


class Several(Stepped):
    def loss_of(self, a, b):
        return F.cross_entropy(self(a[0]), a[1]) * F.cross_entropy(self(b[0]), b[1])

    def training_step(self, batch, batch_idx):
        return self.loss_of(**batch)


def several(size):
    data = {"a": loader(batches(4)), "b": loader(batches(6, size=size)[2:])}
    return CombinedLoader(data, "max_size_cycle")


def test_several_loaders_give_the_naive_weights_if_all_targets_are_named(float64):
    module, steps = Several(), Steps()
    callback = mixup(layers={"net.0": 1, "net.1": 2}, target=["a.1", "b.1"], input="a.0")
    naively = copy.deepcopy(module)
    trainer(steps, callback).fit(module, several(size=6))
    optimizer = naively.configure_optimizers()
    for _, batch_idx, batch in steps.seen:
        plan = draw(Recipe(1.0, {"net.0": 1, "net.1": 2}), 6, seed=SEED, batch_idx=batch_idx)
        optimizer.zero_grad()

        def run(rows):
            pairs = {key: (x, y[rows]) for key, (x, y) in batch.items()}  # noqa: B023
            return naively.loss_of(**pairs)

        modules = dict(naively.named_modules())
        naive.two_pass(run, plan, modules, torch.arange(6)).backward()
        optimizer.step()
    assert_same_weights(module, naively)


@pytest.mark.parametrize(
    ("size", "kwargs", "message"),
    [
        (6, {}, "there is no recognisable target in the batch, dict"),
        (3, {"target": ["a.1", "b.1"]}, r"but got \(6,\), \(3,\), not of one B"),
        (3, {"target": "a.1"}, "'net.0' puts out 3 rows for 6 samples, as where"),
        (6, {"layers": ["input"], "target": ["a.1", "b.1"], "input": "a.0"}, "input of one"),
    ],
)
def test_several_loaders_that_cannot_be_mixed_as_one_are_refused(float64, size, kwargs, message):
    callback = mixup(**{"layers": ["net.0"], "input": "a.0", **kwargs})
    with pytest.raises(ValueError, match=message):
        trainer(callback).fit(Several(), several(size))
