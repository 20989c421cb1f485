"""Train the handwritten digits with Manifold Mixup in a loop of plain PyTorch.

    python examples/loop.py                # ten seconds
    python examples/loop.py --epochs 150 --seed 1

The eligible layers are left to ``"auto"``.
"""

import argparse

import torch
import torch.nn.functional as F
from digits import DigitNet, Digits
from torch import nn

from lightning_mmix import Mixer


def train(model: nn.Module, data: Digits, epochs: int, seed: int) -> None:
    """Train, and print now and then how well that went."""
    loader = data.train_dataloader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    with Mixer(model, seed=seed) as mixer:
        for epoch in range(epochs):
            mixer.set_epoch(epoch, of=epochs)
            for x, y in loader:
                optimizer.zero_grad()
                with mixer(x, y) as target:
                    loss = F.cross_entropy(model(x), target)
                    loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            scheduler.step()
            if epoch % 10 == 9 or epoch == epochs - 1:  # outside of the context nothing is mixed
                print(f"epoch {epoch}: test accuracy {accuracy(model, data):.4f}")


@torch.no_grad()
def accuracy(model: nn.Module, data: Digits) -> float:
    """The share of the test images that the model classifies."""
    model.eval()
    hits = [model(x).argmax(1) == y for x, y in data.test_dataloader()]
    model.train()
    return float(torch.cat(hits).float().mean())


def main() -> None:
    """Train a network."""
    parser = argparse.ArgumentParser(description="Train the digits in a loop of plain PyTorch.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of weights, shuffling and mixing")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    data = Digits()
    data.setup("fit")
    train(DigitNet(), data, args.epochs, args.seed)


if __name__ == "__main__":
    main()
