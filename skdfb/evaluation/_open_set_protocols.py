"""The known and unknown classes of published open-set experiments."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["open_set_protocol"]

Classes = Sequence[int]


class _Protocol(NamedTuple):
    """The classes of each of the five splits; `unknown` is None if all other of `n_classes` classes are unknown."""

    n_classes: int
    known: Sequence[Classes]
    unknown: Sequence[Classes] | None = None


_CIFAR_PLUS_KNOWN = ((1, 4, 7, 9), (1, 6, 7, 9), (1, 6, 7, 9), (1, 4, 6, 9), (0, 1, 8, 9))
_CIFAR_PLUS_10 = (
    (0, 1, 8, 9, 25, 30, 46, 49, 52, 71),
    (9, 30, 40, 41, 48, 49, 60, 71, 73, 95),
    (8, 9, 30, 40, 48, 49, 60, 71, 73, 95),
    (8, 30, 46, 49, 60, 68, 71, 73, 95, 99),
    (2, 3, 21, 33, 43, 46, 63, 64, 88, 97),
)
# In each split, the 10 classes above and these 40.
# fmt: off
_CIFAR_PLUS_40_MORE = (
    (2, 5, 11, 20, 21, 26, 27, 29, 32, 35, 39, 40, 41, 45, 47, 48, 53, 55, 57, 59,
     60, 66, 68, 69, 70, 72, 73, 75, 76, 77, 78, 83, 84, 88, 91, 93, 94, 95, 98, 99),
    (0, 1, 2, 3, 5, 8, 11, 16, 21, 23, 24, 25, 28, 29, 33, 35, 45, 46, 52, 54,
     55, 56, 62, 65, 66, 67, 68, 69, 72, 75, 76, 79, 82, 84, 85, 86, 91, 97, 98, 99),
    (0, 1, 2, 5, 11, 16, 20, 21, 23, 24, 25, 28, 29, 33, 35, 41, 46, 52, 54, 55,
     56, 62, 65, 66, 67, 68, 69, 72, 75, 76, 83, 84, 85, 86, 91, 93, 94, 97, 98, 99),
    (0, 1, 2, 5, 9, 11, 14, 20, 21, 23, 25, 28, 29, 33, 35, 40, 41, 48, 52, 53,
     54, 55, 56, 62, 64, 66, 67, 69, 70, 72, 75, 76, 77, 82, 83, 84, 85, 91, 92, 98),
    (0, 1, 4, 6, 11, 18, 19, 23, 27, 31, 32, 34, 35, 36, 38, 42, 47, 50, 51, 53,
     54, 55, 59, 62, 65, 66, 70, 72, 74, 75, 76, 77, 78, 80, 82, 83, 92, 93, 96, 98),
)
# fmt: on
_PROTOCOLS = {
    "cifar10-6/4": _Protocol(
        10, ((0, 1, 4, 6, 7, 9), (0, 1, 4, 6, 7, 9), (1, 3, 4, 5, 7, 9), (0, 1, 6, 7, 8, 9), (1, 2, 4, 6, 7, 9))
    ),
    "cifar+10": _Protocol(100, _CIFAR_PLUS_KNOWN, _CIFAR_PLUS_10),
    "cifar+50": _Protocol(
        100,
        _CIFAR_PLUS_KNOWN,
        tuple(ten + more for ten, more in zip(_CIFAR_PLUS_10, _CIFAR_PLUS_40_MORE, strict=True)),
    ),
    "tiny-imagenet-20/180": _Protocol(
        200,
        (
            (1, 14, 17, 44, 58, 66, 72, 75, 81, 108, 123, 133, 134, 144, 147, 152, 167, 171, 193, 197),
            (18, 19, 23, 29, 35, 38, 57, 59, 61, 67, 85, 90, 91, 133, 134, 161, 184, 186, 198, 199),
            (0, 26, 27, 31, 46, 50, 51, 60, 78, 80, 92, 93, 114, 119, 133, 134, 152, 162, 177, 191),
            (11, 13, 36, 43, 75, 82, 98, 138, 152, 157, 158, 166, 170, 174, 177, 189, 190, 191, 193, 196),
            (0, 6, 20, 21, 23, 26, 31, 36, 81, 89, 95, 102, 108, 143, 145, 153, 169, 170, 177, 189),
        ),
    ),
}


def open_set_protocol(name: str) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    r"""Return the known and the unknown classes of the five splits of a published open-set experiment.

    The splits are those of the code of ARPL, which the code of Vaze et al. and others have, too.

    Parameters
    ----------
    name : {"cifar10-6/4", "cifar+10", "cifar+50", "tiny-imagenet-20/180"}
        The experiment:

        - ``"cifar10-6/4"``: 6 classes of CIFAR-10 are known, the other 4 unknown;
        - ``"cifar+10"``, ``"cifar+50"``: 4 classes of CIFAR-10 are known, 10 or 50 classes of CIFAR-100 unknown;
        - ``"tiny-imagenet-20/180"``: 20 classes of Tiny-ImageNet are known, the other 180 unknown.

    Returns
    -------
    splits : list of (known, unknown)
        Five pairs of arrays of class indices, ascending. In CIFAR-10 and CIFAR-100 the index of a class is its number
        in the data files; in CIFAR-100 that of its fine label. In Tiny-ImageNet it is the place of the class among the
        sorted names of the 200 folders, such as n01443537. Known indices of ``"cifar+10"`` and ``"cifar+50"`` are those
        of CIFAR-10, unknown ones those of CIFAR-100.

    Raises
    ------
    ValueError
        If the name is none of these.

    See Also
    --------
    OpenSetSplit : Draws known and unknown classes of any data.
    evaluate : Measures a detector on known and unknown images.

    Notes
    -----
    Train on the training images of the known classes, and test on the test images of the known and of the unknown ones
    (of Tiny-ImageNet, the validation images). Report the mean over the splits.

    Some facts about the lists:

    - The first two splits of ``"cifar10-6/4"`` have the same classes, in another order in the code. So have the known
      classes of the second and the third split of ``"cifar+10"`` and ``"cifar+50"``.
    - Papers describe the known classes of ``"cifar+10"`` and ``"cifar+50"`` as the four that are not animals, and the
      unknown ones as animals. In the lists, only the last split has these four known classes, and there are unknown
      classes that are not animals, such as bottle (9) and sea (71).
    - There are other lists under the same names, so figures of two papers may belong to different classes.

    References
    ----------
    Neal et al., "Open Set Learning with Counterfactual Images", ECCV 2018, describes the experiments. Chen et al.,
    "Adversarial Reciprocal Points Learning for Open Set Recognition", TPAMI 2022, :arxiv:`2103.00953`: ``splits_2020``
    in ``split.py`` of https://github.com/iCGY96/ARPL. Vaze et al., "Open-Set Recognition: a Good Closed-Set Classifier
    is All You Need?", ICLR 2022, :arxiv:`2110.06207`: ``data/open_set_splits/osr_splits.py`` of
    https://github.com/sgvaze/osr_closed_set_all_you_need.

    Examples
    --------
    >>> from skdfb.evaluation import open_set_protocol
    >>> for known, unknown in open_set_protocol("cifar10-6/4"):
    ...     print(known, unknown)
    [0 1 4 6 7 9] [2 3 5 8]
    [0 1 4 6 7 9] [2 3 5 8]
    [1 3 4 5 7 9] [0 2 6 8]
    [0 1 6 7 8 9] [2 3 4 5]
    [1 2 4 6 7 9] [0 3 5 8]
    """
    protocol = _PROTOCOLS.get(name) if isinstance(name, str) else None
    if protocol is None:
        raise ValueError(f"name={name!r}: expected one of {list(_PROTOCOLS)}.")
    known = [np.asarray(classes, dtype=np.intp) for classes in protocol.known]
    if protocol.unknown is None:
        everything = np.arange(protocol.n_classes)
        return [(classes, np.setdiff1d(everything, classes)) for classes in known]
    unknown = [np.sort(np.asarray(classes, dtype=np.intp)) for classes in protocol.unknown]
    return list(zip(known, unknown, strict=True))
