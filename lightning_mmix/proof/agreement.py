"""The agreement of a mixed step with the naive form: to how many digits, and if not, why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_mmix.core.checks import told_of
from lightning_mmix.proof.naive import Trial, Watching
from lightning_mmix.watch.notes import Notes

ENOUGH = 3.0  # digits, which float32 keeps of sums that are taken in another order
ENOUGH_OF_HALF = 1.5


@dataclass(frozen=True)
class Agreement:
    """How far a step that is mixed at a layer agrees with the naive form.

    Attributes:
        layer: The layer.
        loss: The mixed loss; NaN if there is none.
        loss_digits: To how many decimal digits it is that of the naive form, at most 16.
        gradient_digits: To how many digits the gradients are, of the parameter that differs most.
        enough: How many digits the precision of the step allows to expect.
        partner_deviation: How far the loss for the partner's target is off, relative to it.
        notes: What was noticed in the mixed step.
        problem: Why it was refused or failed; empty if it was not.

    Example:
        >>> Agreement("net.layer1", loss=1.25, loss_digits=7.0, gradient_digits=1.2).is_exact
        False
    """

    layer: str
    loss: float = math.nan
    loss_digits: float = 0.0
    gradient_digits: float = 0.0
    enough: float = ENOUGH
    partner_deviation: float = 0.0
    notes: Notes | None = None
    problem: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether loss and gradients agree as far as the precision allows."""
        return min(self.loss_digits, self.gradient_digits) >= self.enough


def agreement(trial: Trial, watching: Watching, enough: float = ENOUGH) -> Agreement:
    """Hold a step against the naive form: it is run once as it is mixed, and twice by hand.

    Args:
        trial: The step, with the parameters by which gradients are taken.
        watching: As in :meth:`~.naive.Trial.paired`.
        enough: How many digits the precision of the step allows to expect.

    Returns:
        How far loss and gradients agree.
    """
    layer = trial.plan.layer + (" (cutmix)" if trial.plan.kind == "cutmix" else "")
    try:
        mixed = trial.paired(watching)
        own, partners = trial.naive(partners=False), trial.naive(partners=True)
    except Exception as error:  # whatever the step may raise is a finding
        return Agreement(layer, problem=told_of(error))
    lam = mixed.lam
    expected = lam * own.loss + (1 - lam) * partners.loss
    pairs = zip(own.gradients, partners.gradients, strict=True)
    gradients = [lam * first + (1 - lam) * second for first, second in pairs]
    second = partners.loss if mixed.sides is None else mixed.sides[1]
    return Agreement(
        layer,
        mixed.loss,
        loss_digits=_digits(abs(mixed.loss - expected), abs(expected)),
        gradient_digits=_digits_of(mixed.gradients, gradients),
        enough=enough,
        partner_deviation=abs(second - partners.loss) / max(abs(partners.loss), 1e-12),
        notes=mixed.notes,
    )


def _digits_of(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    def largest(tensor: Tensor) -> float:
        return float(tensor.abs().max()) if tensor.numel() else 0.0

    pairs = list(zip(found, expected, strict=True))
    # what is small beside the other gradients may be left of sums that cancel out, by rounding
    much = 1e-3 * max(map(largest, expected), default=0.0)
    digits = (_digits(largest(a - b), max(largest(b), much)) for a, b in pairs)
    return min(digits, default=16.0)


def _digits(difference: float, size: float) -> float:
    if difference == 0:
        return 16.0
    if not math.isfinite(difference) or size == 0:
        return 0.0
    return min(16.0, max(0.0, -math.log10(difference / size)))
