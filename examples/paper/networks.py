"""The networks of the paper, whose stages are called ``layer1`` and so on as in its set S."""

import torch.nn.functional as F
from torch import Tensor, nn

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class PreActResNet(nn.Module):
    """A residual network that acts before it convolves (He et al., 2016).

    As the authors of the paper train it, without batch norm and activation after the last stage.

    Args:
        depth: 18, 34 or 50.
        num_classes: C.
        width: The channels of the first stage; each further one has twice as many.
        stride: Of the first convolution: 1 for images of 32 pixels, 2 for 64.

    Raises:
        ValueError: If there is no network of that depth.
    """

    def __init__(
        self, depth: int = 18, num_classes: int = 10, width: int = 64, stride: int = 1
    ) -> None:
        super().__init__()
        if depth not in _BLOCKS:
            raise ValueError(f"expected a depth of {', '.join(map(str, _BLOCKS))}, but got {depth}")
        expansion = 4 if depth == 50 else 1
        self.conv1 = _conv(3, width, 3, stride)
        before = width
        for i, blocks in enumerate(_BLOCKS[depth]):
            channels = width * 2**i * expansion
            stage = _stage(before, channels, blocks, stride=1 if i == 0 else 2, expansion=expansion)
            self.add_module(f"layer{i + 1}", stage)
            before = channels
        self.linear = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape (B, 3, H, W) to logits of shape (B, C)."""
        x = self.conv1(x)
        for i in range(4):
            x = self.get_submodule(f"layer{i + 1}")(x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class WideResNet(nn.Module):
    """A wide residual network (Zagoruyko & Komodakis, 2016) in three stages.

    Args:
        depth: 6n + 4 for n blocks a stage.
        factor: The first stage has 16 times as many channels; each further one has twice as many.
        num_classes: C.
        stride: Of the first convolution: 1 for images of 32 pixels, 2 for 64.

    Raises:
        ValueError: If the depth is not of that form.
    """

    def __init__(
        self, depth: int = 28, factor: int = 10, num_classes: int = 10, stride: int = 1
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            raise ValueError(f"expected a depth of 10, 16, 22, 28, ..., but got {depth}")
        self.conv1 = _conv(3, 16, 3, stride)
        self.layer1 = _stage(16, 16 * factor, blocks, stride=1)
        self.layer2 = _stage(16 * factor, 32 * factor, blocks, stride=2)
        self.layer3 = _stage(32 * factor, 64 * factor, blocks, stride=2)
        self.bn = nn.BatchNorm2d(64 * factor)
        self.linear = nn.Linear(64 * factor, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape (B, 3, H, W) to logits of shape (B, C)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Tensor = self.linear(F.relu(self.bn(x)).mean((2, 3)))
        return logits


class Block(nn.Module):
    """Batch norm, activation and convolution, twice, or with a bottleneck thrice (He et al., 2016).

    Args:
        channels_in: Of the input.
        channels: Of the output.
        stride: Of the first convolution of three by three.
        expansion: How many times fewer channels there are inside; 1 for a block of two.
    """

    def __init__(
        self, channels_in: int, channels: int, stride: int = 1, expansion: int = 1
    ) -> None:
        super().__init__()
        inside = channels // expansion
        narrow = expansion > 1
        self.bn1 = nn.BatchNorm2d(channels_in)
        size, by = (1, 1) if narrow else (3, stride)
        self.conv1 = _conv(channels_in, inside, size, by)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv2 = _conv(inside, inside, 3, stride if narrow else 1)
        self.bn3 = nn.BatchNorm2d(inside) if narrow else None
        self.conv3 = _conv(inside, channels, 1, 1) if narrow else None
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.shortcut = _conv(channels_in, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        out: Tensor = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        if self.bn3 is not None and self.conv3 is not None:
            out = self.conv3(F.relu(self.bn3(out)))
        return out + shortcut


class NineConv(nn.Module):
    """Nine convolutions in three stages, for experiments with few labels (Laine & Aila, 2017).

    Args:
        width: The channels of the first stage, 128 in the paper.
        num_classes: C.
    """

    def __init__(self, width: int = 128, num_classes: int = 10) -> None:
        super().__init__()
        self.layer1 = _plain([3, width, width, width], (3, 3, 3), pool=True)
        self.layer2 = _plain([width, 2 * width, 2 * width, 2 * width], (3, 3, 3), pool=True)
        self.layer3 = _plain([2 * width, 4 * width, 2 * width, width], (3, 1, 1), pool=False)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape (B, 3, H, W) to logits of shape (B, C)."""
        logits: Tensor = self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))
        return logits


class Bottleneck(nn.Module):
    """A fully connected network with a narrow, linear layer in between, ``bottleneck``.

    Args:
        inputs: D.
        width: Of all other hidden layers, which are batch-normalised.
        before: How many of them come before the bottleneck.
        units: Of the bottleneck.
        after: How many hidden layers come after it.
        num_classes: C.
    """

    def __init__(
        self, inputs: int, width: int, before: int, units: int, after: int, num_classes: int
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            _dense(inputs, width), *(_dense(width, width) for _ in range(before - 1))
        )
        self.bottleneck = nn.Linear(width, units)
        self.decoder = nn.Sequential(
            _dense(units, width),
            *(_dense(width, width) for _ in range(after - 1)),
            nn.Linear(width, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (B, D) to logits of shape (B, C)."""
        logits: Tensor = self.decoder(self.bottleneck(self.encoder(x)))
        return logits


def _stage(
    channels_in: int, channels: int, blocks: int, *, stride: int, expansion: int = 1
) -> nn.Sequential:
    first = Block(channels_in, channels, stride, expansion)
    others = (Block(channels, channels, expansion=expansion) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


def _conv(channels_in: int, channels: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, bias=False)


def _plain(channels: list[int], sizes: tuple[int, ...], *, pool: bool) -> nn.Sequential:
    parts: list[nn.Module] = []
    for before, after, size in zip(channels, channels[1:], sizes, strict=False):
        # the last stage keeps to the inside, so 8 pixels become 6
        padding = size // 2 if pool else 0
        parts += [nn.Conv2d(before, after, size, padding=padding, bias=False)]
        parts += [nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]
    return nn.Sequential(*parts, nn.MaxPool2d(2)) if pool else nn.Sequential(*parts)


def _dense(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())
