"""A snapshot: everything of a model that a forward pass may change, to be put back."""

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave a model, and the global random number generators, as they were before the context.

    Parameters that require a gradient, buffers, and the attributes of every module with the
    lists, dictionaries and tensors in them are put back, also after an exception; only what has
    changed is written. Frozen parameters are taken to stay as they are.

    Args:
        model: Any module.
    """
    attributes = [(vars(module), dict(vars(module))) for module in model.modules()]
    values = [value for _, saved in attributes for value in saved.values()]
    containers = [(v, type(v)(v)) for v in values if type(v) in (dict, OrderedDict, list)]
    trained = [p for p in model.parameters() if p.requires_grad]
    held = [value for value in values if isinstance(value, Tensor)]
    every = [t for t in [*trained, *model.buffers(), *held] if t.layout is torch.strided]
    states = [(t, t.data, t.data.clone()) for t in every]
    try:
        with _generators_of(model):
            yield
    finally:
        for current, content in [*attributes, *containers]:
            _put_back(current, content)
        for tensor, data, saved in states:
            _put_data_back(tensor, data, saved)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Let a model evaluate eagerly, and leave it :func:`untouched`.

    No parameter requires a gradient, so that an autograd graph is that of the inputs alone; and
    those that are all zero, which would hide what they are for, get random values meanwhile.

    Args:
        model: Any module.
    """
    trained = [p for p in model.parameters() if p.requires_grad and p.is_leaf]
    flags = [(module, module.training) for module in model.modules()]
    is_fast = torch.backends.mha.get_fastpath_enabled()
    with untouched(model), torch.compiler.set_stance("force_eager"):
        try:
            torch.backends.mha.set_fastpath_enabled(False)  # it runs past the hooks
            for module, _ in flags:
                module.training = False
            generator = torch.Generator().manual_seed(0)
            for parameter in trained:
                parameter.requires_grad_(False)
                _fill(parameter, generator)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(is_fast)
            for module, training in flags:
                module.training = training
            for parameter in trained:
                parameter.requires_grad_()


def _fill(parameter: Tensor, generator: torch.Generator) -> None:
    """Give a parameter of zeros, such as that of a new head or a gain, values of some effect."""
    if parameter.is_floating_point() and not parameter.any():
        std = 0.1 if parameter.dim() < 2 else parameter[0].numel() ** -0.5
        values = torch.empty(parameter.shape).normal_(0, std, generator=generator)
        parameter.data.copy_(values)


@contextmanager
def _generators_of(model: nn.Module) -> Iterator[None]:
    devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    accelerators = {device.type for device in devices} - {"cpu", "meta"}
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002 - the global one
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        if "mps" in accelerators:  # one device, which fork_rng does not know
            stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        for kind in accelerators - {"mps"}:
            indices = {device.index or 0 for device in devices if device.type == kind}
            stack.enter_context(torch.random.fork_rng(indices, device_type=kind))
        try:
            yield
        finally:
            np.random.set_state(numpys)  # noqa: NPY002 - the global one
            random.setstate(pythons)


def _put_back(current: Any, saved: Any) -> None:
    if isinstance(current, list):
        if list(map(id, current)) != list(map(id, saved)):
            current[:] = saved
        return
    for key in [key for key in current if key not in saved]:
        del current[key]
    for key, value in saved.items():
        if current.get(key, current) is not value:
            current[key] = value


def _put_data_back(tensor: Tensor, data: Tensor, saved: Tensor) -> None:
    if tensor.data_ptr() != data.data_ptr():
        tensor.data = data
    if not torch.equal(data, saved):
        data.copy_(saved)
