"""What Lightning sees: callbacks and modules that train with Manifold Mixup.

``ManifoldMixup`` mixes any LightningModule; the mixin and the classifier mix their loss in plain
sight; ``CalibrationMonitor`` watches a classifier while it trains; ``check`` proves on a batch that
a module's training step is mixed exactly.
"""

from lightning_mmix.training.callback import ManifoldMixup
from lightning_mmix.training.check import Check, check
from lightning_mmix.training.module import ManifoldMixupClassifier, ManifoldMixupMixin, sgd
from lightning_mmix.training.monitor import CalibrationMonitor

__all__ = [
    "CalibrationMonitor",
    "Check",
    "ManifoldMixup",
    "ManifoldMixupClassifier",
    "ManifoldMixupMixin",
    "check",
    "sgd",
]
