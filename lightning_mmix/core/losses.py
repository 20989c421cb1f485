"""Losses of torch's for two targets at once, which share what does not depend on the target."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[..., Tensor]

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}
_nll: Loss = torch._C._nn.nll_loss_nd  # torch's stubs take its number for a text
_mse: Loss = torch._C._nn.mse_loss
_HALF = (torch.float16, torch.bfloat16)


def cross_entropies(
    logits: Tensor, sides: tuple[Tensor, Tensor], options: dict[str, Any]
) -> list[Tensor]:
    """The cross-entropies of two targets, of which the softmax is computed once.

    Args:
        logits: Shape (B, K, ...), or (K,).
        sides: Two targets of class indices, each of shape (B, ...), or 0-d.
        options: Of :func:`torch.nn.functional.cross_entropy`, but for its two old ones.
    """
    # autocast computes it in float32 for half types, but not its parts on every device
    if logits.dtype in _HALF and torch.is_autocast_enabled(logits.device.type):
        logits = logits.float()
    logs = logits.log_softmax(min(1, logits.ndim - 1))
    if options["label_smoothing"]:
        return _smoothed(logs, sides, **options)
    reduction = REDUCTIONS[options["reduction"]]
    weight, ignored = options["weight"], options["ignore_index"]
    return [_nll(logs, labels, weight, reduction, ignored) for labels in sides]


def _smoothed(
    logs: Tensor,
    sides: tuple[Tensor, Tensor],
    *,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    **_: Any,
) -> list[Tensor]:
    """Of -(1 - ε)·w_y·log p_y - ε/K·Σ w_c·log p_c both parts at once, as another log p_y."""
    dim = min(1, logs.ndim - 1)
    if weight is not None:
        logs = logs * weight.view(-1, *[1] * (logs.ndim - 1 - dim))
    share = logs.sum(dim, keepdim=True) * (label_smoothing / logs.shape[dim])
    logs = torch.add(share, logs, alpha=1 - label_smoothing)
    is_weighted = weight is not None and reduction == "mean"
    how = REDUCTIONS["sum" if is_weighted else reduction]
    losses = [_nll(logs, labels, None, how, ignore_index) for labels in sides]
    if weight is None or not is_weighted:
        return losses
    sums = [_sum_of_weights(weight, labels, ignore_index) for labels in sides]
    return [loss / total for loss, total in zip(losses, sums, strict=True)]


def _sum_of_weights(weight: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    ignored = labels == ignore_index
    return weight[labels.masked_fill(ignored, 0)].masked_fill(ignored, 0).sum()


def core_of(loss: Loss, options: dict[str, Any]) -> Loss:
    """A loss as a function of prediction and target, which are shaped alike.

    Args:
        loss: Of :mod:`torch.nn.functional`.
        options: Its arguments by keyword. If they are the usual ones it is torch's own core, which
            Python does not have to go through.
    """
    core = _CORES.get(loss)
    return core if core is not None and options == _USUAL[loss] else partial(loss, **options)


def usual_options(loss: Loss) -> dict[str, Any]:
    """The options of a loss that is known here, with the values that they have by themselves."""
    return _USUAL[loss]


def _usual(loss: Loss) -> dict[str, Any]:
    parameters = signature(loss).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


_USUAL = {
    loss: _usual(loss)
    for loss in (
        F.cross_entropy,
        F.binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        F.mse_loss,
    )
}
_CORES: dict[Loss, Loss] = {
    F.binary_cross_entropy_with_logits: partial(
        torch.binary_cross_entropy_with_logits, reduction=REDUCTIONS["mean"]
    ),
    F.mse_loss: partial(_mse, reduction=REDUCTIONS["mean"]),
}
