"""The parser: a LightningCLI that raises what it finds at fault, for others to tell."""

import inspect
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # Lightning brings it
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from typing_extensions import override

from lightning_mmix.compare.options import configs_in

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
        for name in configs_in(args) if isinstance(args, list) else []:
            _refuse_unreadable(Path(name))
        with warnings.catch_warnings():
            # of arguments that are given beside those of the command line, whose they are
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")
            super().parse_arguments(parser, args)

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        try:
            return super().instantiate_trainer(**kwargs)
        except RuntimeError as error:  # of a list that Lightning checks before the callbacks can
            if "`ManifoldMixup`" not in str(error):
                raise
            raise ValueError(
                "expected one ManifoldMixup callback in the Trainer, but the configs give several; "
                "take it out of all but one"
            ) from None


def _refuse_unreadable(path: Path) -> None:
    """Refuse a file that is no config, by its name, which is not told where it is parsed."""
    if not path.is_file():
        return
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ArgumentError(None, f"expected YAML in {path}, but it holds no text") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ArgumentError(None, f"{path}{line} is no YAML: {error.problem}") from None
    if not isinstance(held, dict):
        got = "nothing" if held is None else f"a {type(held).__name__}"
        raise ArgumentError(
            None, f"expected keys such as model: and trainer: in {path}, but got {got}"
        )
