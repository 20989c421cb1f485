"""The networks of the panel: one for each kind of data, small, and fixed beforehand."""

import torch
from torch import Tensor, nn


class ConvNet(nn.Module):
    """A batch-normalised convolutional network in three stages, and a linear head.

    Args:
        dims: 1 for series of shape (B, C, T), 2 for images of shape (B, C, H, W).
        channels: C.
        outputs: The number of logits.
        width: The channels of the first stage; each further one has twice as many.
        kernel: The odd size of its kernels.
        stride: Of the first stage; the others have 2.
    """

    def __init__(
        self, dims: int, channels: int, outputs: int, width: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        widths = channels, width, 2 * width, 4 * width
        strides = stride, 2, 2
        self.stages = nn.ModuleList(
            _stage(dims, widths[i], widths[i + 1], kernel, strides[i]) for i in range(3)
        )
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (B, outputs)."""
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(x.flatten(2).mean(2))
        return logits


class Recurrent(nn.Module):
    """Two layers of gated recurrent units, and a linear head on their mean over time.

    Args:
        channels: C of series of shape (B, C, T).
        outputs: The number of logits.
        width: Units of a layer.
    """

    def __init__(self, channels: int, outputs: int, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Linear(channels, width)
        self.lower = nn.GRU(width, width, batch_first=True)
        self.upper = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (B, outputs)."""
        lower, _ = self.lower(self.embedding(x.transpose(1, 2)))
        upper, _ = self.upper(lower)
        logits: Tensor = self.head(upper.mean(1))
        return logits


class Attention(nn.Module):
    """Two Transformer blocks on the steps of a series, and a linear head on their mean.

    Args:
        channels: C of series of shape (B, C, T).
        length: T.
        outputs: The number of logits.
        width: Of a token.
    """

    def __init__(self, channels: int, length: int, outputs: int, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Linear(channels, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (B, outputs)."""
        tokens = self.embedding(x.transpose(1, 2)) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.head(tokens.mean(1))
        return logits


class Perceptron(nn.Module):
    """A fully connected network of three hidden layers.

    Args:
        features: F of rows of shape (B, F).
        outputs: The number of logits, or of predicted values.
        width: Units of a layer.
    """

    def __init__(self, features: int, outputs: int, width: int = 128) -> None:
        super().__init__()
        widths = features, width, width, width
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(widths[i], widths[i + 1]), nn.ReLU()) for i in range(3)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits or values of shape (B, outputs)."""
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(x)
        return logits


def _stage(dims: int, before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims]
    return nn.Sequential(
        convolution(before, after, kernel, stride, kernel // 2, bias=False),
        norm(after),
        nn.ReLU(),
        convolution(after, after, kernel, 1, kernel // 2, bias=False),
        norm(after),
        nn.ReLU(),
    )
