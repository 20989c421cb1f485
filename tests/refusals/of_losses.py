"""What a loss does that can't be paired, or that a pair can't follow."""

import losses
import torch
import torch.nn.functional as F
from fitting import Net, Steps, fit
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_mmix import ManifoldMixup
from refusals.table import ONCE, X, Y, paired, row, train

UNUSED = (
    "the hidden state of layer 'net.0' was mixed, but the loss was not, since it does not use "
    "the batch's target: use y itself, no copy or number of it (torch.tensor(y), Variable(y), "
    "y.numpy()), or name what it uses, target=<key, index or path>, or use labels='own' or "
    "ManifoldMixupMixin; a loss without labels, as a GAN's, can't be mixed"
)


@row(
    UNUSED,
    "names the target, takes y as it is, or trains without labels and without mixing",
)
def the_loss_takes_no_label():
    train(lambda module, batch: module(batch[0]).square().mean())


@row(
    UNUSED,
    "names the target, takes y as it is, or trains without labels and without mixing",
)
def a_step_that_optimises_by_hand_takes_no_label():
    class Manual(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(self(batch[0]).square().mean())
            self.optimizers().step()

    fit(Manual(), ManifoldMixup(layers=["net.0"]))


@row(
    "the hidden state of layer 'net.0' was mixed, but the loss was not, since it does not use "
    "the batch's target: use y itself, and no number or array (numpy at {line}), or name the "
    "entry that it uses, target=<key, index or path>, or use labels='own' or "
    "ManifoldMixupMixin; a loss without labels, as a GAN's, can't be mixed",
    "goes to that line, and takes y as it is",
)
def the_loss_takes_an_array_of_the_label():
    train(lambda module, batch: F.cross_entropy(module(batch[0]), torch.tensor(batch[1].numpy())))


@row(
    "getitem at {line} fails for the partner's label, for which the loss is computed as well "
    "(IndexError: index 3 is out of bounds for dimension 0 with size 3): it takes a size or "
    "number that was read from the sample's own label; keep that a tensor, or use "
    "labels='own', ManifoldMixupMixin or mixed_loss",
    "keeps the size a tensor, or lets the criterion run twice, by the mixin",
)
def a_size_read_from_the_own_label_is_too_large_for_the_partners():
    def step(module, batch):
        rows = [(mask > 0).nonzero()[:, 0] for mask in batch[1]]
        last = torch.stack([row[torch.arange(row.numel())].sum() for row in rows])
        return (module(batch[0])[:, 0] * last).mean()

    masks = torch.tensor([[1] * count + [0] * (6 - count) for count in (6, 3, 6, 3, 6, 3)])
    train(step, (X, masks), seed=1)


@row(
    "at {line} the size of a tensor is used that was masked by the target, which is another one"
    " for the partner's label, so the loss is not exact; count by a tensor, mask.sum() in place"
    " of len(y[mask])",
    "goes to that line, and counts by mask.sum()",
    UserWarning,
)
def a_mask_of_the_label_is_counted_by_its_size():
    paired(lambda z, y: z[:3][y[:3] > 1].shape)


@row(
    "at {line} a sample's own label gives 2 tensors and its partner's 1, so they can't be "
    "mixed one by one; use labels='own', ManifoldMixupMixin or mixed_loss",
    "lets the criterion run twice, by the mixin",
)
def a_function_gives_more_tensors_for_one_label():
    paired(lambda _, y: torch.unbind(torch.nonzero(y[:2])), torch.tensor([1, 1, 0, 0, 0, 0]))


@row(
    "log stands next to a custom autograd.Function in the loss, where a mixed target is exact "
    "only if the Function takes the network's output itself, and its result is only summed, "
    "averaged or scaled; use labels='own', ManifoldMixupMixin or mixed_loss instead",
    "lets the criterion run twice, by the mixin",
)
def what_a_custom_function_gives_goes_into_a_logarithm():
    paired(lambda z, y: losses._SquaredError.apply(z, y).log())


@row(
    "mul stands next to a custom autograd.Function in the loss, where a mixed target is exact "
    "only if the Function takes the network's output itself, and its result is only summed, "
    "averaged or scaled; use labels='own', ManifoldMixupMixin or mixed_loss instead",
    "lets the criterion run twice, by the mixin",
)
def a_custom_function_takes_a_loss():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return 2 * loss

    paired(lambda z, y: Doubled.apply(F.cross_entropy(z, y)))


@row(
    "copy_ writes what follows from the target into memory that other tensors may share, which "
    "can't be done for the partner's; write into a .clone(), or anew",
    "writes into a clone",
)
def the_target_is_written_into_a_view():
    paired(lambda _, y: torch.zeros(6, 2)[:, 0].copy_(y))


@row(
    "add writes what follows from the target into out=, which can't be done for the partner's; "
    "leave out= away",
    "leaves out= out",
)
def the_target_is_written_by_out():
    paired(lambda _, y: torch.add(y, 1, out=torch.zeros(6, dtype=torch.long)))


@row(
    "resize_ writes what follows from the target by exchanging its memory, which can't be done "
    "for the partner's; make a new tensor",
    "makes a new tensor",
)
def a_target_gets_other_memory():
    paired(lambda _, y: y.resize_(3))


@row(
    "cross_entropy takes a mixed target within a transform of torch.func, which can't follow "
    "it; use torch.autograd.grad, labels='own', ManifoldMixupMixin or mixed_loss instead",
    "takes gradients by torch.autograd",
)
def a_loss_lies_within_torch_func():
    paired(lambda z, y: torch.func.grad(lambda z: F.cross_entropy(z, y))(z))


WEIGHT = torch.linspace(0.1, 1, 6)


@row(
    "the loss takes the target along with entry '2' of the batch (mul at {line}), and never "
    "with the partner's, so it is not exact; if it belongs to the target, as weights, lengths "
    "and masks of it do, name it, too, target=[1, 2]; if it transforms the target, do that in "
    "on_after_batch_transfer; this is said once",
    "names the entry, too",
    UserWarning,
)
def an_entry_that_is_not_named_weighs_the_loss():
    def step(module, batch):
        each = F.cross_entropy(module(batch[0]), batch[1], reduction="none")
        return (each * batch[2]).mean()

    train(step, (X, Y, WEIGHT), target=1)


@row(
    "the loss takes the target along with entry '0' of the batch (sub at {line}), and never "
    "with the partner's, so it is not exact; if it transforms the target, do that in "
    "on_after_batch_transfer; if the output is compared with it, as an autoencoder's is, name a"
    " .clone() of it as a target, too; this is said once",
    "transforms the target in on_after_batch_transfer",
    UserWarning,
)
def the_target_is_normalised_by_the_input_after_the_layer():
    def step(module, batch):
        z = module(batch[0])
        return (z - (batch[1][:, None] - batch[0].mean(1, keepdim=True))).square().mean()

    train(step)


@row(
    "the rows of entry '0' of the batch were put into another order (getitem at {line}) before "
    "layer 'net.0' ran, and those of the target were not, so hidden states and labels are mixed "
    "with those of other samples; put both in order in on_after_batch_transfer" + ONCE,
    "sorts the batch beforehand",
    UserWarning,
)
def the_step_sorts_its_input_alone():
    def step(module, batch):
        order = batch[0].sum(1).argsort()
        return F.cross_entropy(module(batch[0][order])[order.argsort()], batch[1])

    train(step)


@row(
    "a Python value or array was made from the target (item at {line}), which is that of the "
    "sample's own label, so the loss for the partner's is off by {number} of its value; keep "
    "it a tensor, or use labels='own', ManifoldMixupMixin or mixed_loss; this is said once",
    "goes to that line, and keeps the value a tensor",
    UserWarning,
)
def a_number_of_the_label_goes_into_the_loss():
    def step(module, batch):
        return F.cross_entropy(module(batch[0]), batch[1]) * (1 + batch[1][0].item())

    train(step, alpha=2.0)


@row(
    "a Python value or array was made from the target (item at {line}), which is that of the "
    "sample's own label, so a loss that depends on it is not exact for the partner's; keep it "
    "a tensor, or use labels='own', ManifoldMixupMixin or mixed_loss; this is said once",
    "goes to that line",
    UserWarning,
)
def a_number_of_the_label_is_taken_where_a_step_cannot_be_tried_again():
    class Manual(Steps):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.manual_backward(super().training_step(batch, batch_idx))

    def step(module, batch):
        return F.cross_entropy(module(batch[0]), batch[1]) * (1 + batch[1][0].item())

    fit(Manual(step), ManifoldMixup(2.0, ["net.0"]))


@row(
    "layer 'unused' was to be mixed in this training step and did not run, so nothing was "
    "mixed; name layers that run in every step; this is said once",
    "names a layer that runs in every step",
    UserWarning,
)
def the_drawn_layer_does_not_run():
    module = Steps(lambda module, batch: F.cross_entropy(module(batch[0]), batch[1]))
    module.unused = nn.Identity()
    fit(module, ManifoldMixup(layers=["unused"], verify=False))


@row(
    "no gradient was taken of a loss, though the hidden state of layer 'net.0' was mixed: what "
    "the training step keeps of the network's output is mixed, and the labels are not; return "
    "the loss, or in a loop take it and its gradient within the context; a step that only collects "
    "outputs is to run without mixing; this is said once",
    "returns the loss",
    UserWarning,
)
def the_step_returns_no_loss():
    def step(module, batch):
        module.kept = module(batch[0])

    train(step)


@row(
    "the prediction, or a weight, was written into after a loss had taken it, and before both "
    "sides of that loss were needed; write into a .clone() of it",
    "writes into a copy",
)
def the_prediction_is_written_into_between_the_loss_and_what_is_made_of_it():
    def step(module, batch):
        z = module(batch[0])[:, 0]
        loss = F.mse_loss(z, batch[1])
        with torch.no_grad():
            z.zero_()
        return loss.exp()

    train(step, (X, Y.float()))


@row(
    "the loss takes the target along with the value of a metric (mul at {line}), which counts the "
    "sample's own labels alone, so it is not exact; compute in the loss what it takes, from the "
    "target, or use labels='own', ManifoldMixupMixin or mixed_loss; this is said once",
    "computes it from the target",
    UserWarning,
)
def the_loss_takes_the_value_of_a_metric():
    accuracy = MulticlassAccuracy(5)

    def step(module, batch):
        z = module(batch[0])
        return F.cross_entropy(z, batch[1]) * (1 + accuracy(z, batch[1]))

    train(step)
