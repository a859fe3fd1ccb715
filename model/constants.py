"""Numbers that several packages share; without torch, so that reading them costs nothing."""

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of linear R, G and B in luminance, and of R'G'B' in luma. Rec. ITU-R BT.709-6, items 3.2 and 3.3."""

LOG_RANGE = (0.0, 10.0)
"""What Y of eq. 1, log(H + 1), is held to before `exp`: from black to 22,025 times LDR white."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of R'G'B' in [0, 1] over ImageNet: what networks that began there take for 0."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the same."""
