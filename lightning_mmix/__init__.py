"""Manifold Mixup for PyTorch Lightning (Verma et al., ICML 2019)."""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
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
else:
    from lightning_mmix.faces import face

    __getattr__, __dir__ = face(__name__, ("core", "cuts", "engine", "training"), __all__)
