"""What Lightning sees: callbacks and modules that train with Manifold Mixup.

``ManifoldMixup`` mixes any LightningModule; the mixin and the classifier mix their loss in plain
sight; ``CalibrationMonitor`` watches a classifier while it trains.
"""

from lightning_mmix.training.callback import ManifoldMixup
from lightning_mmix.training.module import ManifoldMixupClassifier, ManifoldMixupMixin, sgd
from lightning_mmix.training.monitor import CalibrationMonitor

__all__ = [
    "CalibrationMonitor",
    "ManifoldMixup",
    "ManifoldMixupClassifier",
    "ManifoldMixupMixin",
    "sgd",
]
