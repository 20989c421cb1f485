"""Which layers of a network can be mixed exactly: its cuts.

A layer is a cut if all of the signal that reaches the output passes through it, in rows that are
those of the batch. A probe tells by the autograd graph of one forward pass, by the order of the
rows in another, and by values; ``"auto"`` chooses among the cuts.
"""

from lightning_mmix.cuts import calls, rows
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.sites import Cuts, Site
from lightning_mmix.cuts.tables import cut_table, layer_table
from lightning_mmix.cuts.verification import chosen_automatically, cut_test

ROWS = calls.ROWS
"""How many samples a cut test takes of a batch: few, and a size that no other dimension has."""
TOLERANCE = rows.TOLERANCE
"""How far the output may be from following an exchange of rows, in units of their distance.

Of a cut the deviation is about 0, up to rounding; of a layer without effect it is 1.
"""

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
