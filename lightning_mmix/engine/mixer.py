"""The mixer: Manifold Mixup in a loop of one's own."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from typing_extensions import override

from lightning_mmix.core.layers import Layers
from lightning_mmix.core.plan import Labels
from lightning_mmix.core.trees import Path
from lightning_mmix.engine.engine import Engine
from lightning_mmix.engine.host import Host
from lightning_mmix.engine.loop import refuse_unmixed
from lightning_mmix.engine.schedule import Scheduled, share_of
from lightning_mmix.engine.settings import Kinds, Settings


class Mixer(Engine):
    """Manifold Mixup in a loop of one's own, or of Lightning Fabric (Verma et al., 2019).

    Each batch is mixed within a context: run the network there, and take the loss and its gradient;
    outside, as where it is evaluated, nothing is mixed, and no layer has a hook of ours. The
    eligible layers are chosen and tested on the first batch; :meth:`remove`, or the end of the
    mixer's ``with`` block, ends it all. Of several processes each has a mixer, and all processes
    must begin their first batch together.

    Every draw is a function of the seed, the epoch, the position of the batch within it, and the
    process alone; the global random number generators are left alone. With the same arguments and
    seed it draws what :class:`lightning_mmix.ManifoldMixup` draws. ``state_dict`` holds what a
    checkpoint needs to go on, also in the middle of an epoch; ``fabric.save`` takes the mixer
    itself. The loop has to begin with the batch that comes next. A mixer that is copied or pickled
    takes its model along; with the model, ``copy.deepcopy((model, mixer))``, it stays that model's.

    Args:
        model: The module that the loop calls, also compiled, or wrapped for several processes.
        alpha: α of λ ~ Beta(α, α), finite and ≥ 0; 0 means no mixing. A mapping from epochs to
            numbers changes it, for the whole training: each holds from its epoch on, and 0 is
            among them.
        layers: The eligible set S. ``"auto"`` takes the input and the layers after a quarter and
            after half of the network. Or layer names, globs whose ``*`` stays within one part of
            the name, and ``"input"``; a mapping gives each a weight.
        prob: The probability that a batch is mixed at all, or such a mapping. With 0.5 the expected
            loss is the mean of the plain and the mixed one, which RegMixup (Pinto et al., 2022)
            computes in two passes.
        stop: The share of the training after which nothing is mixed. None is 0.5 if
            :meth:`set_epoch` is told ``of``, and neither ``settle`` nor a mapping is given;
            otherwise 1.
        settle: A share of the training: in the last such part a batch is mixed only while the
            network is over-confident, as :meth:`set_gap` says. A ``stop`` in it ends all mixing.
        kind: ``"mixup"`` interpolates, ``"cutmix"`` pastes a box of the partner's (Yun et al.,
            2019); a mapping gives each a weight.
        labels: ``"paired"`` mixes the loss. ``"own"`` leaves the target alone, for losses that no
            pair can follow: λ ~ Beta(α + 1, α), one for each sample.
        target: Where the batch holds the target, or targets: a key, an index or a dotted path
            such as ``"1.labels"``. None looks by itself.
        input: Where the batch holds its input, if ``"input"`` is among the layers.
        union: Keys of masks or lengths: for the step a position counts if it counts in the sample
            or in its partner.
        seed: Of all draws, in [0, 2⁶⁴). None takes that of ``seed_everything``, else 0.
        verify: Whether to test on the first batch that all of the signal passes through the named
            layers; ``"auto"`` always does.

    Raises:
        ValueError: If an argument is out of range, or a layer is unknown.

    Attributes:
        settings: The arguments.
        plan: The plan of the current or last batch, None before the first or when unmixed.
        layers_: After the first batch, the eligible layers, in the order of the forward pass.
        epoch: The epoch.
        batch_idx: The position of the next batch within the epoch.
        gap: What :meth:`set_gap` was told last.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x, y = torch.randn(6, 4), torch.arange(6) % 3
        >>> with Mixer(model, layers=["1"]) as mixer:
        ...     for epoch in range(2):
        ...         mixer.set_epoch(epoch)
        ...         with mixer(x, y) as target:
        ...             nn.functional.cross_entropy(model(x), target).backward()
        >>> mixer.plan.layer
        '1'
    """

    def __init__(  # noqa: PLR0913 - each is one decision of the user's, all but three by keyword
        self,
        model: nn.Module,
        alpha: Scheduled = 1.0,
        layers: Layers = "auto",
        *,
        prob: Scheduled = 1.0,
        stop: float | None = None,
        settle: float = 0.0,
        kind: Kinds = "mixup",
        labels: Labels = "paired",
        target: Path | Sequence[Path] | None = None,
        input: Path | None = None,  # noqa: A002 - the field's word
        union: Path | Sequence[Path] | None = None,
        seed: int | None = None,
        verify: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"expected a torch.nn.Module to mix, but got {type(model).__name__}")
        arguments = (alpha, layers, prob, stop, settle, kind, labels, target, input, union)
        super().__init__(model, Settings(*arguments, seed, verify), Host())
        self._is_open = False
        self._knows_epoch = False
        self._of: int | None = None

    def __call__(self, batch: Any, target: Any = None) -> AbstractContextManager[Any]:
        """Mix a batch until the context ends: ``with mixer(x, y) as y`` or ``with mixer(batch)``.

        The tensors that you pass are changed in place, and restored at the end. Move them to the
        device before.

        Args:
            batch: The input, or what the data loader yields.
            target: The target, a tensor of shape (B, ...) or a container of such; None if the
                batch holds it.

        Returns:
            The context, which yields the target, paired, or the batch that holds it; as they came
            where nothing is mixed.

        Raises:
            ValueError: If the batch holds no target, or one is given here and a place for it to the
                mixer, a layer can't be mixed, the context of another batch has not ended, no loss
                was taken of what this one yields, or ``alpha`` or ``prob`` needs an epoch that was
                not set.
        """
        return _Batch(self, batch, target)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            super().remove()
        else:
            self.remove()

    def __repr__(self) -> str:
        layers = self.layers_ or self.settings.layers
        alpha, prob = self.schedule.at(self.epoch, self._done or 0.0, self.gap)
        epoch = f"{self.epoch} of {self._of}" if self._of else self.epoch
        mixing = "mixing" if alpha and prob else "not mixing"
        return f"Mixer(layers={layers!r}, alpha={alpha}, epoch {epoch}, {mixing})"

    def __getstate__(self) -> dict[str, Any]:
        # a copy makes gates of its own, for the layers that were tested, on the model copied along
        own = {"_gates": None, "_is_open": False, "_is_resumed": True}
        return {**vars(self), **own, "_plan": self.plan}

    @override
    def remove(self) -> None:
        """Take everything off the model, and say what was noticed since the epoch began."""
        try:
            self.report_epoch()
        finally:
            super().remove()

    @override
    def report_epoch(self) -> None:
        super().report_epoch()
        if self.gap is None and self._done is not None and self.schedule.settles(self._done):
            self._watcher.say(
                "settle looks at confidence minus accuracy on validation data, which is not known; "
                "tell it after each validation, mixer.set_gap(gap)"
            )

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "of": self._of}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._of = self._of or state.get("of")
        self.place(self.epoch, self.batch_idx, self._of and self.epoch / self._of)

    def set_epoch(self, epoch: int, *, of: int | None = None) -> None:
        """Begin an epoch, counted from 0.

        If it is the current one, as after a resume, go on at ``batch_idx``. A loop that tells no
        epochs is one long epoch.

        Args:
            epoch: The epoch, from 0 to ``of`` - 1.
            of: How many there are, for ``stop`` and ``settle``. It holds until another is given.

        Raises:
            ValueError: If the epoch is below 0, or not below ``of``.
        """
        of = self._of if of is None else of
        done = share_of(epoch, of)
        if epoch != self.epoch:
            self.report_epoch()
        self.place(epoch, self.batch_idx if epoch == self.epoch else 0, done)
        self._of, self._knows_epoch = of, True


class _Batch(AbstractContextManager[Any]):
    """The context of a batch; one that is written as a generator takes twice the time."""

    def __init__(self, mixer: Mixer, batch: Any, target: Any) -> None:
        self._mixer, self._batch, self._target = mixer, batch, target

    @override
    def __enter__(self) -> Any:
        mixer, batch, target = self._mixer, self._batch, self._target
        if mixer._is_open:
            raise ValueError(
                "the context of another batch has not ended; mix one batch after the other, or "
                "two as one, torch.cat([x, other])"
            )
        if mixer.schedule.needs_epoch and not mixer._knows_epoch:
            raise ValueError(
                "alpha or prob depends on the epoch, which is not known; begin each by "
                "mixer.set_epoch(epoch)"
            )
        if target is None:
            mixer.begin(batch)
        else:
            mixer.settings.refuse_pair()
            mixer.begin((batch, target), where=1)
        mixer._is_open = True
        return batch if target is None else target

    @override
    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        mixer = self._mixer
        mixer._is_open = False
        step = mixer.end()
        if kind is None and step is not None:
            refuse_unmixed(step)
            step.went_backward |= step.formed  # a loop may take the gradient later
            mixer.report(step)
