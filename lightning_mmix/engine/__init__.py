"""The engine: mixing in any loop, with and without a Trainer."""

from lightning_mmix.engine.loop import mixed_loss, mixing

__all__ = [
    "mixed_loss",
    "mixing",
]
