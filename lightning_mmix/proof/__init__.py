"""Whether a step is mixed exactly: it is held against the naive form, two steps of its own.

The naive form is a step with a sample's own target, and one with its partner's, of the same hidden
states and random numbers: λ·L(y) + (1 - λ)·L(y[partner]).
"""

from lightning_mmix.proof.agreement import Agreement
from lightning_mmix.proof.naive import Outcome, Trial
from lightning_mmix.proof.tables import agreement_table

__all__ = [
    "Agreement",
    "Outcome",
    "Trial",
    "agreement_table",
]
