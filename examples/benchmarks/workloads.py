"""The networks that are trained, with a batch of random data for each."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from paper.networks import PreActResNet, WideResNet
from torch import Tensor, nn

CLASSES = 10


@dataclass(frozen=True)
class Workload:
    """A network and a batch.

    Attributes:
        name: Of the network, for people.
        make: Makes it, with random weights.
        shape: Of its batch of inputs.
        layers: Layers that may be mixed, in the order of the forward pass.
        layer: The one of them at which all ways to mix hidden states are compared.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layers: tuple[str, ...]
    layer: str

    def network(self, device: str) -> nn.Module:
        """The network in training mode, with the same weights each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make().to(device).train()

    def batch(self, device: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels, the same each time."""
        chance = torch.Generator().manual_seed(0)
        x = torch.randn(self.shape, generator=chance)
        y = torch.randint(CLASSES, self.shape[:1], generator=chance)
        return x.to(device), y.to(device)


class Encoder(nn.Module):
    """A transformer encoder of two blocks over patches of 4 × 4 pixels."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.embed = nn.Linear(48, width)
        self.block1, self.block2 = (
            nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
            for _ in range(2)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape (B, 3, H, W) to logits of shape (B, 10)."""
        patches = self.embed(F.pixel_unshuffle(x, 4).flatten(2).mT)
        logits: Tensor = self.head(self.block2(self.block1(patches)).mean(1))
        return logits


def mlp(width: int = 1024, depth: int = 4, inputs: int = 3072) -> nn.Module:
    """Linear layers of flat images with ReLU between them, called ``layer1`` and so on."""
    widths = [inputs, *[width] * depth]
    layers = [
        (f"layer{i + 1}", nn.Sequential(nn.Linear(widths[i], width), nn.ReLU()))
        for i in range(depth)
    ]
    return nn.Sequential(
        OrderedDict([("flat", nn.Flatten()), *layers, ("head", nn.Linear(width, CLASSES))])
    )


def empty(layers: int) -> nn.Module:
    """Layers that do nothing, called ``layer1`` and so on, before a small linear one."""
    nothing = [(f"layer{i + 1}", nn.Identity()) for i in range(layers)]
    return nn.Sequential(OrderedDict([*nothing, ("head", nn.Linear(CLASSES, CLASSES))]))


def resnet18(batch: int) -> Workload:
    """The paper's PreActResNet18 at 32 pixels."""
    name, shape = f"PreActResNet18, 32 px, batch {batch}", (batch, 3, 32, 32)
    return Workload(name, PreActResNet, shape, _STAGES, "layer1")


_STAGES = ("input", "layer1", "layer2", "layer3")

ON_CPU = [
    Workload("MLP, 4 of 1024", mlp, (512, 3, 32, 32), _STAGES, "layer2"),
    Workload(
        "PreActResNet20",
        partial(WideResNet, 22, 1),
        (64, 3, 32, 32),
        _STAGES,
        "layer1",
    ),
    Workload(
        "Transformer, 2 of 192",
        Encoder,
        (64, 3, 32, 32),
        ("input", "embed", "block1", "block2"),
        "block1",
    ),
]
ON_GPU = [
    *(resnet18(batch) for batch in (128, 512, 2048)),
    Workload(
        "ResNet-50, 224 px",
        partial(torchvision.models.resnet50, num_classes=CLASSES),
        (128, 3, 224, 224),
        _STAGES,
        "layer1",
    ),
    Workload(
        "ViT-B/16, 224 px",
        partial(torchvision.models.vit_b_16, num_classes=CLASSES),
        (64, 3, 224, 224),
        ("input", "encoder.layers.encoder_layer_2", "encoder.layers.encoder_layer_5"),
        "encoder.layers.encoder_layer_2",
    ),
]
TINY = [Workload("MLP, 3 of 16", partial(mlp, 16, 3, 8), (6, 2, 2, 2), _STAGES, "layer2")]
