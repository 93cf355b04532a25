"""Region similarity J (Perazzi et al., CVPR 2016): intersection over union of two masks of one object."""

import numpy as np


def region_similarity(gt: np.ndarray, pred: np.ndarray) -> float:
    """J of an annotated and a predicted mask, both (H, W) bool; in [0, 1].

    J is 1 if both masks are empty, and 0 if only one is.
    """
    assert gt.dtype == pred.dtype == bool and gt.shape == pred.shape, (
        gt.dtype,
        pred.dtype,
        gt.shape,
        pred.shape,
    )
    union = np.count_nonzero(gt | pred)
    return np.count_nonzero(gt & pred) / union if union else 1.0
