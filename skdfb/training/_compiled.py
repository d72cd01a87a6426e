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
        self._functions: list[Any] = [torch.compile(module)]  # in a list: not a second submodule with these weights

    def forward(self, *args: Any) -> Any:
        """Return what the module returns."""
        from torch._dynamo.exc import TorchDynamoException  # torch.compile has imported it: it takes seconds

        try:
            return self._functions[-1](*args)
        except TorchDynamoException as error:
            if self._functions[-1] is self.module:
                raise
            reason = " ".join(str(error).strip().partition("\n\n")[0].split())  # what follows is advice
            warnings.warn(f"the network is trained without torch.compile: {reason}", CompileWarning, stacklevel=2)
            self._functions.append(self.module)
            return self.module(*args)
