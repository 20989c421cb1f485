"""Trainers, and what they train."""

import torch.nn.functional as F
from fitting import Net, batches, fit, loader, trainer
from lightning.pytorch.utilities import CombinedLoader

from lightning_mmix import CalibrationMonitor, ManifoldMixup, check
from lightning_mmix.training.visits import stage_of
from refusals.table import ONCE, X, Y, row


@row("expected one ManifoldMixup callback in the Trainer, but got several", "takes one out")
def a_trainer_has_two_of_them():
    class Mine(ManifoldMixup):
        pass

    fit(Net(), ManifoldMixup(), Mine())


@row(
    "ManifoldMixup needs the batch before the training step takes it; write training_step(self, "
    "batch, batch_idx) without dataloader_iter",
    "takes the batch as an argument",
)
def a_step_takes_the_batches_itself():
    class Takes(Net):
        def training_step(self, dataloader_iter):
            return next(dataloader_iter)

    fit(Takes(), ManifoldMixup())


@row(
    "no batch had two samples, so nothing was mixed" + ONCE,
    "takes larger batches",
    UserWarning,
)
def every_batch_is_a_single_sample():
    fit(Net(), ManifoldMixup(), data=[(X[:1], Y[:1])])


@row(
    "a check runs in one process, but the Trainer has several: devices=1",
    "gives the check a Trainer with devices=1",
)
def a_check_has_several_processes():
    check(Net(), loader([]), trainer=trainer(devices=2, strategy="ddp_spawn"))


@row(
    "the training step uses manual optimization (automatic_optimization=False), so it can't be "
    "run without training; check a copy of it that returns its loss",
    "writes a step that returns the loss",
)
def a_step_that_optimises_by_hand_is_checked():
    class Manual(Net):
        automatic_optimization = False

    check(Manual(), loader([]), trainer=trainer())


@row("there was no batch to check", "gives data")
def there_is_nothing_to_check():
    check(Net(), loader([]), trainer=trainer())


@row("expected a batch of two or more samples, but got one", "takes larger batches")
def a_single_sample_is_checked():
    check(Net(), loader([(X[:1], Y[:1])]), trainer=trainer())


@row(
    "expected a module with a test_step and test data, or a validation_step and validation data, "
    "to measure it on",
    "writes one of these steps, and gives it data",
)
def there_is_nothing_to_measure_on():
    stage_of(Net(), None)


@row("expected every_n_epochs ≥ 1, but got 0", "corrects it")
def a_monitor_looks_in_no_epoch():
    CalibrationMonitor(every_n_epochs=0)


@row(
    "the batch holds targets of several data loaders, but only the input of one can be mixed; name "
    "layers without 'input'",
    "leaves the input out",
)
def the_input_of_several_loaders_is_mixed():
    loaders = CombinedLoader({"a": loader(batches()), "b": loader(batches())}, "max_size_cycle")
    mixup = ManifoldMixup(layers=["input"], target=["a.1", "b.1"], input="a.0", verify=False)
    trainer(mixup).fit(Net(), loaders)


@row(
    "of some entries of the batch that are alike, as views are, '0.0' alone is mixed as the input; "
    "if the network takes the others, too, name layers without 'input'",
    "names hidden layers",
    UserWarning,
)
def one_of_two_views_is_mixed_as_the_input():
    class OfViews(Net):
        def training_step(self, batch, batch_idx):
            (one, other), y = batch
            return F.cross_entropy(self(one), y) + F.cross_entropy(self(other), y)

    mixup = ManifoldMixup(layers=["input"], input="0.0")
    fit(OfViews(), mixup, data=[((X.clone(), X + 1), Y.clone())])
