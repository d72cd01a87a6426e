"""A module that is compiled where that is possible."""

import warnings
from typing import Any

import torch
from torch import nn

from skdfb.exceptions import CompileWarning

__all__ = ["Compiled"]


class Compiled(nn.Module):
    """Calls a module through ``torch.compile``; if that fails at the first call, it calls the module itself.

    Parameters
    ----------
    module : torch.nn.Module
        The module; its weights and train flags are shared.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._compiled: Any = torch.compile(module)

    def forward(self, *args: Any) -> Any:
        """Return what the module returns."""
        if self._compiled is None:
            return self.module(*args)
        try:
            return self._compiled(*args)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).strip().partition("\n\n")[0].split())  # what follows is advice
            warnings.warn(f"the network is trained without torch.compile: {reason}", CompileWarning, stacklevel=2)
            self._compiled = None
            return self.module(*args)
