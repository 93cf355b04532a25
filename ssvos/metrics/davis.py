"""The protocols of DAVIS-2016, DAVIS-2017 semi-supervised and DAVIS-2017 unsupervised.

Common to all: an object's J and F are kept per frame; over its frames come mean, recall and decay; then every
object of every sequence counts the same in the global figures. All figures are fractions.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from ssvos.labels import BACKGROUND, UNLABELLED, read_labels
from ssvos.metrics.object_scores import (
    Evaluation,
    OnFrame,
    SequenceScores,
    Task,
    advance,
    score_foreground,
    score_masks,
    score_objects,
    stack_scores,
)
from ssvos.metrics.sequence_folders import annotated_frames, find_sequences, read_pair, require_predictions

RECALL_THRESHOLD = 0.5
MAX_PROPOSALS = 20


Protocol = Literal["davis2017", "davis2016", "davis2017-unsupervised"]


def evaluate_davis2017(
    gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None = None, on_frame: OnFrame | None = None
) -> dict:
    """DAVIS-2017 semi-supervised scores of the folders <sequence>/<frame>.png under pred_dir.

    sequences: which to score (None: all folders of gt_dir)
    on_frame:  called with 1 after each scored frame, for a progress bar
    returns:   see `summarize`; what counts is in `score_sequence`
    Raises FileNotFoundError or ValueError, before anything is scored where a folder or file is missing.
    """
    return summarize(davis_evaluation("davis2017", gt_dir, pred_dir, sequences).score(on_frame))


def evaluate_davis2016(
    gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None = None, on_frame: OnFrame | None = None
) -> dict:
    """DAVIS-2016 scores: one object a sequence (`score_sequence_davis2016`); else as `evaluate_davis2017`."""
    return summarize(davis_evaluation("davis2016", gt_dir, pred_dir, sequences).score(on_frame))


def evaluate_davis2017_unsupervised(
    gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None = None, on_frame: OnFrame | None = None
) -> dict:
    """DAVIS-2017 unsupervised scores (`score_sequence_unsupervised`); else as `evaluate_davis2017`."""
    return summarize(davis_evaluation("davis2017-unsupervised", gt_dir, pred_dir, sequences).score(on_frame))


def davis_evaluation(
    protocol: Protocol, gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None = None
) -> Evaluation:
    """What an evaluation by a DAVIS protocol has to do; raises as `evaluate_davis2017` before anything is scored."""
    score, scored_frames = {
        "davis2017": (score_sequence, _inner_frames),
        "davis2016": (score_sequence_davis2016, _inner_frames),
        "davis2017-unsupervised": (score_sequence_unsupervised, annotated_frames),
    }[protocol]
    gt_dir, pred_dir = Path(gt_dir), Path(pred_dir)
    tasks = []
    for name in find_sequences(gt_dir, pred_dir, sequences):
        frames = scored_frames(gt_dir / name)
        require_predictions(pred_dir / name, frames)
        tasks.append(Task(name, len(frames), partial(score, gt_dir / name, pred_dir / name)))
    return Evaluation(tuple(tasks), summarize)


def require_annotations(gt_dir: Path) -> None:
    """ValueError for annotations that `score_sequence` could not score, whatever is predicted."""
    _inner_frames(gt_dir)
    _first_ids(gt_dir)


def score_sequence(gt_dir: Path, pred_dir: Path, on_frame: OnFrame | None = None) -> SequenceScores:
    """Score one sequence's folders of <frame>.png by the DAVIS-2017 semi-supervised protocol.

    Scored are all annotated frames but the first and the last; no other prediction is read. Objects are 1..K,
    K the highest id in the first annotation: an id below K that never occurs counts (as right where the
    prediction lacks it), one above K that comes later does not. 255 in an annotation is background.
    """
    frames = _inner_frames(gt_dir)
    ids = _first_ids(gt_dir)
    rows = []
    for frame in frames:
        rows.append(score_objects(*read_pair(gt_dir, pred_dir, frame, max_id=len(ids)), ids))
        advance(on_frame)
    return stack_scores(frames, ids, rows)


def score_sequence_davis2016(gt_dir: Path, pred_dir: Path, on_frame: OnFrame | None = None) -> SequenceScores:
    """Score one sequence by the DAVIS-2016 protocol: one object, in all frames but the first and the last.

    All annotated objects are merged into the one; 255 in an annotation is background, as in DAVIS-2017.
    Whatever is not 0 in a prediction is the object.
    """
    frames = _inner_frames(gt_dir)
    rows = []
    for frame in frames:
        rows.append(score_foreground(*read_pair(gt_dir, pred_dir, frame, max_id=UNLABELLED)))
        advance(on_frame)
    return stack_scores(frames, (1,), rows)


def score_sequence_unsupervised(gt_dir: Path, pred_dir: Path, on_frame: OnFrame | None = None) -> SequenceScores:
    """Score one sequence by the DAVIS-2017 unsupervised protocol, in all its annotated frames.

    Pixels annotated as 255 are left out of both masks. Objects are as in `score_sequence`. Predicted ids are
    at most 20 proposals, of which each object gets one, so that the sum of mean J&F is highest. Rows follow
    the matched proposals in order and are numbered 1..K.
    """
    frames = annotated_frames(gt_dir)
    ids = _first_ids(gt_dir)
    present = np.zeros((len(ids), len(frames)), dtype=bool)
    J, F = np.zeros((2, max(MAX_PROPOSALS, len(ids)), len(ids), len(frames)))
    num_proposals = len(ids)
    for t, frame in enumerate(frames):
        gt, pred = read_pair(gt_dir, pred_dir, frame, max_id=MAX_PROPOSALS)
        num_proposals = max(num_proposals, int(pred.max()))
        pred[gt == UNLABELLED] = BACKGROUND
        present[:, t] = np.isin(ids, gt)
        _score_pairs(gt, pred, J[..., t], F[..., t])
        advance(on_frame)
    J, F = J[:num_proposals], F[:num_proposals]
    proposal_idx, object_idx = linear_sum_assignment(-(J.mean(axis=2) + F.mean(axis=2)) / 2)
    return SequenceScores(frames, ids, J[proposal_idx, object_idx], F[proposal_idx, object_idx], present[object_idx])


def _score_pairs(gt: np.ndarray, pred: np.ndarray, J: np.ndarray, F: np.ndarray) -> None:
    """Fill J and F, both (proposals, objects), with the scores of every proposal against every object."""
    nothing = np.zeros(pred.shape, dtype=bool)
    proposals = {i: pred == i + 1 for i in range(J.shape[0])}
    proposals = {i: mask for i, mask in proposals.items() if mask.any()}
    for k in range(J.shape[1]):
        gt_mask = gt == k + 1
        J[:, k], F[:, k] = score_masks(gt_mask, nothing)
        for i, pred_mask in proposals.items():
            J[i, k], F[i, k] = score_masks(gt_mask, pred_mask)


def summarize(scores: Mapping[str, SequenceScores]) -> dict:
    """The benchmark's figures of scored sequences.

    returns: {"global": {"J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"},
              "objects": {"<sequence>_<id>": {"J": {"mean", "recall", "decay"}, "F": the same}}}
    """
    objects = {
        f"{name}_{object_id}": {"J": statistics(J), "F": statistics(F)}
        for name, sequence in scores.items()
        for object_id, J, F in zip(sequence.object_ids, sequence.J, sequence.F, strict=True)
    }
    overall = {
        f"{measure}-{key.capitalize()}": float(np.mean([row[measure][key] for row in objects.values()]))
        for measure in ("J", "F")
        for key in ("mean", "recall", "decay")
    }
    return {
        "global": {"J&F-Mean": (overall["J-Mean"] + overall["F-Mean"]) / 2, **overall},
        "objects": objects,
    }


def statistics(values: np.ndarray) -> dict[str, float]:
    """Mean, recall (share > 0.5), decay (first quarter's mean less the last's) of one object's (T,) scores.

    Neighbouring quarters share a frame. (The official code's 8-bit indices fail from 256 frames on.)
    """
    # The k-th edge is 1 + k(T - 1)/4 rounded half up and counted from 0, here in whole numbers.
    edges = [(k * (len(values) - 1) + 2) // 4 for k in range(5)]
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return {
        "mean": float(values.mean()),
        "recall": float((values > RECALL_THRESHOLD).mean()),
        "decay": float(first.mean() - last.mean()),
    }


def _inner_frames(gt_dir: Path) -> tuple[str, ...]:
    """The annotated frames without the first, which was given, and the last."""
    frames = annotated_frames(gt_dir)
    if len(frames) < 3:
        raise ValueError(
            f"{gt_dir}: {len(frames)} annotated frames; at least 3 needed, first and last are not scored; leave it out"
        )
    return frames[1:-1]


def _first_ids(gt_dir: Path) -> tuple[int, ...]:
    """1..K, K being the highest id in the first annotation."""
    path = Path(gt_dir) / f"{annotated_frames(gt_dir)[0]}.png"
    labels = read_labels(path)
    num_objects = int(labels[labels != UNLABELLED].max(initial=BACKGROUND))
    if num_objects == 0:
        raise ValueError(f"{path}: no object in the first annotation, so there is nothing to score; leave it out")
    return tuple(range(1, num_objects + 1))
