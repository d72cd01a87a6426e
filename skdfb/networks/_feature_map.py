"""Feature maps (n, C, h, w) from any backbone, whatever its own output looks like."""

import torch
from torch import Tensor, nn

from skdfb.utils import evaluation_mode

__all__ = ["FeatureMap"]


class FeatureMap(nn.Module):
    """Give a backbone's last feature map as (n, C, h, w).

    timm models are asked for ``forward_features``, and, where that is no map, for ``forward_intermediates``; any other
    module is called. Maps with channels last and tokens (behind prefix tokens) are brought to NCHW. How, is found out
    once, by a trial image.

    Parameters
    ----------
    backbone : torch.nn.Module
        A timm model or a module that maps images (n, 3, H, W) to feature maps.
    image_size : int
        Side of the trial image in pixels.
    name : str
        How error messages call the backbone.

    Attributes
    ----------
    width : int
        Number of channels C. Found by looking, since timm's ``num_features`` is another number for some models.
    map_size : tuple of (int, int)
        Height and width of the map of an ``image_size`` image.

    Raises
    ------
    ValueError
        If the backbone gives no spatial map, or one smaller than 4 x 4.
    """

    MIN_SIZE = 4

    def __init__(self, backbone: nn.Module, image_size: int, name: str) -> None:
        super().__init__()
        self.backbone = backbone
        self._memory_format = _memory_format(backbone)
        self._method = self._layout = ""
        shape = self._find_layout(image_size, name)
        self.width = shape[1]
        self.map_size = (shape[2], shape[3])

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, 3, H, W) to (n, C, h, w)."""
        images = images.contiguous(memory_format=self._memory_format)
        feature_map = self._to_nchw(self._call(self._method, images), self._layout, images)
        if feature_map is None:
            raise ValueError(f"the backbone gives no map of places for images of shape {tuple(images.shape)}.")
        return feature_map

    def _find_layout(self, image_size: int, name: str) -> torch.Size:
        """Try each way of asking for a map; the first map that is large enough is taken."""
        parameter = next(self.backbone.parameters(), torch.zeros(1))
        trial = torch.zeros(1, 3, image_size, image_size, dtype=parameter.dtype, device=parameter.device)
        failure, small = "", None
        with torch.no_grad(), evaluation_mode(self.backbone):
            for method in self._methods():
                try:
                    out = self._call(method, trial)
                except Exception as error:  # families fail in their own ways
                    failure = failure or f"{type(error).__name__}: {str(error) or 'no reason given'}"
                    continue
                layouts = ((layout, self._to_nchw(out, layout, trial)) for layout in self._layouts(out))
                layout, feature_map = next((found for found in layouts if found[1] is not None), ("", None))
                if feature_map is None:
                    failure = failure or f"its output is {_describe(out)}"
                elif min(feature_map.shape[2:]) < self.MIN_SIZE:  # PiT's forward_features: the class token alone
                    small = feature_map.shape
                else:
                    self._method, self._layout = method, layout
                    return feature_map.shape
        if small is not None:
            raise ValueError(
                f"backbone {name} gives a {small[2]} x {small[3]} feature map for image_size={image_size}; at least "
                f"{self.MIN_SIZE} x {self.MIN_SIZE} is wanted, or masks mean nothing. Raise image_size=, or lower the "
                "backbone's stride (output_stride=8 where the family has it)."
            )
        raise ValueError(
            f"backbone {name} gives no spatial feature map for image_size={image_size} ({failure}). Many families take "
            "only some sizes: leave image_size=None for the backbone's own. Else choose a backbone whose last layers "
            "keep places, or hand in an nn.Module that maps images (n, 3, H, W) to (n, C, h, w)."
        )

    def _layouts(self, out: object) -> tuple[str, str]:
        """Return the layouts an output can have, for the square trial image: two equal sides are the places."""
        shape = out.shape if isinstance(out, Tensor) and out.ndim == 4 else (0, 0, 0, 0)
        # timm's own word decides where all three sides are equal.
        channels_last = shape[1] == shape[2] != shape[3] or str(getattr(self.backbone, "output_fmt", None)) == "NHWC"
        return ("NHWC" if channels_last else "NCHW", "tokens")

    def _methods(self) -> list[str]:
        known = [name for name in ("forward_features", "forward_intermediates") if hasattr(self.backbone, name)]
        return known or ["forward"]

    def _call(self, method: str, images: Tensor) -> object:
        if method == "forward_features":
            return self.backbone.forward_features(images)  # type: ignore[operator]
        if method == "forward_intermediates":
            return self.backbone.forward_intermediates(  # type: ignore[operator]
                images, indices=[-1], norm=True, output_fmt="NCHW", intermediates_only=True
            )[-1]
        return self.backbone(images)

    def _to_nchw(self, out: object, layout: str, images: Tensor) -> Tensor | None:
        """Return ``out`` as NCHW, or None where it is nothing of that layout."""
        if not isinstance(out, Tensor):
            return None
        if layout != "tokens":
            return None if out.ndim != 4 else out.permute(0, 3, 1, 2) if layout == "NHWC" else out
        n_prefix = int(getattr(self.backbone, "num_prefix_tokens", 0))
        return _tokens_to_nchw(out, n_prefix, images.shape[-2:])


def _memory_format(backbone: nn.Module) -> torch.memory_format:
    """Return the layout that a backbone's convolutions, which take it from the input, are to compute in.

    With channels last they are up to half as fast again on a CPU. But there torch (2.15) writes past its memory, and
    the process dies, in the backward pass of a strided 1 x 1 convolution of two to seven channels with channels last,
    such as RepVGG has on its images.
    """
    strided = (
        module.in_channels < 8 and module.kernel_size == (1, 1) and max(module.stride) > 1
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d)
    )
    return torch.contiguous_format if any(strided) else torch.channels_last


def _describe(out: object) -> str:
    return f"of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"


def _tokens_to_nchw(out: Tensor, n_prefix: int, image_size: torch.Size) -> Tensor | None:
    if out.ndim != 3:
        return None
    tokens = out[:, n_prefix:]
    n_tokens = tokens.shape[1]
    height = round((n_tokens * image_size[0] / image_size[1]) ** 0.5)
    if height == 0 or n_tokens % height:
        return None
    if height * image_size[1] != n_tokens // height * image_size[0]:  # no grid of the image's proportions
        return None
    return tokens.transpose(1, 2).reshape(len(tokens), -1, height, n_tokens // height)
