"""Representations from a device to the CPU."""

from collections.abc import Callable, Mapping

from torch import Tensor

from skdfb._transfers import Download
from skdfb.scorers._representation import Representation

__all__ = ["ViewsOnCPU"]


class ViewsOnCPU:
    """Brings the views of batch after batch to the CPU; their heads, which are the same in all batches, come once."""

    def __init__(self) -> None:
        self._heads: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {}

    def start(self, views: Mapping[str, Representation], download: Download) -> Callable[[], dict[str, Representation]]:
        """Ask for a batch.

        Parameters
        ----------
        views : mapping of str to Representation
            On the device; the same names in each batch.
        download : Download
            What the batch sends to the CPU.

        Returns
        -------
        finish : callable
            Returns the views on the CPU, in at least float32.
        """
        if not self._heads:
            heads = Download()
            started = {key: (heads.add(view.weight), heads.add(view.bias)) for key, view in views.items()}
            heads.send()
            self._heads = started  # not before: there may be no memory for the copy
        rows = {key: (download.add(view.features), download.add(view.logits)) for key, view in views.items()}
        maps = {
            key: {name: download.add(map_) for name, map_ in (view.activations or {}).items()}
            for key, view in views.items()
        }
        # Not the views themselves: their maps would stay on the device while it computes the next batch.
        perturbations = {key: view.input_perturbation for key, view in views.items()}

        def finish() -> dict[str, Representation]:
            found = {}
            for key, (features, logits) in rows.items():
                weight, bias = self._heads[key]
                found[key] = Representation(
                    features=features(),
                    logits=logits(),
                    weight=weight(),
                    bias=bias(),
                    activations={name: map_() for name, map_ in maps[key].items()} or None,
                    input_perturbation=perturbations[key],
                )
            return found

        return finish
