"""Instructions: how a trained classifier is to be measured."""

from dataclasses import dataclass

from lightning.pytorch import LightningModule

from lightning_mmix.core.trees import Path
from lightning_mmix.evaluation.arguments import Numbers
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.metrics.samples import Form


@dataclass(frozen=True)
class Instructions:
    """How to measure.

    Attributes:
        form: Whether predictions are ``"logits"`` or ``"probabilities"``.
        target: Where a batch holds its target; None looks by itself.
        input: Where a batch holds its input.
        output: Where the network's output holds the predictions.
        low: The least value of the data; None takes the least of the measured inputs.
        high: The largest.
        mean: What was subtracted from the data before the network gets them.
        std: What they were divided by then.
        samples: How many samples to attack, deform and corrupt; 0 for all.
        fast: Whether a few conditions are enough.
        ignore_index: The label of samples that count nowhere.
    """

    form: Form = "logits"
    target: Path | None = None
    input: Path | None = None
    output: Path | None = None
    low: float | None = None
    high: float | None = None
    mean: Numbers = 0.0
    std: Numbers = 1.0
    samples: int = 2000
    fast: bool = False
    ignore_index: int | None = None

    def predictor(self, model: LightningModule) -> Predictor:
        """What makes the predictions."""
        return Predictor(
            model,
            form=self.form,
            target=self.target,
            input=self.input,
            output=self.output,
            ignore_index=self.ignore_index,
        )
