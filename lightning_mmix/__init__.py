"""Manifold Mixup for PyTorch Lightning (Verma et al., ICML 2019)."""

# first: after rich.progress, typing's cache would have a Trainer read one batch as all of them
import lightning.pytorch as _  # noqa: F401

from lightning_mmix.callback import ManifoldMixup
from lightning_mmix.cuts import cut_test
from lightning_mmix.gates import mixing
from lightning_mmix.mixing import mix
from lightning_mmix.module import ManifoldMixupClassifier, ManifoldMixupMixin
from lightning_mmix.monitor import CalibrationMonitor
from lightning_mmix.plan import MixPlan
from lightning_mmix.targets import mixed_loss

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
