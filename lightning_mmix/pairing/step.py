"""A step: one plan being carried out, and everything that it borrowed."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_mmix.core.paste import Space, edges_of
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.watch.notes import Notes
from lightning_mmix.watch.watched import let_go

Weight = float | Tensor | None


class Step:
    """One plan being carried out: it knows if its layer has run, and gives back what it borrowed.

    Attributes:
        plan: The plan.
        weight: λ as the gate takes it fastest: a number, or one for each sample; None of a box.
        traced: The same with λ beside the partners, for graphs, which would wait for a number.
        edges: Of the plan's box, if it has one, beside the partners, for graphs.
        space: The sizes of the space of what the plan's layer puts out, if a box was pasted.
        input_space: Those of the batch's input, if there is a box and the input is known.
        pairs: Whether a target is paired: not with own labels, nor if all are pasted themselves.
        pastes: Whether a target is pasted, so that the layer must run.
        fired: Whether the plan's layer has run and was mixed.
        closed: Whether the step is over; nothing is paired from then on.
        formed: Whether a value was formed that mixes both targets, as a loss is.
        went_backward: Whether a gradient was taken of a value that knows both targets.
        gave_paired: Whether a gradient was paired itself.
        late: The pairs whose sides may still have to be computed.
        notes: What is noticed in the step, if it is watched.
        lent: Tensors of the batch, each with its class and, if it was exchanged, its data.
        paired: Tensors that were formed paired, each with the class that it had before.
        side: Which side alone counts, the first (0) or the second (1), as in a trial; None if both
            do. Once the layer has run, what was paired is that side, as an ordinary tensor.

    Example:
        >>> step = Step(MixPlan("input", torch.tensor(0.75), torch.tensor([1, 0])))
        >>> step.weight, step.fired
        (0.75, False)
    """

    edges: Tensor | None = None
    space: Space | None = None
    input_space: Space | None = None
    notes: Notes | None = None
    side: int | None = None
    fired = closed = formed = went_backward = gave_paired = pairs = pastes = False
    _realised: MixPlan | None = None

    def __init__(
        self,
        plan: MixPlan,
        model: nn.Module | None = None,
        notes: Notes | None = None,
        side: int | None = None,
    ) -> None:
        self.plan = self.traced = plan
        self.weight = weight_of(plan)
        if plan.box is not None or not plan.partner.is_cpu:
            self.traced, self.edges = _beside_partners(plan)
        self.late: list[weakref.ref[Any]] = []
        self.lent: list[tuple[Tensor, type[Tensor], Tensor | None]] = []
        self.paired: list[tuple[weakref.ref[Tensor], type[Tensor]]] = []
        self._model = model
        if side is not None:
            self.side = side
        if notes is not None:
            self.watch(notes)

    @property
    def realised(self) -> MixPlan:
        """The plan with the λ that the layer was mixed with: of a box, the real one."""
        if self.space is None:
            return self.plan
        if self._realised is None:
            self._realised = self.plan.at(self.space, self.input_space, is_lent=self.pastes)
        return self._realised

    @property
    def lam(self) -> Tensor:
        """The λ of the loss: that which the layer was mixed with."""
        return self.realised.lam

    @property
    def is_mixing(self) -> bool:
        """Whether a value formed now mixes both sides, rather than being the first."""
        return self.fired and not _is_observing()

    @property
    def is_plain(self) -> bool:
        """Whether it interpolates, for both sides, and is not watched."""
        return self.edges is None and self.notes is None and self.side is None

    def watch(self, notes: Notes) -> None:
        """Have it noted what the step does."""
        self.notes = notes
        notes.step = self

    def owns(self, tensor: Tensor) -> bool:
        """Whether a tensor shares memory with a parameter, buffer or metric state of the model."""
        # looked up anew each time: states are reassigned, and memory that they leave is used again
        storage = _storage(tensor)
        return any(_storage(state) == storage for state in _states(self._model))

    def trains(self, tensor: Tensor) -> bool:
        """Whether a tensor shares memory with a parameter of the model that has a gradient."""
        parameters = () if self._model is None else self._model.parameters()
        return any(p.requires_grad and shares_storage(p, tensor) for p in parameters)

    def tracked(self) -> list[Tensor]:
        """The tensors that are paired now."""
        formed = [tensor for ref, _ in self.paired if (tensor := ref()) is not None]
        return [*(tensor for tensor, _, _ in self.lent), *formed]

    def exchange(self, tensor: Tensor, data: Tensor) -> None:
        """Give a tensor of the batch other data until the step is over."""
        self.lent.append((tensor, type(tensor), tensor.detach()))
        tensor.data = data

    def settle(self) -> None:
        """Have all sides computed, before what they follow from is written into."""
        while self.late:
            pair = self.late.pop()()
            if pair is not None:
                pair.settle()

    def choose(self) -> None:
        """Leave what is paired the one side that counts, if only one does."""
        if self.side is not None:
            for tensor, cls, _ in self.lent:
                vars(tensor).pop("pair", None)
                tensor.__class__ = cls
            self._make_ordinary()

    def close(self) -> None:
        """Give everything back; what is still paired keeps its own value as an ordinary tensor."""
        self.closed = True
        if self.notes is not None:
            let_go(self.notes)
        self._make_ordinary()
        for tensor, cls, data in reversed(self.lent):
            tensor.__dict__.pop("pair", None)
            tensor.__class__ = cls
            if data is not None:
                tensor.data = data
        self.lent.clear()

    def _make_ordinary(self) -> None:
        for ref, cls in reversed(self.paired):
            paired = ref()
            if paired is not None and paired.__dict__.pop("pair", None) is not None:
                paired.__class__ = cls
        self.paired.clear()


def become_ordinary(tensor: Tensor, cls: type[Tensor] = Tensor) -> None:
    """Leave a paired tensor its own value alone, in place, and give it back its class."""
    if vars(tensor).pop("pair", None) is not None:
        tensor.__class__ = cls


def is_inside_function() -> bool:
    """Whether an autograd.Function runs forward: it switches off forward-mode gradients, too."""
    if torch.is_grad_enabled() or torch._C._is_fwd_grad_enabled():
        return False
    return not torch.is_inference_mode_enabled()


def shares_memory(tensor: Tensor) -> bool:
    """Whether another tensor lies on the same memory, as ``.data`` and ``.detach()`` do."""
    return _num_users(tensor) > _num_users(torch.empty(1))


def shares_storage(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors lie on the same memory."""
    return _storage(first) == _storage(second)


def weight_of(plan: MixPlan) -> Weight:
    """λ as a gate takes it fastest: a number, or in single precision one for each sample.

    Args:
        plan: The plan.

    Returns:
        None of a box, and of what lies elsewhere.
    """
    lam = plan.lam
    if plan.box is not None or not lam.is_cpu:
        return None
    return lam.float() if lam.ndim else lam.item()


def _beside_partners(plan: MixPlan) -> tuple[MixPlan, Tensor | None]:
    device, edges = plan.partner.device, None
    if plan.box is not None:
        edges = edges_of(plan.nominal, plan.box.tolist()).to(device, non_blocking=True)
    if device.type == "cpu":
        return plan, edges
    dtype = torch.float32 if device.type == "mps" else plan.lam.dtype  # it has no float64
    return replace(plan, lam=plan.lam.to(device, dtype, non_blocking=True)), edges


def _is_observing() -> bool:
    # gradients are off by choice, and not because an autograd.Function runs forward or backward
    is_backward = torch._C._current_graph_task_id() != -1
    return not torch.is_grad_enabled() and not is_inside_function() and not is_backward


def _states(model: nn.Module | None) -> Iterator[Tensor]:
    if model is None:
        return
    yield from model.parameters()
    yield from model.buffers()
    if torch.is_grad_enabled():
        return  # a metric computes with gradients in its forward alone, on states of that batch
    for module in model.modules():
        if isinstance(module, Metric):
            states = (getattr(module, name) for name in module._defaults)
            yield from (state for state in states if isinstance(state, Tensor))


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _num_users(tensor: Tensor) -> int:
    return int(torch._C._storage_Use_Count(_storage(tensor)))
