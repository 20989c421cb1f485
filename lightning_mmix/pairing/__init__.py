"""One step carried out: the hidden state is mixed, and so is the loss.

Gates are the hooks that mix a layer's output. The target becomes a paired tensor, which carries
two, so that whatever loss is computed from it forks.
"""

from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.step import Step

__all__ = [
    "Gates",
    "Step",
]
