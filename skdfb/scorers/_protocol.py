"""What a scorer is: two methods and what it may declare."""

import inspect
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

from numpy.typing import ArrayLike
from torch import Tensor

from skdfb.scorers._representation import Representation

ScorerOutput = Literal["logit", "probability", "log_probability"]
ACTIVATIONS = ("feature_map", "layers")


@runtime_checkable
class ForegroundScorer(Protocol):
    """What an object must have to score images; there is nothing to inherit.

    The same protocol serves background scorers, which see the background representation.

    Attributes
    ----------
    output : {"logit", "probability", "log_probability"}
        Optional; "logit" where it is absent. The branch of the paper's Eq. 7 that joins this score to the background
        score S_b:

        - "logit": ``S = score + S_b / T``;
        - "probability": the score is a softmax probability, ``S = score + log S_b``;
        - "log_probability": the score is the logarithm of a softmax probability, ``S = exp(score) + log S_b``.
          Confident images, whose probability rounds to 1, keep distinct ranks this way.

        Read it with :func:`scorer_output`.
    needs_activations : tuple of str
        Optional; empty where it is absent. What the scorer reads of ``representation.activations``, which whoever owns
        the network then supplies in the same forward pass, a batch at a time:

        - "feature_map": ``activations["feature_map"]``, the map (n, C, h, w) whose mean over the places are the
          features;
        - "layers": one entry a layer of the network, in order, each channel's maximum over the places (n, C_l).

        In `fit` they are in what ``representation.batches()`` yields, and only there: they are never held for all
        images at once. Read it with :func:`activations_needed`.
    learns_from_images : bool
        Optional; True where it is absent. False says that `fit` notes sizes and nothing else: a detector then spares
        the training images what only scoring needs, perturbation and activations.

    Notes
    -----
    A method ``check_sizes(n_features, n_classes, n_images)`` is optional, too: a detector calls it before it trains, so that a
    scorer that cannot be fitted on such a network says so, by a ValueError, before hours are spent.

    The detector hands over representations on the CPU, whatever device the network is on.

    See Also
    --------
    InputPerturbingScorer : For scorers whose images are perturbed first.
    check_scorer : Check an object against this protocol.

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
            Their classes as integers 0..K-1; None where there are none.

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
    r"""A scorer that asks for the representation of perturbed images.

    Who owns the network (the detector) computes, for each image x with pixel values of 0..1,

    .. math:: x' = x + \varepsilon \, \mathrm{sign}(\nabla_x o(f(x))) / \sigma

    where x' and x are normalised images, ε is `input_perturbation`, o is `perturbation_objective`, f(x) are the logits
    and σ is the normalising standard deviation of each channel. It then hands the scorer the representation of x',
    with ``representation.input_perturbation = input_perturbation``, in `fit` and in `score_samples`.
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
    """Return which branch of Eq. 7 a scorer belongs to.

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
            f"{type(scorer).__name__}.output is {output!r}; wanted one of {', '.join(map(repr, allowed))}. "
            "Leave the attribute out for a score made of logits."
        )
    return output


def activations_needed(scorer: Any) -> tuple[str, ...]:
    """Return which activations a scorer asks for.

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
            f"{type(scorer).__name__}.needs_activations is {needed!r}; wanted a tuple of "
            f"{' and '.join(map(repr, ACTIVATIONS))}."
        )
    return tuple(needed)


def check_scorer(scorer: Any, name: str = "scorer") -> None:
    """Refuse an object that does not keep the protocol of :class:`ForegroundScorer`.

    Parameters
    ----------
    scorer : object
        What a user gave as a scorer.
    name : str, default="scorer"
        The argument it was given as, for the message.

    Raises
    ------
    TypeError
        If it is a class, or lacks `fit` or `score_samples`, or they take other arguments.

    Examples
    --------
    >>> from skdfb.scorers import Energy, check_scorer
    >>> check_scorer(Energy())
    >>> check_scorer(Energy, name="background_scorer")
    Traceback (most recent call last):
    ...
    TypeError: background_scorer is the class Energy; wanted an instance: pass Energy().
    """
    if isinstance(scorer, type):
        raise TypeError(f"{name} is the class {scorer.__name__}; wanted an instance: pass {scorer.__name__}().")
    missing = [method for method in ("fit", "score_samples") if not callable(getattr(scorer, method, None))]
    wanted = "fit(representation, y) and score_samples(representation), such as skdfb.scorers.Energy()"
    if missing:
        raise TypeError(
            f"{name} is {scorer!r}, a {type(scorer).__name__} without {' and '.join(missing)}; wanted a scorer with "
            f"{wanted}."
        )
    for method, arguments in (("fit", (None, None)), ("score_samples", (None,))):
        try:
            inspect.signature(getattr(scorer, method)).bind(*arguments)
        except TypeError as error:
            raise TypeError(
                f"{name} is {scorer!r}, whose {method} cannot be called with {len(arguments)} argument(s) ({error}); "
                f"wanted a scorer with {wanted}."
            ) from None


def perturbation_of(scorer: Any) -> float:
    """Return the input perturbation that a scorer asks for; 0 for those that ask for none."""
    return float(scorer.input_perturbation) if isinstance(scorer, InputPerturbingScorer) else 0.0


def needs_images(scorer: Any) -> bool:
    """Tell whether a scorer asks for more than the features and logits of the images as they are."""
    return bool(perturbation_of(scorer) or activations_needed(scorer))
