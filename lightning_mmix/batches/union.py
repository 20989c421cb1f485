"""The union of masks: what counts in a sample or in its partner, as one of both."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.batches.names import marks_padding
from lightning_mmix.batches.search import one_tensor
from lightning_mmix.core.trees import Path, describe, first_size, follow, located


def united(
    batch: Any, paths: Path | Sequence[Path], partner: Tensor, targets: Sequence[Tensor] = ()
) -> list[tuple[Tensor, Tensor]]:
    """The masks and lengths of a batch, each with the union of the sample's and its partner's.

    Where one sequence is longer than the other, their mix is as long as the longer one. A mask
    becomes the elementwise maximum of both, and so do lengths; but where true marks padding, it
    becomes the minimum, since padding is what is padding in both. The name tells: it is padding if
    the last part of the path that is a name has one of the words pad, padding, padded, ignore,
    ignored, missing or invalid (``src_key_padding_mask``), and none of not, non and no. Of a mask
    of any other name, or with an index alone, true marks what counts.

    Args:
        batch: What the data loader yields.
        paths: Where the masks and lengths are: a key, an index or a dotted path, or several; a
            path to a container means all tensors in it.
        partner: Shape (B,), int64: a permutation of ``range(B)``.
        targets: Those of the batch, which can't be masks as well.

    Returns:
        The batch's own tensors, of shape (B, ...), integer or boolean, each once; and beside each
        what it is to hold for the step, with the same shape, dtype and device.

    Raises:
        ValueError: If there is nothing at a path, or a tensor has no row for each sample, or is a
            target.
        TypeError: If what is there is no tensor, or is neither integer nor boolean.

    Example:
        >>> lengths = torch.tensor([3, 1, 2])
        >>> ((_, longer),) = united({"lengths": lengths}, "lengths", torch.tensor([1, 2, 0]))
        >>> longer
        tensor([3, 2, 3])
    """
    listed = [paths] if isinstance(paths, str | int) else paths
    found = [each for path in listed for each in _masks_at(batch, path)]
    for path, mask in found:
        if any(mask is target for target in targets):
            raise ValueError("union names the target, which is mixed itself; name masks or lengths")
        _refuse_other_than_masks(path, mask, len(partner))
    once = {id(mask): (mask, _union(path, mask, partner)) for path, mask in found}
    return list(once.values())


def _masks_at(batch: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    found = follow(batch, path, "union")
    yield from list(located(found, str(path))) or [(str(path), one_tensor(found, batch, "union"))]


def _union(path: str, mask: Tensor, partner: Tensor) -> Tensor:
    of_partners = mask[partner.to(mask.device)]
    return (torch.minimum if marks_padding(path) else torch.maximum)(mask, of_partners)


def _refuse_other_than_masks(path: str, mask: Tensor, size: int) -> None:
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(
            f"expected a boolean or integer mask as union={path!r}, but got {describe(mask)}; make "
            "it boolean in the collate function or in on_after_batch_transfer: mask == 0 if it is "
            "added to scores, mask > 0 if it is of zeros and ones"
        )
    if first_size(mask) != size:
        raise ValueError(
            f"expected masks or lengths of shape ({size}, ...), but got {describe(mask)} as "
            f"union={path!r}; put the batch first, and leave out what all samples share"
        )
