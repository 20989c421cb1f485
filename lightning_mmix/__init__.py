"""Manifold Mixup for PyTorch Lightning (Verma et al., ICML 2019)."""

# first: after rich.progress, typing's cache would have a Trainer read one batch as all of them
import lightning.pytorch as _  # noqa: F401

from lightning_mmix.core.operation import mix
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.cuts.verification import cut_test
from lightning_mmix.pairing.loop import mixed_loss, mixing
from lightning_mmix.training.callback import ManifoldMixup
from lightning_mmix.training.module import ManifoldMixupClassifier, ManifoldMixupMixin
from lightning_mmix.training.monitor import CalibrationMonitor

__all__ = [
    "CalibrationMonitor",
    "ManifoldMixup",
    "ManifoldMixupClassifier",
    "ManifoldMixupMixin",
    "MixPlan",
    "cut_test",
    "mix",
    "mixed_loss",
    "mixing",
]
