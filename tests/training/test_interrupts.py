"""Stops in every hook of a fit: nothing is left behind, and the next fit is exact."""

import copy
import functools
import inspect
import os
import signal
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as L
import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit, loader, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.core.hooks import CheckpointHooks, DataHooks, ModelHooks

from lightning_mmix import ManifoldMixup

LATER = 3  # optimizer steps: the second epoch


class Whole(Net):
    """Has all that a fit may call: its loaders, a validation and a schedule."""

    def __init__(self, data):
        super().__init__(F.mse_loss if data[0][1].is_floating_point() else F.cross_entropy)
        self.data = data

    def prepare_data(self):
        pass

    def configure_model(self):
        pass

    def train_dataloader(self):
        return loader(self.data)

    def val_dataloader(self):
        return loader(self.data[:1])

    def validation_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)]


STEPS = {
    "backward", "configure_callbacks", "configure_gradient_clipping", "configure_optimizers",
    "forward", "lr_scheduler_step", "optimizer_step", "optimizer_zero_grad", "training_step",
    "validation_step",
}  # fmt: skip
DEPRECATED = {"configure_sharded_model"}  # excludes configure_model


def names_of(*classes):
    found = {name for cls in classes for name, _ in inspect.getmembers(cls, inspect.isfunction)}
    return sorted(name for name in found - DEPRECATED if not name.startswith("_"))


def watched(cls, names, see):
    """A subclass that tells ``see`` before and after each of these methods."""

    def watch(name):
        original = getattr(cls, name)

        @functools.wraps(original)
        def method(self, *args, **kwargs):
            see(name, is_done=False)
            result = original(self, *args, **kwargs)
            see(name, is_done=True)
            return result

        return method

    return type(cls.__name__, (cls,), {name: watch(name) for name in names})


def whole_trainer(folder, *callbacks):
    checkpoints = ModelCheckpoint(dirpath=folder, save_top_k=-1)
    limits = {"max_epochs": 2, "enable_checkpointing": True, "gradient_clip_val": 9.0}
    return trainer(*callbacks, checkpoints, **limits)


def last_steps(owner, names):
    """Of each hook that a fit calls: after how many steps it is called for the last time."""
    seen = {}

    def see(name, is_done):
        seen[name] = trained.global_step

    module = watched(Whole, names if owner == "module" else [], see)(batches(3))
    callback = watched(L.Callback, names if owner == "callback" else [], see)()
    with TemporaryDirectory() as folder:
        trained = whole_trainer(folder, ManifoldMixup(layers=["net.0"], stop=1.0), callback)
        trained.fit(module)
    return seen


LAST = {
    "module": last_steps("module", [*names_of(ModelHooks, DataHooks, CheckpointHooks), *STEPS]),
    "callback": last_steps("callback", names_of(L.Callback)),
}
CASES = [
    (owner, name, step)
    for owner in ("module", "before", "after")
    for name, last in sorted(LAST["module" if owner == "module" else "callback"].items())
    for step in (0, LATER)
    if last >= step
]


def raising(error):
    def act(trained):
        raise error

    return act


def terminate(trained):
    os.kill(os.getpid(), signal.SIGTERM)


def stop_softly(trained):
    trained.should_stop = True


ACTS = {
    "error": raising(RuntimeError("stop")),
    "interrupt": raising(KeyboardInterrupt),
    "exit": raising(SystemExit(3)),
    "SIGTERM": terminate,
    "should_stop": stop_softly,
}


@dataclass
class Stop:
    """Acts before the first call of a hook, or after its later calls."""

    name: str
    act: Any
    step: int
    trainer: Any = None
    is_over: bool = False

    def __call__(self, name, is_done):
        if name == self.name and not self.is_over and is_done == (self.step > 0):
            if self.trainer.global_step >= self.step:
                self.act(self.trainer)


@pytest.fixture(autouse=True)
def _signals():
    own = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, lambda *_: None)  # before Lightning's handler is there
    yield
    for number, handler in own.items():
        signal.signal(number, handler)


def stopped(data, case, act, *mixups):
    owner, name, step = case
    stop = Stop(name, ACTS[act], step)
    module = watched(Whole, [name] if owner == "module" else [], stop)(data)
    callback = watched(L.Callback, [name] if owner != "module" else [], stop)()
    others = [callback, *mixups] if owner == "before" else [*mixups, callback]
    with TemporaryDirectory() as folder:
        stop.trainer = whole_trainer(folder, *others)
        end = end_of(stop.trainer, module)
    stop.is_over = True
    return module, end


def end_of(trained, module):
    try:
        trained.fit(module)
    except BaseException as error:
        return repr(error)


@functools.cache
def plainly(owner, name, step, act):
    """How the same fit ends without the callback."""
    module, end = stopped(batches(3), (owner, name, step), act)
    return end, state_of(module)


def state_of(module):
    flags = [each.training for each in module.modules()]
    grads = [parameter.requires_grad for parameter in module.parameters()]
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled()
    return flags, grads, modes


def assert_nothing_is_left(module, data, before):
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert {"log", "log_dict"}.isdisjoint(vars(module))
    for batch, was in zip(data, before, strict=True):
        for tensor, old in zip(batch, was, strict=True):
            assert type(tensor) is torch.Tensor
            assert vars(tensor) == {}
            assert torch.equal(tensor, old)


def assert_the_next_fit_is_exact(module, callback, data):
    untouched = Net(module.criterion)
    untouched.load_state_dict(module.state_dict())
    fit(module.train(), callback, data=data[:1], limit_val_batches=0)
    assert callback.plan.lam < 1
    loss, grads = naive.step(untouched, callback.plan, data[0])
    torch.testing.assert_close(module.loss.detach(), loss.detach(), atol=1e-10, rtol=0)
    torch.testing.assert_close(module.grads, list(grads), atol=1e-10, rtol=0)


def check(case, act, layer, make=batches):
    data, callback = make(3), ManifoldMixup(layers=[layer], stop=1.0)
    before = copy.deepcopy(data)
    module, end = stopped(data, case, act, callback)
    kind = "module" if case[0] == "module" else "callback"
    assert (end, state_of(module)) == plainly(kind, *case[1:], act)
    assert act != "error" or end == "RuntimeError('stop')"
    assert_nothing_is_left(module, data, before)
    assert_the_next_fit_is_exact(module, callback, data)


def test_a_fit_calls_many_hooks():
    assert len(LAST["module"]) >= 40
    assert len(LAST["callback"]) >= 24
    assert {*LAST["module"]} >= STEPS
    assert len(CASES) >= 150


@pytest.mark.parametrize(("owner", "name", "step"), CASES[::9])
def test_an_error_in_a_hook_leaves_nothing_behind(float64, owner, name, step):
    check((owner, name, step), "error", "input")


def values(count):
    return [(x, x.sin()[:, [0, 2, 1, 3, 0]]) for x, _ in batches(count)]


@pytest.mark.parametrize("make", [batches, values])
@pytest.mark.parametrize("act", ACTS)
def test_a_stop_of_any_kind_leaves_nothing_behind(float64, act, make):
    check(("module", "training_step", LATER), act, "net.0", make)


@pytest.mark.slow  # an exit is to a Trainer what an error is
@pytest.mark.parametrize("act", [act for act in ACTS if act != "exit"])
@pytest.mark.parametrize(("owner", "name", "step"), CASES)
def test_no_stop_in_any_hook_leaves_anything_behind(float64, owner, name, step, act):
    for layer in ["input"] if step == 0 else ["input", "net.0"]:
        check((owner, name, step), act, layer)


@pytest.mark.parametrize("nth", [1, 2])
def test_an_interrupt_of_the_test_of_a_layer_leaves_nothing_behind(float64, nth):
    class Interrupted(Net):
        def forward(self, x):
            calls.append(len(x))
            if len(calls) == nth:
                raise KeyboardInterrupt
            return super().forward(x)

    calls, data, callback = [], batches(3), ManifoldMixup(layers=["net.0"], stop=1.0)
    before, module = copy.deepcopy(data), Interrupted()
    with pytest.raises(SystemExit):
        fit(module, callback, data=data)
    assert calls == [5] * nth  # rows of the test, and no training step
    assert state_of(module) == state_of(Net())
    assert_nothing_is_left(module, data, before)
    assert_the_next_fit_is_exact(module, callback, data)


class StopsTwice(L.Callback):
    def on_before_backward(self, *_):
        raise RuntimeError("first")

    def on_exception(self, *_):
        raise RuntimeError("second")


@pytest.mark.parametrize("layer", ["input", "net.0"])
@pytest.mark.parametrize("is_before", [True, False])
def test_an_error_while_one_is_handled_reaches_no_later_fit(float64, is_before, layer):
    module, data, callback = Net(), batches(3), ManifoldMixup(layers=[layer], stop=1.0)
    before = copy.deepcopy(data)
    callbacks = [StopsTwice(), callback] if is_before else [callback, StopsTwice()]
    with pytest.raises(RuntimeError, match="second"):
        fit(module, *callbacks, data=data)
    assert_the_next_fit_is_exact(Net(), callback, batches(3))
    assert_nothing_is_left(module, data, before)


@pytest.mark.parametrize("layer", ["input", "net.0"])
@pytest.mark.parametrize("at", [0, 1])
def test_minus_one_gives_the_batch_back_before_the_epoch_ends(float64, layer, at):
    class Skips(Net):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == at and self.current_epoch == 0 else None

        def on_train_epoch_end(self):
            self.seen = callback.fired, [type(tensor) for batch in data for tensor in batch]

    module, data, callback = Skips(), batches(3), ManifoldMixup(layers=[layer], stop=1.0)
    before = copy.deepcopy(data)
    fit(module, callback, data=data)
    assert module.global_step == at
    assert module.seen == (False, [torch.Tensor] * 6)
    assert_nothing_is_left(module, data, before)
    fit(module, callback, data=data)
    assert module.seen == (False, [torch.Tensor] * 6)


def test_max_steps_leaves_nothing_behind(float64):
    module, data, callback = Net(), batches(3), ManifoldMixup(layers=["input"], stop=1.0)
    before = copy.deepcopy(data)
    fit(module, callback, data=data, max_steps=2)
    assert module.global_step == 2
    assert_nothing_is_left(module, data, before)
    assert_the_next_fit_is_exact(module, callback, data)
