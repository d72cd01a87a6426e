"""The differences between a run of ``reproduce_paper.py`` and the text of the DFB paper, each with its source.

The paper is Ding and Pang, ACM MM 2024, arXiv 2303.08727. ``python benchmarks/reproduce_paper.py --differences`` prints
the list for the given options. The page "Reproducing the paper" of the documentation has the list for the defaults.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_BOTH_STAGES = {
    "max_steps": 20_000,
    "batch_size": 128,
    "learning_rate": 0.003,
    "optimizer": "sgd",
    "momentum": 0.9,
    "schedule": "step",  # a tenth after 30 %, 60 % and 90 % of the steps
    "frozen_stages": 0,  # all weights are fine-tuned
}
# The values in the paper's text for each stage, as parameters of a trainer.
PAPER_TRAINERS: dict[str, dict[str, Any]] = {
    "classifier_trainer": _BOTH_STAGES | {"scale_range": (1.25, 1.25), "mixup": 0.1},  # resize to 160, crop of 128
    "dense_trainer": _BOTH_STAGES
    | {"scale_range": (0.5, 2.0), "flip": True, "mixup": None, "classification_weight": 0.0},  # Eq. 3 and 4
}
# The values in the paper's text for the detector: Eq. 6, Eq. 7 and the size of the images.
PAPER_DETECTOR = {
    "background_scorer": "BackgroundLogit()",
    "fusion": "TemperatureFusion()",
    "image_size": 128,
    "mask_generator": "CAMMaskGenerator()",
}


@dataclass(frozen=True)
class Difference:
    """A difference between a run and the paper's text.

    Parameters
    ----------
    subject : str
        The step or the score that differs.
    paper : str
        The paper's text.
    here : str
        The run. Names of options in braces stand for their values.
    source : str
        The origin of the choice.
    parameters : tuple of str, default=()
        The parameters that hold the choice, those of trainers as ``"classifier_trainer__flip"``.
    holds : callable, default=None
        Whether it is a difference of a run with given options. None is always.
    """

    subject: str
    paper: str
    here: str
    source: str
    parameters: tuple[str, ...] = ()
    holds: Callable[[Any], bool] | None = None


def _of_paper(arguments: Any) -> bool:
    return bool(arguments.recipe == "paper")


def _of_default(arguments: Any) -> bool:
    return bool(arguments.recipe == "default")


DIFFERENCES = (
    Difference(
        "Start of the dense network",
        "Section 3.1 has the trained classifier, the implementation details have the pre-trained BiT-M checkpoint.",
        "The trained classifier.",
        "Section 3.1. Pass --dense-start pretrained for the implementation details.",
        ("dense_trainer__dense_start",),
        lambda arguments: arguments.dense_start == "classifier",
    ),
    Difference(
        "Start of the dense network",
        "Section 3.1 has the trained classifier, the implementation details have the pre-trained BiT-M checkpoint.",
        "The pre-trained checkpoint.",
        "The implementation details. Pass --dense-start classifier for section 3.1.",
        ("dense_trainer__dense_start",),
        lambda arguments: arguments.dense_start == "pretrained",
    ),
    Difference(
        "Warm-up",
        "Not in the text.",
        "The learning rate rises over the first 500 steps, but over at most a fifth of the steps.",
        "BiT (Kolesnikov et al., ECCV 2020) and the authors' code.",
        ("classifier_trainer__warmup_steps", "dense_trainer__warmup_steps"),
    ),
    Difference(
        "Flips in the classifier's stage",
        "Flips are named for the dense stage only.",
        "No flips.",
        "The paper's text. The authors' code mirrors half of the images.",
        ("classifier_trainer__flip",),
        _of_paper,
    ),
    Difference(
        "ReLU in the class activation map",
        "Eq. 1 has no ReLU, nor has the class activation map of Zhou et al. (CVPR 2016).",
        "Negative values become 0 before scales and flips are added up.",
        "Grad-CAM (Selvaraju et al., ICCV 2017) and the authors' code.",
    ),
    Difference(
        "Joint score of MSP and ODIN",
        "Eq. 7 has log S_b, which does not exist if S_b is 0 or negative.",
        "log softplus(S_b), which is close to log S_b if S_b is large.",
        "This library.",
        ("fusion",),
        _of_paper,
    ),
    Difference(
        "Held-out images",
        "No images are held out.",
        "{held_out} of the training images set the threshold, which no table needs, and are not trained on.",
        "This library; --calibration-fraction changes it.",
        ("calibration_fraction",),
    ),
    # ------------------------------------------------ differences by options
    Difference(
        "Steps",
        "20,000 in each stage.",
        "{steps} in each stage.",
        "--steps.",
        ("classifier_trainer__max_steps", "dense_trainer__max_steps"),
        lambda arguments: arguments.steps not in (None, 20_000),
    ),
    Difference(
        "Steps",
        "20,000 in each stage.",
        "BiT's rule: 500 below 20,000 training images, 10,000 below 500,000, else 20,000.",
        "--recipe default.",
        (),
        lambda arguments: _of_default(arguments) and arguments.steps is None,
    ),
    Difference(
        "Background score",
        "S_b alone (Eq. 6).",
        "S_b and a Mahalanobis score of the background features.",
        "--recipe default.",
        (),
        _of_default,
    ),
    Difference("Joint score", "Eq. 7.", "Tail probabilities of three parts.", "--recipe default.", (), _of_default),
    Difference(
        "Loss of the dense stage",
        "The pixel loss alone (Eq. 3 and 4).",
        "The pixel loss and a classification loss.",
        "--recipe default.",
        (),
        _of_default,
    ),
    Difference(
        "Flips in the classifier's stage",
        "Flips are named for the dense stage only.",
        "Half of the images are mirrored.",
        "--recipe default.",
        (),
        _of_default,
    ),
    Difference(
        "Batches",
        "128 images.",
        "{batch_size} images.",
        "--batch-size.",
        ("classifier_trainer__batch_size", "dense_trainer__batch_size"),
        lambda arguments: arguments.batch_size != 128,
    ),
    Difference(
        "Size of the images",
        "128 pixels.",
        "{image_size} pixels.",
        "--image-size.",
        ("image_size",),
        lambda arguments: arguments.image_size != 128,
    ),
    Difference(
        "Precision",
        "32-bit numbers (assumed: no others are named).",
        "{precision}.",
        "--precision.",
        ("classifier_trainer__precision", "dense_trainer__precision"),
        lambda arguments: arguments.precision != "32-true",
    ),
    Difference(
        "Network",
        "BiT-M R50x1.",
        "{backbone}.",
        "--backbone.",
        ("backbone",),
        lambda arguments: not arguments.backbone.startswith("resnetv2_50x1_bit.goog_in21k"),
    ),
    Difference(
        "Number of images",
        "All images of each set.",
        "At most {n_train} training images, {n_test} test images and {n_ood} images of each OOD set (None: all).",
        "--n-train, --n-test and --n-ood.",
        (),
        lambda arguments: (arguments.n_train, arguments.n_test, arguments.n_ood) != (None, None, None),
    ),
)

# The authors' public code, compared with the run, and how to get the same here.
AUTHORS_CODE = (
    ("Dense network and joint score", "It has no training of the dense network, no S_b and no joint score."),
    (
        "Class of the masks",
        "The predicted class, unless --labeled is passed. Here the true class; CAMMaskGenerator(true_class=False) "
        "takes the predicted class.",
    ),
    (
        "Bias of the head",
        "The class activation map includes it. Here it does not; CAMMaskGenerator(use_bias=True) adds it.",
    ),
    ("Threshold of the masks", "Foreground is above 0.5. Here it is at least 0.5, as in Eq. 2."),
    ("Steps", "10,000 for the sets of the paper, with drops after 3,000, 6,000 and 9,000. Here 20,000."),
    ("Mixup", "None below 20,000 training images. Here the paper's recipe always mixes."),
    (
        "Checkpoint",
        "BiT-M-R50x1-ILSVRC2012, which is fine-tuned on ImageNet-1k. Here BiT-M as pre-trained on ImageNet-21k; "
        "--backbone resnetv2_50x1_bit.goog_in21k_ft_in1k has the weights after fine-tuning.",
    ),
    (
        "ODIN",
        "Temperature 2 and no perturbation. Here the same, since at the library's default temperature of 1,000 the "
        "probabilities of all images are nearly equal.",
    ),
    (
        "Places365",
        "The images that MOS (Huang and Li, CVPR 2021) selected. Here all 36,500 images of the validation part, on "
        "whose number AUPR depends.",
    ),
    (
        "FPR95",
        "At the threshold whose true positive rate is nearest to 95 %. Here at the highest threshold that keeps at "
        "least 95 % of the in-distribution images.",
    ),
)


def differences(arguments: Any) -> list[Difference]:
    """Return the differences of a run with these options, in the order of :data:`DIFFERENCES`."""
    return [found for found in DIFFERENCES if found.holds is None or found.holds(arguments)]


def as_rows(arguments: Any) -> list[dict[str, str]]:
    """Return subject, paper, here and source of each difference of a run, as texts."""
    fraction = arguments.calibration_fraction
    held_out = "A tenth" if fraction == "auto" else f"{100 * fraction:g} %"
    values = vars(arguments) | {"held_out": held_out}
    return [
        {
            "subject": found.subject,
            "paper": found.paper,
            "here": found.here.format(**values),
            "source": found.source,
        }
        for found in differences(arguments)
    ]


def format_differences(arguments: Any) -> str:
    """Return all differences of a run, and those of the authors' code, as a text."""
    lines = ["Differences between this run and the paper's text", ""]
    for row in as_rows(arguments):
        lines += [row["subject"], *(f"  {name + ':':<8}{row[name]}" for name in ("paper", "here", "source"))]
    lines += ["", "The authors' code (https://github.com/mala-lab/DFB), compared with this run", ""]
    for subject, text in AUTHORS_CODE:
        lines += [subject, f"  {text}"]
    return "\n".join(lines)
