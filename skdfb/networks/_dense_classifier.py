"""A backbone with a linear head at every place: dense network and classifier in one."""

import copy
import copyreg
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from skdfb.images import is_out_of_memory
from skdfb.networks._feature_map import FeatureMap
from skdfb.networks._network_state import network_state, restored_network
from skdfb.networks._timm import create_backbone, preprocessor_of
from skdfb.networks._unwrap import unwrapped
from skdfb.utils import evaluation_mode

__all__ = ["DenseClassifier"]


class DenseClassifier(nn.Module):
    r"""Network that classifies every place of its feature map and, with the same weights, the whole image.

    .. math::

        \text{logit_map}(x) = W F(x) + b
        \qquad
        \text{forward}(x) = W \, \mathrm{GAP}(F(x)) + b = \mathrm{GAP}(\text{logit_map}(x))

    :math:`F(x)` is the backbone's feature map (n, C, h, w), and GAP is the mean over places. Because the head is linear
    at each place, the two are equal: a network trained on pixels is a classifier with the same weights (Eq. 5 of
    [1]_).

    Parameters
    ----------
    backbone : str or torch.nn.Module
        A timm model name, a timm model, or a module that maps images (n, 3, H, W), or of other channels, to feature
        maps (n, C, h, w). A module is used as it is, not copied; of a wrapper (``torch.compile``, ``DataParallel``, a
        LightningModule around one model), the model inside.
    num_classes : int
        Number of outputs: K for a classifier, K + 1 for a dense network whose last class is the background.
    pretrained : bool, default=True
        Whether a named backbone gets timm's pre-trained weights, as in :func:`create_backbone`.
    checkpoint_path : path, default=None
        Local file of weights for a named backbone, as in :func:`create_backbone`.
    image_size : int, default=None
        Side of the input in pixels. None takes the backbone's own.
    fallback_size : int, default=None
        Side of the input for a module without a size of its own; None is 224.
    classes : sequence, default=None
        Labels of the outputs, in their order. Estimators put the outputs of a trained network in the order of
        ``np.unique(y)`` by them, and drop those of labels not in y. None says that they are in that order.
    **options : Any
        Further options for a named backbone, like ``output_stride=8``; see :func:`create_backbone`.

    Attributes
    ----------
    preprocessor : Preprocessor
        Size and normalisation of the inputs.
    map_size : tuple of (int, int)
        Height and width of the feature map of an ``image_size`` image.
    num_features : int
        Width C of the feature map.
    classes : list or None
        Labels of the outputs.

    Raises
    ------
    ValueError
        If the name is unknown, the weights cannot be loaded, or the backbone gives no map of at least 4 x 4 places; if
        ``checkpoint_path`` or options are given together with a module; or if ``classes`` are not ``num_classes``
        different labels.
    TypeError
        If ``backbone`` is neither a name nor a module.

    References
    ----------
    .. [1] Ding and Pang, "Improving Out-of-Distribution Detection with Disentangled Foreground and Background
       Features", ACM MM 2024, :arxiv:`2303.08727`.

    Examples
    --------
    >>> import torch
    >>> from skdfb.networks import DenseClassifier
    >>> network = DenseClassifier("test_resnet", 7, pretrained=False, image_size=64, output_stride=8).eval()
    >>> images = torch.rand(2, 3, 64, 64)
    >>> network.logit_map(images).shape
    torch.Size([2, 7, 8, 8])
    >>> torch.allclose(network(images), network.logit_map(images).mean((2, 3)), atol=1e-5)
    True
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        num_classes: int,
        *,
        pretrained: bool = True,
        checkpoint_path: str | os.PathLike[str] | None = None,
        image_size: int | None = None,
        fallback_size: int | None = None,
        classes: Sequence[Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.classes = _checked_classes(classes, num_classes)
        if isinstance(backbone, nn.Module):
            backbone = unwrapped(backbone)
        # Error messages name the backbone as the user gave it.
        name = repr(backbone) if isinstance(backbone, str) else type(backbone).__name__
        if isinstance(backbone, str):
            backbone = create_backbone(
                backbone, pretrained=pretrained, checkpoint_path=checkpoint_path, image_size=image_size, **options
            )
        elif not isinstance(backbone, nn.Module):
            raise TypeError(
                f"backbone is a {type(backbone).__name__}: expected a timm model name or a torch.nn.Module that maps "
                "images (n, 3, H, W), or of other channels, to feature maps (n, C, h, w)."
            )
        elif checkpoint_path is not None or options:
            given = ["checkpoint_path"] * (checkpoint_path is not None) + list(options)
            raise ValueError(
                f"backbone is a module, so {', '.join(given)} would have no effect; build the module with them, or "
                "give a timm model name."
            )
        # The feature map is computed once here, for a trial image: this tells C, h and w, or refuses the backbone.
        self.preprocessor = preprocessor_of(backbone, image_size, fallback_size)
        self.feature_map = FeatureMap(backbone, self.preprocessor.image_size, name)
        parameter = next(backbone.parameters(), torch.zeros(1))
        self.head = _zero_head(self.feature_map.width, num_classes, parameter)

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the feature map."""
        return self.feature_map.map_size

    @property
    def num_features(self) -> int:
        """Width C of the feature map."""
        return self.feature_map.width

    @property
    def num_classes(self) -> int:
        """Number of outputs."""
        return self.head.out_features

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights and of the inputs."""
        return self.head.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.head.weight.device

    def logit_map(self, images: Tensor) -> Tensor:
        """Compute the logits at every place.

        Parameters
        ----------
        images : Tensor of shape (n, 3, H, W)
            Normalised inputs.

        Returns
        -------
        logit_map : Tensor of shape (n, num_classes, h, w)
            The logits.
        """
        return self.map_head(self.feature_map(images))

    def map_head(self, feature_map: Tensor) -> Tensor:
        """Apply the head at each place of a feature map.

        Parameters
        ----------
        feature_map : Tensor of shape (n, C, h, w)
            Output of the backbone.

        Returns
        -------
        logit_map : Tensor of shape (n, num_classes, h, w)
            The logits.
        """
        # Not a 1 x 1 convolution: a GPU may round it to TF32, and the mean of the map would differ from ``forward``.
        logits: Tensor = self.head(feature_map.movedim(1, -1)).movedim(-1, 1)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Compute the features: the mean of the feature map over all places.

        Parameters
        ----------
        images : Tensor of shape (n, 3, H, W)
            Normalised inputs.

        Returns
        -------
        features : Tensor of shape (n, C)
            The features.
        """
        features: Tensor = self.feature_map(images).mean((2, 3))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of whole images, which are the mean of the logit map.

        Parameters
        ----------
        images : Tensor of shape (n, 3, H, W)
            Normalised inputs.

        Returns
        -------
        logits : Tensor of shape (n, num_classes)
            The logits.
        """
        logits: Tensor = self.head(self.features(images))
        return logits

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or convert the network, as any module; on a GPU its weights get the memory format of its inputs.

        A GPU would convert them anew in each pass.

        Parameters
        ----------
        *args, **kwargs : Any
            As of ``torch.nn.Module.to``.

        Returns
        -------
        network : DenseClassifier
            This network.
        """
        super().to(*args, **kwargs)
        if self.device.type == "cuda":
            super().to(memory_format=self.feature_map.memory_format)
        return self

    def with_background(self) -> "DenseClassifier":
        """Return a copy with one more class, the background, whose weights are zero.

        The dense stage starts from this network.

        Returns
        -------
        network : DenseClassifier
            A network of K + 1 classes, with the weights of this one.
        """
        # Zero weights give the background's logit 0 everywhere, and leave the other logits as they are.
        network = copy.deepcopy(self)
        network.classes = None  # the background has no label
        network.head = _zero_head(self.num_features, self.num_classes + 1, self.head.weight)
        with torch.no_grad():
            network.head.weight[: self.num_classes] = self.head.weight
            network.head.bias[: self.num_classes] = self.head.bias
        return network

    def select_outputs(self, outputs: Sequence[int]) -> None:
        """Keep some outputs, in the given order; ``classes`` is then None: the order is the caller's.

        Parameters
        ----------
        outputs : sequence of int
            Indices of outputs.
        """
        head = _zero_head(self.num_features, len(outputs), self.head.weight)
        with torch.no_grad():
            head.weight.copy_(self.head.weight[list(outputs)])
            head.bias.copy_(self.head.bias[list(outputs)])
        for kept, own in zip(head.parameters(), self.head.parameters(), strict=True):
            kept.requires_grad_(own.requires_grad)
        self.head, self.classes = head, None

    def accepts_size(self, size: int) -> bool:
        """Return whether the network takes inputs of a size; some families take only one.

        Parameters
        ----------
        size : int
            Side of the input in pixels.

        Returns
        -------
        accepts : bool
            Whether a forward pass of such an input works.
        """
        trial = torch.zeros(1, self.preprocessor.n_channels, size, size, dtype=self.dtype, device=self.device)
        try:
            with torch.no_grad(), evaluation_mode(self):  # a trial must not change batch statistics
                self.feature_map(trial)
        except Exception as error:  # each family raises its own kind of error; MViTv2 an IndexError
            if is_out_of_memory(error):
                raise
            return False
        return True

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and copy the module as it is, hooks and further attributes included."""
        return copyreg.__newobj__, (type(self),), self._module_state()  # type: ignore[attr-defined]

    def _module_state(self) -> dict[str, Any]:
        return super().__getstate__()  # type: ignore[no-untyped-call, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """Return names, numbers and arrays if they describe the whole network: skops cannot store tensors."""
        return network_state(self) or self._module_state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take either state; only a module's own state has the key ``_modules``."""
        if "_modules" not in state:
            state = vars(restored_network(state, DenseClassifier))
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    @classmethod
    def from_classifier(
        cls, model: nn.Module, *, image_size: int | None = None, classes: Sequence[Any] | None = None
    ) -> "DenseClassifier":
        """Make a network of a trained timm or torchvision classifier, head included.

        Parameters
        ----------
        model : torch.nn.Module
            A timm or torchvision model whose classifier is linear on the mean of its last feature map. It is copied.
        image_size : int, default=None
            Side of the input in pixels; None takes the model's own.
        classes : sequence, default=None
            Labels of the outputs, in the model's order. None says that output k is the class ``np.unique(y)[k]``.

        Returns
        -------
        network : DenseClassifier
            A network with the model's classes, in the model's order, and with the same outputs.

        Raises
        ------
        ValueError
            If the model's head is not linear on pooled features (trial images give other logits).

        Examples
        --------
        >>> import timm
        >>> from skdfb.networks import DenseClassifier
        >>> trained = timm.create_model("test_resnet", num_classes=5)
        >>> DenseClassifier.from_classifier(trained).num_classes
        5
        """
        model = copy.deepcopy(unwrapped(model)).eval()
        classifier = _classifier_of(model)
        weights = _linear_weights(classifier)
        if weights is None:
            cls(model, 1, image_size=image_size)  # the advice below must not end in another error
            raise ValueError(
                f"model {type(model).__name__} has no linear classifier (it is a {type(classifier).__name__}); use "
                "DenseClassifier(model, num_classes) and train a head."
            )
        weight, bias = weights
        network = cls(model, len(weight), image_size=image_size, classes=classes).eval()
        # The weights alone do not tell whether a layer stands between feature map and head: the outputs are compared.
        if weight.shape == network.head.weight.shape:
            with torch.no_grad():
                network.head.weight.copy_(weight)
                if bias is not None:
                    network.head.bias.copy_(bias)
                size = network.preprocessor.image_size
                channels = network.preprocessor.n_channels
                trial = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
                # In the memory format of the feature map, because deep networks round differently in another one.
                trial = trial.to(network.device, network.dtype).contiguous(memory_format=torch.channels_last)
                if torch.allclose(network(trial), model(trial), rtol=1e-3, atol=1e-4):
                    getattr(model, "reset_classifier", int)(0)  # the head replaces it
                    return network
        raise ValueError(
            f"model {type(model).__name__} has more than a linear layer on the mean of its feature map, so it has no "
            "logits per place; use DenseClassifier(model, num_classes) and train a head."
        )


def _classifier_of(model: nn.Module) -> object:
    """Return the classifier of a timm or torchvision model, or of one with the same names."""
    if hasattr(model, "get_classifier"):
        return model.get_classifier()  # type: ignore[operator]
    children = dict(model.named_children())
    classifier = next((children[name] for name in ("fc", "classifier", "head", "heads") if name in children), None)
    if isinstance(classifier, nn.Sequential):
        # Dropout changes nothing in evaluation; whether other layers do is seen in the outputs.
        linear = [layer for layer in classifier.modules() if _linear_weights(layer) is not None]
        return linear[0] if len(linear) == 1 else classifier
    return classifier


def _checked_classes(classes: Sequence[Any] | None, num_classes: int) -> list[Any] | None:
    """Return the labels of the outputs as plain values."""
    if classes is None:
        return None
    labels = np.asarray(classes).tolist()
    if not isinstance(labels, list) or any(isinstance(label, list) for label in labels):
        raise ValueError(f"classes={classes!r}: expected a sequence of the labels of the {num_classes} outputs.")
    if len(labels) != num_classes or len(set(labels)) != num_classes:
        raise ValueError(
            f"classes={classes!r}: expected {num_classes} different labels, one for each output, got {len(labels)} "
            f"labels, {len(set(labels))} of them different."
        )
    return labels


def _zero_head(num_features: int, num_classes: int, like: Tensor) -> nn.Linear:
    """Return a head of zeros, as in BiT: no random logits to unlearn, and no use of the global random generator."""
    head: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, num_features, num_classes, device=like.device, dtype=like.dtype
    )
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _linear_weights(classifier: object) -> tuple[Tensor, Tensor | None] | None:
    """Return weight (K, C) and bias of a linear layer, which is a 1x1 convolution in BiT and other families."""
    if isinstance(classifier, nn.Linear):
        return classifier.weight, classifier.bias
    if isinstance(classifier, nn.Conv2d) and classifier.kernel_size == (1, 1) and classifier.groups == 1:
        return classifier.weight[:, :, 0, 0], classifier.bias
    return None
