"""Schedules: when a fit mixes, how strongly, and until when."""

import torch.nn.functional as F
from fitting import Net, batches, loader, trainer

from lightning_mmix import ManifoldMixup
from refusals.table import X, Y, row

NAME = (
    "log mean confidence minus accuracy in validation and name it, as in gap='val/gap', or use stop"
)


class Validated(Net):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


def settle(module, val=True, **kwargs):
    settings = {"layers": ["net.0"], "settle": 0.5}
    mixup = ManifoldMixup(**settings | {k: kwargs.pop(k) for k in ("gap",) if k in kwargs})
    given = loader(batches()) if val else None
    trainer(mixup, **{"max_epochs": 4, **kwargs}).fit(module, loader(batches(2)), given)


@row("expected prob in [0, 1], but got 1.5", "gives a probability")
def a_probability_is_none():
    ManifoldMixup(prob=1.5)


@row("expected numbers for alpha, but got '2'", "takes the quotes off", TypeError)
def a_number_is_a_text():
    ManifoldMixup(alpha="2")


@row(
    "expected stop in [0, 1], but got 2; it is a share of the fit: for 2 epochs say "
    "prob={0: 1, 2: 0}",
    "gives a share, or a schedule",
)
def a_share_is_a_number_of_epochs():
    ManifoldMixup(stop=2)


@row("expected stop in [0, 1], but got 1.5", "gives a share")
def a_share_is_more_than_all():
    ManifoldMixup(stop=1.5)


@row(
    "settle=0.5 looks at the training from 50% on, but stop=0.5 ends the mixing by then; give a "
    "later stop, or leave one out",
    "leaves stop out",
)
def mixing_stops_before_it_settles():
    ManifoldMixup(stop=0.5, settle=0.5)


@row("expected a finite alpha ≥ 0, but got -1.0", "gives another one")
def an_alpha_of_a_schedule_is_negative():
    ManifoldMixup(alpha={0: 1.0, 5: -1.0})


@row(
    "expected alpha to map epochs from 0 on to numbers, as {0: 0.5, 160: 0} does, but got "
    "{10: 1.0}",
    "says what holds from epoch 0 on",
)
def a_schedule_says_nothing_of_the_first_epoch():
    ManifoldMixup(alpha={10: 1.0})


@row(
    "stop and settle are shares of the training, whose length is not known; give the Trainer "
    "max_epochs or max_steps, and a loop of your own mixer.set_epoch(epoch, of=…)",
    "limits the training",
)
def nobody_knows_how_long_a_fit_takes():
    mixup = ManifoldMixup(layers=["net.0"], stop=0.5)
    trainer(mixup, max_epochs=-1).fit(Net(), loader(batches()))


@row(
    "settle looks at validations for over-confidence, but this fit has none; give it validation "
    "data and a validation_step, or use stop",
    "adds a validation",
)
def a_fit_that_settles_does_not_validate():
    settle(Net(), val=False)


@row(
    "settle needs the predictions of a classifier (expected labels that are whole numbers in "
    "[0, 5), for predictions of 5 classes, but got float32 (6,) from {number} to {number}; a "
    f"regression has no such scores); {NAME}",
    "uses stop",
)
def a_fit_that_settles_trains_no_classifier():
    class Regression(Validated):
        def validation_step(self, batch, batch_idx):
            pass

        def training_step(self, batch, batch_idx):
            return F.mse_loss(self(batch[0])[:, 0], batch[1])

    mixup = ManifoldMixup(layers=["net.0"], settle=0.5)
    data = loader([(X, Y.sin())])
    trainer(mixup, max_epochs=2).fit(Regression(), data, data)


@row(f"nothing is logged as gap='val/gap', but 'val_loss'; {NAME}", "names what is logged")
def a_gap_is_named_that_nobody_logs():
    settle(Validated(), gap="val/gap")


@row(
    "no validation came in the last 50% of the fit, so nothing was settled; validate more often",
    "validates more often",
    UserWarning,
)
def a_fit_that_settles_validates_too_rarely():
    settle(Validated(), check_val_every_n_epoch=9)


@row(
    "labels='own' has the right expectation for interpolation alone, but got kind='cutmix'; use "
    "kind='mixup' or labels='paired'",
    "chooses one of the two",
)
def own_labels_are_pasted():
    ManifoldMixup(kind="cutmix", labels="own")


@row(
    "expected one kind, or kind={'mixup': 1, 'cutmix': 1} with the weight of each, but got "
    "['mixup', 'cutmix']",
    "gives each a weight",
    TypeError,
)
def kinds_are_listed_without_weights():
    ManifoldMixup(kind=["mixup", "cutmix"])


@row("expected a kind with a weight > 0, but got {'mixup': 0, 'cutmix': 0}", "gives one a weight")
def no_kind_has_a_weight():
    ManifoldMixup(kind={"mixup": 0, "cutmix": 0})
