"""Which layers of a network can be mixed exactly: its cuts.

A layer is a cut if all of the signal that reaches the output passes through it, in rows that are
those of the batch. A probe tells by the autograd graph of one forward pass, by the order of the
rows in another, and by values; ``"auto"`` chooses among the cuts.
"""

from lightning_mmix.cuts.calls import ROWS
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.rows import TOLERANCE
from lightning_mmix.cuts.sites import Site
from lightning_mmix.cuts.tables import cut_table, layer_table
from lightning_mmix.cuts.verification import Cuts, chosen_automatically, cut_test

__all__ = [
    "ROWS",
    "TOLERANCE",
    "Cuts",
    "Probe",
    "Site",
    "chosen_automatically",
    "cut_table",
    "cut_test",
    "layer_table",
]
