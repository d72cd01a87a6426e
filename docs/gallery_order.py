"""The order of the examples in the gallery: folders as in the package, the quickstart first."""

from pathlib import Path

FOLDERS = ["detector", "scorers", "masks", "augmentation", "evaluation", "scikit_learn", "networks"]
EXAMPLES = {
    "detector": ["quickstart", "image_folder", "explain_rejection", "frozen_features", "choose_alpha"],
    "scorers": ["numpy_scorer", "compare_scorers"],
    "masks": ["masks_alone"],
    "augmentation": ["back_mix"],
    "evaluation": ["report", "tune_without_ood", "open_set_split"],
    "scikit_learn": ["grid_search"],
    "networks": ["trained_classifier"],
}


def by_folder(folder: str) -> int:
    """Return the place of a folder of examples."""
    return FOLDERS.index(Path(folder).name)


def by_name(file: str) -> int:
    """Return the place of an example in its folder."""
    names = [name for folder in FOLDERS for name in EXAMPLES[folder]]
    return names.index(Path(file).stem)
