"""Residual networks that act before they convolve (He et al., 2016), as the paper trains them."""

import torch.nn.functional as F
from torch import Tensor, nn


class PreActBlock(nn.Module):
    """Batch norm, activation and convolution, twice, beside a shortcut (He et al., 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        out: Tensor = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        return out + shortcut


class PreActResNet(nn.Module):
    """The paper's residual networks: PreActResNet18, and WRN-28-10 as three stages of four blocks.

    Args:
        widths: The channels of each stage.
        blocks: The blocks of a stage.
    """

    def __init__(self, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        first = 16 if len(widths) == 3 else widths[0]
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        before = [first, *widths[:-1]]
        for i, (channels_in, channels) in enumerate(zip(before, widths, strict=True)):
            stride = 1 if i == 0 else 2
            stage = [PreActBlock(channels_in, channels, stride)]
            stage += [PreActBlock(channels, channels, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.stages = len(widths)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape (B, 3, H, W) to logits of shape (B, 10)."""
        x = self.conv1(x)
        for i in range(self.stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        logits: Tensor = self.linear(F.relu(self.bn(x)).mean((2, 3)))
        return logits
