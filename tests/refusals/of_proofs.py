"""Steps that are held against the naive form."""

import torch
from torch import nn

from lightning_mmix import MixPlan, check
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.proof.naive import Trial
from refusals.table import ORDER, X, Y, row


def held(step):
    """Try a step of a model and a batch, with the hidden state of a layer mixed."""
    model = nn.Sequential(nn.Linear(4, 5))
    plan = MixPlan("0", torch.tensor(0.75), ORDER)
    Trial(lambda batch: step(model, batch), Gates(model, ["0"]), plan, (X, Y)).paired()


@row(
    "check needs a LightningModule, but got Linear; in a loop of your own hold the loss against "
    "mixed_loss(criterion, prediction, target, mixer.plan)",
    "does so",
    TypeError,
)
def a_module_of_a_loop_is_checked():
    check(nn.Linear(4, 5), [(X, Y)])


@row("the training step returned no loss", "returns it", TypeError)
def a_step_that_is_checked_returns_nothing():
    held(lambda model, batch: None)


@row(
    "layer '0' was to be mixed in this training step and did not run, so nothing was mixed; "
    "name layers that run in every step",
    "names another layer",
)
def a_layer_that_is_checked_does_not_run():
    held(lambda model, batch: batch[0].sum())


@row(
    "the hidden state of layer '0' was mixed, but the loss was not, since it does not use the "
    "batch's target: use y itself, no copy or number of it (torch.tensor(y), Variable(y), "
    "y.numpy()), or name what it uses, target=<key, index or path>, or use labels='own' or "
    "ManifoldMixupMixin; a loss without labels, as a GAN's, can't be mixed",
    "names the target, or takes y as it is",
)
def a_loss_that_is_checked_takes_no_label():
    held(lambda model, batch: model(batch[0]).sum())
