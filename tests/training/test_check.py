import copy
import re
import sys

import pytest
import torch
import torch.nn.functional as F
import torchvision
from fitting import InFront, Net, Steps, batches, loader, trainer
from torch import nn

from lightning_mmix import ManifoldMixup, check
from lightning_mmix.proof.agreement import Agreement
from lightning_mmix.training.check import Check
from lightning_mmix.training.module import ManifoldMixupClassifier

X, Y = batches(size=6)[0]
WEIGHT = torch.linspace(0.1, 1, 6)


def checked(module, data=(X, Y), **kwargs):
    mixup = ManifoldMixup(layers=["input", "net.0"], **kwargs)
    return check(module, loader([data]), mixup=mixup, trainer=trainer())


def test_a_step_that_is_mixed_exactly_is_proven_at_every_layer(float64):
    found = checked(Net(), (X.double(), Y))
    assert (found.targets, found.inputs, found.findings) == (["1"], ["0"], [])
    assert [each.layer for each in found.agreements] == ["input", "net.0"]
    assert all(each.loss_digits > 12 and each.gradient_digits > 12 for each in found.agreements)
    assert found.is_exact
    assert found.summary == (
        "target: batch[1]; input: batch[0]. The training step ran 6 times: at each of 2 layers "
        "once mixed and twice by hand."
    )


def test_a_compiled_module_is_proven_as_what_it_is():
    assert checked(torch.compile(Net(), backend="eager")).is_exact


def test_it_is_shown_as_a_table_and_what_was_found():
    text = str(checked(Steps(takes_values)))
    assert text.startswith("target: batch[1]; input: batch[0]. The training step ran 6 times")
    rows = [line.split() for line in text.splitlines()]
    assert [row[-1] for row in rows if row[:1] in (["input"], ["net.0"])] == ["no", "no"]
    assert text.count("- a Python value or array was made") == 1  # of both layers


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (["net.1"], "ran 3 times: at one layer once"),
        (["a", "a (cutmix)"], "ran 6 times: at each of 2 layers and kinds once"),
        (["a (cutmix)", "b (cutmix)"], "ran 6 times: at each of 2 layers once"),
    ],
)
def test_it_says_how_often_the_step_ran_and_for_what(layers, said):
    assert said in Check(["1"], ["0"], [Agreement(name) for name in layers], []).summary


def test_long_names_are_not_broken_and_half_precision_is_told(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    name = "model.distilbert.embeddings.word_embeddings"
    lines = str(Check(["1"], ["0"], [Agreement(name, 1.25, 7.0, 1.9, 1.5)], [])).splitlines()
    assert "….word_embeddings" in [line.split()[0] for line in lines if line.split()]
    assert lines[-1].strip() == "half precision keeps few digits; a check in float32 tells more"


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true"])
def test_it_is_proven_in_the_precision_of_the_trainer(precision):
    mixup = ManifoldMixup(layers=["net.0"])
    found = check(Net(), loader(batches()), mixup=mixup, trainer=trainer(precision=precision))
    assert found.is_exact


@pytest.mark.parametrize("module", [InFront(), ManifoldMixupClassifier(Net().net, 5)])
def test_a_module_that_mixes_its_loss_itself_is_proven_too(module):
    found = check(module, loader(batches()), trainer=trainer())
    assert found.is_exact, found.findings
    assert all(each.loss_digits > 5 for each in found.agreements)


class Classifies(Net):
    """A classifier of somebody else's, as a LightningModule."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)

    def training_step(self, batch, batch_idx):
        if isinstance(batch, dict):
            return self(**batch).loss
        return F.cross_entropy(self(batch[0]), batch[1])


def test_a_torchvision_resnet_is_proven():
    net = torchvision.models.resnet18(num_classes=5)
    found = check(Classifies(net), loader([(torch.randn(6, 3, 32, 32), Y)]), trainer=trainer())
    layers = [each.layer for each in found.agreements]
    assert layers == ["input", "net.layer1", "net.layer2"]
    assert found.is_exact, found


def test_a_hugging_face_classifier_is_proven():
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = hf.BertConfig(vocab_size=31, intermediate_size=20, num_labels=5, **sizes)
    ids = torch.arange(42).view(6, 7) % 30 + 1
    mask = (torch.arange(7) < torch.arange(6)[:, None] + 2).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": Y}
    module = Classifies(hf.BertForSequenceClassification(config))
    found = check(module, loader([batch]), trainer=trainer())
    assert (found.targets, found.inputs) == (["labels"], ["input_ids"])
    assert len(found.agreements) == 3
    assert found.is_exact, found


def weighs(module, batch):
    x, y, weight = batch
    return (weight * F.cross_entropy(module(x), y, reduction="none")).mean()


def takes_values(module, batch):
    x, y = batch
    weight = torch.tensor([1.0 + int(label) for label in y])
    return (weight * F.cross_entropy(module(x), y, reduction="none")).mean()


def sorts(module, batch):
    x, y = batch
    order = x[:, 0].argsort()
    return F.cross_entropy(module(x[order])[order.argsort()], y)


def divides(module, batch):
    x, y = batch
    return F.mse_loss(module(x)[:, 0], y / x.std(1))


def draws(module, batch):
    x, y = batch
    draws.count += 1
    return F.cross_entropy(module(x), y) * draws.count


draws.count = 0


@pytest.mark.parametrize(
    ("step", "batch", "said"),
    [
        (weighs, (X, Y, WEIGHT), r"entry '2' of the batch \(mul at test_check.py:"),
        (takes_values, (X, Y), r"a Python value .* \(int at test_check.py:.*is off by"),
        (sorts, (X, Y), r"put into another order \(getitem at test_check.py:"),
        (divides, (X, Y.float()), r"entry '0' of the batch \(div at test_check.py:"),
        (lambda module, batch: None, (X, Y), "at layer 'net.0': .* returned no loss"),
        (lambda module, batch: module(batch[0]).sum(), (X, Y), "mixed, but the loss was not"),
        (draws, (X, Y), "differs from the naive form; none of the known reasons was noticed"),
        (lambda module, batch: 1 / 0, (X, Y), "at layer 'net.0': ZeroDivisionError"),
    ],
)
def test_where_it_is_not_the_reason_is_told(step, batch, said):
    target = 1 if len(batch) > 2 else None
    mixup = ManifoldMixup(layers=["net.0"], target=target)
    found = check(Steps(step), loader([batch]), mixup=mixup, trainer=trainer())
    assert not found.is_exact
    (finding,) = found.findings
    assert re.search(said, finding), finding


def test_of_two_views_the_target_is_asked_about():
    with pytest.raises(ValueError, match="look alike; if one is the target"):
        checked(Net(), (X, X.clone()))


def test_a_layer_whose_rows_move_in_forward_is_not_mixed():
    class Sorts(Net):
        def forward(self, x):
            order = x[:, 0].argsort()
            return self.net(x[order])[order.argsort()]

    with pytest.raises(ValueError, match=r"layer 'net.0' has its rows in another order"):
        checked(Sorts())


def test_nothing_is_trained_logged_or_printed_and_all_is_put_back(capsys, tmp_path):
    class Untidy(Net):
        def __init__(self):
            super().__init__()
            self.net.insert(1, nn.BatchNorm1d(6))
            self.count, self.kept = 0, []

        def training_step(self, batch, batch_idx):
            self.count += 1
            self.kept.append(batch[1])
            sys.stdout.write("printed")
            self.log("loss", 1.0, prog_bar=True)
            return super().training_step(batch, batch_idx)

    module = Untidy()
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    made = trainer(enable_checkpointing=True, enable_progress_bar=True, default_root_dir=tmp_path)
    callbacks = list(made.callbacks)
    found = check(module, loader(batches()), mixup=ManifoldMixup(layers=["net.0"]), trainer=made)
    assert found.is_exact
    torch.testing.assert_close(module.state_dict(), before, atol=0, rtol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert (module.count, module.kept) == (0, [])
    assert not any(each._forward_hooks for each in module.modules())
    assert made.callbacks == callbacks
    assert list(tmp_path.iterdir()) == []
    assert "printed" not in capsys.readouterr().out


def test_what_optimises_by_hand_or_in_several_processes_is_refused():
    class Manual(Net):
        automatic_optimization = False

    with pytest.raises(ValueError, match=r"manual optimization .* so it can't be run without"):
        checked(Manual())
    with pytest.raises(ValueError, match="runs in one process, but the Trainer has several"):
        check(Net(), loader(batches()), trainer=trainer(devices=2, strategy="ddp_spawn"))


def test_a_batch_of_one_and_no_batch_are_refused():
    with pytest.raises(ValueError, match="expected a batch of two or more samples"):
        checked(Net(), (X[:1], Y[:1]))
    with pytest.raises(ValueError, match="there was no batch to check"):
        check(Net(), loader(batches()), trainer=trainer(limit_train_batches=0))
