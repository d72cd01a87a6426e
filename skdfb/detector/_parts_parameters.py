"""Nested parameters of scorers that are given as lists, by the name of their part."""

from typing import Any, Self

from sklearn.utils.metaestimators import _BaseComposition

from skdfb.detector._input import named_parts

__all__ = ["PartsParameters"]


class PartsParameters(_BaseComposition):
    """``get_params`` and ``set_params`` that reach into lists given as ``scorer`` and ``background_scorer``."""

    scorer: Any
    background_scorer: Any

    @property
    def _listed_scorers(self) -> list[tuple[str, Any]]:
        """The scorers of both lists as (name, scorer) pairs; a single scorer is a nested parameter anyway."""
        lists = [given if isinstance(given, list | tuple) else [] for given in (self.scorer, self.background_scorer)]
        try:
            return [(part.name, part.scorer) for part in named_parts(*lists)]
        except ValueError:  # fit refuses such lists; until then they must be shown and cloned
            return []

    @_listed_scorers.setter
    def _listed_scorers(self, pairs: list[tuple[str, Any]]) -> None:
        n_foreground = len(self.scorer) if isinstance(self.scorer, list | tuple) else 0
        if n_foreground:
            views = [view for _, view, _ in self.scorer]
            self.scorer = [(name, view, scorer) for view, (name, scorer) in zip(views, pairs, strict=False)]
        if len(pairs) > n_foreground:
            self.background_scorer = list(pairs[n_foreground:])

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add nested parameters as ``name__parameter``, those of parts by the name of the part.

        Returns
        -------
        params : dict
            Values by name.
        """
        params: dict[str, Any] = self._get_params("_listed_scorers", deep=deep)
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the detector, or nested ones.

        Parameters
        ----------
        **params : dict
            Values by name; ``name__parameter`` is a parameter of a part or of another nested object.

        Returns
        -------
        self : detector
            The detector itself.
        """
        self._set_params("_listed_scorers", **params)
        return self
