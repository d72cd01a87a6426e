"""Feature maps (n, C, h, w) from any backbone, in one layout."""

import torch
from torch import Tensor, nn

from skdfb.networks._channels import input_channels
from skdfb.utils import evaluation_mode

__all__ = ["FeatureMap", "tokens_to_nchw"]


# torchvision's classifiers have no method for the map: it is the input of their pooling, the output of their features
# or, for vision transformers, the tokens of their encoder.
_BEFORE_POOLING, _FEATURES, _ENCODER = "input of avgpool", ("features", "layers"), "encoder"


class FeatureMap(nn.Module):
    """Return a backbone's last feature map as (n, C, h, w).

    For timm models this is the output of ``forward_features`` or, if that is no map, of ``forward_intermediates``. Any
    other module is called. If that gives no map, it may be a classifier of torchvision: the map is the input of its
    layer ``avgpool``, the output of its ``features`` or ``layers``, or the tokens of its ``encoder``. Maps with
    channels last, and tokens (without prefix tokens), are converted to NCHW. A trial image at construction finds the
    method and the layout.

    Parameters
    ----------
    backbone : torch.nn.Module
        A timm model or a module that maps images (n, 3, H, W) to feature maps.
    image_size : int
        Side of the trial image in pixels.
    name : str
        Name of the backbone in error messages.

    Attributes
    ----------
    width : int
        Number of channels C, as measured: timm's ``num_features`` is another number for some models.
    map_size : tuple of (int, int)
        Height and width of the map of an ``image_size`` image.
    memory_format : torch.memory_format
        That of the inputs.

    Raises
    ------
    ValueError
        If the backbone gives no spatial map, or a map smaller than 4 x 4.
    """

    MIN_SIZE = 4

    def __init__(self, backbone: nn.Module, image_size: int, name: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.memory_format = _memory_format(backbone)
        self._method = self._layout = ""
        shape = self._find_layout(image_size, name)
        self.width = shape[1]
        self.map_size = (shape[2], shape[3])

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, H, W) to (n, C, h, w)."""
        # With method and layout known from the trial, a forward pass runs the backbone once.
        images = images.contiguous(memory_format=self.memory_format)
        feature_map = self._to_nchw(self._call(self._method, images), self._layout, images)
        if feature_map is None:
            raise ValueError(
                f"the backbone gives no spatial map for images of shape {tuple(images.shape)}; use square images."
            )
        return feature_map

    def _find_layout(self, image_size: int, name: str) -> torch.Size:
        """Try each method with each layout, keep the first map that is large enough, and return its shape."""
        parameter = next(self.backbone.parameters(), torch.zeros(1))
        channels = input_channels(self.backbone)
        trial = torch.zeros(1, channels, image_size, image_size, dtype=parameter.dtype, device=parameter.device)
        failure, small = "", None
        # In evaluation mode, because a trial must not change batch statistics.
        with torch.no_grad(), evaluation_mode(self.backbone):
            for method in self._methods():
                try:
                    out = self._call(method, trial)
                except Exception as error:  # each family raises its own kind of error
                    failure = failure or f"{type(error).__name__}: {str(error) or 'no reason given'}"
                    continue
                layouts = ((layout, self._to_nchw(out, layout, trial)) for layout in self._layouts(out))
                layout, feature_map = next((found for found in layouts if found[1] is not None), ("", None))
                if feature_map is None:
                    failure = failure or f"its output is {_describe(out)}"
                elif min(feature_map.shape[2:]) < self.MIN_SIZE:
                    # Not the end: PiT's forward_features gives the class token alone, as a map of one place.
                    small = feature_map.shape
                else:
                    self._method, self._layout = method, layout
                    return feature_map.shape
        if small is not None:
            raise ValueError(
                f"backbone {name} gives a {small[2]} x {small[3]} feature map for image_size={image_size}: expected at "
                f"least {self.MIN_SIZE} x {self.MIN_SIZE}, because masks from a smaller map are useless. Raise "
                "image_size=, or lower the backbone's stride (output_stride=8 where the family has it)."
            )
        raise ValueError(
            f"backbone {name} gives no spatial feature map for image_size={image_size} ({failure}). Many families take "
            "only some sizes: leave image_size=None for the backbone's own, or build the backbone for that size by "
            f"create_backbone(name, image_size={image_size}). Else choose a backbone whose last layers are spatial, or "
            "an nn.Module that maps images (n, 3, H, W) to (n, C, h, w)."
        )

    def _layouts(self, out: object) -> tuple[str, str]:
        """Return the layouts that an output may have. The trial image is square, so equal sides are the places."""
        shape = out.shape if isinstance(out, Tensor) and out.ndim == 4 else (0, 0, 0, 0)
        # Where all three sides are equal, only timm's output_fmt can tell.
        channels_last = shape[1] == shape[2] != shape[3] or str(getattr(self.backbone, "output_fmt", None)) == "NHWC"
        return ("NHWC" if channels_last else "NCHW", "tokens")

    def _methods(self) -> list[str]:
        known = [name for name in ("forward_features", "forward_intermediates") if hasattr(self.backbone, name)]
        if known:
            return known
        children = dict(self.backbone.named_children())
        of_torchvision = {"avgpool": _BEFORE_POOLING, _ENCODER: _ENCODER} | {layer: layer for layer in _FEATURES}
        return ["forward", *(method for layer, method in of_torchvision.items() if layer in children)]

    def _call(self, method: str, images: Tensor) -> object:
        if method == "forward_features":
            return self.backbone.forward_features(images)  # type: ignore[operator]
        if method == "forward_intermediates":
            return self.backbone.forward_intermediates(  # type: ignore[operator]
                images, indices=[-1], norm=True, output_fmt="NCHW", intermediates_only=True
            )[-1]
        if method == _BEFORE_POOLING:
            return _input_of(self.backbone.get_submodule("avgpool"), self.backbone, images)
        if method in _FEATURES:
            return self.backbone.get_submodule(method)(images)
        if method == _ENCODER:
            tokens = self.backbone._process_input(images)  # type: ignore[operator]
            class_token = self.backbone.class_token.expand(len(images), -1, -1)  # type: ignore[operator]
            # Without the class token, which has no place.
            return self.backbone.get_submodule("encoder")(torch.cat([class_token, tokens], dim=1))[:, 1:]
        return self.backbone(images)

    def _to_nchw(self, out: object, layout: str, images: Tensor) -> Tensor | None:
        """Return ``out`` as NCHW, or None if it does not have that layout."""
        if not isinstance(out, Tensor):
            return None
        if layout != "tokens":
            return None if out.ndim != 4 else out.permute(0, 3, 1, 2) if layout == "NHWC" else out
        n_prefix = int(getattr(self.backbone, "num_prefix_tokens", 0))
        return tokens_to_nchw(out, n_prefix, images.shape[-2:])


def _input_of(layer: nn.Module, model: nn.Module, images: Tensor) -> object:
    """Return what a layer of a model is given for these images."""
    inputs: list[object] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        model(images)
    finally:
        handle.remove()
    return inputs[-1] if inputs else None


def _memory_format(backbone: nn.Module) -> torch.memory_format:
    """Return the memory format for a backbone's inputs; convolutions keep the format of their input.

    With channels last, convolutions run up to 1.5 times as fast on a CPU. But torch (2.15) has a bug there: in the
    backward pass of a strided 1 x 1 convolution of two to seven channels it writes past its memory, and the process
    dies. RepVGG begins with such a convolution.
    """
    strided = (
        module.in_channels < 8 and module.kernel_size == (1, 1) and max(module.stride) > 1
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d)
    )
    return torch.contiguous_format if any(strided) else torch.channels_last


def _describe(out: object) -> str:
    return f"of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"


def tokens_to_nchw(out: Tensor, n_prefix: int, image_size: torch.Size) -> Tensor | None:
    """Arrange tokens (n, t, C) on a grid of the image's proportions; None if their number does not fit one."""
    if out.ndim != 3:
        return None
    # Prefix tokens, such as the class token, have no place.
    tokens = out[:, n_prefix:]
    n_tokens = tokens.shape[1]
    # Patches are square, so the grid has the proportions of the image: h / w = H / W and h * w = n_tokens.
    height = round((n_tokens * image_size[0] / image_size[1]) ** 0.5)
    if height == 0 or n_tokens % height:
        return None
    if height * image_size[1] != n_tokens // height * image_size[0]:
        return None
    return tokens.transpose(1, 2).reshape(len(tokens), -1, height, n_tokens // height)
