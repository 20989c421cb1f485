"""The parser: a LightningCLI that raises what it finds at fault, for others to tell."""

import inspect
import warnings
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from typing_extensions import override

OPTIONS = {  # the names that are accepted, by group, as sentence_of takes them
    "": ["--config", "--trainer", "--model", "--data", "--optimizer", "--lr_scheduler"],
    "trainer": list(inspect.signature(Trainer).parameters),
}


class RaisingCLI(LightningCLI):
    """A LightningCLI whose errors in arguments are raised as ``ArgumentError``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raises = {"exit_on_error": False}
        parser = {**raises, **dict.fromkeys(self.subcommands(), raises)}
        super().__init__(*args, **{"parser_kwargs": parser, "subclass_mode_model": True, **kwargs})

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        with warnings.catch_warnings():
            # of arguments that are given beside those of the command line, whose they are
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")
            super().parse_arguments(parser, args)
