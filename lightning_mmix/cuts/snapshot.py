"""A snapshot: everything of a model that a forward pass may change, to be put back."""

import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_CONTAINERS = (dict, OrderedDict, defaultdict, Counter, list, deque, set)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave a model, and all random number generators, as they were before the context.

    Parameters that require a gradient, buffers, and the attributes of every module are put back,
    with the containers, tensors, arrays, generators and further modules in them, also after an
    exception; only what has changed is written. Frozen parameters are taken to stay as they are,
    and what lies in other objects is not seen.

    Args:
        model: Any module.
    """
    with ExitStack() as stack:
        for thing in _held(model):
            restore = _restoring(thing)
            if restore is not None:
                stack.callback(*restore)
        stack.enter_context(same_randomness(model))
        yield


def _held(model: nn.Module) -> list[Any]:
    """What a model holds, itself included, by way of modules and containers."""
    found: dict[int, Any] = {}
    ahead: list[Any] = [model]
    while ahead:
        thing = ahead.pop()
        if id(thing) in found:
            continue
        found[id(thing)] = thing
        if isinstance(thing, nn.Module):
            ahead += [*thing.parameters(recurse=False), *thing.buffers(recurse=False)]
            ahead += vars(thing).values()
        elif isinstance(thing, dict | list | tuple | deque | set):
            inside = thing.values() if isinstance(thing, dict) else thing
            # a list of tensors may be a whole data set
            ahead += [each for each in inside if not isinstance(each, Tensor | np.ndarray)]
    return list(found.values())


@singledispatch
def _restoring(thing: Any) -> tuple[Any, ...] | None:
    """What has to be called, with which arguments, to put a thing back as it is now."""
    if type(thing) in _CONTAINERS:
        return _put_back, thing, copy.copy(thing)
    return None


@_restoring.register
def _(module: nn.Module) -> tuple[Any, ...]:
    return _put_back, vars(module), dict(vars(module))


@_restoring.register
def _(tensor: Tensor) -> tuple[Any, ...] | None:
    is_frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
    if is_frozen or tensor.layout is not torch.strided:
        return None
    return _put_data_back, tensor, tensor.data, tensor.data.clone()


@_restoring.register
def _(array: np.ndarray) -> tuple[Any, ...] | None:
    return (np.copyto, array, array.copy()) if array.flags.writeable else None


@_restoring.register
def _(generator: torch.Generator) -> tuple[Any, ...]:
    return generator.set_state, generator.get_state()


@_restoring.register
def _(generator: random.Random) -> tuple[Any, ...]:
    return generator.setstate, generator.getstate()


@_restoring.register
def _(generator: np.random.Generator) -> tuple[Any, ...]:
    return setattr, generator.bit_generator, "state", generator.bit_generator.state


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Let a model evaluate eagerly, and leave it :func:`untouched`.

    No parameter requires a gradient, so that an autograd graph is that of the inputs alone; and
    gains and weights that are all zero, and so hide a path, get random values meanwhile.

    Args:
        model: Any module.
    """
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad and p.is_leaf}
    flags = [(m, m.training) for m in _held(model) if isinstance(m, nn.Module)]
    is_fast = torch.backends.mha.get_fastpath_enabled()
    with untouched(model), torch.compiler.set_stance("force_eager"):
        try:
            torch.backends.mha.set_fastpath_enabled(False)  # it runs past the hooks
            for module, _ in flags:
                module.training = False
            generator = torch.Generator().manual_seed(0)
            for name, parameter in trained.items():
                parameter.requires_grad_(False)
                if "bias" not in name.rpartition(".")[2]:
                    _fill(parameter, generator)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(is_fast)
            for module, training in flags:
                module.training = training
            for parameter in trained.values():
                parameter.requires_grad_()


@contextmanager
def same_randomness(model: nn.Module) -> Iterator[None]:
    """Leave all global random number generators, of a model's devices too, as they were before."""
    devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    accelerators = {device.type for device in devices} - {"cpu", "meta"}
    with ExitStack() as stack:
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the global one
        stack.callback(random.setstate, random.getstate())
        stack.enter_context(torch.random.fork_rng([]))
        if "mps" in accelerators:  # one device, which fork_rng does not know
            stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        for kind in accelerators - {"mps"}:
            indices = {device.index or 0 for device in devices if device.type == kind}
            stack.enter_context(torch.random.fork_rng(indices, device_type=kind))
        yield


def _fill(parameter: Tensor, generator: torch.Generator) -> None:
    """Give a parameter of zeros, such as that of a new head or a gain, values of some effect."""
    if parameter.is_floating_point() and not parameter.any():
        std = 0.1 if parameter.dim() < 2 else parameter[0].numel() ** -0.5
        values = torch.empty(parameter.shape).normal_(0, std, generator=generator)
        parameter.data.copy_(values)


def _put_back(current: Any, saved: Any) -> None:
    if isinstance(current, dict):
        for key in [key for key in current if key not in saved]:
            del current[key]
        for key, value in saved.items():
            if current.get(key, current) is not value:
                current[key] = value
    elif list(map(id, current)) != list(map(id, saved)):
        current.clear()
        (current.update if isinstance(current, set) else current.extend)(saved)


def _put_data_back(tensor: Tensor, data: Tensor, saved: Tensor) -> None:
    if tensor.data_ptr() != data.data_ptr():
        tensor.data = data
    if not torch.equal(data, saved):
        data.copy_(saved)
