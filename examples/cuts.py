"""Print which layers ``layers="auto"`` takes of well-known networks, and prove the cut test.

    python examples/cuts.py                  # all of them, some minutes
    python examples/cuts.py resnet18 vit     # those whose names hold one of these words
    python examples/cuts.py --quick          # only what auto takes, and what it costs

The cost is that of the whole test, in plain forward passes on the same five images. Of every module
of every network the autograd graph's verdict is compared with that by value, in float64, with
zero-initialised weights made random. Weights are random; nothing is downloaded.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
import torchvision
from paper.networks import PreActResNet, WideResNet
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from lightning_mmix.cuts import ROWS, TOLERANCE, Probe, chosen_automatically

Make = Callable[[], nn.Module]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Network:
    """A network, and what it takes.

    Attributes:
        make: Makes it, with random weights.
        small: Makes it for the comparison of all modules, if it can be made smaller.
        size: Of images, in pixels; 0 for token ids, of which there are 16 in a row.
        small_size: Of images, for the comparison.
    """

    make: Make
    size: int = 224
    small: Make | None = None
    small_size: int = 32

    def inputs(self, size: int, rows: int) -> Tensor:
        """A batch of random images or token ids."""
        if self.size == 0:
            return torch.randint(1, 100, (rows, 16))
        return torch.randn(rows, 3, size, size)


class MLP(nn.Sequential):
    """Flat images through four linear layers."""

    def __init__(self) -> None:
        layers = [nn.Flatten(), nn.Linear(3072, 512), nn.ReLU()]
        layers += [nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
        super().__init__(*layers, nn.Linear(512, 10))


class LSTMClassifier(nn.Module):
    """The last state of an LSTM over embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 32)
        self.lstm = nn.LSTM(32, 64, num_layers=2, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids of shape (B, T) to logits of shape (B, 10)."""
        _, (last, _) = self.lstm(self.embedding(ids))
        logits: Tensor = self.head(last[-1])
        return logits


class UNet(nn.Module):
    """Two levels down and up again, with a skip connection at each."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = _double(3, 16), _double(16, 32)
        self.bottom = _double(32, 64)
        self.up2, self.up1 = _double(96, 32), _double(48, 16)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape (B, 3, H, W) to logits of shape (B, 5, H, W)."""
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        up = F.interpolate(self.bottom(F.max_pool2d(two, 2)), scale_factor=2)
        up = F.interpolate(self.up2(torch.cat([up, two], 1)), scale_factor=2)
        logits: Tensor = self.head(self.up1(torch.cat([up, one], 1)))
        return logits


def _double(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _torchvision(name: str, **small: int) -> Network:
    make = getattr(torchvision.models, name)
    size = small.get("image_size", 64 if "swin" in name else 32)
    return Network(make, small=lambda: make(**small), small_size=size)


def _timm(name: str, **small: Any) -> Network:
    size = small.get("img_size", 32)
    return Network(
        lambda: timm.create_model(name),
        small=lambda: timm.create_model(name, **small),
        small_size=size,
    )


def _maxvit() -> nn.Module:
    """As maxvit_t, for windows of two by two on small images."""
    model: nn.Module = torchvision.models.MaxVit(
        input_size=(64, 64),
        partition_size=2,
        stem_channels=64,
        block_channels=[64, 128, 256, 512],
        block_layers=[2, 2, 5, 2],
        head_dim=32,
        stochastic_depth_prob=0.2,
    )
    return model


def _bert(layers: int = 12) -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=100,
            hidden_size=128,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=512,
        )
    )


def _vit(size: int) -> Make:
    return lambda: ViTForImageClassification(
        ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768, image_size=size)
    )


NETWORKS = {
    **{
        f"torchvision {name}": _torchvision(name)
        for name in (
            "resnet18", "resnet50", "wide_resnet50_2",
            "densenet121", "vgg11_bn", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny",
            "regnet_y_400mf", "swin_t",
        )
    },
    "torchvision vit_b_16": _torchvision("vit_b_16", image_size=64),
    **{f"timm {name}": _timm(name) for name in ("resnet50", "efficientnet_b0", "convnext_atto")},
    "timm vit_tiny": _timm("vit_tiny_patch16_224", img_size=64),
    "Hugging Face BERT": Network(_bert, size=0),
    "Hugging Face ViT": Network(_vit(224), small=_vit(64), small_size=64),
    "PreActResNet18": Network(PreActResNet, 32),
    "WRN-28-10": Network(WideResNet, 32),
    "MLP": Network(MLP, 32),
    "LSTM classifier": Network(LSTMClassifier, size=0),
    "U-Net": Network(UNet, 64),
    "torchvision maxvit_t": Network(torchvision.models.maxvit_t, small=_maxvit, small_size=64),
}  # fmt: skip


def main() -> None:
    """Print a table of choices, and one of comparisons."""
    parser = argparse.ArgumentParser(description="What auto chooses, and whether it is right.")
    parser.add_argument("words", nargs="*", help="parts of the names of networks")
    parser.add_argument("--quick", action="store_true", help="leave out the comparison")
    args = parser.parse_args()
    chosen = [
        name for name in NETWORKS if not args.words or any(word in name for word in args.words)
    ]
    console = Console(width=160)
    choices = _table("network", "auto takes", "at depth", "cuts of all modules", "cost")
    comparisons = _table(
        "network", "verdicts agree", "float64: cuts, others", "float32", "bfloat16"
    )
    for name in chosen:
        choice = _choice(NETWORKS[name])
        comparison = [] if args.quick else _comparison(NETWORKS[name])
        choices.add_row(name, *choice)
        comparisons.add_row(name, *comparison)
        console.print(f"{name}: {', '.join([*choice, *comparison])}", style="dim")
    console.print(choices)
    if not args.quick:
        console.print(comparisons)


def _choice(network: Network) -> list[str]:
    torch.manual_seed(0)
    inputs, model = network.inputs(network.size, ROWS), network.make()
    forward = min(_seconds_of_a_forward(model, inputs) for _ in range(4))
    probe = Probe(model, inputs, size=ROWS)
    names = chosen_automatically(probe)
    depths = ", ".join(f"{probe.sites[name].depth:.2f}" for name in names)
    modules = [site for name, site in probe.sites.items() if name != "input"]
    cuts = sum(site.is_cut is True for site in modules)
    return [", ".join(names), depths, f"{cuts} of {len(modules)}", f"{probe.seconds / forward:.1f}"]


@torch.no_grad()
def _seconds_of_a_forward(model: nn.Module, inputs: Tensor) -> float:
    was_training = model.training
    model.eval()
    started = time.perf_counter()
    model(inputs)
    seconds = time.perf_counter() - started
    model.train(was_training)
    return seconds


def _comparison(network: Network, dtypes: Sequence[torch.dtype] = _DTYPES) -> list[str]:
    agreements, cells = "", []
    for dtype in dtypes:
        probe = _small_probe(network, dtype)
        verdicts = [
            (site.is_cut, _deviation(probe, name))
            for name, site in probe.sites.items()
            if name != "input"
        ]
        cuts = [value for is_cut, value in verdicts if is_cut and value is not None]
        others = [value for is_cut, value in verdicts if not is_cut and value is not None]
        cells.append(f"{max(cuts, default=0):.0e}, {min(others, default=1):.2g}")
        if dtype is torch.float64:
            same = sum(
                is_cut == (value is not None and value < TOLERANCE) for is_cut, value in verdicts
            )
            agreements = f"{same} of {len(verdicts)}"
    return [agreements, *cells]


def _deviation(probe: Probe, name: str) -> float | None:
    with suppress(ValueError):  # a list of modules never runs
        return probe.deviation(name)
    return None


def _small_probe(network: Network, dtype: torch.dtype) -> Probe:
    torch.manual_seed(0)
    model = (network.small or network.make)().to(dtype).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "bias" not in name and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    inputs = network.inputs(network.small_size, rows=3)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    return Probe(model, inputs, size=3)


def _table(*columns: str) -> Table:
    table = Table(box=MARKDOWN)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


if __name__ == "__main__":
    main()
