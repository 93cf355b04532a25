"""A picture of a failure: the part of a frame around an object, with the outlines of its true and predicted mask."""

import cv2
import numpy as np

TRUE_COLOUR, PREDICTED_COLOUR = (70, 220, 255), (255, 120, 20)  # blue and orange: told apart with any colour vision
_WIDTH = 440
_LEAST = 0.25  # of the frame's width and height
_MARGIN = 0.25  # of the objects' box, on each side


def failure_picture(frame: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """frame: (H, W, 3) uint8; true, predicted: an object's masks, (H, W) bool -> (h, w, 3) uint8 of its shape."""
    part = _part(true | predicted)
    picture = frame[part]
    height, width = picture.shape[:2]
    size = (_WIDTH, max(1, round(_WIDTH * height / width)))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if width > _WIDTH else cv2.INTER_CUBIC)
    for mask, colour in ((true, TRUE_COLOUR), (predicted, PREDICTED_COLOUR)):
        shape = cv2.resize(mask[part].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(shape, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for line, thickness in (((0, 0, 0), 4), (colour, 2)):
            cv2.drawContours(picture, contours, -1, line, thickness)
    return picture


def _part(shown: np.ndarray) -> tuple[slice, slice]:
    """The part of a frame around what is shown, (H, W) bool, with a margin and of the frame's shape."""
    height, width = shown.shape
    x, y, w, h = cv2.boundingRect(shown.view(np.uint8))
    share = min(1.0, max(_LEAST, (1 + 2 * _MARGIN) * max(w / width, h / height)))
    tall, wide = max(1, round(share * height)), max(1, round(share * width))
    top = min(max(0, round(y + h / 2 - tall / 2)), height - tall)
    left = min(max(0, round(x + w / 2 - wide / 2)), width - wide)
    return slice(top, top + tall), slice(left, left + wide)
