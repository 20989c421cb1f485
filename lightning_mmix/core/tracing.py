"""What torch.compile has to know of gates when it traces code."""

import torch


class HookGuards:
    """Has compiled code look at hooks, for as long as someone needs it.

    By itself it takes a module without hooks for any other one of the same code, and does not see
    hooks that come after its trace.
    """

    def __init__(self) -> None:
        self._holders = 0
        self._skipped = True

    def hold(self) -> None:
        """Begin, and trace all compiled code anew."""
        from torch._dynamo import config  # noqa: PLC0415 - takes a second, if nobody else did it

        if self._holders == 0:
            self._skipped = config.skip_nnmodule_hook_guards
        self._holders += 1
        config.skip_nnmodule_hook_guards = False
        torch.compiler.reset()

    def release(self) -> None:
        """End, and leave torch.compile as it was once nobody needs it any more."""
        from torch._dynamo import config  # noqa: PLC0415

        self._holders -= 1
        if self._holders == 0:
            config.skip_nnmodule_hook_guards = self._skipped


HOOK_GUARDS = HookGuards()
