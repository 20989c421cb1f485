"""What a step does that a paired target can't follow: noticed where it happens, and said once.

On some steps the other tensors of the batch are watched on their way, and so is what becomes of a
paired value outside torch. Notes are taken of both, with the line of the user's code.
"""

from lightning_mmix.watch.notes import Notes

__all__ = [
    "Notes",
]
