"""Trainers, and what they train."""

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit, loader, trainer
from lightning.pytorch.utilities import CombinedLoader

from lightning_mmix import CalibrationMonitor, ManifoldMixup, TemperatureScaling, check
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


class Validated(Net):
    def validation_step(self, batch, batch_idx):
        pass

    def test_step(self, batch, batch_idx):
        self.net(batch[0])


def scaled(module=None, data=None, **kwargs):
    scaling = TemperatureScaling(**kwargs)
    one = trainer(scaling)
    one.fit(module or Validated(), loader(batches()), loader(data or [(X, Y)]))
    return one


@row("expected one TemperatureScaling callback in the Trainer, but got several", "takes one out")
def a_trainer_has_two_that_scale():
    class Mine(TemperatureScaling):
        pass

    fit(Net(), TemperatureScaling(), Mine())


@row(
    "TemperatureScaling fits a temperature on validation data, but this fit has none; give it "
    "validation data and a validation_step, or leave the callback out",
    "gives it validation data",
)
def a_temperature_has_no_validation_data():
    fit(Net(), TemperatureScaling())


@row(
    "a temperature is fitted to the predictions of a classifier and their labels (expected labels "
    "that are whole numbers in [0, 5), for predictions of 5 classes, but got float32 (6,) from 0.5 "
    "to 5.5; a regression has no such scores); say where they are by form, target, input, output "
    "and ignore_index, or leave TemperatureScaling out",
    "leaves it out",
)
def a_temperature_is_fitted_to_a_regression():
    scaled(data=[(X, torch.arange(6) + 0.5)])


@row(
    "a temperature is fitted to the predictions of a classifier and their labels (to be divided, "
    "they must be what Unread.forward puts out, and not its only child; it does not take the "
    "batch, or several of its outputs fit the target); say where they are by form, target, input, "
    "output and ignore_index, or leave TemperatureScaling out",
    "writes a forward",
)
def a_module_whose_logits_are_divided_has_no_forward():
    class Unread(Validated):
        def forward(self):
            raise NotImplementedError

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

    scaled(Unread(), apply=True)


@row(
    "TemperatureScaling(apply=True) divides what forward puts out, but Own has no forward of its "
    "own: add one, and call self(batch) in test_step and predict_step, or use apply=False",
    "writes a forward",
)
def a_module_whose_logits_are_divided_brings_no_forward():
    class Own(Validated):
        forward = L.LightningModule.forward

    scaled(Own(), apply=True)


@row(
    "the temperature is 100, the end of its range, since the predictions tell nothing of the "
    "labels of the validation, as those of a network that has not learned yet; train it longer, or "
    "look if these are its labels",
    "trains it longer",
    UserWarning,
)
def a_temperature_is_that_of_a_network_that_knows_nothing():
    class Wrong(Validated):
        def forward(self, x):
            return self.net(x) - 99 * F.one_hot(Y, 5)

    scaled(Wrong(), data=[(X, Y)])


@row(
    "no temperature was fitted in a validation, since no label counts, or a prediction is NaN; "
    "this is said once",
    "looks why the training diverged",
    UserWarning,
)
def a_temperature_has_nothing_to_go_by():
    scaled(data=[(X, torch.full_like(Y, -1))], ignore_index=-1)


@row(
    "no temperature was fitted in a validation, since all its predictions are right, so that any "
    "lower T fits better; T is 1; this is said once",
    "validates with more data, or leaves it at that",
    UserWarning,
)
def a_temperature_has_no_error_to_go_by():
    class Sure(Validated):
        def forward(self, x):
            return self.net(x) + 99 * F.one_hot(Y, 5)

    scaled(Sure(), data=[(X, Y)])


@row(
    "TemperatureScaling is to divide logits (apply=True), but no temperature of these weights is "
    "known; fit first, or give as ckpt_path a checkpoint that a fit with it saved after a "
    "validation",
    "gives such a checkpoint",
)
def a_test_has_no_temperature():
    trainer(TemperatureScaling(apply=True)).test(Validated(), loader(batches()), verbose=False)


@row(
    "no step of Validated called its forward, so no logits were divided by the temperature; call "
    "self(x) there",
    "calls self(x)",
    UserWarning,
)
def a_step_leaves_forward_out():
    one = scaled(apply=True)
    one.test(one.model, loader(batches()), verbose=False)


@row(
    "expected an output whose logits can be divided by the temperature, but got Scores; return a "
    "tensor, or a tuple, dictionary or dataclass of tensors",
    "returns one of these",
)
def logits_are_held_by_something_else():
    class Scores:
        def __init__(self, logits):
            self.logits = logits

    class Holds(Validated):
        def forward(self, x):
            return Scores(self.net(x))

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]).logits, batch[1])

    one = scaled(Holds(), apply=True)
    one.predict(one.model, loader([X]))
