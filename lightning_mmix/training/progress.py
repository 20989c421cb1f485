"""How much of a fit is done."""

import math

from lightning.pytorch import Trainer


def share_done(trainer: Trainer, batches: int) -> float | None:
    """The share of a fit that is done: of its steps, or else of its epochs, whichever ends first.

    Args:
        trainer: Which fits.
        batches: How many batches of the current epoch are done.

    Returns:
        In [0, 1]; None if neither the number of steps nor that of epochs is limited.
    """
    shares = []
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        size = trainer.num_training_batches
        within = batches / size if 0 < size < math.inf else 0.0
        shares.append((trainer.current_epoch + within) / trainer.max_epochs)
    return min(max(shares), 1.0) if shares else None
