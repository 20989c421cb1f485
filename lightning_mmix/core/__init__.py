"""The plan of a step and its arithmetic, the names of layers, and trees of tensors.

Values and functions of them: nothing here changes a model. The other packages stand on this one.
"""

from lightning_mmix.core.layers import INPUT
from lightning_mmix.core.operation import mix
from lightning_mmix.core.plan import MixPlan, Recipe, draw

__all__ = [
    "INPUT",
    "MixPlan",
    "Recipe",
    "draw",
    "mix",
]
