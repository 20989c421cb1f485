"""The command that compares ways to train, on any LightningCLI config.

It trains and measures each over seeds, a process a run, and reports the differences between equal
seeds with their intervals. It needs the ``report`` extra.
"""

from typing import TYPE_CHECKING

from lightning_mmix.compare.runs import task as _task

__all__ = [
    "Difference",
    "Results",
    "Run",
    "calibration_scores",
    "clean_scores",
    "compare",
    "family_scores",
    "mean_and_deviation",
    "noise_scores",
    "paired_difference",
    "score_table",
    "spectrum_scores",
    "spread",
    "table",
    "tempered_scores",
    "write_json",
]

Run = _task.Run
"""What was measured of a run, as its ``result.json`` holds it.

Of a classifier it has ``clean`` and ``tempered`` scores, ``temperature``, ``bins``, ``spectrum``,
``interpolation`` and ``conditions``; of every module ``own``, what it logs itself.
"""
Results = _task.Results
"""The runs of each way to train, by its name, all in the same order of seeds."""

if TYPE_CHECKING:
    from lightning_mmix.compare.command import compare
    from lightning_mmix.compare.differences import (
        Difference,
        mean_and_deviation,
        paired_difference,
    )
    from lightning_mmix.compare.runs.scores import (
        calibration_scores,
        clean_scores,
        family_scores,
        spectrum_scores,
        table,
        tempered_scores,
    )
    from lightning_mmix.compare.runs.task import write_json
    from lightning_mmix.compare.score_tables import noise_scores, score_table, spread
else:
    from lightning_mmix.faces import face

    __getattr__, __dir__ = face(
        __name__, ("command", "differences", "runs.scores", "runs.task", "score_tables"), __all__
    )
