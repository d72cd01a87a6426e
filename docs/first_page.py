"""From a folder of labelled images to an answer and its reason: the example of the README and of the home page."""

from skdfb import FrozenDetector

detector = FrozenDetector("tf_efficientnet_lite0", random_state=0)
detector.fit("images/")  # one sub-folder per class; no OOD images

print(detector.predict_open_set("new/"))  # the class, or "unknown"
print(detector.explain("new/"))  # one sentence per image: the answer and its reason
detector.save("detector.safetensors")
