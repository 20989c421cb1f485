"""Manifold Mixup for PyTorch Lightning (Verma et al., ICML 2019).

What most trainings need is here. The packages have the rest:

- ``lightning_mmix.training``: what Lightning sees: callbacks, modules, and the check of a step.
- ``lightning_mmix.engine``: mixing in a loop of one's own, or of Lightning Fabric.
- ``lightning_mmix.evaluation``: a trained classifier under conditions, and between its samples.
- ``lightning_mmix.metrics``: scores of predictions and hidden states: functions and torchmetrics.
- ``lightning_mmix.plots``: pictures of such scores.
- ``lightning_mmix.compare``: ways to train, held against each other.
- ``lightning_mmix.cli``: the command line.
- ``lightning_mmix.core``: the plan of a step, and its arithmetic.
- ``lightning_mmix.cuts``: which layers of a network can be mixed.
- ``lightning_mmix.batches``: where a batch holds its target and its input.
- ``lightning_mmix.pairing``: one step carried out.
- ``lightning_mmix.proof``: a step held against the naive form.
- ``lightning_mmix.watch``: what a step does that a paired target can't follow.
"""

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

    __version__: str
else:
    from lightning_mmix.faces import face

    __getattr__, __dir__ = face(__name__, ("core", "cuts", "engine", "training"), __all__)
