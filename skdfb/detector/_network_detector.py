"""What a fitted detector of images computes, whichever networks it has; how it is fitted is in its own file."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skdfb._progress import progress
from skdfb.detector._explanation import Explanation, check_n_neighbors, explained
from skdfb.detector._outputs import Output, outputs_of, read_rows, together
from skdfb.detector._reference import ReferenceImages
from skdfb.detector._stream import ImageScore, Judged, Rows, in_chunks, in_own_modes
from skdfb.detector._thresholded import Scores, ThresholdedDetector
from skdfb.detector._views import NetworkViews, ViewRequest
from skdfb.fusion import Fusion
from skdfb.images import BatchSize, Images, Indices, batch_size_of, check_images, labels_given
from skdfb.networks import DenseClassifier
from skdfb.scorers import Representation
from skdfb.scorers._needs import ScorerNeeds
from skdfb.scoring._part_scores import PartScores
from skdfb.scoring._parts import VIEWS, is_view
from skdfb.utils import own_torch_modes, own_work

__all__ = ["NetworkDetector", "requests_for"]

# Key of the view of whole images as they are, beside views of the inputs that scorers need. No view has this name.
_WHOLE = "whole image"


class NetworkDetector(ThresholdedDetector, TransformerMixin, BaseEstimator):
    """Scores, classes and features of images, from one or several networks and a fitted joint score."""

    # The view of the network that gives classes and features of whole images.
    _whole_view: ClassVar[str]

    batch_size: int
    n_jobs: int | None
    on_error: str
    verbose: int

    classifier_: DenseClassifier
    batch_size_: int
    reference_: ReferenceImages | None

    @property
    def fusion_(self) -> Fusion | None:
        """The fitted fusion; None if a single part is the joint score."""
        return self.joint_score_.fusion_  # type: ignore[no-any-return]

    @property
    def part_scorers_(self) -> dict[str, Any]:
        """The fitted scorers by the name of their part, as in :meth:`score_parts`."""
        return {name: scorer for name, _, scorer in self.joint_score_.parts_}

    # --------------------------------------------------------------- scores

    def score_samples(self, X: Any) -> Scores:
        """Return the joint score of each image.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        scores : ndarray of shape (n,)
            Higher is more in-distribution.
        """
        # Joined after the last batch, so that no fusion has to take a batch of one image.
        parts = self.score_parts(X)
        return self.joint_score_.combine(parts)

    def score_parts(self, X: Any) -> dict[str, Scores]:
        """Return the scores before they are joined.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        parts : dict of str to ndarray of shape (n,)
            By the name of the part, such as ``"foreground"`` and ``"background_logit"``. Higher is more in-distribution
            in each.
        """
        check_is_fitted(self)
        parts: dict[str, Scores] = self._run(X, self._score_requests(), [PartScores(self.joint_score_).start])[0]
        return parts

    def score_and_classify(self, X: Any) -> tuple[Scores, npt.NDArray[Any]]:
        """Return what ``score_samples`` and ``classify`` return, from one pass over the images.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        scores : ndarray of shape (n,)
            Higher is more in-distribution.
        labels : ndarray of shape (n,)
            Most probable label of each image. With ``on_error="nan"``, an image that cannot be read has the score NaN,
            and its label has no meaning.
        """
        check_is_fitted(self)
        # Beside the views of the scorers, since that of the dense network may be of perturbed inputs.
        requests = self._score_requests() | {_WHOLE: ViewRequest(self._whole_view)}
        parts, logits = self._run(X, requests, [PartScores(self.joint_score_).start, _logits])
        return self.joint_score_.combine(parts), self.classes_[logits.argmax(1)]

    def iter_scores(self, X: Any) -> Iterator[ImageScore]:
        """Score images one after the other, in memory for a batch, for sources that are large or have no end.

        Parameters
        ----------
        X : images, or iterator of images
            The images, as in :meth:`score_samples`; or an iterator, such as a generator or
            :func:`skdfb.datasets.iter_parquet`, of paths, bytes of files, PIL images or arrays. An iterator is read
            ``batch_size`` images at a time; with ``n_jobs``, as many times that number.

        Returns
        -------
        rows : iterator of ImageScore
            Index, path, score, p-value, whether it is accepted, and the most probable label. An image that cannot be
            read has a row with the reason, whatever ``on_error`` is.

        Raises
        ------
        TypeError, ValueError
            If there is something else than images.

        Examples
        --------
        >>> from skdfb import FrozenDetector
        >>> from skdfb.datasets import load_digits_on_photos
        >>> from skdfb.networks import create_backbone
        >>> data = load_digits_on_photos(n_train=400, n_test=20, n_ood=20, random_state=0)
        >>> backbone = create_backbone("test_resnet", pretrained=False)
        >>> detector = FrozenDetector(backbone, image_size=128, random_state=0).fit(data.images, data.target)
        >>> rows = list(detector.iter_scores(image for image in data.images_test))
        >>> len(rows), rows[0].index, rows[0].path
        (20, 0, None)
        """
        self._check_ready()
        # Wrong forms are reported now, and not when the first row is asked for.
        return self._iter_scores(X if isinstance(X, Iterator) else check_images(self, X, reset=False, lenient=True))

    def _iter_scores(self, source: Any) -> Iterator[ImageScore]:
        requests = self._score_requests() | {_WHOLE: ViewRequest(self._whole_view)}
        outputs = together([PartScores(self.joint_score_).start, _logits])
        for first, chunk in in_chunks(source, self.batch_size, self.n_jobs):
            images = check_images(self, chunk, reset=False, lenient=True)
            rows = Rows(images, first)
            with batch_size_of(self) as batch_size:
                for indices, found in in_own_modes(self._views(batch_size).run(images, requests, outputs)):
                    yield from rows.of(indices, self._judged(*found))

    def _judged(self, parts: dict[str, Scores], logits: npt.NDArray[np.floating]) -> Judged:
        scores = self.joint_score_.combine(parts)
        p_values, labels = self.joint_score_.p_values(scores), self.classes_[logits.argmax(1)]
        return scores.tolist(), p_values.tolist(), (scores >= self.offset_).tolist(), labels.tolist()

    def explain(self, X: Any, *, n_neighbors: int = 3) -> Explanation:
        """Tell why images are rejected or accepted.

        Parameters
        ----------
        X : images
            The n images. Each is read once.
        n_neighbors : int, default=3
            How many of the most similar training images to name for each image, at most as many as ``reference_``
            holds.

        Returns
        -------
        explanation : Explanation
            Scores, p-values and the verdict; how unusual each part is; the two most probable classes; the most similar
            training images; and a sentence per image.

        Raises
        ------
        TypeError, ValueError
            If ``n_neighbors`` is no such number, or if the detector was saved by an older version, which did not keep
            what is needed; the message tells what to do.

        Examples
        --------
        >>> print(detector.explain(X_new))  # doctest: +SKIP
        rejected (p = 0.004): the background is unlike that of the known images (more unusual than 99.2 % of them); ...
        """
        check_is_fitted(self)
        n_neighbors = check_n_neighbors(n_neighbors, getattr(self, "reference_", None))
        images = self._checked_images(X)
        requests = self._score_requests() | {_WHOLE: ViewRequest(self._whole_view)}
        return explained(self, images, partial(self._run, images, requests), _WHOLE, n_neighbors)

    # ----------------------------------------------------- classes and maps

    def predict_proba(self, X: Any) -> npt.NDArray[np.floating]:
        """Return the probabilities of the K classes.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        probabilities : ndarray of shape (n, K)
            In the order of ``classes_``. They do not tell whether an image is in-distribution.
        """
        # Of inputs as they are: a scorer that needs perturbed ones must not change the probabilities.
        logits = torch.from_numpy(self._run(X, {_WHOLE: ViewRequest(self._whole_view)}, [_logits])[0])
        return logits.softmax(1).numpy()

    def classify(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each image, also of OOD images.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        labels : ndarray of shape (n,)
            Labels of ``classes_``.

        Raises
        ------
        skdfb.exceptions.UnreadableImageError
            If an image cannot be read, also with ``on_error="nan"``: there is no label for it.
        """
        # Not lenient: a label has no NaN that could mark an unreadable image.
        (logits,) = self._run(X, {_WHOLE: ViewRequest(self._whole_view)}, [_logits], lenient=False)
        labels: npt.NDArray[Any] = self.classes_[logits.argmax(1)]
        return labels

    def score(self, X: Any, y: Any = None) -> float:
        """Return the accuracy of :meth:`classify`.

        Parameters
        ----------
        X : images
            The n in-distribution images.
        y : array-like of shape (n,), default=None
            Their labels. None takes those of a folder of class folders, or of a dataset of (image, label) items.

        Returns
        -------
        accuracy : float
            In [0, 1].
        """
        images = self._checked_images(X, lenient=False)
        # A dataset reads an image and its label at once, so its labels are known after the pass.
        found = self.classify(images) if y is None and images.has_labels else None
        return self._accuracy(images, labels_given(images, y), found)

    def transform(self, X: Any) -> npt.NDArray[np.floating]:
        """Return the pooled features of the network that gives the classes.

        Parameters
        ----------
        X : images
            The n images.

        Returns
        -------
        features : ndarray of shape (n, C)
            Mean of the feature map over its places.
        """
        features: npt.NDArray[np.floating] = self._run(X, {_WHOLE: ViewRequest(self._whole_view)}, [_features])[0]
        return features

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Return the names of the columns of :meth:`transform`.

        Parameters
        ----------
        input_features : object, default=None
            Ignored.

        Returns
        -------
        names : ndarray of shape (C,)
            Names like ``"dfb_feature0"``.
        """
        check_is_fitted(self)
        return np.asarray(
            [f"dfb_feature{index}" for index in range(self._networks[self._whole_view].num_features)], dtype=object
        )

    def represent(
        self, X: Any, views: Sequence[str] | Mapping[str, ScorerNeeds] = ("dense",)
    ) -> dict[str, Representation]:
        """Return views of images, for scorers that are used without a detector.

        Parameters
        ----------
        X : images
            The n images.
        views : sequence of str, or mapping of str to ScorerNeeds, default=("dense",)
            Names of views, see :class:`~skdfb.scoring.JointScore`; or what
            :meth:`skdfb.scoring.JointScore.view_needs` returns. A layer has logits if a part of ``fit`` is on it, or
            after ``represent_training_images`` with such a part; else its logits are 0.

        Returns
        -------
        representations : dict of str to Representation
            By the name of the view, on the CPU.

        Raises
        ------
        ValueError
            If there is no such view.
        """
        requests = requests_for(views)
        # Not lenient: a third-party scorer would not know that the features of an unreadable image have no meaning.
        images = self._checked_images(X, lenient=False)
        with own_work():  # also where other code of a fit calls it
            return self._collect(images, requests)

    # -------------------------------------------------------------- private

    def _views(self, batch_size: BatchSize) -> NetworkViews:
        return NetworkViews(self._networks, len(self.classes_), batch_size, self.n_jobs, getattr(self, "heads_", {}))

    @property
    @abstractmethod
    def _networks(self) -> dict[str, DenseClassifier]:
        """The networks by the names of their views."""

    def _score_requests(self) -> dict[str, ViewRequest]:
        return requests_for(self.joint_score_.view_needs())

    def _checked_images(self, X: Any, *, lenient: bool = True) -> Images:
        """Return readable images; those that cannot be read raise unless ``on_error`` and ``lenient`` allow NaN."""
        self._check_ready()
        return check_images(self, X, reset=False, lenient=lenient and self.on_error == "nan")

    def _check_ready(self) -> None:
        check_is_fitted(self)
        # These act at once, so set_params may have changed them since fit.
        self._validate("batch_size", "n_jobs", "on_error", "verbose")

    @own_torch_modes()
    def _run(
        self, X: Any, requests: dict[str, ViewRequest], outputs: Sequence[Output], *, lenient: bool = True
    ) -> list[Any]:
        """Run the networks over X once; see :func:`skdfb.detector._outputs.outputs_of`."""
        images = self._checked_images(X, lenient=lenient)
        with batch_size_of(self) as batch_size, progress(self.verbose, "scoring the images"):
            return outputs_of(self._views(batch_size), images, requests, outputs)

    def _collect_training(
        self, images: Images, places: Indices, labels: Indices, requests: dict[str, ViewRequest]
    ) -> dict[str, Representation]:
        """Return views of the training images, which are at ``places``; keep features of some, if none are kept."""
        if getattr(self, "reference_", None) is not None:
            return self._collect(images.subset(places), requests)
        # In the same pass over the images. A view with what its scorers need may be of perturbed inputs.
        given = requests.get(self._whole_view)
        key = _WHOLE if given is None or given.needs else self._whole_view
        views = self._collect(images.subset(places), requests | {key: ViewRequest(self._whole_view)})
        self.reference_ = ReferenceImages.choose(views[key].features, labels, images, places)
        return {name: view for name, view in views.items() if name in requests}

    @own_torch_modes()
    def _collect(self, images: Images, requests: Mapping[str, ViewRequest]) -> dict[str, Representation]:
        with batch_size_of(self) as batch_size, progress(self.verbose, "computing features"):
            return self._views(batch_size).collect(images, requests)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # features have the dtype of the network
        return tags


# Logits and features of whole images.
_logits = read_rows(lambda views: views[_WHOLE].logits, Tensor.numpy)
_features = read_rows(lambda views: views[_WHOLE].features, Tensor.numpy)


def requests_for(views: Sequence[str] | Mapping[str, ScorerNeeds]) -> dict[str, ViewRequest]:
    """Return a request for each view, under its name."""
    # A string is a sequence, too: its letters would be taken for views.
    if isinstance(views, str):
        raise ValueError(f"views={views!r}: expected a list of some of {list(VIEWS)}.")
    needs = views if isinstance(views, Mapping) else {view: ScorerNeeds() for view in views}
    if not all(is_view(view) for view in needs):
        raise ValueError(
            f"views={list(needs)}: expected a list of some of {list(VIEWS)}, or of layers, like 'dense.layer3'."
        )
    return {view: ViewRequest(view, need) for view, need in needs.items()}
