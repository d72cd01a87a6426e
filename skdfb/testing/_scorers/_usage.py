"""How the checks use a scorer."""

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from skdfb.scorers import Representation
from skdfb.testing._scorers._data import Data, new_images, training_data
from skdfb.testing._shared._demands import Array
from skdfb.testing._shared._usage import ScoringUsage


class ScorerUsage(ScoringUsage):
    """Scorers are fitted on a representation with labels, and score another one."""

    result_method: ClassVar[str] = "score_samples"

    def training_data(self, instance: Any, seed: int = 0) -> Data:
        """Return 200 images of 4 classes."""
        return training_data(instance, seed=seed)

    def training_images(self, instance: Any) -> Representation:
        """Return the representation of the training images."""
        return training_data(instance).representation

    def new_data(self, instance: Any, seed: int = 1, n: int = 60) -> Representation:
        """Return n images of the same classes."""
        return new_images(instance, n, seed=seed)

    def contents(self, data: Data | Representation) -> dict[str, bytes]:
        """Return the bytes of all tensors and of the labels."""
        representation, y = data if isinstance(data, Data) else (data, None)
        tensors = {field: getattr(representation, field) for field in ("features", "logits", "weight", "bias")}
        tensors |= {f"activations[{key!r}]": tensor for key, tensor in (representation.activations or {}).items()}
        found = {field: tensor.numpy(force=True).tobytes() for field, tensor in tensors.items()}
        return found if y is None else found | {"y": y.tobytes()}

    def fit(self, instance: Any, data: Data) -> Any:
        """Fit on images and labels."""
        return instance.fit(*data)

    def raw_result(self, fitted: Any, data: Representation) -> Array:
        """Return the scores, which may be a tensor on any device."""
        scores = fitted.score_samples(data)
        return np.asarray(scores.detach().cpu() if isinstance(scores, Tensor) else scores)


USAGE = ScorerUsage()
