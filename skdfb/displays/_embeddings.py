"""Two-dimensional embeddings of features."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils._optional_dependencies import check_matplotlib_support

from skdfb.displays._canvas import single_axes
from skdfb.displays._detectors import check_sets, method_of
from skdfb.displays._style import PALETTE, as_text, marker_of, text_color
from skdfb.images import label_array, labels_given

__all__ = ["FeatureEmbeddingDisplay"]

_MOST_COLORED = 6  # more classes share a colour
_N_COMPONENTS = 50  # of PCA before t-SNE, as its authors do

Points = npt.NDArray[np.floating]


class FeatureEmbeddingDisplay:
    """A map of the features of in-distribution classes and OOD sets in two dimensions.

    Build it with :meth:`from_estimator` or :meth:`from_predictions`. It is Fig. 5 of the paper.

    Parameters
    ----------
    id_embedding : ndarray of shape (n_id, 2)
        Places of in-distribution images.
    ood_embeddings : mapping of str to ndarray of shape (n_ood, 2)
        Places of OOD images by the name of the set.
    y_id : array-like of shape (n_id,), default=None
        The classes of the in-distribution images.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the map.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    Raises
    ------
    TypeError
        If `ood_embeddings` is not a mapping or is empty.
    ValueError
        If the places have other shapes, or there is not one label per image.

    See Also
    --------
    OODCurveDisplay : How well scores separate these sets.

    Notes
    -----
    Up to six classes have colours, and the OOD sets are markers in the colour of the text. More classes, or images
    without labels, are dots in one colour, and the OOD sets have colours.

    t-SNE keeps neighbours together. The sizes of its clusters and the distances between them have no meaning, and
    clusters depend on `random_state`. Sets that overlap in a map may be separated in all dimensions of the features.

    References
    ----------
    van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from skdfb.displays import FeatureEmbeddingDisplay
    >>> rng = np.random.default_rng(0)
    >>> features, noise = rng.normal(size=(40, 8)), rng.normal(5, 1, size=(20, 8))
    >>> display = FeatureEmbeddingDisplay.from_predictions(
    ...     features, {"noise": noise}, ["ant", "bee"] * 20, method="pca", random_state=0
    ... )
    >>> display.id_embedding.shape, display.ood_embeddings["noise"].shape
    ((40, 2), (20, 2))
    """

    def __init__(self, id_embedding: Points, ood_embeddings: Mapping[str, Points], y_id: Any = None) -> None:
        check_sets(ood_embeddings, "ood_embeddings")
        for name, places in {"id_embedding": id_embedding, **ood_embeddings}.items():
            if np.ndim(places) != 2 or np.shape(places)[1] != 2:
                raise ValueError(f"{name} has shape {np.shape(places)}: expected (n, 2).")
        self.id_embedding = np.asarray(id_embedding)
        self.ood_embeddings = {name: np.asarray(places) for name, places in ood_embeddings.items()}
        self.y_id = _checked_labels(y_id, len(self.id_embedding))

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X_id: Any,
        ood: Mapping[str, Any],
        y_id: Any = None,
        *,
        method: Literal["tsne", "pca"] = "tsne",
        max_samples: int = 500,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute features by a fitted detector and plot their embedding.

        Parameters
        ----------
        estimator : estimator
            Fitted, with ``transform``.
        X_id : images
            Images of the known classes, in any form that ``transform`` accepts.
        ood : mapping of str to images
            OOD images by the name of the set.
        y_id : array-like of shape (n_id,), default=None
            Their classes. None takes the labels that a folder or a dataset brings, if there are any.
        method : {"tsne", "pca"}, default="tsne"
            "tsne" is t-SNE of the first 50 principal components, "pca" the first two principal components.
        max_samples : int, default=500
            A larger set is represented by so many of its images, drawn at random.
        random_state : int, RandomState or None, default=None
            Fixes the drawn images and the embedding.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. None creates a new figure.

        Returns
        -------
        FeatureEmbeddingDisplay
            The display with the plot.
        """
        check_sets(ood, "ood")
        _check_options(method, max_samples)
        transform = method_of(estimator, "transform")
        y_id = labels_given(X_id, y_id)
        known = transform(X_id)
        _checked_labels(y_id, len(known))
        unknown = {name: transform(X) for name, X in ood.items()}
        return cls.from_predictions(
            known, unknown, y_id, method=method, max_samples=max_samples, random_state=random_state, ax=ax
        )

    @classmethod
    def from_predictions(
        cls,
        id_features: npt.ArrayLike,
        ood_features: Mapping[str, npt.ArrayLike],
        y_id: Any = None,
        *,
        method: Literal["tsne", "pca"] = "tsne",
        max_samples: int = 500,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
    ) -> Self:
        """Plot the embedding of given features.

        Parameters
        ----------
        id_features : array-like of shape (n_id, C)
            Features of in-distribution images. Rows with NaN, of images that cannot be read, are left out.
        ood_features : mapping of str to array-like of shape (n_ood, C)
            Features of OOD images by the name of the set.
        y_id : array-like of shape (n_id,), default=None
            The classes of the in-distribution images.
        method : {"tsne", "pca"}, default="tsne"
            "tsne" is t-SNE of the first 50 principal components, "pca" the first two principal components.
        max_samples : int, default=500
            A larger set is represented by so many of its images, drawn at random.
        random_state : int, RandomState or None, default=None
            Fixes the drawn images and the embedding.
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. None creates a new figure.

        Returns
        -------
        FeatureEmbeddingDisplay
            The display with the plot.
        """
        check_sets(ood_features, "ood_features")
        _check_options(method, max_samples)
        rng = check_random_state(random_state)
        sets = [_checked_features(id_features, "id_features")]
        sets += [_checked_features(values, f"ood_features[{name!r}]", sets[0]) for name, values in ood_features.items()]
        labels = _checked_labels(y_id, len(sets[0]))
        drawn = [_drawn(features, max_samples, rng) for features in sets]
        places = _embedded(
            np.concatenate([features[rows] for features, rows in zip(sets, drawn, strict=True)]), method, rng
        )
        known, *unknown = np.split(places, np.cumsum([len(rows) for rows in drawn])[:-1])
        display = cls(
            known, dict(zip(ood_features, unknown, strict=True)), None if labels is None else labels[drawn[0]]
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Plot the map.

        Parameters
        ----------
        ax : matplotlib Axes, Figure or SubFigure, default=None
            Where to plot. None creates a new figure.

        Returns
        -------
        FeatureEmbeddingDisplay
            The display itself, with the attributes ``ax_`` and ``figure_``.
        """
        check_matplotlib_support(type(self).__name__)
        ax = single_axes(ax, (7, 4.5))
        classes = [] if self.y_id is None else sorted(set(self.y_id.tolist()), key=str)
        has_colors = 0 < len(classes) <= _MOST_COLORED
        if has_colors:
            for color, label in zip(PALETTE, classes, strict=False):
                places = self.id_embedding[self.y_id == label]
                ax.scatter(*places.T, s=20, color=color, alpha=0.85, linewidths=0, zorder=3, label=as_text(label, 26))
        else:
            count = f" ({len(classes)} classes)" if classes else ""
            dots = {"s": 14, "color": text_color(), "alpha": 0.3, "linewidths": 0}
            ax.scatter(*self.id_embedding.T, **dots, label=f"in-distribution{count}")
        for index, (name, places) in enumerate(self.ood_embeddings.items()):
            color = text_color() if has_colors else PALETTE[index % len(PALETTE)]
            # Open markers leave the dots below visible.
            face = {"facecolors": "none", "edgecolors": color, "linewidths": 0.8, "marker": marker_of(index + 1)}
            ax.scatter(*places.T, s=18, alpha=0.5 if has_colors else 0.8, **face, label=as_text(name, 26))
        # The axes of an embedding have no unit.
        ax.set(xticks=[], yticks=[])
        ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _check_options(method: Any, max_samples: Any) -> None:
    if method not in ("tsne", "pca"):
        raise ValueError(f"method={method!r}: expected 'tsne' or 'pca'.")
    check_scalar(max_samples, "max_samples", Integral, min_val=2)


def _checked_labels(y: Any, n_images: int) -> npt.NDArray[Any] | None:
    if y is None:
        return None
    labels: npt.NDArray[Any] = label_array(y, "y_id")
    if len(labels) != n_images:
        raise ValueError(f"y_id has {len(labels)} labels for {n_images} images: expected one label per image.")
    return labels


def _checked_features(features: Any, name: str, like: Points | None = None) -> Points:
    array = np.asarray(features, dtype=np.float64)
    n_features = array.shape[1] if like is None and array.ndim == 2 else None if like is None else like.shape[1]
    if array.ndim != 2 or 0 in array.shape or array.shape[1] != n_features:
        expected = "(n, C)" if n_features is None else f"(n, {n_features}), as many columns as id_features"
        raise ValueError(f"{name} has shape {array.shape}: expected features of shape {expected}.")
    if np.isnan(array).any(axis=1).all() or np.isinf(array).any():
        raise ValueError(f"{name} has only rows with NaN, or infinite values: expected finite features.")
    return array


def _drawn(features: Points, max_samples: int, rng: np.random.RandomState) -> npt.NDArray[np.intp]:
    """Return the rows that are plotted, in their order."""
    rows = np.flatnonzero(~np.isnan(features).any(axis=1))
    return np.sort(rng.choice(rows, max_samples, replace=False)) if len(rows) > max_samples else rows


def _embedded(features: Points, method: str, rng: np.random.RandomState) -> Points:
    """Return places (n, 2) of features (n, C)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n_samples, n_features = features.shape
    n_components = min(2 if method == "pca" else _N_COMPONENTS, n_samples, n_features)
    places: Points = PCA(n_components, random_state=rng.randint(2**31)).fit_transform(features)
    if method == "tsne" and n_samples > 3:
        perplexity = min(30.0, (n_samples - 1) / 3)
        init = "pca" if n_components > 1 else "random"
        places = TSNE(perplexity=perplexity, init=init, random_state=rng.randint(2**31)).fit_transform(places)
    # One feature, or two images, span less than two dimensions.
    return np.pad(places[:, :2], [(0, 0), (0, 2 - min(2, places.shape[1]))])
