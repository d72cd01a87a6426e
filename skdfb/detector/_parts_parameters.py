"""Nested parameters of scorers that are given as lists, by the name of their part."""

from typing import Any, ClassVar

from skdfb.detector._input import named_parts
from skdfb.utils import NestedByName

__all__ = ["PartsParameters"]


class PartsParameters(NestedByName):
    """``get_params`` and ``set_params`` that reach into lists given as ``scorer`` and ``background_scorer``."""

    _named: ClassVar[str] = "_listed_scorers"

    scorer: Any
    background_scorer: Any

    @property
    def _listed_scorers(self) -> list[tuple[str, Any]]:
        """The scorers of both lists as (name, scorer) pairs; a single scorer is a nested parameter anyway."""
        # A detector without a dense network has no background.
        both = self.scorer, getattr(self, "background_scorer", ())
        lists = [given if isinstance(given, list | tuple) else [] for given in both]
        try:
            return [(part.name, part.scorer) for part in named_parts(*lists)]
        except ValueError:  # fit refuses such lists; until then they must be shown and cloned
            return []

    @_listed_scorers.setter
    def _listed_scorers(self, pairs: list[tuple[str, Any]]) -> None:
        # Pairs come in the order of the getter: first the foreground, then the background, of lists alone.
        n_foreground = len(self.scorer) if isinstance(self.scorer, list | tuple) else 0
        if n_foreground:
            views = [view for _, view, _ in self.scorer]
            self.scorer = [(name, view, scorer) for view, (name, scorer) in zip(views, pairs, strict=False)]
        if len(pairs) > n_foreground:
            self.background_scorer = list(pairs[n_foreground:])
