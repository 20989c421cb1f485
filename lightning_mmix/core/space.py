"""Which dimensions of a hidden state are space, told by the sizes of parameters."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.parameter import is_lazy

from lightning_mmix.core.layers import named_layers
from lightning_mmix.core.trees import describe

_MOST = 3  # dimensions of space


class Channels(NamedTuple):
    """What parameters tell of the channels of a hidden state.

    Attributes:
        shapes: Of the parameters whose first size may be the width, the nearest first.
        are_convolved: Whether the nearest weight is that of a convolution along one dimension.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    are_convolved: bool = False


def channels_of_layer(model: nn.Module, name: str) -> Channels:
    """What the parameters of a layer tell, or if it has none those of the nearest one before it.

    A recurrent layer is known to have them last.
    """
    layer = named_layers(model)[name]
    if isinstance(layer, nn.RNNBase):
        return Channels()
    groups = list(_parameters_before(model, layer))
    if any(True for _ in layer.parameters()):
        groups.append([each for module in layer.modules() for each in _widths(module)])
    nearest = groups[-1] if groups else []
    weights = [each for group in groups for each in group if each.dim() > 1]
    return _channels([tuple(each.shape) for each in reversed(nearest)], weights[-1:])


def channels_of_input(model: nn.Module, dims: int) -> Channels:
    """What the first weight of a model tells: its second size is the width that it takes.

    Args:
        model: Any module.
        dims: How many the input has. A weight that convolves as many comes before any other: what
            is defined first need not run first.
    """
    # a first size of one is that of a position or a token, which is added for every sample
    weights = [each for each in _known(model.parameters()) if each.dim() > 1 and len(each) > 1]
    first = sorted(weights, key=lambda each: dims < 3 or each.dim() != dims)[:1]
    return _channels([tuple(each.shape[1:]) for each in first], first)


def space_dims(hidden: Tensor, channels: Channels, what: str) -> tuple[int, ...]:
    """The dimensions of a hidden state that are neither samples nor channels.

    Channels are dimension 1 or the last one, whichever is as wide as a parameter is long. If both
    are, or neither, torch's convention decides: 1 of four and more dimensions, and of three if they
    were convolved, (B, C, T); else the last, (B, T, C).

    Args:
        hidden: Shape (B, ...).
        channels: What is known of the channels.
        what: Whose hidden state it is, for an error: ``"layer 'net.0' puts out"``.

    Raises:
        ValueError: If there is no space, but one position, or there are more than three dimensions.
    """
    dims = hidden.dim()
    are_first = dims > 2 and _are_first(hidden, channels)
    space = tuple(range(2, dims) if are_first else range(1, dims - 1))
    if not 1 <= len(space) <= _MOST or all(hidden.shape[dim] == 1 for dim in space):
        raise ValueError(
            f"CutMix needs space, one to {_MOST} dimensions besides samples and channels, but "
            f"{what} {describe(hidden)}; name another layer, or kind='mixup'"
        )
    return space


def space_of(hidden: Tensor, dims: Sequence[int]) -> tuple[int, ...]:
    """The sizes of these dimensions."""
    return tuple(hidden.shape[dim] for dim in dims)


def input_space(value: Tensor, channels: Channels) -> tuple[int, ...] | None:
    """The sizes of the space of a batch's input; None if it has none.

    Args:
        value: Shape (B, ...).
        channels: What is known of its channels.
    """
    if value.dim() == 2 and not value.is_floating_point():  # of ids, which have no channels
        return tuple(value.shape[1:])
    try:
        return space_of(value, space_dims(value, channels, "the input is"))
    except ValueError:  # a hidden layer may have space where the input has none
        return None


def positions(target: Tensor, space: tuple[int, ...] | None) -> tuple[int, ...]:
    """The dimensions by which a target has a value, or several, for each position of the input.

    Args:
        target: Shape (B, ...).
        space: The sizes of the input's space; None if they aren't known.

    Returns:
        Those behind the samples and the channels, of (B, C, *space), or behind the samples, of
        (B, *space, ...); else none. Of floating-point numbers, (B, T) is a vector of each sample.
    """
    shape, dims = target.shape, 0 if space is None else len(space)
    if not dims or (target.dim() == 2 and target.is_floating_point()):  # a vector of the sample
        return ()
    if shape[2:] == space:
        return tuple(range(2, 2 + dims))
    return tuple(range(1, 1 + dims)) if shape[1 : 1 + dims] == space else ()


def _are_first(hidden: Tensor, channels: Channels) -> bool:
    _, first, *_, last = hidden.shape
    for shape in channels.shapes:
        # what is added to each sample has its positions, too, as a table of them
        if shape == hidden.shape[1:]:
            continue
        if shape[0] == first and shape[0] != last:  # torch.compile compares no symbolic booleans
            return True
        if shape[0] == last and shape[0] != first:
            return False
    return hidden.dim() > 3 or channels.are_convolved


def _channels(shapes: Sequence[tuple[int, ...]], weight: Sequence[Tensor]) -> Channels:
    # one is the width of a slope, a scale or a token, and of one channel, which others may not have
    wide = dict.fromkeys(shape for shape in shapes if shape and shape[0] != 1)
    return Channels(tuple(wide), bool(weight) and weight[0].dim() == 3 and len(weight[0]) > 1)


def _parameters_before(model: nn.Module, layer: nn.Module) -> Iterator[list[Tensor]]:
    """Those of each module before a layer in the model's order, which doesn't hold the layer."""
    for module in model.modules():
        if module is layer:
            return
        has_own = any(True for _ in module.parameters(recurse=False))
        if has_own and all(inner is not layer for inner in module.modules()):
            yield _widths(module)


def _widths(module: nn.Module) -> list[Tensor]:
    """A module's own parameters, of which the first size may be the width that it puts out."""
    if isinstance(module, nn.RNNBase):  # as long as its gates together
        return []
    own = _known(module.parameters(recurse=False))
    if isinstance(module, _ConvTransposeNd):
        return [each.transpose(0, 1) if each.dim() > 1 else each for each in own]
    return own


def _known(parameters: Iterator[nn.Parameter]) -> list[Tensor]:
    return [parameter for parameter in parameters if not is_lazy(parameter)]
