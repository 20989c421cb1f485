"""White-box attacks: inputs moved within a ball to where the loss is higher, by its gradient."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from lightning_mmix.evaluation.arguments import conform, expect
from lightning_mmix.evaluation.condition import Bounds, Condition, Loss, settle, to_tensor, widen

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class FGSM(Condition):
    """One step of steepest ascent of the loss (the fast gradient method; Goodfellow et al., 2015).

    x + ε·sign(∇ₓ loss) in the norm L∞, x + ε·∇ₓ loss / ‖∇ₓ loss‖₂ in L2.

    Args:
        eps: ε ≥ 0, the size of the step, in the units of the data.
        norm: What ε is: the change of an entry (``"linf"``), or its length over all (``"l2"``).

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> x = torch.tensor([[0.5, 0.5], [0.5, 0.95]])
        >>> FGSM(0.1).perturb(x, lambda x: x[:, 1] - x[:, 0], (0, 1), np.random.default_rng(0))
        tensor([[0.4000, 0.6000],
                [0.4000, 1.0000]])
    """

    eps: float
    norm: Norm = "linf"
    axis, unit = "eps", "ε"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        Ball(self.eps, self.norm)

    @property
    @override
    def family(self) -> str:
        return "FGSM" if self.norm == "linf" else "FGSM L2"

    @override
    def perturb(self, x: Tensor, loss: Loss, bounds: Bounds, rng: np.random.Generator) -> Tensor:
        centre = widen(x)
        step = Ball(self.eps, self.norm).steepest(gradient(loss, centre, x.dtype))
        return settle(centre + step, bounds, x.dtype)


@dataclass(frozen=True)
class PGD(Condition):
    """Projected gradient ascent of the loss: the last of its iterates (Madry et al., 2018).

    Each is the projection of the one before, moved by a step of steepest ascent, on the ball of
    radius ε about the sample, and on the range of the data.

    Args:
        eps: ε ≥ 0, in the units of the data.
        norm: What ε is: the change of an entry (``"linf"``), or its length over all (``"l2"``).
        steps: The number of steps, ≥ 1; if it is not 10, the family is PGD-20, for instance.
        step_size: The size of a step in the same norm; 2.5·ε / steps if None.
        random_start: Whether to begin anywhere in the ball rather than at the sample.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> x, rng = torch.tensor([[0.5, 0.5]]), np.random.default_rng(0)
        >>> PGD(0.1).perturb(x, lambda x: x[:, 1] - x[:, 0], (0, 1), rng)
        tensor([[0.4000, 0.6000]])
        >>> PGD(0.1).name, PGD(0.5, "l2", steps=20).name
        ('PGD 0.1', 'PGD-20 L2 0.5')
    """

    eps: float
    norm: Norm = "linf"
    steps: int = 10
    step_size: float | None = None
    random_start: bool = True
    axis, unit = "eps", "ε"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        Ball(self.eps, self.norm)
        expect(self.steps >= 1, "steps ≥ 1", self.steps)
        size = self.step_size
        expect(size is None or 0 < size < math.inf, "a finite step_size > 0 or None", size)

    @property
    @override
    def family(self) -> str:
        steps = "" if self.steps == 10 else f"-{self.steps}"
        return f"PGD{steps}" if self.norm == "linf" else f"PGD{steps} L2"

    @override
    def perturb(self, x: Tensor, loss: Loss, bounds: Bounds, rng: np.random.Generator) -> Tensor:
        centre, ball = widen(x), Ball(self.eps, self.norm)
        size = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        stride = Ball(size, self.norm)
        moved = centre + ball.draw(centre, rng) if self.random_start else centre
        moved = settle(moved, bounds, centre.dtype)
        for _ in range(self.steps):
            step = stride.steepest(gradient(loss, moved, x.dtype))
            # the range holds the sample: clamping to it leads no further away from there
            moved = settle(centre + ball.project(moved + step - centre), bounds, centre.dtype)
        return moved.to(x.dtype)


@dataclass(frozen=True)
class Ball:
    """The perturbations of norm ≤ ε, where the norm is that of each sample.

    Raises:
        ValueError: If an argument is out of range.
    """

    eps: float
    norm: Norm

    def __post_init__(self) -> None:
        conform(self)
        expect(0 <= self.eps < math.inf, "a finite eps ≥ 0", self.eps)

    def steepest(self, grad: Tensor) -> Tensor:
        """The perturbation δ in the ball with the largest ⟨δ, grad⟩; 0 where ``grad`` is 0."""
        if self.norm == "linf":
            return self.eps * grad.sign()
        # a confident network has gradients so small that their squares are 0
        largest = _rows(grad).abs().amax(1)
        grad = grad / _per_sample(largest.where(largest > 0, 1), grad)
        return self.eps * grad / _per_sample(_rows(grad).norm(dim=1).clamp(min=1), grad)

    def project(self, delta: Tensor) -> Tensor:
        """The perturbation in the ball that is nearest to ``delta``."""
        if self.norm == "linf":
            return delta.clamp(-self.eps, self.eps)
        length = _rows(delta).norm(dim=1).clamp(min=torch.finfo(delta.dtype).tiny)
        return delta * _per_sample((self.eps / length).clamp(max=1), delta)

    def draw(self, like: Tensor, rng: np.random.Generator) -> Tensor:
        """Perturbations drawn uniformly from the ball, shaped like ``like``."""
        if self.norm == "linf":
            return to_tensor(rng.uniform(-self.eps, self.eps, like.shape), like)
        direction = to_tensor(rng.standard_normal(like.shape), like)
        # a ball of radius r holds a share of r to the power of the dimension
        radius = rng.random(len(like)) ** (1 / math.prod(like.shape[1:]))
        return self.steepest(direction) * _per_sample(to_tensor(radius, like), like)


def gradient(loss: Loss, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of each sample's loss with respect to it, wherever gradients are disabled.

    Args:
        loss: Shape (B, ...) to (B,), where a sample's loss depends on that sample alone.
        x: Shape (B, ...).
        dtype: Of the input that the loss is given.

    Returns:
        Shaped like ``x``; no other gradient is formed.

    Raises:
        ValueError: If the loss is not one of each sample, or has no gradient in its input.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.clone().requires_grad_()
        # a copy, for a network may begin in place
        losses = _taken(loss, leaf.to(dtype, copy=True))
        is_loss = losses.shape == x.shape[:1]
        expect(is_loss, f"a loss of each sample, of shape ({len(x)},)", tuple(losses.shape))
        return _gradient(losses, leaf)


def _taken(loss: Loss, x: Tensor) -> Tensor:
    try:
        return loss(x)
    except Exception as error:
        if "nference tensor" not in str(error):  # in torch's words, whatever wraps them
            raise
        raise ValueError(
            "expected a network whose output follows from its input, but it computes with tensors "
            "of inference mode, through which attacks find no gradient; leave inference_mode out "
            "of forward, and make what it keeps under no_grad"
        ) from error


def _gradient(losses: Tensor, leaf: Tensor) -> Tensor:
    found = None
    if losses.requires_grad:
        (found,) = torch.autograd.grad(losses.sum(), leaf, allow_unused=True)
    if found is None:
        raise ValueError(
            "expected a network whose output follows from its input, but there is no gradient from "
            "one to the other, which attacks need; does forward run under no_grad or "
            "inference_mode, or detach?"
        )
    return found


def _rows(x: Tensor) -> Tensor:
    return x[..., None].flatten(1)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))
