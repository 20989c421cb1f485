"""What Lightning sees: callbacks and modules that train with Manifold Mixup.

``ManifoldMixup`` mixes any LightningModule; the mixin and the classifier mix their loss in plain
sight; ``CalibrationMonitor`` watches a classifier while it trains; with ``TemperatureScaling`` it
leaves calibrated; ``check`` proves on a batch that a training step is mixed exactly.
"""

from lightning_mmix.training.callback import ManifoldMixup
from lightning_mmix.training.check import Check, check
from lightning_mmix.training.mixin import ManifoldMixupMixin
from lightning_mmix.training.module import ManifoldMixupClassifier, sgd
from lightning_mmix.training.monitor import CalibrationMonitor
from lightning_mmix.training.temperature.scaling import TemperatureScaling

__all__ = [
    "CalibrationMonitor",
    "Check",
    "ManifoldMixup",
    "ManifoldMixupClassifier",
    "ManifoldMixupMixin",
    "TemperatureScaling",
    "check",
    "sgd",
]
