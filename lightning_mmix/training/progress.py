"""How much of a fit is done."""

import math

from lightning.pytorch import Trainer


def share_done(trainer: Trainer, batches: int) -> float | None:
    """The share of a fit that is done: of its steps, or else of its epochs, whichever ends first.

    Args:
        trainer: Which fits.
        batches: How many batches of the current epoch are done.

    Returns:
        In [0, 1]; None if neither the number of steps nor that of epochs is limited, or if all is
        one epoch of no known length.
    """
    shares = []
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    size = trainer.num_training_batches
    is_known = 0 < size < math.inf
    if trainer.max_epochs is not None and trainer.max_epochs > (0 if is_known else 1):
        within = batches / size if is_known else 0.0
        shares.append((trainer.current_epoch + within) / trainer.max_epochs)
    return min(max(shares), 1.0) if shares else None
