"""The command line: any LightningModule and data from YAML, by way of LightningCLI."""

from collections.abc import Sequence

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI


def main(args: Sequence[str] | None = None) -> None:
    """Run ``lightning-mmix fit|validate|test|predict --config …``.

    Args:
        args: What stands behind the command; None for the command line's own.
    """
    LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        args=None if args is None else list(args),
    )
