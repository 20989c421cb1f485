"""A trained classifier under conditions, and between its samples.

``evaluate`` scores it on clean, attacked, noisy and distorted inputs. ``interpolate_between`` and
``probabilities_on_grid`` look between samples, ``Spectra`` at what layers put out.
"""

from lightning_mmix.evaluation import condition
from lightning_mmix.evaluation.attacks import FGSM, PGD
from lightning_mmix.evaluation.boundaries import (
    Interpolation,
    interpolate_between,
    other_class,
    probabilities_on_grid,
    share_below,
)
from lightning_mmix.evaluation.condition import Condition, Units
from lightning_mmix.evaluation.distortions import Corruption, Rotation, Shear, Zoom
from lightning_mmix.evaluation.hidden import Spectra, recorded
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.evaluation.robustness import Evaluation, Row, evaluate
from lightning_mmix.evaluation.standard import Clean, GaussianNoise, standard_conditions

Bounds = condition.Bounds
"""The least and the largest value of the data, such as (0, 1) for images."""
Loss = condition.Loss
"""What an attack raises: takes a batch, shape (B, ...), and gives the loss of each sample, (B,)."""

__all__ = [
    "FGSM",
    "PGD",
    "Bounds",
    "Clean",
    "Condition",
    "Corruption",
    "Evaluation",
    "GaussianNoise",
    "Interpolation",
    "Loss",
    "Predictor",
    "Rotation",
    "Row",
    "Shear",
    "Spectra",
    "Units",
    "Zoom",
    "evaluate",
    "interpolate_between",
    "other_class",
    "probabilities_on_grid",
    "recorded",
    "share_below",
    "standard_conditions",
]
