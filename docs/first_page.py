"""From a folder of labelled images to an answer and its reason: the example of the README and of the home page."""

from skdfb import FrozenDetector

detector = FrozenDetector("tf_efficientnet_lite0", random_state=0)
detector.fit("images/")  # one sub-folder per class; no OOD images

why = detector.explain("new/")
for name, label, sentence in zip(why.names, detector.predict_open_set("new/"), why.sentences, strict=True):
    print(name, label, sentence)  # the class, or "unknown" if it is rejected; and the reason
detector.save("detector.safetensors")
