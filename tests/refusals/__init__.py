"""Every refusal and every warning, in one table: when it comes, what it says, what to do next.

`python -m refusals`, in this folder's parent, prints it; `test_refusals.py` runs each row.
"""

from refusals import (  # noqa: F401 - they fill it
    of_batches,
    of_cuts,
    of_kinds,
    of_layers,
    of_loops,
    of_losses,
    of_proofs,
    of_schedules,
    of_scores,
    of_trainers,
)
from refusals.table import TABLE

__all__ = ["TABLE"]
