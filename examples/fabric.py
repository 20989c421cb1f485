"""Train the handwritten digits with Manifold Mixup in a loop of Lightning Fabric.

    python examples/fabric.py                                                   # 15 seconds
    python examples/fabric.py --accelerator=cpu --devices=2 --out=digits.ckpt   # DDP, by gloo
    python examples/fabric.py --out=digits.ckpt --epochs=150                    # goes on from there

All processes mix the same layer, with weights and partners of their own.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from digits import DigitNet, Digits
from lightning.fabric import Fabric
from torch import nn

from lightning_mmix import Mixer


def run(fabric: Fabric, data: Digits, epochs: int, out: Path | None) -> None:
    """Train, from a checkpoint on if there is one, and test."""
    network = DigitNet()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    model, optimizer = fabric.setup(network, optimizer)
    loader = fabric.setup_dataloaders(data.train_dataloader())
    with Mixer(model) as mixer:
        state = {"model": model, "optimizer": optimizer, "mixer": mixer, "epoch": 0}
        if out is not None and out.exists():
            fabric.load(out, state)
        for epoch in range(state["epoch"], epochs):
            mixer.set_epoch(epoch, of=epochs)
            for x, y in loader:
                optimizer.zero_grad()
                with mixer(x, y) as target:
                    fabric.backward(F.cross_entropy(model(x), target))
                optimizer.step()
            state["epoch"] = epoch + 1
        if out is not None:
            fabric.save(out, state)
    test(fabric, model, data)


@torch.no_grad()
def test(fabric: Fabric, model: nn.Module, data: Digits) -> None:
    """Print the share of the test images that the model classifies."""
    model.eval()  # outside of the mixer's context nothing is mixed
    loader = fabric.setup_dataloaders(data.test_dataloader())
    hits = torch.cat([model(x).argmax(1) == y for x, y in loader])
    fabric.print(f"test accuracy {fabric.all_reduce(hits.float().mean()):.4f}")


def main() -> None:
    """Launch the processes."""
    parser = argparse.ArgumentParser(description="Train the digits in a loop of Lightning Fabric.")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--precision", default="32-true", help="such as bf16-mixed or bf16-true")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of weights, shuffling and mixing")
    parser.add_argument("--out", type=Path, help="a checkpoint; if there is one, it goes on there")
    args = parser.parse_args()
    fabric = Fabric(accelerator=args.accelerator, devices=args.devices, precision=args.precision)
    fabric.launch()
    fabric.seed_everything(args.seed)  # which the mixer takes, too
    data = Digits()
    data.setup("fit")
    run(fabric, data, args.epochs, args.out)
    if dist.is_initialized():  # a thread of gloo that outlives it may abort a process at its end
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
