"""The paper's experiments: networks, data, configs, and what is made of their results."""

import json
import re
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from PIL import Image

from lightning_mmix import ManifoldMixup, cut_test
from lightning_mmix.cli.commands import MixupCLI

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))
pytest.importorskip("matplotlib")

from paper import __main__ as paper  # noqa: E402 - after the path
from paper import datasets, images, losses, networks, results  # noqa: E402
from paper.experiments import ARMS, CONFIGS, EXPERIMENTS, Published, arm_file  # noqa: E402

KEPT = ROOT / "examples" / "paper" / "measured"
PAGE = (ROOT / "examples" / "paper" / "README.md").read_text()


# networks


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: networks.PreActResNet(18), 11_171_146),
        (lambda: networks.PreActResNet(34), 21_279_306),
        (lambda: networks.PreActResNet(50), 23_509_066),
        (networks.WideResNet, 36_479_194),
        (lambda: networks.WideResNet(num_classes=100), 36_536_884),
        (networks.NineConv, 3_121_802),
    ],
)
def test_parameters_are_as_many_as_published(make, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == parameters


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (networks.PreActResNet, [(64, 32), (128, 16), (256, 8), (512, 4)]),
        (lambda **k: networks.PreActResNet(50, **k), [(256, 32), (512, 16), (1024, 8), (2048, 4)]),
        (networks.WideResNet, [(160, 32), (320, 16), (640, 8)]),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_stages_put_out_what_the_paper_mixes(make, shapes, stride):
    with torch.device("meta"):
        net = make(num_classes=7, stride=stride)
        x = torch.empty(2, 3, 32 * stride, 32 * stride)
    for i, (channels, size) in enumerate(shapes):
        stage, want = net.get_submodule(f"layer{i + 1}"), (2, channels, size, size)
        stage.register_forward_hook(lambda _, __, out, want=want: _same(tuple(out.shape), want))
    assert net(x).shape == (2, 7)


def _same(got, want):
    assert got == want


def test_a_residual_network_acts_before_it_convolves():
    net = networks.PreActResNet(18, width=4)
    kinds = {name.rsplit(".", 1)[-1] for name, _ in net.named_modules()}
    assert "bn" not in kinds  # none after the last stage, as in the authors' code
    block, x = networks.Block(4, 8, stride=2).eval(), torch.randn(2, 4, 6, 6)
    active = F.relu(block.bn1(x))
    inner = block.conv2(F.relu(block.bn2(block.conv1(active))))
    torch.testing.assert_close(block(x), inner + block.shortcut(active))
    plain = networks.Block(4, 4).eval()
    inner = plain.conv2(F.relu(plain.bn2(plain.conv1(F.relu(plain.bn1(x))))))
    torch.testing.assert_close(plain(x), x + inner)


def test_a_bottleneck_block_is_narrow_inside():
    block = networks.Block(16, 32, stride=2, expansion=4)
    convs = [block.conv1, block.conv2, block.conv3]
    assert [conv.kernel_size[0] for conv in convs] == [1, 3, 1]
    assert [conv.out_channels for conv in convs] == [8, 8, 32]
    assert [conv.stride[0] for conv in convs] == [1, 2, 1]
    x = torch.randn(2, 16, 6, 6)
    active = F.relu(block.eval().bn1(x))
    inner = block.conv2(F.relu(block.bn2(block.conv1(active))))
    inner = block.conv3(F.relu(block.bn3(inner)))
    torch.testing.assert_close(block(x), inner + block.shortcut(active))


def test_nine_convolutions_in_three_stages():
    net = networks.NineConv(4)
    convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.kernel_size[0] for c in convs] == [3, 3, 3, 3, 3, 3, 3, 1, 1]
    assert [c.out_channels for c in convs] == [4, 4, 4, 8, 8, 8, 16, 8, 4]
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    "net",
    [networks.PreActResNet(50, width=2), networks.WideResNet(10, 1), networks.NineConv(2)],
    ids=lambda net: type(net).__name__,
)
def test_every_stage_is_a_cut(net):
    sites = cut_test(net, torch.randn(5, 3, 32, 32)).sites
    assert all(sites[name].is_cut for name in ("layer1", "layer2", "layer3"))


def test_networks_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="expected a depth of 18, 34, 50, but got 20"):
        networks.PreActResNet(20)
    with pytest.raises(ValueError, match=r"10, 16, 22, 28, \.\.\., but got 20"):
        networks.WideResNet(20)


# data


@pytest.fixture
def stand_in(monkeypatch):
    """Data of the right sizes, without files, and a command line without arguments."""
    monkeypatch.setattr(sys, "argv", ["paper"])

    def load(self, *, train):
        size = 64 if isinstance(self, datasets.TinyImageNet) else 32
        classes = {datasets.CIFAR100: 100, datasets.TinyImageNet: 200}.get(type(self), 10)
        chance = torch.Generator().manual_seed(int(train))
        each = 300 if classes == 10 else 10
        labels = torch.arange(classes * each if train else 20) % classes
        shape = (len(labels), 3, size, size)
        return torch.randint(256, shape, generator=chance, dtype=torch.uint8), labels

    for kind in (datasets.CIFAR10, datasets.SVHN, datasets.TinyImageNet):
        monkeypatch.setattr(kind, "load", load)
        monkeypatch.setattr(kind, "fetch", lambda self: None)


class InTraining:
    training = True


def test_a_stratified_choice_of_images(stand_in):
    data = datasets.CIFAR10(labels_per_class=5, validation=100, seed=3)
    data.setup("fit")
    train, held = data._rows["train"], data._rows["val"]
    assert train.labels.bincount().tolist() == [5] * 10
    assert held.labels.bincount().tolist() == [10] * 10
    every, _ = data.load(train=True)
    drawn = {image.numpy().tobytes() for image in torch.cat([train.images, held.images])}
    assert len(drawn) == 150  # disjoint
    assert drawn <= {image.numpy().tobytes() for image in every}


def test_the_choice_follows_the_seed(stand_in, monkeypatch):
    def taken(seed=None):
        data = datasets.CIFAR10(labels_per_class=5, seed=seed)
        data.setup("fit")
        return data._rows["train"].images

    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    assert torch.equal(taken(), taken(4))
    assert not torch.equal(taken(), taken(5))


def test_too_few_images_are_told():
    with pytest.raises(ValueError, match="expected 8 training images of class 0 and 3 to validate"):
        images.chosen(torch.arange(20) % 2, 8, 6, seed=0)


def test_images_are_shifted_and_mirrored_as_cropping_does():
    torch.manual_seed(0)
    x = torch.randint(1, 256, (200, 3, 6, 5), dtype=torch.uint8)
    padded, flipped = F.pad(x, [2] * 4), F.pad(x.flip(3), [2] * 4)
    seen = set()
    for i, out in enumerate(images.shifted(x, 2, flips=True)):
        found = {
            (top, left, side)
            for side, source in enumerate((padded, flipped))
            for top in range(5)
            for left in range(5)
            if torch.equal(out, source[i, :, top : top + 6, left : left + 5])
        }
        assert len(found) == 1
        seen |= found
    assert len(seen) > 45  # of 50
    assert torch.equal(images.shifted(x, 0, flips=False), x)


def test_only_training_images_are_augmented(stand_in):
    data = datasets.SVHN(batch_size=4)
    data.setup("fit")
    x, y = next(iter(data.train_dataloader()))
    data.trainer = type("Evaluating", (), {"training": False})()
    plain, labels = data.on_after_batch_transfer((x, y), 0)
    torch.testing.assert_close(plain, (x / 255 - 0.5) / 0.5)
    assert torch.equal(labels, y)
    data.trainer = InTraining()
    torch.manual_seed(0)
    assert not torch.equal(data.on_after_batch_transfer((x, y), 0)[0], plain)


def test_without_the_network_a_sentence_says_what_to_do(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", fail)
    for kind in (datasets.CIFAR10, datasets.SVHN, datasets.TinyImageNet):
        with pytest.raises(RuntimeError, match=f"^{kind.__name__} is not in .*no route to host"):
            kind(root=str(tmp_path)).prepare_data()


def jpeg(pixels):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def archive(path, **more):
    chance = np.random.default_rng(0)
    held = {}
    for split, count in (("train", 40), ("test", 12)):
        files = [jpeg(p) for p in chance.integers(0, 256, (count, 32, 32, 3), np.uint8)]
        held[f"{split}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        held[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        held[f"{split}_labels"] = (np.arange(count) % 10).astype(np.uint8)
    np.savez(path, **{k: v for k, v in held.items() if k not in more.get("without", ())})
    return str(path)


def test_an_archive_of_jpegs_is_read(tmp_path):
    data = datasets.Archive(archive(tmp_path / "a.npz"), batch_size=8)
    data.prepare_data()
    data.setup("fit")
    x, y = next(iter(data.test_dataloader()))
    assert x.shape == (12, 3, 32, 32)
    assert x.dtype == torch.uint8
    assert y.tolist() == [*range(10), 0, 1]
    assert len({image.numpy().tobytes() for image in x}) == 12


def test_an_archive_that_is_none_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*gone\.npz"):
        datasets.Archive(str(tmp_path / "gone.npz")).prepare_data()
    data = datasets.Archive(archive(tmp_path / "a.npz", without=["train_offsets"]))
    with pytest.raises(ValueError, match="expected train_offsets in"):
        data.setup("fit")


def test_tiny_imagenet_is_read_from_its_folders(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    folder.joinpath("wnids.txt").write_text("n2\nn1\n")
    pixels = np.zeros((64, 64, 3), np.uint8)
    for i, wnid in enumerate(("n1", "n2")):
        own = folder / "train" / wnid / "images"
        own.mkdir(parents=True)
        own.joinpath("0.JPEG").write_bytes(jpeg(pixels + 100 * i))
    (folder / "val" / "images" / "v.JPEG").write_bytes(jpeg(pixels[:, :, 0]))  # some are grey
    folder.joinpath("val", "val_annotations.txt").write_text("v.JPEG\tn2\t0\t0\t1\t1\n")
    data = datasets.TinyImageNet(root=str(tmp_path))
    x, y = data.load(train=True)
    assert x.shape == (2, 3, 64, 64)
    assert y.tolist() == [0, 1]
    assert x[1].float().mean() > 90
    assert data.load(train=False)[1].tolist() == [1]


def test_the_authors_loss_is_theirs():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 10, dtype=torch.float64), torch.arange(6)
    p, ones = logits.softmax(1), torch.eye(10)[labels]
    naive = -(ones * p.log() + (1 - ones) * (1 - p).log()).mean()
    torch.testing.assert_close(
        losses.SoftmaxBCE()(logits, labels).double(), naive, rtol=1e-5, atol=0
    )
    sure = torch.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    losses.SoftmaxBCE()(sure, torch.tensor([0, 0])).backward()
    assert sure.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert losses.SoftmaxBCE()(logits.bfloat16(), labels).isfinite()


# configs


def trained(args, tmp_path):
    """The module that a config makes, after a training batch of two."""
    fixed = [
        f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu",
        "--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.max_epochs=1",
        "--trainer.max_steps=-1", "--trainer.limit_train_batches=1",
        "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1",
        "--trainer.enable_progress_bar=false", "--trainer.callbacks=null",
        "--trainer.enable_model_summary=false", "--data.init_args.batch_size=2",
    ]  # fmt: skip
    cli = MixupCLI(
        LightningModule, subclass_mode_model=True, run=False, save_config_callback=None,
        args=[*args, *fixed],
    )  # fmt: skip
    before = [p.detach().clone() for p in cli.model.parameters()]
    cli.trainer.fit(cli.model, cli.datamodule)
    changed = [not torch.equal(*pair) for pair in zip(before, cli.model.parameters(), strict=True)]
    assert any(changed)
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    return cli


def configs(*names):
    return [f"--config={CONFIGS / name}.yaml" for name in ("base", *names)]


QUICK = ("cifar10-preactresnet18", "little-data")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in EXPERIMENTS],
)
def test_the_configs_of_an_experiment_train(name, stand_in, tmp_path):
    cli = trained(configs(*EXPERIMENTS[name].configs), tmp_path)
    assert type(cli.datamodule) is EXPERIMENTS[name].data
    mixup = next(c for c in cli.trainer.callbacks if isinstance(c, ManifoldMixup))
    assert mixup.fired or mixup.plan is not None
    two = "wrn" in name
    assert mixup.layers_ == ["input", "net.layer1", "net.layer2"][: 2 if two else 3]


ARM_FILES = sorted(path.stem for path in arm_file("").parent.glob("*.yaml"))


@pytest.mark.parametrize("arm", ARM_FILES)
def test_a_way_to_train_does_what_it_is_called(arm, stand_in, tmp_path):
    small = "--model.init_args.net.init_args.width=16"
    args = [*configs("cifar10", "preactresnet18"), f"--config={arm_file(arm)}", small]
    mixup = trained(args, tmp_path).model.configure_mixup()
    kind, *numbers = arm.split("_")
    layers = {"input": "0", "manifold": "012", "layers": numbers[0]}[kind]
    alpha = {"layers": numbers[1:] or ["2"]}.get(kind, numbers)[0]
    assert mixup.settings.alpha == float(alpha)
    assert mixup.settings.layers == ["input" if s == "0" else f"net.layer{s}" for s in layers]


@pytest.mark.parametrize("overlay", ["short", "bce", "gpu", "ddp"])
def test_an_overlay_lies_over_a_config(overlay, stand_in, tmp_path):
    one = [] if overlay != "ddp" else ["--trainer.strategy=auto", "--trainer.devices=1"]
    args = [
        *configs("cifar10", "preactresnet18", overlay),
        "--model.init_args.net.init_args.width=16",
    ]
    cli = trained([*args, *one, "--trainer.precision=32-true"], tmp_path)
    scheduler = cli.trainer.lr_scheduler_configs[0].scheduler
    assert type(scheduler).__name__ == (
        "CosineAnnealingLR" if overlay == "short" else "MultiStepLR"
    )
    is_bce = isinstance(cli.model.criterion, losses.SoftmaxBCE)
    assert is_bce == (overlay == "bce")


def test_every_yaml_is_used():
    used = {"base", "short", "bce", "gpu", "ddp"}
    used |= {name for each in EXPERIMENTS.values() for name in each.configs}
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == used
    named = {arm for each in EXPERIMENTS.values() for arm in each.arms} - {*ARMS}
    assert named <= set(ARM_FILES)


# runner, tables and picture


@pytest.mark.slow
def test_an_experiment_is_run_shown_and_gone_on_with(stand_in, tmp_path, monkeypatch, capsys):
    file, out = archive(tmp_path / "a.npz"), tmp_path / "out"
    args = [
        "little-data", "--arms", "none", "manifold_1", "--out", str(out), "--seeds", "2", "--fast",
        "--samples", "4", "--data", "paper.datasets.Archive", f"--data.init_args.path={file}",
        "--data.init_args.labels_per_class=2", "--data.init_args.validation=10",
        "--model.init_args.net.init_args.width=8", "--trainer.max_steps=3",
        "--trainer.accelerator=cpu", "--trainer.logger=false",
        "--trainer.enable_checkpointing=false",
    ]  # fmt: skip
    paper.main(args)
    page = (out / "table.md").read_text()
    assert page in capsys.readouterr().out
    assert (out / "table.png").stat().st_size > 1000
    row = next(line for line in page.splitlines() if line.startswith("| manifold_1 "))
    held = json.loads((out / "little-data.json").read_text())
    assert held["epochs"] == 3
    assert len(held["scores"]["manifold_1"]["NLL"]) == 2
    assert row.split("|")[10:12] == [" 3 ", " 2 "]
    assert "python -m paper little-data" in held["about"]["command"]
    results_of = {p: p.stat().st_mtime_ns for p in out.glob("little-data/runs/*/result.json")}
    paper.main(args)  # nothing is trained anew
    assert {p: p.stat().st_mtime_ns for p in results_of} == results_of
    paper.main(["--show", "--out", str(out)])


def test_experiments_are_listed_and_unknown_ones_refused(capsys, tmp_path):
    paper.main([])
    listed = capsys.readouterr().out
    assert "little-data" in listed
    with pytest.raises(SystemExit):
        paper.main(["cifar12"])
    assert "there is no experiment 'cifar12'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no results in"):
        paper.main(["--show", "--out", str(tmp_path)])


def test_published_numbers_are_those_of_the_paper():
    table = EXPERIMENTS["cifar100-preactresnet34"].arms
    assert table["manifold"] == Published(81.65, 0.877)
    assert EXPERIMENTS["cifar10-preactresnet18"].arms["none"] == Published(95.17, 0.190)
    assert EXPERIMENTS["layers-cifar10"].arms["layers_23"] == Published(95.32)


def test_the_page_has_a_command_for_each_experiment():
    commands = set(re.findall(r"python -m paper ([\w-]+)", PAGE))
    assert commands == set(EXPERIMENTS)


def test_the_page_shows_what_is_kept():
    found = results.found_in(KEPT)
    assert results.markdown(found) in PAGE
    for each in found.values():
        assert results.further(each["scores"]) in PAGE
