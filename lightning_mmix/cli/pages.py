"""Pages: what ``--help`` prints of each command."""

COMMANDS = {
    "fit": "Train a module on its data, as a config says.",
    "validate": "Run the validation of a module.",
    "test": "Run the test of a module.",
    "predict": "Run the predictions of a module.",
    "layers": "List the layers that can be mixed, and of the others why not.",
    "check": "Prove on one batch that the training step is mixed exactly.",
    "compare": "Train with and without mixing, and report what differs.",
}

_MORE = {
    "fit": """\
Mixing comes with the config: with ManifoldMixup among the callbacks of its
trainer, as an overlay can put it there, or with a module that mixes, as
ManifoldMixupClassifier does. A config:

  model:
    class_path: mine.MyModule    # any LightningModule that can be imported here
  data:
    class_path: mine.MyData      # any LightningDataModule
  trainer:
    max_epochs: 30

An overlay, mixup.yaml:

  trainer:
    callbacks+:
      - class_path: lightning_mmix.ManifoldMixup
""",
    "layers": """\
For each layer: its shape, how deep it lies, and whether it can be mixed. Those
that layers='auto' takes are marked so. Those within a layer that can't be mixed
share a row; --all gives each a row of its own. Nothing is trained.
""",
    "check": """\
The training step runs on one batch, at each layer once as it is mixed and twice
by hand. Loss and gradients have to agree; if they do not, the reason is told,
and the exit code is 1. Nothing is trained.
""",
}
_OPTIONS = """\
  --config FILE            a LightningCLI config; each further one is laid over
                           those before it
  --trainer.NAME VALUE     an argument of the Trainer, such as max_epochs
  --model.NAME VALUE       an argument of the module; --model.help CLASS lists
                           those of a class
  --data.NAME VALUE        an argument of the data
  --seed_everything SEED   of all random numbers
"""
_CHECKPOINT = """\
  --ckpt_path FILE         a checkpoint to go on from, or to take the weights of
"""
_LAST = """\
  --print_config           print the config that all of this comes to, and stop
  --help-all               list every argument, with its type and default
  --traceback              show the whole traceback of an error
"""


def page(command: str | None = None) -> str:
    """The page of a command; without one that of all commands."""
    if command is None:
        rows = (f"  {name:10} {what}" for name, what in COMMANDS.items())
        lines = (
            "usage: lightning-mmix COMMAND --config FILE [--config OVERLAY ...] [OPTION ...]",
            "",
            "Manifold Mixup for any LightningModule and its data, from a LightningCLI config.",
            "",
            *rows,
            "",
            "lightning-mmix COMMAND --help says more. What lies in the current folder can be",
            "named in a config.",
            "",
        )
        return "\n".join(lines)
    usage = f"usage: lightning-mmix {command} --config FILE [--config OVERLAY ...] [OPTION ...]"
    more = f"{_MORE[command]}\n" if command in _MORE else ""
    options = _OPTIONS + _CHECKPOINT * (command not in ("layers", "check")) + _LAST
    return f"{usage}\n\n{COMMANDS[command]}\n\n{more}{options}"
