"""Kinds of mixing, what they need, and doors that know of them."""

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from fitting import Net, fit, loader, trainer
from torch import nn

from lightning_mmix import ManifoldMixup, Mixer, check
from lightning_mmix.core import Recipe
from refusals.table import X, Y, row

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
IDLE = (
    "layer 'idle' did not run, but the target holds the partner's values in a box; name layers "
    "that run in every step, or if the model is compiled make its gates first"
)


class Idle(L.LightningModule):
    """A network of pixels with a layer that does not run in training."""

    def __init__(self):
        super().__init__()
        self.conv, self.idle = nn.Conv2d(3, 4, 1), nn.Identity()

    def forward(self, x):
        return self.conv(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def masks():
    return torch.zeros(6, 8, 8, dtype=torch.long)


@row("expected a finite alpha ≥ 0, but got -1", "gives another one")
def a_recipe_has_a_negative_alpha():
    Recipe(-1, {"input": 1.0})


@row("expected prob in [0, 1], but got 2", "gives a probability")
def a_recipe_has_no_probability():
    Recipe(1.0, {"input": 1.0}, prob=2)


@row(
    "CutMix needs space, one to three dimensions besides samples and channels, but layer 'net.0' "
    "puts out (B, 6); name layers with space, or kind='mixup'",
    "names another layer",
)
def a_layer_of_features_is_named_for_boxes():
    fit(Net(), ManifoldMixup(layers=["net.0"], kind="cutmix"))


@row(
    "layers=\"auto\" found no layer with space, which CutMix needs; use kind='mixup'",
    "uses mixup",
)
def a_network_of_features_is_to_paste_boxes():
    fit(Net(), ManifoldMixup(kind="cutmix"))


@row(IDLE, "names a layer that runs")
def a_pasted_layer_does_not_run_in_a_loop():
    mixer, target = Mixer(Idle(), layers=["idle"], kind="cutmix", verify=False), masks()
    with mixer(IMAGES.clone(), target):
        pass


@row(IDLE, "names a layer that runs in every step")
def a_pasted_layer_does_not_run_in_a_fit():
    mixup = ManifoldMixup(layers=["idle"], kind="cutmix", verify=False)
    fit(Idle(), mixup, data=[(IMAGES.clone(), masks())])


@row(IDLE, "names a layer that runs in every step")
def a_pasted_layer_does_not_run_by_hand():
    class Manual(Idle):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    mixup = ManifoldMixup(layers=["idle"], kind="cutmix", verify=False)
    fit(Manual(), mixup, data=[(IMAGES.clone(), masks())])


@row(
    "with labels='own' the loss is that of the target as it is, so there is nothing to prove; "
    "`lightning-mmix layers` lists what can be mixed",
    "trusts the gates",
)
def a_check_is_asked_of_own_labels():
    mixup = ManifoldMixup(layers=["net.0"], labels="own")
    check(Net(), loader([(X, Y)]), mixup=mixup, trainer=trainer())


@row(
    "expected a key, an index or a dotted path, or a list of such as target, but got 3.5",
    "says where it is",
)
def a_target_is_named_by_half_an_index():
    ManifoldMixup(target=3.5)


@row(
    "expected a key, an index or a dotted path, or a list of such as union, but got True",
    "names the mask",
)
def masks_are_to_be_united_without_a_name():
    ManifoldMixup(union=True)


@row("expected the name of a logged value as gap, but got 3", "gives its name", TypeError)
def a_gap_is_no_name():
    ManifoldMixup(settle=0.5, gap=3)


@row("union names the target, which is mixed itself; name masks or lengths", "names the mask")
def the_union_is_that_of_the_target():
    fit(Net(), ManifoldMixup(layers=["net.0"], union=1))


@row(
    "union is for interpolation, but got kind='cutmix', which takes each position from one of the "
    "two; leave the one or the other out",
    "leaves one out",
)
def boxes_are_to_be_united():
    ManifoldMixup(kind="cutmix", union="attention_mask")


@row("gap='val/gap' says when to settle, but settle is 0; give it a share", "gives settle a share")
def a_gap_is_named_for_nothing():
    ManifoldMixup(gap="val/gap")


@row(
    "expected a target with a value for each position of the input, which has (8, 8), but got "
    "int64 (6, 4, 4); bring both to one size, or use kind='mixup'",
    "brings both to one size",
)
def a_mask_is_smaller_than_its_image():
    mixup = ManifoldMixup(layers=["conv"], kind="cutmix")
    fit(Idle(), mixup, data=[(IMAGES.clone(), masks()[:, ::2, ::2])])


@row(
    "layer 'shrink' puts out (B, 4, 4, 4), and the target, which takes its partner's values in the "
    "same box, has (8, 8) positions; mix layers=['input'] or a layer with as many, or use "
    "kind='mixup'",
    "mixes another layer",
)
def a_layer_has_fewer_positions_than_the_mask():
    class Shrinks(Idle):
        def __init__(self):
            super().__init__()
            self.shrink, self.grow = nn.Conv2d(3, 4, 2, 2), nn.Upsample(scale_factor=2)

        def forward(self, x):
            return self.grow(self.shrink(x))

    fit(Shrinks(), ManifoldMixup(layers=["shrink"], kind="cutmix"), data=[(IMAGES, masks())])
