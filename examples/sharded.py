"""Train the handwritten digits on several devices, whole on each (DDP) or sharded (FSDP, FSDP2).

    python examples/sharded.py --strategy fsdp2 --devices 4
    torchrun --nproc-per-node 4 examples/sharded.py --strategy fsdp --devices 4
    python examples/sharded.py --strategy fsdp2 --devices 2 --accelerator cpu    # just to see it

Layers are named: while parameters are sharded, no forward pass can be run beside the training to
choose or to verify them. Verify them once without sharding:

    python examples/digits.py layers --config examples/digits.yaml
"""

import argparse

import torch.distributed as dist
from digits import DigitNet, Digits
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch.distributed.fsdp import FSDPModule, fully_shard

from lightning_mmix import ManifoldMixup, ManifoldMixupClassifier


class ShardedClassifier(ManifoldMixupClassifier):
    """A classifier of digits whose stages are sharded one by one under FSDP2."""

    def __init__(self) -> None:
        super().__init__(DigitNet(), num_classes=10)
        self.net: DigitNet

    def configure_model(self) -> None:
        """Shard, if the strategy has a mesh of devices; FSDP wraps the module by itself."""
        if self.device_mesh is not None and not isinstance(self.net, FSDPModule):
            for module in (self.net.layer1, self.net.layer2, self.net.layer3, self.net):
                fully_shard(module, mesh=self.device_mesh["data_parallel"])


def main() -> None:
    """Train, test and print the scores."""
    parser = argparse.ArgumentParser(description="Train the digits on several devices.")
    parser.add_argument("--strategy", choices=["ddp", "fsdp", "fsdp2"], default="fsdp2")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    trainer = Trainer(
        callbacks=[ManifoldMixup(layers=["net.layer*"], verify=False)],
        strategy=_strategy(args.strategy, args.devices),
        accelerator=args.accelerator,
        devices=args.devices,
        max_epochs=args.epochs,
        logger=False,
        enable_checkpointing=False,
    )
    model, data = ShardedClassifier(), Digits(labels_per_class=98)
    trainer.fit(model, data)
    trainer.test(model, data)
    if dist.is_initialized():  # a thread of gloo that outlives it may abort a process at its end
        dist.destroy_process_group()


def _strategy(name: str, devices: int) -> Strategy:
    if name == "fsdp2":
        return ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1)
    if name == "fsdp":
        return FSDPStrategy(auto_wrap_policy={type(DigitNet().layer1)}, use_orig_params=True)
    return DDPStrategy()


if __name__ == "__main__":
    main()
