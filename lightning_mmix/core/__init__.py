"""The plan of a step and its arithmetic, the names of layers, and trees of tensors.

Values and functions of them: nothing here changes a model. The other packages stand on this one.
"""

from lightning_mmix.core import layers
from lightning_mmix.core.operation import mix
from lightning_mmix.core.plan import MixPlan, Recipe, draw

INPUT = layers.INPUT
"""The name that the input has among the layers: to mix it alone is plain mixup."""

__all__ = [
    "INPUT",
    "MixPlan",
    "Recipe",
    "draw",
    "mix",
]
