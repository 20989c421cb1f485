"""The command line: any LightningModule and data from YAML, by way of LightningCLI."""

import sys
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.utilities import CombinedLoader
from rich.console import Console
from typing_extensions import override

from lightning_mmix.cuts.tables import cut_table
from lightning_mmix.engine.choice import survey
from lightning_mmix.training.callback import ManifoldMixup, mixups_of
from lightning_mmix.training.check import check
from lightning_mmix.training.host import TrainerHost

_DESCRIPTION = (
    "LightningCLI for any LightningModule and its data; `layers` lists what can be mixed, and "
    "`check` proves on one batch that it is mixed exactly. One more command, `lightning-mmix "
    "compare --config FILE`, trains with and without mixing and reports the differences: see "
    "`lightning-mmix compare --help`."
)


class MixupTrainer(Trainer):
    """A Trainer that can also list the layers of a module, and check its training step."""

    def layers(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """List the layers that can be mixed, and of the others why not."""
        # what the module brings itself, if it is a mixin
        bring = getattr(model, "configure_mixup", ManifoldMixup)
        mixup = next(iter(mixups_of(self)), None) or bring()
        batch = _first_batch(self, model, datamodule)
        host, settings = TrainerHost(self, model), mixup.settings
        try:
            sites, chosen = survey(host, model, batch, settings.target, settings.input)
        except (TypeError, ValueError) as error:
            raise SystemExit(f"lightning-mmix layers: {error}") from None
        Console().print(cut_table(sites, chosen))

    def check(self, model: LightningModule, datamodule: LightningDataModule | None = None) -> None:
        """Prove on one batch that the training step is mixed exactly; it runs several times."""
        try:
            checked = check(model, datamodule, trainer=self)
        except (TypeError, ValueError) as error:
            raise SystemExit(f"lightning-mmix check: {error}") from None
        sys.stdout.write(f"{checked}\n")
        if not checked.is_exact:
            raise SystemExit(1)


class MixupCLI(LightningCLI):
    """A LightningCLI with the commands ``layers`` and ``check``, too; see :class:`MixupTrainer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"trainer_class": MixupTrainer, **kwargs})

    @override
    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        own = {name: {"model", "datamodule"} for name in ("layers", "check")}
        return {**LightningCLI.subcommands(), **own}


def main(args: Sequence[str] | None = None) -> None:
    """Run ``lightning-mmix fit|validate|test|predict|layers|check|compare --config …``.

    Args:
        args: What stands behind the command; None for the command line's own.
    """
    given = sys.argv[1:] if args is None else list(args)
    if given[:1] == ["compare"]:
        from lightning_mmix.compare.command import compare  # noqa: PLC0415 - needs the report extra

        compare(given[1:])
        return
    MixupCLI(
        LightningModule,
        subclass_mode_model=True,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"description": _DESCRIPTION},
        args=None if args is None else list(args),
    )


def _first_batch(
    trainer: Trainer, module: LightningModule, datamodule: LightningDataModule | None
) -> Any:
    """The first training batch, made as a fit would make it, on the CPU."""
    owners: list[Any] = [module] if datamodule is None else [datamodule, module]
    for owner in owners:
        owner.trainer = trainer
        owner.prepare_data()
        owner.setup("fit")
    module.configure_model()
    trainer.precision_plugin.convert_module(module)
    batch, _, _ = next(iter(CombinedLoader(owners[0].train_dataloader(), "max_size_cycle")))
    batch = trainer.precision_plugin.convert_input(batch)
    for hook in ("on_before_batch_transfer", "on_after_batch_transfer"):
        own = [o for o in owners if getattr(type(o), hook) is not getattr(DataHooks, hook)]
        batch = getattr(own[0], hook)(batch, 0) if own else batch
    return batch
