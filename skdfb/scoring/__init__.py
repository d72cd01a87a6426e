"""From views of images to one joint score and a threshold; no network is in here."""

from skdfb._registry import register_classes
from skdfb.scoring._hold_out import HeldOutSplit, hold_out
from skdfb.scoring._joint_score import JointScore

__all__ = ["HeldOutSplit", "JointScore", "hold_out"]

register_classes(__name__)
