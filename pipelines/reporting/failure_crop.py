"""A picture of a failure: a crop of a frame around an object, with the outlines of its true and predicted mask."""

import cv2
import numpy as np

TRUE_COLOR, PREDICTED_COLOR = (70, 220, 255), (255, 120, 20)  # blue and orange: distinct with any color vision
_WIDTH = 440  # of the picture, in pixels
_MIN_SHARE = 0.25  # of the frame's width and height
_MARGIN = 0.25  # of the masks' bounding box, on each side


def failure_picture(frame: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Crop a frame around both masks and draw their outlines.

    frame:   (H, W, 3) uint8
    true, predicted: masks of one object, (H, W) bool
    returns: (h, w, 3) uint8 with the frame's aspect ratio
    """
    crop = _crop(true | predicted)
    picture = frame[crop]
    height, width = picture.shape[:2]
    size = (_WIDTH, max(1, round(_WIDTH * height / width)))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if width > _WIDTH else cv2.INTER_CUBIC)
    for mask, color in ((true, TRUE_COLOR), (predicted, PREDICTED_COLOR)):
        resized = cv2.resize(mask[crop].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(resized, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for line_color, thickness in (((0, 0, 0), 4), (color, 2)):
            cv2.drawContours(picture, contours, -1, line_color, thickness)
    return picture


def _crop(mask: np.ndarray) -> tuple[slice, slice]:
    """The crop around a mask, (H, W) bool, with a margin and the frame's aspect ratio."""
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    share = min(1.0, max(_MIN_SHARE, (1 + 2 * _MARGIN) * max(w / width, h / height)))
    crop_height, crop_width = max(1, round(share * height)), max(1, round(share * width))
    top = min(max(0, round(y + h / 2 - crop_height / 2)), height - crop_height)
    left = min(max(0, round(x + w / 2 - crop_width / 2)), width - crop_width)
    return slice(top, top + crop_height), slice(left, left + crop_width)
