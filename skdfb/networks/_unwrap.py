"""Models inside the wrappers that people train with."""

from torch import nn

__all__ = ["unwrapped"]

# By name: neither Lightning nor torch's private compiler package has to be imported.
_HELD_AS = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "_FabricModule": "_original_module",  # Lightning Fabric
}


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the model inside wrappers, nested ones too; a module that is no known wrapper is returned as it is.

    A ``LightningModule`` is a wrapper if one child holds all of its parameters.
    """
    while True:
        inner = _inner(module)
        if inner is None:
            return module
        module = inner


def _inner(module: nn.Module) -> nn.Module | None:
    names = {base.__name__ for base in type(module).__mro__}
    for wrapper, attribute in _HELD_AS.items():
        inner = getattr(module, attribute, None) if wrapper in names else None
        if isinstance(inner, nn.Module):
            return inner
    if "LightningModule" not in names or next(module.parameters(recurse=False), None) is not None:
        return None
    # Losses and metrics are children without parameters.
    holders = [child for child in module.children() if next(child.parameters(), None) is not None]
    return holders[0] if len(holders) == 1 else None
