"""The commands that go by way of LightningCLI: any LightningModule and its data, from YAML."""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.utilities import CombinedLoader
from rich.console import Console
from typing_extensions import override

from lightning_mmix.batches.roles import find_targets
from lightning_mmix.cli.saving import ConfigKeeper
from lightning_mmix.compare.runs.parser import OPTIONS, RaisingCLI
from lightning_mmix.cuts.tables import cut_table
from lightning_mmix.engine.choice import choose_layers, survey
from lightning_mmix.problems import told
from lightning_mmix.proof.tables import agreement_table
from lightning_mmix.training.callback import ManifoldMixup, mixups_of
from lightning_mmix.training.check import check
from lightning_mmix.training.host import TrainerHost

_LOOKING = ("layers", "check")  # which print a table, and nothing else


class MixupTrainer(Trainer):
    """A Trainer that can also list the layers of a module, and check its training step.

    Both also take what a fit alone needs, since the config that a fit saved holds it.
    """

    def layers(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,  # noqa: ARG002
        weights_only: bool | None = None,  # noqa: ARG002
        *,
        all_layers: bool = False,
    ) -> None:
        """List the layers that can be mixed, and of the others why not; those folded or all."""
        # what the module brings itself, if it is a mixin
        bring = getattr(model, "configure_mixup", ManifoldMixup)
        mixup = next(iter(mixups_of(self)), None) or bring()
        batch = _first_batch(self, model, datamodule)
        host, settings = TrainerHost(self, model), mixup.settings
        sites, chosen = survey(host, model, batch, settings.target, settings.input)
        console, table = Console(), cut_table(sites, chosen, is_folded=not all_layers)
        console.print(table)
        if table.row_count < len(sites):
            console.print("a row that ends in * holds several layers; --all lists each")
        if settings.layers != "auto":  # those that are named have to be found, and to be cuts
            choose_layers(host, model, batch, find_targets(batch, settings.target), settings)

    def check(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,  # noqa: ARG002
        weights_only: bool | None = None,  # noqa: ARG002
    ) -> None:
        """Prove on one batch that the training step is mixed exactly; it runs several times."""
        try:
            checked = check(model, datamodule, trainer=self)
        except SystemExit as ended:  # which would look like a check that was passed
            raise RuntimeError(f"the code that was run called sys.exit({ended.code!r})") from None
        console = Console(highlight=False, markup=False)
        is_file = not console.is_terminal  # a terminal would break lines within words
        console.print(checked.summary, soft_wrap=is_file)
        console.print(agreement_table(checked.agreements))
        for finding in checked.findings:
            console.print(f"\n- {finding}", soft_wrap=is_file)
        if not checked.is_exact:
            raise SystemExit(1)


class MixupCLI(RaisingCLI):
    """A LightningCLI with the commands ``layers`` and ``check``, too; see :class:`MixupTrainer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"trainer_class": MixupTrainer, **kwargs})

    @override
    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        own = {name: {"model", "datamodule"} for name in _LOOKING}
        return {**LightningCLI.subcommands(), **own}


def run(args: Sequence[str], *, shows: bool = False) -> None:
    """Run a command other than ``compare``.

    What Lightning tells and warns of goes to stdout, in a line each, and stderr has only what ended
    the command. ``layers`` and ``check`` print their table alone.

    Args:
        args: The command and its arguments.
        shows: Whether to show the whole traceback of an error.

    Raises:
        SystemExit: With one line on stderr, if it fails.
    """
    command, is_silent = args[0], args[0] in _LOOKING
    every = ["--all_layers=true"] if command == "layers" else ["--all"]
    own = {"--traceback": [], "--all": every}
    given = [each for arg in args for each in own.get(arg, [arg])]
    with told(f"lightning-mmix {command}", OPTIONS, shows=shows), _notes(is_silent=is_silent):
        MixupCLI(
            LightningModule,
            save_config_callback=ConfigKeeper,
            save_config_kwargs={"save_to_log_dir": False},
            args=given,
        )


@contextmanager
def _notes(*, is_silent: bool) -> Iterator[None]:
    """Have what Lightning tells, and warnings, on stdout, or nowhere."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        if is_silent:
            warnings.filterwarnings("ignore", module=r"lightning\.|torch\.")
        warnings.showwarning = _show
        for name in ("lightning.pytorch", "lightning.fabric"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.WARNING if is_silent else logger.level)
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler):
                    stack.callback(handler.setStream, handler.stream)
                    handler.setStream(sys.stdout)
        yield


def _show(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,  # noqa: ARG001
    file: TextIO | None = None, line: str | None = None,  # noqa: ARG001
) -> None:  # fmt: skip
    sys.stdout.write(f"warning: {' '.join(str(message).split())}\n")


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
