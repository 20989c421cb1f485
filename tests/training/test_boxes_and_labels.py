"""Fits that paste boxes, leave labels alone, or do now the one and now the other."""

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit, loader, trainer
from torch import nn

from lightning_mmix import (
    ManifoldMixup,
    ManifoldMixupClassifier,
    ManifoldMixupMixin,
    Mixer,
    check,
)
from lightning_mmix.core.plan import Recipe, draw

GENERATOR = torch.Generator().manual_seed(3)
IMAGES = torch.randn(6, 3, 8, 8, generator=GENERATOR)
CLASSES = torch.arange(6) % 5
ALL = ["input", "stem", "stage"]
MASKS = torch.randint(0, 4, (6, 8, 8), generator=GENERATOR)


class Pictures(L.LightningModule):
    """Classifies images, or their pixels."""

    def __init__(self, head=None):
        torch.manual_seed(1)
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(6, 7, 3, 2, 1), nn.ReLU())
        self.head = head or nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 5))
        self.seen = []

    def forward(self, x):
        return self.head(self.stage(self.stem(x)))

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append((x.clone(), y.clone(), type(y)))
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def pixels():
    return Pictures(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(7, 4, 1)))


def fitted(module, target=CLASSES, count=4, **kwargs):
    mixup = ManifoldMixup(stop=1.0, seed=3, **kwargs)
    fit(module, mixup, data=[(IMAGES.clone(), target.clone()) for _ in range(count)])
    return mixup


def proven(module, target=CLASSES, **kwargs):
    mixup = ManifoldMixup(**kwargs)
    trained = trainer(precision="64-true")
    return check(module, loader([(IMAGES.double(), target)]), mixup=mixup, trainer=trained)


def test_a_box_is_pasted_at_any_layer_of_any_module():
    mixup = fitted(Pictures(), kind="cutmix", layers=ALL)
    plan, drawn = mixup.plan, draw(Recipe(1.0, dict.fromkeys(mixup.layers_, 1.0), kind="cutmix"),
                                   6, seed=3, batch_idx=3)  # fmt: skip
    assert plan.layer == drawn.layer
    assert plan.region.space == (8, 8) if plan.layer != "stage" else (4, 4)
    assert plan.lam == plan.region.lam != drawn.lam
    assert plan.nominal == drawn.lam


def test_the_loss_of_a_box_is_exact_at_every_layer():
    found = proven(Pictures(), kind="cutmix", layers=ALL)
    assert [each.layer for each in found.agreements] == [f"{layer} (cutmix)" for layer in ALL]
    assert found.is_exact
    assert min(each.gradient_digits for each in found.agreements) > 10


def test_both_kinds_are_proven_and_drawn():
    found = proven(Pictures(), kind={"mixup": 1, "cutmix": 2}, layers=["stem"])
    assert [each.layer for each in found.agreements] == ["stem", "stem (cutmix)"]
    assert found.is_exact

    class Keeps(Pictures):
        def on_before_zero_grad(self, optimizer):
            kinds.append(self.trainer.callbacks[0].plan.kind)

    kinds = []
    fitted(Keeps(), kind={"mixup": 1, "cutmix": 2}, layers=["stem"], count=12)
    assert {*kinds} == {"mixup", "cutmix"}
    assert kinds.count("cutmix") > kinds.count("mixup")


def test_the_input_of_a_step_holds_the_partners_pixels_in_a_box():
    module = Pictures()
    plan = fitted(module, kind="cutmix", layers=["input"], count=1).plan
    x, _, _ = module.seen[0]
    own = (x == IMAGES).all(1)
    theirs = (x == IMAGES[plan.partner]).all(1)
    assert (own | theirs).all()
    moved = plan.partner != torch.arange(6)
    assert own[moved].double().mean() == pytest.approx(float(plan.lam))


def test_masks_are_pasted_as_their_images_are():
    module = pixels()
    mixup = fitted(module, MASKS, kind="cutmix", layers=["input"], count=1)
    x, y, kind = module.seen[0]
    assert kind is torch.Tensor
    rows = mixup.plan.partner
    at_own = (x == IMAGES).all(1)
    assert torch.equal(y, torch.where(at_own, MASKS, MASKS[rows]))
    assert proven(pixels(), MASKS, kind="cutmix", layers=["input", "stem"]).is_exact


def test_masks_and_layers_of_another_size_are_told():
    with pytest.raises(ValueError, match=r"'stage' puts out \(B, 7, 4, 4\), and the target"):
        fitted(pixels(), MASKS, kind="cutmix", layers=["stage"])
    with pytest.raises(ValueError, match=r"'stage' puts out \(4, 4\) positions, and the target"):
        fitted(pixels(), MASKS, kind="cutmix", layers=["stage"], verify=False)
    assert fitted(pixels(), MASKS, kind="cutmix").layers_ == ["input", "stem"]


def test_auto_pastes_no_last_states():
    class Reader(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.embedding, self.lstm = nn.Embedding(20, 8), nn.LSTM(8, 64, batch_first=True)
            self.head = nn.Linear(64, 5)

        def forward(self, ids):
            return self.head(self.lstm(self.embedding(ids))[1][0][-1])

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        configure_optimizers = Pictures.configure_optimizers

    ids, found = torch.randint(0, 20, (6, 9)), {}
    for kind in ("mixup", "cutmix"):
        fit(Reader(), mixup := ManifoldMixup(kind=kind, stop=1.0), data=[(ids, CLASSES)])
        found[kind] = mixup.layers_
    assert "lstm" in found["mixup"]
    assert found["cutmix"] == ["embedding"]


def test_a_mixin_that_is_overridden_pastes_a_mask_once():
    seen = []

    def criterion(z, y):
        seen.append(y.clone())
        return F.cross_entropy(z, y)

    class Mine(ManifoldMixupMixin, Pictures):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)

    module = Mine(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(7, 4, 1)))
    module.criterion = criterion
    mixup = fitted(module, MASKS, kind="cutmix", layers=["stem"], count=1)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[tuple(slice(*edges) for edges in mixup.plan.region.bounds)] = True
    theirs = inside == mixup.plan.region.is_inside
    assert torch.equal(seen[-1], torch.where(theirs, MASKS[mixup.plan.partner], MASKS))


def test_a_mask_is_given_back():
    target = MASKS.clone()
    fit(pixels(), ManifoldMixup(kind="cutmix", layers=["stem"], stop=1.0), data=[(IMAGES, target)])
    assert torch.equal(target, MASKS)


@pytest.mark.parametrize("layers", ["auto", ["net.0"], ["input"]])
def test_without_space_no_box_is_pasted(layers):
    with pytest.raises(ValueError, match="space"):
        fit(Net(), ManifoldMixup(kind="cutmix", layers=layers, stop=1.0))


def test_auto_leaves_layers_without_space_to_interpolation():
    class Flat(Pictures):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU())
            self.stage = nn.Sequential(nn.Flatten(), nn.Linear(6 * 64, 99), nn.ReLU())
            self.head = nn.Sequential(nn.Linear(99, 99), nn.ReLU(), nn.Linear(99, 300))

    assert fitted(Flat()).layers_ == ["input", "stem", "stage"]
    assert fitted(Flat(), kind="cutmix").layers_ == ["input", "stem"]


@pytest.mark.parametrize("kwargs", [{"kind": "cutmix"}, {"labels": "own"}, {"kind": "mixup"}])
def test_the_classifier_is_trained_by_every_kind(kwargs):
    module = ManifoldMixupClassifier(Pictures(), 5, stop=1.0)
    mixup = ManifoldMixup(layers=["net.stem"], **kwargs)
    trained = trainer(mixup, max_epochs=2)
    trained.fit(module, loader([(IMAGES, CLASSES)] * 3))
    assert 0 <= trained.callback_metrics["train/accuracy"] <= 1


def test_the_mixin_weighs_its_loss_by_what_was_pasted():
    found = proven(
        ManifoldMixupClassifier(Pictures(), 5, stop=1.0), kind="cutmix", layers=["net.stage"]
    )
    assert found.is_exact


class Matching(Net):
    """A loss that leaves torch for its labels."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.types = (type(x), type(y))
        order = np.argsort(y.numpy())
        scores = self(x)[order]
        return sum(F.cross_entropy(scores[i], torch.tensor(int(y[j]))) for i, j in enumerate(order))


def test_own_labels_leave_the_target_alone():
    module, mixup = Matching(), ManifoldMixup(layers=["net.0"], labels="own", seed=3, stop=1.0)
    fit(module, mixup)
    assert module.types == (torch.Tensor, torch.Tensor)
    assert mixup.plan.labels == "own"
    assert mixup.plan.lam.shape == (6,)
    assert len(set(mixup.plan.lam.tolist())) == 6


def test_own_labels_train_on_the_loss_of_the_mixed_states():
    module, mixup = Net(), ManifoldMixup(layers=["net.0"], labels="own", seed=3, stop=1.0)
    weights = [p.detach().clone() for p in module.parameters()]
    fit(module, mixup)
    (x, y), plan = batches()[0], mixup.plan
    first = F.linear(x, weights[0], weights[1])
    lam = plan.lam[:, None].float()
    hidden = (lam * first + (1 - lam) * first[plan.partner]).tanh()
    expected = F.cross_entropy(F.linear(hidden, weights[2], weights[3]), y)
    torch.testing.assert_close(module.loss.detach(), expected)


def test_own_labels_mix_a_step_that_no_pair_can_follow():
    class Functional(Net):
        def training_step(self, batch, batch_idx):
            x, y = batch
            vmapped = torch.func.vmap(lambda z, t: F.cross_entropy(z[None], t[None]))
            return vmapped(self(x), y).mean()

    with pytest.raises(ValueError, match="labels='own'"):
        fit(Functional(), ManifoldMixup(layers=["net.0"], stop=1.0))
    fit(Functional(), mixup := ManifoldMixup(layers=["net.0"], labels="own", stop=1.0))
    assert mixup.plan is not None


def test_own_labels_have_nothing_to_prove():
    with pytest.raises(ValueError, match="nothing to prove"):
        proven(Pictures(), labels="own")


def test_a_pasted_mask_and_an_idle_layer_are_told_in_manual_optimisation():
    class Manual(Pictures):
        automatic_optimization = False

        def forward(self, x):
            return self.head(self.stem(x)[:, :, ::2, ::2].repeat(1, 2, 1, 1)[:, :7])

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    module = Manual(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(7, 4, 1)))
    with pytest.raises(ValueError, match="'stage' did not run, but the target holds"):
        fitted(module, MASKS, kind="cutmix", layers=["stage"], verify=False)


def test_soft_labels_as_long_as_the_sequence_are_weighed():
    class Series(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.ReLU())
            self.head = nn.Linear(4, 5)

        def forward(self, x):
            return self.head(self.net(x).mean(2))

        def training_step(self, batch, batch_idx):
            self.type = type(batch[1])
            return F.cross_entropy(self(batch[0]), batch[1])

        configure_optimizers = Pictures.configure_optimizers

    x, y = torch.randn(6, 3, 5), torch.eye(5)[CLASSES]  # five classes, five positions
    module = Series()
    fit(module, ManifoldMixup(kind="cutmix", layers=["net"], stop=1.0), data=[(x, y)])
    assert module.type is not torch.Tensor


def test_auto_pastes_nothing_where_one_position_is_left():
    class Pooled(Pictures):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU())
            self.stage = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 200, 1), nn.ReLU())
            self.head = nn.Sequential(nn.Conv2d(200, 200, 1), nn.Flatten(), nn.Linear(200, 5))

    assert "stage" in fitted(Pooled()).layers_
    assert fitted(Pooled(), kind="cutmix").layers_ == ["input", "stem"]


def test_a_step_that_fails_to_begin_gives_everything_back():
    mask = torch.tensor([[True, False]] * 3 + [[True, True]] * 3)
    batch = {"x": torch.randn(6, 4), "label": CLASSES.clone(), "mask": mask.clone()}
    batch["other"] = batch["x"][:3]
    mixer = Mixer(Net(), layers=["net.0"], union=["mask", "other"], target="label", stop=1.0)
    with pytest.raises((ValueError, TypeError), match="other"), mixer(batch):
        pass
    assert torch.equal(batch["mask"], mask)
    mixer = Mixer(Net(), layers=["net.0"], union=["mask", "label"], target="label", stop=1.0)
    with pytest.raises(ValueError, match="union names the target"), mixer(batch):
        pass
    assert torch.equal(batch["mask"], mask)
    mixer = Mixer(Net(), layers=["net.0"], union="mask", target=["label", "weight"], stop=1.0)
    batch["weight"] = torch.rand(6, requires_grad=True)
    with pytest.raises(ValueError, match="requires it"), mixer(batch):
        pass
    assert torch.equal(batch["mask"], mask)
    assert type(batch["label"]) is torch.Tensor


def test_a_target_that_may_be_a_mask_of_another_size_is_told_before_the_training():
    keypoints, module = torch.rand(6, 7, 2), pixels()
    mixup = ManifoldMixup(kind={"mixup": 1.0, "cutmix": 1e-9}, layers=["stem"], stop=1.0)
    with pytest.raises(ValueError, match=r"a value for each position .* \(6, 7, 2\); bring both"):
        fit(module, mixup, data=[(IMAGES, keypoints)])
    assert not module.seen
