"""
Quickstart: digits on photographs
=================================

Fit a detector on images that come with the package, compare it with the plain classifier that it starts from, and plot
masks and scores. Nothing is downloaded; on two CPU cores this takes about two minutes.
"""

# %%
# The images
# ----------
#
# The known classes are the handwritten digits 0 to 5 on crops of a photograph. The OOD sets are: other digits on the known
# photograph, known digits on another photograph, and each of the two photographs without a digit.

from skdfb.datasets import load_digits_on_photos

data = load_digits_on_photos(random_state=0)
print(data.images.shape, data.images.dtype, {name: X.shape for name, X in data.ood_images.items()})

# %%
# The detector
# ------------
#
# ``backbone`` is usually the name of a timm model with ImageNet weights: ``DFBDetector("resnet50.a1_in1k")``. Here a tiny
# network starts from random weights, so the learning rate is higher than the default, which is for fine-tuning. A mirror
# changes the meaning of digits: ``flip=False``.

from skdfb import CAMMaskGenerator, DFBDetector, Trainer
from skdfb.networks import create_backbone
from skdfb.scorers import ViM

backbone = create_backbone("test_resnet", pretrained=False, output_stride=8, random_state=0)
recipe = {"max_steps": 700, "batch_size": 32, "weight_decay": 5e-4, "schedule": "cosine", "flip": False, "mixup": None}
detector = DFBDetector(
    backbone,
    scorer=ViM(),
    classifier_trainer=Trainer(learning_rate=0.3, **recipe),
    dense_trainer=Trainer(learning_rate=0.1, **recipe),
    image_size=64,
    random_state=0,
)
detector.fit(data.images, data.target)

# %%
# ``predict`` returns +1 for in-distribution and -1 for OOD. ``predict_open_set`` returns the label, and -1 for OOD.

print(detector.predict(data.images_test[:8]), detector.predict(data.ood_images["unseen_photo"][:8]))
print(detector.predict_open_set(data.images_test[:8]))

# %%
# Several scorers, with and without the background
# ------------------------------------------------
#
# ``compare_scorers`` trains nothing. The figure on the left of the arrow (*plain*) is the scorer on the classifier of the
# first stage. The figure on the right is the same scorer on the dense network, joined with the background scores.

from skdfb.evaluation import class_accuracy, compare_scorers, format_comparison

accuracy = class_accuracy(detector, data.images_test, data.target_test)
print(f"accuracy: plain classifier {accuracy['plain']:.1%}, DFB {accuracy['dfb']:.1%}")
table = compare_scorers(detector, data.images_test, data.ood_images, X=data.images, y=data.target)
print(format_comparison(table))

# %%
# The masks
# ---------
#
# The dense network is trained on masks from class activation maps. The true masks are known here, because the digits were
# pasted into the images. So both kinds of masks can be compared with them.

from skdfb.metrics import mask_iou

n_classes = len(detector.classes_)
generator = CAMMaskGenerator(detector.classifier_)
cam_foreground = generator.fit_transform(data.images_test, data.target_test) < n_classes
segmented = detector.segment(data.images_test)[..., -1] < 0.5
true_foreground = data.masks_test < n_classes
print(f"mask IoU: CAM {mask_iou(cam_foreground, true_foreground):.3f}, ", end="")
print(f"dense network {mask_iou(segmented, true_foreground):.3f}")

# %%
# A picture of masks and scores
# -----------------------------

import matplotlib.pyplot as plt

from skdfb.displays import MaskDisplay, ScoreHistogramDisplay

figure = plt.figure(figsize=(9, 8), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 1))
first = slice(0, 8)
MaskDisplay.from_predictions(
    data.images_test[first],
    {
        "true mask": true_foreground[first],
        "CAM mask": cam_foreground[first],
        "dense network": 1 - detector.segment(data.images_test[first])[..., -1],
    },
    fig=above,
)
ScoreHistogramDisplay.from_estimator(
    detector, {"known digits": data.images_test, **data.ood_images}, ax=below.subplots()
)
figure.savefig("quickstart.png", dpi=120)
