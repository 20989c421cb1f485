"""Manifold Mixup for PyTorch Lightning (Verma et al., ICML 2019)."""

# first: after rich.progress, typing's cache would have a Trainer read one batch as all of them
import lightning.pytorch as _  # noqa: F401

from lightning_mmix.core import MixPlan, mix
from lightning_mmix.cuts import cut_test
from lightning_mmix.engine import Mixer, mixed_loss, mixing
from lightning_mmix.training import (
    CalibrationMonitor,
    ManifoldMixup,
    ManifoldMixupClassifier,
    ManifoldMixupMixin,
    TemperatureScaling,
    check,
)

__all__ = [
    "CalibrationMonitor",
    "ManifoldMixup",
    "ManifoldMixupClassifier",
    "ManifoldMixupMixin",
    "MixPlan",
    "Mixer",
    "TemperatureScaling",
    "check",
    "cut_test",
    "mix",
    "mixed_loss",
    "mixing",
]
