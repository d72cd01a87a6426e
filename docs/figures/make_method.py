"""Draw ``docs/_static/method.png``: the two networks, the parts of the score, and the equations of the paper.

Run it in the root of the repository: ``python docs/figures/make_method.py``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from skdfb.datasets import load_digits_on_photos

PATH = Path(__file__).parents[1] / "_static" / "method.png"
COLORS = {"network": "#cfe3f7", "result": "#f3f3f3", "foreground": "#d8f0d2", "background": "#fde3c8"}
# Centre of each box, its text and the kind of its colour. One row per step, from the top.
BOXES = {
    "classifier": (4.9, 9.0, "classifier\nK classes", "network"),
    "map": (8.5, 9.0, "attention map\nEq. 1", "result"),
    "dense": (4.9, 6.3, "dense network\nK + 1 classes\nEq. 3, 4", "network"),
    "logits": (8.5, 6.3, "mean over\nplaces, Eq. 5", "result"),
    "foreground": (3.4, 3.6, "K logits:\nforeground\nscore $S_f$", "foreground"),
    "background": (8.5, 3.6, "background\nlogit: score\n$S_b$, Eq. 6", "background"),
    "joint": (3.4, 1.2, "joint score\nEq. 7 or tails", "result"),
    "answer": (8.5, 1.2, "below the\nthreshold:\nrejected", "result"),
}
ARROWS = [("classifier", "map"), ("dense", "logits"), ("foreground", "joint"), ("joint", "answer")]
WIDTH, HEIGHT = 2.9, 1.6


def draw(path: Path) -> None:
    """Save the diagram. Its ground is white, which dark pages show as a card."""
    figure, axis = plt.subplots(figsize=(7.6, 7.4))
    axis.set(xlim=(0, 10.1), ylim=(0, 10.4), aspect="equal")
    axis.axis("off")
    data = load_digits_on_photos(n_train=6, n_test=6, n_ood=1, image_size=64, random_state=3)
    draw_picture(axis, data.images[0], (1.6, 9.0), "image, label")
    foreground = (data.masks[0] != data.n_classes)[..., None]
    masked = np.where(foreground, data.images[0], data.images[0] // 4)  # the background is dark
    draw_picture(axis, masked, (1.6, 6.3), "image, mask (Eq. 2)")
    for x, y, text, kind in BOXES.values():
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        axis.add_patch(
            FancyBboxPatch(corner, WIDTH, HEIGHT, "round,pad=0,rounding_size=0.2", fc=COLORS[kind], ec="0.3")
        )
        axis.text(x, y, text, ha="center", va="center", fontsize=14)
    for first, second in ARROWS:
        draw_arrow(axis, BOXES[first][:2], BOXES[second][:2])
    draw_arrow(axis, (1.6, 9.0), BOXES["classifier"][:2], shrink=38)
    draw_arrow(axis, (1.6, 6.3), BOXES["dense"][:2], shrink=38)
    draw_bend(axis, (8.5, 8.2), (1.6, 7.75), 7.97)
    draw_bend(axis, (8.5, 5.5), (3.4, 4.4), 4.95)
    draw_bend(axis, (8.5, 5.5), (8.5, 4.4), 4.95)
    draw_bend(axis, (8.5, 2.8), (3.4, 2.0), 2.4)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def draw_picture(axis, picture, center, title) -> None:
    """Draw a small picture with a title above it."""
    x, y = center
    inset = axis.inset_axes([x - 0.9, y - 0.9, 1.8, 1.8], transform=axis.transData)
    inset.imshow(picture)
    inset.set(xticks=[], yticks=[])
    axis.text(x, y + 1.0, title, ha="center", va="bottom", fontsize=13)


def draw_arrow(axis, start, end, shrink=None) -> None:
    """Draw an arrow between two boxes that are beside or below each other."""
    horizontal = start[1] == end[1]
    a = (
        (start[0] + (WIDTH / 2 if shrink is None else 0.95), start[1])
        if horizontal
        else (start[0], start[1] - HEIGHT / 2)
    )
    b = (end[0] - WIDTH / 2, end[1]) if horizontal else (end[0], end[1] + HEIGHT / 2)
    axis.add_patch(FancyArrowPatch(a, b, arrowstyle="-|>", mutation_scale=16, color="0.3", shrinkA=1, shrinkB=1))


def draw_bend(axis, start, end, height) -> None:
    """Draw an arrow down, along ``height``, and down."""
    axis.plot([start[0], start[0], end[0]], [start[1], height, height], color="0.3", linewidth=1.2)
    axis.add_patch(FancyArrowPatch((end[0], height), end, arrowstyle="-|>", mutation_scale=16, color="0.3", shrinkA=0))


if __name__ == "__main__":
    draw(PATH)
