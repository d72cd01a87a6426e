"""
A folder of photographs
=======================

Fit a detector on a folder with one sub-folder per class, and sort a folder of new photographs. Paths are all that the
detector needs.
"""

# %%
# The folders
# -----------
#
# You have such folders already. Here small photographs are written to a temporary folder: three classes for the fit, and
# new photographs of the same classes and of a lake, of leaves and of the sky.

import tempfile
from pathlib import Path

from PIL import Image

from skdfb.datasets import load_photo_crops

folder = tempfile.TemporaryDirectory()
images, new, other = (Path(folder.name, name) for name in ("images", "new", "other"))


def write(pixels, *path):
    file = Path(*path)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


data = load_photo_crops(n_train=150, n_test=30, n_ood=10, image_size=96, random_state=0)
for i, (pixels, name) in enumerate(zip(data.images, data.target, strict=True)):
    write(pixels, images, name, f"{i:03}.png")
for i, pixels in enumerate(data.images_test):
    write(pixels, new, f"known_{i:02}.png")
for name, crops in data.ood_images.items():
    for i, pixels in enumerate(crops):
        write(pixels, other, name, f"{i:02}.png")

# %%
# Fit on the folder
# -----------------
#
# The names of the sub-folders are the labels. The more images are held out for the threshold, the less it depends on chance:
# a third, since there are few.

from skdfb import FrozenDetector

detector = FrozenDetector("tf_efficientnet_lite0", image_size=128, calibration_fraction=0.33, random_state=0)
detector.fit(images)
print(detector.classes_)

# %%
# Sort new photographs
# --------------------
#
# ``load_image_folder`` lists the files in the order in which every method of the detector reads them.

from skdfb.datasets import load_image_folder

paths = load_image_folder(new).paths
for path, label in list(zip(paths, detector.predict_open_set(new), strict=True))[:6]:
    print(f"{Path(path).name}: {label}")
for name, files in {"known classes": new, **{name: other / name for name in data.ood_images}}.items():
    rejected = detector.predict(files) == -1
    print(f"{name}: {rejected.sum()} of {len(rejected)} rejected")

# %%
# A list for a spreadsheet
# ------------------------
#
# ``explain`` has everything of each image in one table: label, p-value, whether it is rejected, and a sentence that says why.

table = detector.explain(other / "lake").to_frame()
table["name"] = [Path(name).name for name in table["name"]]
print(table[["name", "p_value", "rejected", "label"]].head(4))
table.to_csv(Path(folder.name, "lake.csv"), index=False)

# %%
# A picture
# ---------

import matplotlib.pyplot as plt

from skdfb.displays import ScoreHistogramDisplay

figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
sets = {"new photographs": new, **{name: other / name for name in data.ood_images}}
ScoreHistogramDisplay.from_estimator(detector, sets, ax=ax)
plt.show()

# %%
# The temporary folder is removed at the end.

folder.cleanup()
