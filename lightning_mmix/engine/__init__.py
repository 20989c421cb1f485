"""The engine: mixing in any loop, with and without a Trainer.

``Mixer`` owns model, layers, gates, seed and counters, and mixes a batch within a context. For
whoever brings the plan there is ``mixing``, and ``mixed_loss`` for whoever wants to see the loss.
"""

from lightning_mmix.engine.loop import mixed_loss, mixing
from lightning_mmix.engine.mixer import Mixer

__all__ = [
    "Mixer",
    "mixed_loss",
    "mixing",
]
