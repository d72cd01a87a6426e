"""The head before the training of a classifier: a linear discriminant on pre-trained features."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skdfb.images import BatchSize, Images, Indices, spread_evenly
from skdfb.networks import DenseClassifier
from skdfb.networks._inputs import run_over
from skdfb.scorers import Representation
from skdfb.scorers._discriminant import discriminant_head
from skdfb.utils import evaluation_mode

__all__ = ["start_head"]

# More images would make the head hardly better, and their features would need much memory.
_MOST_IMAGES = 20_000


def start_head(
    network: DenseClassifier, images: Images, labels: npt.NDArray[np.intp], batch_size: int, n_jobs: int | None
) -> None:
    """Set the head to the linear discriminant of the features of the training images, without augmentation.

    If the features do not vary, the head stays as it is.
    """
    rows = spread_evenly(len(images), _MOST_IMAGES)
    labels = np.asarray(labels)[rows]

    @torch.no_grad()
    def features_of(indices: Indices, inputs: Tensor) -> Tensor:
        return network.features(inputs).float().cpu()

    with evaluation_mode(network):
        batches = run_over(network, images.subset(rows), BatchSize(batch_size), n_jobs, features_of)
        features = torch.cat(list(batches))  # (n, C)
    zeros = features.new_zeros(len(features), network.num_classes)
    representation = Representation(
        features=features, logits=zeros, weight=zeros.new_zeros(zeros.shape[1], features.shape[1]), bias=zeros[0]
    )
    try:
        weight, bias = discriminant_head(representation, labels)
    except ValueError:  # features that do not vary have no covariance
        return
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weight))
        network.head.bias.copy_(torch.from_numpy(bias))
