"""Gates: the hooks that carry out a plan on a model."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmix.core.layers import HOOK_GUARDS, INPUT, named_layers
from lightning_mmix.core.operation import mix_by, mixed_quickly
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.core.space import Channels, channels_of_input, channels_of_layer
from lightning_mmix.core.trees import mapped, tensors
from lightning_mmix.pairing.arguments import is_paired
from lightning_mmix.pairing.lending import Pasting, borrow
from lightning_mmix.pairing.refusals import (
    depends_on_target,
    no_hidden_state,
    passed_on,
)
from lightning_mmix.pairing.step import Step
from lightning_mmix.watch.watched import plain

Change = Callable[[Tensor, int], Tensor]


class Gate:
    """A forward hook that mixes the output of its layer while it is armed.

    What it does depends on the armed step alone, so that a recomputed forward pass mixes again
    in the same way. A copy of a gate, also a pickled one, is never armed.
    """

    def __init__(self, name: str, layer: nn.Module) -> None:
        self.name = name
        self.step: Step | None = None
        self.channels = Channels()
        self._layer = layer
        with layer.register_forward_hook(self) as handle:
            self._id = handle.id  # the same in all steps, or compiled code would be traced anew

    def hang(self, step: Step) -> None:
        """Mix what the layer puts out from now on.

        Args:
            step: Says how.
        """
        self.step = step
        hooks: Any = self._layer._forward_hooks  # an ordered one
        hooks[self._id] = self
        # first, so that what other hooks record of the layer is mixed, too
        hooks.move_to_end(self._id, last=False)

    def drop(self) -> None:
        """Leave the layer alone."""
        self.step = None
        self._layer._forward_hooks.pop(self._id, None)

    def __call__(self, module: nn.Module, _args: Any, output: Any) -> Any:
        """Mix what the layer puts out, or leave it as it is."""
        step = self.step
        if step is None:
            return None
        # asked by a graph, it would be another
        if type(output) is Tensor and not torch.compiler.is_dynamo_compiling() and step.is_plain:
            mixed = mixed_quickly(step.plan, output, step.weight)
            if mixed is not None:
                step.fired = True
                return mixed
        return self._mix(step, module, output)

    def _mix(self, step: Step, module: nn.Module, output: Any) -> Any:
        size = step.plan.partner.shape[0]
        if any(map(is_paired, tensors(output))):
            raise depends_on_target(self.name, output, size)
        is_traced = torch.compiler.is_compiling()
        if not is_traced:  # asked by a graph, it would be another
            _refuse_passed_on(self, module, output, size)
            output = output if step.notes is None else mapped(output, plain)
        mixed = self._mixed(step, module, output, is_traced=is_traced)
        if mixed is output:
            raise no_hidden_state(self.name, output, size)
        step.fired = True
        if not is_traced:
            step.choose()
        return mixed

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "step": None, "channels": self.channels}

    def _mixed(self, step: Step, module: nn.Module, output: Any, *, is_traced: bool) -> Any:
        size = step.plan.partner.shape[0]
        if step.edges is None:
            plan = step.traced if is_traced else step.plan
            return changed(module, output, size, partial(_mix_along, plan=plan))
        pasting = Pasting(self.name, step, step.edges, self.channels, is_traced=is_traced)
        pasted = changed(module, output, size, pasting, states=pasting.of_states(module))
        step.space = pasting.space
        return pasted


class Gates:
    """The gates of a model, one for each of the layers that may be mixed.

    A gate hangs on its layer while it is armed, so that the others cost nothing.

    Args:
        model: Any module.
        layers: The names of the layers; ``"input"`` needs no gate.
        lasting: Whether they serve many steps. What torch.compile has traced before they came is
            traced anew then, since it would not look at them.

    Attributes:
        model: The module.
        step: The step that is being carried out, None between steps.

    Example:
        >>> gates = Gates(nn.Sequential(nn.ReLU()), ["0"], lasting=False)
        >>> step = gates.arm(Step(MixPlan("0", torch.tensor(0.75), torch.tensor([1, 0]))))
        >>> gates.model(torch.tensor([[0.0], [1.0]]))
        tensor([[0.2500],
                [0.7500]])
        >>> gates.remove()
    """

    def __init__(self, model: nn.Module, layers: Iterable[str], *, lasting: bool = True) -> None:
        modules = named_layers(model)
        self.model = model
        self.step: Step | None = None
        self._channels: Channels | None = None
        self._armed: Gate | None = None
        self._gates = {name: Gate(name, modules[name]) for name in layers if name != INPUT}
        self._guards = lasting and bool(self._gates)
        if self._guards:
            HOOK_GUARDS.hold()

    def arm(self, step: Step, targets: Sequence[Tensor] = (), value: Tensor | None = None) -> Step:
        """Carry out a step on the model and the batch until :meth:`disarm`.

        Args:
            step: The step.
            targets: The batch's targets, which become paired.
            value: The batch's input, needed if the step's plan mixes it, or pastes a box: targets
                that have a value for each position of it are then pasted, too, and not paired.

        Raises:
            ValueError: If the step's plan mixes a layer that has no gate.
        """
        layer = step.plan.layer
        if layer != INPUT and layer not in self._gates:
            raise ValueError(
                f"the plan mixes layer {layer!r}, but gates were made for {list(self._gates)}; "
                "make them for all layers of the recipe, Gates(model, recipe.layers)"
            )
        self.step = step
        try:
            if step.plan.box is None:
                borrow(step, targets, value)
            else:
                dims = 0 if value is None else value.dim()
                borrow(step, targets, value, self._learn_channels(layer, dims))
        except BaseException:
            self.disarm()
            raise
        if layer != INPUT:
            self._armed = self._gates[layer]
            self._armed.hang(step)
        else:
            step.choose()
        return step

    def disarm(self) -> Step | None:
        """Let no gate mix, give the batch back as it was, and return the step that is over."""
        step, self.step = self.step, None
        if self._armed is not None:
            self._armed.drop()
            self._armed = None
        if step is not None:
            step.close()
        return step

    def remove(self) -> None:
        """Take the gates off the model."""
        self.disarm()
        if self._guards:
            self._guards = False
            HOOK_GUARDS.release()

    def _learn_channels(self, layer: str, dims: int) -> Channels:
        """Tell a gate of the channels of its layer, and return what is known of the input's."""
        if self._channels is None:
            self._channels = channels_of_input(self.model, dims)
        gate = self._gates.get(layer)
        if gate is not None and gate.channels == Channels():
            gate.channels = channels_of_layer(self.model, layer)
        return self._channels


def changed(
    module: nn.Module, output: Any, size: int, change: Change, *, states: Change | None = None
) -> Any:
    """What a layer puts out, with ``change`` made to its hidden states of a batch of ``size``.

    Args:
        module: The layer.
        output: What it puts out.
        size: B, the number of samples.
        change: Takes a hidden state and the dimension of the batch: 0, but for the states of an
            RNN, LSTM or GRU.
        states: Takes the last states of one, if they are changed in another way.

    Returns:
        A copy, or ``output`` itself if it holds no hidden state or nothing is changed.
    """
    if isinstance(module, nn.RNNBase) and isinstance(output, tuple):
        return _changed_recurrent(module, output, size, change, states or change)
    return mapped(output, lambda leaf: change(leaf, 0) if _is_hidden(leaf, size) else leaf)


def _changed_recurrent(
    module: nn.RNNBase, output: Any, size: int, change: Change, change_state: Change
) -> Any:
    sequence, states = output
    if not isinstance(sequence, Tensor) or sequence.dim() != 3:
        return output
    dim = 0 if module.batch_first else 1
    if sequence.shape[dim] != size or any(state.shape[1] != size for state in tensors(states)):
        return output
    return change(sequence, dim), mapped(states, lambda state: change_state(state, 1))


def _is_hidden(leaf: Tensor, size: int) -> bool:
    return (leaf.is_floating_point() or leaf.is_complex()) and leaf.shape[:1] == (size,)


def _refuse_passed_on(gate: Gate, module: nn.Module, output: Any, size: int) -> None:
    if gate.step is None or gate.step.fired:  # what a checkpoint runs again begins with leaves
        return
    hidden = [leaf for leaf in tensors(output) if _is_hidden(leaf, size)]
    if len(hidden) > 1 and any(leaf.is_leaf and leaf.requires_grad for leaf in hidden):
        raise passed_on(gate.name, module)


def _mix_along(hidden: Tensor, dim: int, plan: MixPlan) -> Tensor:
    if dim == 0:
        return mix_by(plan, hidden)
    return mix_by(plan, hidden.transpose(0, dim)).transpose(0, dim)
