"""Boxes: which layers can take them, and what masks among the targets ask of a layer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_mmix.batches.roles import recognised_input
from lightning_mmix.core.layers import INPUT
from lightning_mmix.core.paste import Space
from lightning_mmix.core.space import channels_of_input, input_space, positions
from lightning_mmix.core.trees import Path
from lightning_mmix.cuts.sites import Site
from lightning_mmix.pairing.lending import refuse_no_positions

_RECURRENT = ("RNN", "LSTM", "GRU")


def positions_of_masks(
    model: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None
) -> Space | None:
    """The sizes of space of masks among the targets, which a layer must have, too.

    Args:
        model: Whose input it is.
        batch: A training batch.
        targets: Its targets.
        path: Where it holds its input.

    Returns:
        None if there are no masks.

    Raises:
        ValueError: If a target has more than two dimensions, and is no mask of the input's size.
    """
    space = None
    for value in recognised_input(batch, path):
        space = input_space(value, channels_of_input(model, value.dim()))
    for target in targets:
        refuse_no_positions(target, space)
    return space if any(positions(target, space) for target in targets) else None


def without_boxes(sites: Mapping[str, Site], wanted: Space | None) -> set[str]:
    """The names of the layers that ``"auto"`` does not take for boxes.

    They have no space, or other positions than the masks. The last states of a recurrent layer are
    of one position alone, and all from the sample or all from its partner.

    Args:
        sites: By name.
        wanted: As :func:`positions_of_masks` gives it.
    """
    return {
        name
        for name, site in sites.items()
        if not site.has_space or site.kind in _RECURRENT or not _has(site, wanted)
    }


def refuse_without_boxes(sites: Iterable[Site], wanted: Space | None) -> None:
    """Refuse layers that were named and can't take boxes.

    Args:
        sites: Of the layers.
        wanted: As :func:`positions_of_masks` gives it.

    Raises:
        ValueError: If one has no space, or other positions than the masks.
    """
    for site in sites:
        where = "the input is" if site.name == INPUT else f"layer {site.name!r} puts out"
        where += f" ({', '.join(map(str, ('B', *(site.shape or ()))))})"
        if site.shape is not None and not site.has_space:
            raise ValueError(
                "CutMix needs space, one to three dimensions besides samples and channels, but "
                f"{where}; name layers with space, or kind='mixup'"
            )
        if not _has(site, wanted):
            raise ValueError(
                f"{where}, and the target, which takes its partner's values in the same box, has "
                f"{wanted} positions; mix layers=['input'] or a layer with as many, or use "
                "kind='mixup'"
            )


def _has(site: Site, wanted: Space | None) -> bool:
    shape = site.shape or ()
    return wanted is None or wanted in (shape, shape[1:], shape[:-1])
