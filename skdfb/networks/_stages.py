"""Stages of a backbone, in the order of the forward pass: freezing the first ones, and what these output."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from skdfb.networks._layers import called_children, channel_means
from skdfb.networks._timm import parameter_groups

__all__ = [
    "freeze_stages",
    "has_trained_weights",
    "keep_frozen",
    "last_modules",
    "n_trunk_stages",
    "recorded_stages",
    "trunk_stages",
]

# Share of the weight tensors up to which stages are frozen by default.
_TRUNK_SHARE = 0.7


def stages_of(backbone: nn.Module) -> list[list[str]]:
    """Return the names of the parameters of each stage, the stem first.

    Stages are the coarse groups of timm; those of any other module are its children.
    """
    groups = parameter_groups(backbone)
    if groups is None:
        children = [(f"{name}.", child) for name, child in called_children(backbone)]
        groups = [[prefix + name for name, _ in child.named_parameters()] for prefix, child in children]
    return [group for group in groups if group]


def freeze_stages(backbone: nn.Module, n_stages: int) -> None:
    """Freeze the weights of the first stages; those that are frozen already stay so.

    Raises
    ------
    ValueError
        If there are fewer stages.
    """
    stages = stages_of(backbone)
    if n_stages > len(stages):
        raise ValueError(
            f"frozen_stages={n_stages}, but backbone {type(backbone).__name__} has {len(stages)} stages: expected at "
            f"most {len(stages)}."
        )
    parameters = dict(backbone.named_parameters())
    for name in (name for stage in stages[:n_stages] for name in stage):
        parameters[name].requires_grad_(False)


def n_trunk_stages(backbone: nn.Module) -> int:
    """Return how many first stages are frozen by default: those that hold at most 70 % of the weight tensors.

    Tensors are counted, not numbers: their count measures the depth, while the last stages hold most of the numbers.
    """
    sizes = [len(stage) for stage in stages_of(backbone)]
    limit = _TRUNK_SHARE * sum(sizes)
    return sum(sum(sizes[: index + 1]) <= limit for index in range(len(sizes)))


def has_trained_weights(backbone: nn.Module) -> bool:
    """Return whether the weights of a backbone have been trained, as far as its normalisation layers show.

    Training changes the running means of batch normalisation, and the biases of other normalisation layers. Both are 0
    in a new network.
    """
    # By name, since timm and others have normalisation layers of their own.
    norms = [module for module in backbone.modules() if "norm" in type(module).__name__.lower()]
    means = [mean for norm in norms if isinstance(mean := getattr(norm, "running_mean", None), Tensor)]
    # Biases only without running means: RepVGG draws the biases of its batch normalisation at random.
    biases = [bias for norm in norms if isinstance(bias := getattr(norm, "bias", None), Tensor)]
    return any(bool(tensor.any()) for tensor in means or biases)


def keep_frozen(module: nn.Module) -> None:
    """Set each part of a module in training mode whose weights are all frozen to evaluation mode.

    So the batch statistics of frozen layers stay as they are, and dropout leaves the outputs of these layers alone.
    """
    for part in module.modules():
        weights = list(part.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            part.eval()


def trunk_stages(backbone: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules that end the first frozen stages, without the stem."""
    parameters = dict(backbone.named_parameters())
    frozen = [not any(parameters[name].requires_grad for name in stage) for stage in stages_of(backbone)]
    n_frozen = [*frozen, False].index(False)
    return last_modules(backbone)[: max(0, n_frozen - 1)]


def last_modules(backbone: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules that end the stages, without the stem."""
    return tuple(_last_module(backbone, stage) for stage in stages_of(backbone)[1:])


def _last_module(backbone: nn.Module, stage: list[str]) -> str:
    """Return the name of the largest module with the last parameter of a stage and no parameter of other stages."""
    name = stage[-1].rpartition(".")[0]
    while (parent := name.rpartition(".")[0]) and _parameter_names(backbone, parent) <= set(stage):
        name = parent
    return name


def _parameter_names(backbone: nn.Module, module: str) -> set[str]:
    return {f"{module}.{name}" for name, _ in backbone.get_submodule(module).named_parameters()}


@contextmanager
def recorded_stages(backbone: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Record the mean over all places of the outputs (n, C) of the named modules, in each forward pass in the block.

    Forward passes in other threads are not recorded.
    """
    means: dict[str, Tensor] = {}
    thread, n_prefix = threading.get_ident(), int(getattr(backbone, "num_prefix_tokens", 0))

    def recorder(name: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: object, output: object) -> None:
            if threading.get_ident() == thread and (mean := channel_means(output, n_prefix)) is not None:
                means[name] = mean

        return record

    hooks = [backbone.get_submodule(name).register_forward_hook(recorder(name)) for name in names]
    try:
        yield means
    finally:
        for hook in hooks:
            hook.remove()
