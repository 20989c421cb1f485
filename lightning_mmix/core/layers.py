"""The layers of a model: their names, and the choice among them."""

import difflib
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import accumulate
from typing import Any, Literal, TypeGuard

import torch
from torch import nn

from lightning_mmix.core.checks import fits, shown, with_first_parts

INPUT = "input"

Named = Sequence[str] | Mapping[str, float]
Layers = Literal["auto"] | Named

# what torch.compile, FSDP and checkpoint_wrapper put into the names of the modules they wrap
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def select(model: nn.Module, layers: Named) -> dict[str, float]:
    """Resolve names and globs to the layers of a model, with their weights.

    ``*``, ``?`` and ``[...]`` match within one part of a dotted name, so ``"net.layer*"`` takes
    ``net.layer1`` but not ``net.layer1.conv``. A glob gives its weight to each of its matches.

    Args:
        model: The model whose modules are named.
        layers: Names, globs and ``"input"``; a mapping gives each a weight, a sequence weights 1.

    Returns:
        Layer name → weight: ``"input"`` first, then in the model's own order.

    Raises:
        ValueError: If nothing is asked for, a name is unknown, a glob matches nothing, a layer is
            named twice, or a layer is a container that has no forward pass of its own.
    """
    weights = weighed(layers)
    modules = named_layers(model)
    chosen: dict[str, float] = {}
    for pattern, weight in weights.items():
        for name in _matches(pattern, modules):
            if name in chosen:
                raise ValueError(f"layer {name!r} is named twice, the second time by {pattern!r}")
            chosen[name] = weight
    return {name: chosen[name] for name in (INPUT, *modules) if name in chosen}


def weighed(layers: Named) -> Mapping[str, float]:
    """The weight of each name: that of a mapping, else 1.

    Raises:
        ValueError: If these are no names, or one is there twice.

    Example:
        >>> weighed(["input", "net.layer1"])
        {'input': 1.0, 'net.layer1': 1.0}
    """
    if not are_names(layers) or not layers:
        got = shown(layers)
        hint = "; only ManifoldMixup and Mixer have a model to choose by" if got == "'auto'" else ""
        raise ValueError(
            "expected a list of layer names, as ['input', 'net.layer1'], or a mapping of names to "
            f"weights, but got layers={got}{hint}"
        )
    if isinstance(layers, Mapping):
        return layers
    # the order of a set differs from process to process
    names = sorted(layers) if isinstance(layers, Set) else list(layers)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"layer {twice[0]!r} is named twice")
    return dict.fromkeys(names, 1.0)


class Shares:
    """Weights, as the shares of [0, 1] that they take."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._names = [name for name, weight in weights.items() if weight > 0]
        self._ends = list(accumulate(weights[name] for name in self._names))
        self.only = self._names[0] if len(self._names) == 1 else None

    def at(self, uniform: float) -> str:
        """The name whose share holds a number in [0, 1)."""
        place = bisect(self._ends, uniform * self._ends[-1], hi=len(self._ends) - 1)
        return self._names[place]


def are_names(layers: Any) -> TypeGuard[Named]:
    """Whether something names layers one by one, maybe none, with or without weights."""
    is_listed = isinstance(layers, Sequence | Set | Mapping) and not isinstance(layers, str)
    return is_listed and all(isinstance(name, str) for name in layers)


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules below ``model``, under names without the marks that wrappers leave in them."""
    modules: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        # of a wrapper and what it wraps the outer one stands first, and runs
        modules.setdefault(".".join(p for p in name.split(".") if p not in _WRAPPERS), module)
    modules.pop("", None)
    return modules


def unwrapped(model: nn.Module) -> nn.Module:
    """The module that a user wrote, without what several processes or a compiler wrap it in.

    Args:
        model: Any module, maybe in DistributedDataParallel, DataParallel, torch.compile, or what
            Lightning Fabric makes of it.
    """
    while True:
        # Fabric's holds both what runs and what the user gave
        inner = getattr(model, "_original_module", None)
        if isinstance(model, torch._dynamo.OptimizedModule):
            inner = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def examples(model: nn.Module) -> list[str]:
    """The names of one or two layers, for those who have to name some.

    They have parameters, and lie side by side as far outside as possible; if there are several
    the last, which is often a head, is not among them.
    """
    modules = named_layers(model)
    names = [n for n, m in modules.items() if takes_hooks(m) and any(True for _ in m.parameters())]
    for dots in sorted({name.count(".") for name in names}):
        level = [name for name in names if name.count(".") == dots]
        if len(level) > 1:
            return level[:-1][:2]
    return names[:1]


def takes_hooks(module: nn.Module) -> bool:
    """Whether a module has a forward pass of its own, and hooks see it."""
    # a scripted module's forward can't be asked for on its class, and it takes no hooks
    is_scripted = isinstance(module, torch.jit.ScriptModule)
    if is_scripted:
        return False
    # torch.compile and others set the forward of an instance
    return "forward" in vars(module) or type(module).forward is not nn.Module.forward


def _matches(pattern: str, modules: Mapping[str, nn.Module]) -> list[str]:
    if pattern == INPUT:
        return [INPUT]
    if pattern in modules:
        _refuse_container(pattern, modules)
        return [pattern]
    found = [name for name in modules if fits(name, pattern) and takes_hooks(modules[name])]
    if not found:
        is_glob = any(mark in pattern for mark in "*?[")
        problem = "no layer matches" if is_glob else "there is no layer"
        near = _listed(with_first_parts(pattern, [n for n in modules if takes_hooks(modules[n])]))
        near = near or (_nearest_stages(pattern, modules) if is_glob else "")
        near = near or _nearest(pattern, modules)
        raise ValueError(f"{problem} {pattern!r}; did you mean {near}?")
    return found


def _refuse_container(name: str, modules: Mapping[str, nn.Module]) -> None:
    if takes_hooks(modules[name]):
        return
    inside = _listed(n for n in modules if n.startswith(f"{name}.") and takes_hooks(modules[n]))
    is_scripted = isinstance(modules[name], torch.jit.ScriptModule)
    problem = "is scripted, so it takes no hooks" if is_scripted else "never runs itself"
    raise ValueError(
        f"layer {name!r}, a {type(modules[name]).__name__}, {problem}; "
        f"did you mean {inside or 'another layer'}?"
    )


def _nearest(pattern: str, modules: Mapping[str, nn.Module]) -> str:
    names = [INPUT, *(name for name in modules if takes_hooks(modules[name]))]
    close = difflib.get_close_matches(pattern, names, n=len(names), cutoff=0.4) or names
    return _listed(_by_parts(close, pattern))


def _by_parts(names: list[str], pattern: str) -> list[str]:
    """In the same order, but those of as many parts first."""
    return sorted(names, key=lambda name: name.count(".") != pattern.count("."))


def _nearest_stages(pattern: str, modules: Mapping[str, nn.Module]) -> str:
    """What a glob that matches nothing may mean: names much like it, or else numbered layers."""
    stems = Counter(
        f"{name.rstrip('0123456789')}*"
        for name in modules
        if name[-1].isdecimal() and takes_hooks(modules[name])
    )
    rows = [stem for stem, count in stems.items() if count > 1]
    names = [*rows, *modules]
    close = difflib.get_close_matches(pattern, names, n=len(names), cutoff=0.75)
    outermost = min((row.count(".") for row in rows), default=0)
    near = [*_by_parts(close, pattern), *(row for row in rows if row.count(".") == outermost)]
    return _listed(list(dict.fromkeys(near)))


def _listed(names: Iterator[str] | list[str]) -> str:
    some = [repr(name) for name, _ in zip(names, range(3), strict=False)]
    return " or ".join(some)


class HookGuards:
    """Has compiled code look at hooks, for as long as someone needs it.

    By itself it takes a module without hooks for any other one of the same code, and does not see
    hooks that come after its trace.
    """

    def __init__(self) -> None:
        self._holders = 0
        self._skipped = True

    def hold(self) -> None:
        """Begin, and trace all compiled code anew."""
        from torch._dynamo import config  # noqa: PLC0415 - takes a second, if nobody else did it

        if self._holders == 0:
            self._skipped = config.skip_nnmodule_hook_guards
        self._holders += 1
        config.skip_nnmodule_hook_guards = False
        torch.compiler.reset()

    def release(self) -> None:
        """End, and leave torch.compile as it was once nobody needs it any more."""
        from torch._dynamo import config  # noqa: PLC0415

        self._holders -= 1
        if self._holders == 0:
            config.skip_nnmodule_hook_guards = self._skipped


HOOK_GUARDS = HookGuards()
