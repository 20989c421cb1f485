"""Loops without a Trainer."""

import torch.distributed as dist
import torch.nn.functional as F
from fitting import Net
from torch.distributed.fsdp import fully_shard

from lightning_mmix import Mixer
from refusals.table import ONCE, X, Y, row


@row(
    "the context of another batch has not ended; mix one batch after the other, or two as one, "
    "torch.cat([x, other])",
    "puts the batches together",
)
def two_batches_are_mixed_at_a_time():
    mixer = Mixer(Net(), layers=["net.0"])
    with mixer(X.clone(), Y.clone()), mixer(X.clone(), Y.clone()):
        pass


@row(
    "the target is paired by a step that is not over, so its batch would be mixed twice; mix a "
    "batch by one Mixer, one callback or one plan",
    "takes one out",
)
def two_of_them_mix_a_batch():
    model, y = Net(), Y.clone()
    one, other = Mixer(model, layers=["net.0"]), Mixer(model, layers=["net.0"])
    with one(X.clone(), y), other(X.clone(), y):
        pass


@row(
    "alpha or prob depends on the epoch, which is not known; begin each by mixer.set_epoch(epoch)",
    "says which it is",
)
def a_loop_does_not_tell_its_epochs():
    with Mixer(Net(), {0: 2.0, 9: 0.2}, ["net.0"])(X.clone(), Y.clone()):
        pass


@row("epochs count from 0: the last of 3 is 2, but got 3", "counts from 0, or tells of more")
def a_loop_has_more_epochs_than_it_told():
    Mixer(Net()).set_epoch(3, of=3)


@row("epochs count from 0: expected a whole number ≥ 0, but got -1", "corrects it")
def an_epoch_of_a_loop_is_none():
    Mixer(Net()).set_epoch(-1)


@row("expected the number of epochs, ≥ 1, as of, but got 0", "corrects it")
def a_loop_has_no_epochs():
    Mixer(Net()).set_epoch(0, of=0)


@row(
    'layers="auto" can\'t choose, since parameters are sharded, so no forward pass can be run '
    'beside the training; name the layers, as in layers=["net.0"]',
    "names layers",
)
def a_loop_shards_its_model():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh("cpu", (1,))
        with Mixer(fully_shard(Net(), mesh=mesh))(X.clone(), Y.clone()):
            pass
    finally:
        dist.destroy_process_group()


@row(
    "the hidden state of layer 'net.0' was mixed, but no loss was taken of the target within the "
    "context, so labels are not mixed; take it before the context ends, of the very target that "
    "it yields",
    "takes the loss inside",
)
def a_loop_takes_its_loss_too_late():
    model = Net()
    with Mixer(model, layers=["net.0"])(X.clone(), Y.clone()):
        model(X)


@row(
    "settle looks at confidence minus accuracy on validation data, which is not known; tell it "
    "after each validation, mixer.set_gap(gap)" + ONCE,
    "tells it",
    UserWarning,
)
def a_loop_that_settles_tells_no_gap():
    mixer = Mixer(Net(), layers=["net.0"], settle=1.0)
    mixer.set_epoch(0, of=1)
    mixer.remove()


@row(
    "layer 'net.0' was to be mixed in this training step and did not run, so nothing was mixed; "
    "give Mixer the very model that the loop calls, and no copy of it, or name layers that run in "
    "every step" + ONCE,
    "gives the mixer that model",
    UserWarning,
)
def a_loop_calls_another_model_than_it_gave():
    mixer, called, y = Mixer(Net(), layers=["net.0"]), Net(), Y.clone()
    with mixer(X.clone(), y):
        F.cross_entropy(called(X), y).backward()


@row(
    "target='label' is a place in a whole batch, mixer(batch), but got the target apart, "
    "mixer(x, y); give the batch, or leave the place out",
    "gives the batch",
)
def a_loop_names_the_target_and_gives_it_apart():
    with Mixer(Net(), layers=["net.0"], target="label")(X.clone(), Y.clone()):
        pass


@row("expected a torch.nn.Module to mix, but got function", "gives the module", TypeError)
def a_loop_mixes_no_module():
    Mixer(lambda x: x)


@row("expected what state_dict() gave, but got dict", "gives the mixer's own state")
def a_loop_goes_on_from_another_state():
    Mixer(Net(), layers=["net.0"]).load_state_dict({})
