"""The protocol of scorers: two methods, and what a scorer may declare."""

import inspect
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

from numpy.typing import ArrayLike
from torch import Tensor

from skdfb._registry import class_like
from skdfb.scorers._representation import Representation

ScorerOutput = Literal["logit", "probability", "log_probability"]
ACTIVATIONS = ("feature_map", "layers")


@runtime_checkable
class ForegroundScorer(Protocol):
    """The methods that an object must have to score images; nothing has to be inherited.

    Background scorers follow the same protocol; they get the background representation.

    Attributes
    ----------
    output : {"logit", "probability", "log_probability"}
        Optional, default "logit". The branch of the paper's Eq. 7 that joins this score to the background score S_b:

        - "logit": ``S = score + S_b / T``;
        - "probability": the score is a softmax probability, ``S = score + log S_b``;
        - "log_probability": the score is the logarithm of a softmax probability, ``S = exp(score) + log S_b``.
          Confident images, whose probability rounds to 1, keep distinct ranks this way.

        Read it with :func:`scorer_output`.
    needs_activations : tuple of str
        Optional, default empty. The entries of ``representation.activations`` that the scorer reads. The owner of the
        network supplies them in the same forward pass, one batch at a time:

        - "feature_map": ``activations["feature_map"]``, the map (n, C, h, w) whose mean over the places are the
          features;
        - "layers": one entry per layer of the network, in order: the maximum of each channel over the places (n, C_l).

        In `fit`, only the batches of ``representation.batches()`` have them, so that they are never held for all images
        at once. Read it with :func:`activations_needed`.
    learns_from_images : bool
        Optional, default True. False means that `fit` only notes sizes. A detector then computes neither perturbed
        images nor activations of the training images.
    learns_from_held_out : bool
        Optional, default False. True means that `fit` takes a keyword ``held_out=(representation, y)``: images that the
        network was not trained on.

    See Also
    --------
    InputPerturbingScorer : For scorers whose images are perturbed first.
    check_scorer : Check an object against this protocol.
    skdfb.testing.check_foreground_scorer : Tests for a scorer of your own.

    Notes
    -----
    A method ``check_sizes(n_features, n_classes, n_images)`` is optional. A detector calls it before it trains a
    network. It raises a ValueError if the scorer cannot be fitted on representations of these sizes.

    A detector passes representations on the CPU, also if the network is on a GPU. A method
    ``score_on_device(representation)`` is optional: a detector on a GPU calls it in place of `score_samples`, with a
    representation there. It returns a tensor (n,) there, and should not wait for the GPU, as ``tensor.item()`` would.
    It is not called if a subclass overrides `score_samples` alone, if the attributes of the scorer hold more than 256
    MiB of arrays, or on devices without float64, such as Apple's GPUs.

    Examples
    --------
    >>> from skdfb.scorers import ForegroundScorer
    >>> class FirstLogit:
    ...     def fit(self, representation, y=None):
    ...         return self
    ...
    ...     def score_samples(self, representation):
    ...         return representation.logits[:, 0].numpy(force=True)
    >>> isinstance(FirstLogit(), ForegroundScorer)
    True
    """

    def fit(self, representation: Representation, y: ArrayLike | None) -> Self:
        """Learn from in-distribution images.

        Parameters
        ----------
        representation : Representation
            The n training images.
        y : array-like of shape (n,) or None
            Their classes as integers 0..K-1; None if there are none.

        Returns
        -------
        object
            The scorer itself.
        """
        ...

    def score_samples(self, representation: Representation) -> ArrayLike:
        """Score images.

        Parameters
        ----------
        representation : Representation
            The n images.

        Returns
        -------
        array-like of shape (n,)
            Higher is more in-distribution.
        """
        ...


@runtime_checkable
class InputPerturbingScorer(ForegroundScorer, Protocol):
    r"""A scorer that needs the representation of perturbed images.

    The owner of the network (the detector) computes, for each image x with pixel values in 0..1,

    .. math:: x' = x + \varepsilon \, \mathrm{sign}(\nabla_x o(f(x))) / \sigma

    where x' and x are normalised images, ε is `input_perturbation`, o is `perturbation_objective`, f(x) are the logits
    and σ is the standard deviation of each channel, as used for normalising. In `fit` and in `score_samples`, the
    scorer then gets the representation of x', with ``representation.input_perturbation = input_perturbation``.
    `perturbation_objective` must work before `fit`. With `input_perturbation` 0 nothing is perturbed.

    Attributes
    ----------
    input_perturbation : float
        The magnitude ε >= 0, in pixel values of 0..1.
    """

    input_perturbation: float

    def perturbation_objective(self, logits: Tensor) -> Tensor:
        """Return the quantity that the perturbation raises.

        Parameters
        ----------
        logits : Tensor of shape (n, K)
            Logits of the images as they are, with a gradient.

        Returns
        -------
        Tensor of shape (n,)
            Differentiable with respect to `logits`, each row by itself.
        """
        ...


def scorer_output(scorer: Any) -> ScorerOutput:
    """Return whether a scorer gives logits or probabilities, which the fusion of the paper joins differently.

    Parameters
    ----------
    scorer : object
        A scorer; see :class:`ForegroundScorer`.

    Returns
    -------
    {"logit", "probability", "log_probability"}
        Its attribute `output`, or "logit" if it has none.

    Raises
    ------
    ValueError
        If the attribute has another value.

    Examples
    --------
    >>> from skdfb.scorers import MSP, Energy, scorer_output
    >>> scorer_output(Energy()), scorer_output(MSP())
    ('logit', 'log_probability')
    """
    output: ScorerOutput = getattr(scorer, "output", "logit")
    allowed = get_args(ScorerOutput)
    if output not in allowed:
        raise ValueError(
            f"{type(scorer).__name__}.output is {output!r}: expected one of {', '.join(map(repr, allowed))}. "
            "Leave the attribute out for a score made of logits."
        )
    return output


def activations_needed(scorer: Any) -> tuple[str, ...]:
    """Return which activations a scorer needs.

    Parameters
    ----------
    scorer : object
        A scorer; see :class:`ForegroundScorer`.

    Returns
    -------
    tuple of {"feature_map", "layers"}
        Its attribute `needs_activations`, or an empty tuple if it has none.

    Raises
    ------
    ValueError
        If the attribute holds another value.

    Examples
    --------
    >>> from skdfb.scorers import Energy, activations_needed
    >>> activations_needed(Energy())
    ()
    """
    needed = getattr(scorer, "needs_activations", ())
    if isinstance(needed, str) or not set(needed) <= set(ACTIVATIONS):
        raise ValueError(
            f"{type(scorer).__name__}.needs_activations is {needed!r}: expected a tuple of "
            f"{' and '.join(map(repr, ACTIVATIONS))}."
        )
    return tuple(needed)


def computes_on_device(scorer: Any) -> bool:
    """Return whether a scorer has ``score_on_device``, and no subclass overrides ``score_samples`` alone."""
    for own in (getattr(scorer, "__dict__", {}), *map(vars, type(scorer).__mro__)):
        if "score_on_device" in own:
            # Asked of the scorer: a scorer around another one has the method if the inner one has it.
            return callable(getattr(scorer, "score_on_device", None))
        if "score_samples" in own:  # it may compute something else than the inherited score_on_device
            return False
    return False


def check_scorer(scorer: Any, name: str = "scorer") -> None:
    """Refuse an object that does not follow the protocol of :class:`ForegroundScorer`.

    Parameters
    ----------
    scorer : object
        A scorer, or an object that a user passed as one.
    name : str, default="scorer"
        Name of the argument, for the message.

    Raises
    ------
    TypeError
        If it is a class, lacks `fit` or `score_samples`, or one of them takes other arguments.

    Examples
    --------
    >>> from skdfb.scorers import Energy, check_scorer
    >>> check_scorer(Energy())
    >>> check_scorer(Energy, name="background_scorer")
    Traceback (most recent call last):
    ...
    TypeError: background_scorer is the class Energy: expected an instance, pass Energy().
    """
    if isinstance(scorer, type):
        raise TypeError(f"{name} is the class {scorer.__name__}: expected an instance, pass {scorer.__name__}().")
    missing = [method for method in ("fit", "score_samples") if not callable(getattr(scorer, method, None))]
    expected = "expected a scorer with fit(representation, y) and score_samples(representation), such as Energy()"
    if missing:
        # The name of a scorer is a common guess.
        found = _scorer_named(scorer) if isinstance(scorer, str) else None
        hint = expected if found is None else f"expected an object; pass {found} of skdfb.scorers"
        raise TypeError(f"{name} is {scorer!r}, a {type(scorer).__name__} without {' and '.join(missing)}: {hint}.")
    for method, arguments in (("fit", (None, None)), ("score_samples", (None,))):
        try:
            inspect.signature(getattr(scorer, method)).bind(*arguments)
        except TypeError as error:
            raise TypeError(
                f"{name} is {scorer!r}, whose {method} cannot be called with {len(arguments)} argument(s) ({error}): "
                f"{expected}."
            ) from None


def _scorer_named(text: str) -> str | None:
    """Return how to make the scorer whose class has a name, in any case; None if there is no such class."""
    found = class_like(text, "skdfb.scorers")
    if found is None or not hasattr(found, "score_samples") or getattr(found, "_is_protocol", False):
        return None
    required = [one.name for one in inspect.signature(found).parameters.values() if one.default is one.empty]
    return f"{found.__name__}({', '.join(required)})"
