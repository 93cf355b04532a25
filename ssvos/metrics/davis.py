"""The protocols of DAVIS-2016, DAVIS-2017 semi-supervised and DAVIS-2017 unsupervised.

All three compute J and F of an object in each frame, then mean, recall and decay over its frames. The global figures
are means over all objects of all sequences with equal weight. All figures are fractions.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from ssvos.labels import BACKGROUND, UNLABELLED, read_labels
from ssvos.metrics.object_scores import (
    Evaluation,
    Figures,
    OnFrame,
    SequenceScores,
    Task,
    count_frame,
    score_foreground,
    score_masks,
    score_objects,
    stack_scores,
)
from ssvos.metrics.sequence_folders import annotated_frames, find_sequences, read_pair, require_predictions

RECALL_THRESHOLD = 0.5
MAX_PROPOSALS = 20


def evaluate_davis2017(
    gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None = None, on_frame: OnFrame | None = None
) -> Figures:
    """Score folders <sequence>/<frame>.png by the DAVIS-2017 semi-supervised protocol.

    gt_dir: the folders of annotations.
    pred_dir: the folders of predictions.
    sequences: which sequences to score; None: all folders of gt_dir.
    on_frame: called with 1 after each scored frame, for a progress bar.
    returns: see `summarize`; `score_sequence` says which frames and objects count.
    Raises FileNotFoundError or ValueError for faulty input; for a missing folder or file before anything is scored.
    """
    return summarize(davis_evaluation("davis2017", gt_dir, pred_dir, sequences).score(on_frame))


def evaluate_davis2016(
    gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None = None, on_frame: OnFrame | None = None
) -> Figures:
    """DAVIS-2016 scores, with one object per sequence (`score_sequence_davis2016`); otherwise as
    `evaluate_davis2017`."""
    return summarize(davis_evaluation("davis2016", gt_dir, pred_dir, sequences).score(on_frame))


def evaluate_davis2017_unsupervised(
    gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None = None, on_frame: OnFrame | None = None
) -> Figures:
    """DAVIS-2017 unsupervised scores (`score_sequence_unsupervised`); otherwise as `evaluate_davis2017`."""
    return summarize(davis_evaluation("davis2017-unsupervised", gt_dir, pred_dir, sequences).score(on_frame))


def davis_evaluation(protocol: str, gt_dir: Path, pred_dir: Path, sequences: Sequence[str] | None = None) -> Evaluation:
    """The tasks of an evaluation by a DAVIS protocol. Raises the errors of `evaluate_davis2017` for missing input.

    protocol: `davis2017`, `davis2016` or `davis2017-unsupervised`.
    """
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
    """ValueError for annotations that `score_sequence` cannot score, whatever the predictions are."""
    _inner_frames(gt_dir)
    _first_ids(gt_dir)


def score_sequence(gt_dir: Path, pred_dir: Path, on_frame: OnFrame | None = None) -> SequenceScores:
    """Score the folders of <frame>.png of one sequence by the DAVIS-2017 semi-supervised protocol.

    All annotated frames except the first and the last are scored; other predictions are not read. The objects are 1..K,
    where K is the highest id in the first annotation. An id below K that never occurs counts: it scores 1 if the
    prediction lacks it too. An id above K that occurs later does not count. 255 in an annotation is background.
    """
    frames = _inner_frames(gt_dir)
    ids = _first_ids(gt_dir)
    rows = []
    for frame in frames:
        rows.append(score_objects(*read_pair(gt_dir, pred_dir, frame, max_id=len(ids)), ids))
        count_frame(on_frame)
    return stack_scores(frames, ids, rows)


def score_sequence_davis2016(gt_dir: Path, pred_dir: Path, on_frame: OnFrame | None = None) -> SequenceScores:
    """Score one sequence by the DAVIS-2016 protocol: one object, in all frames except the first and the last.

    All annotated objects are merged into one; 255 in an annotation is background, as in DAVIS-2017. Every pixel of a
    prediction that is not 0 belongs to the object.
    """
    frames = _inner_frames(gt_dir)
    rows = []
    for frame in frames:
        rows.append(score_foreground(*read_pair(gt_dir, pred_dir, frame, max_id=UNLABELLED)))
        count_frame(on_frame)
    return stack_scores(frames, (1,), rows)


def score_sequence_unsupervised(gt_dir: Path, pred_dir: Path, on_frame: OnFrame | None = None) -> SequenceScores:
    """Score one sequence by the DAVIS-2017 unsupervised protocol, in all its annotated frames.

    Pixels annotated as 255 are removed from both masks. The objects are those of `score_sequence`. The predicted ids
    are at most 20 proposals. Each object is matched to one proposal so that the sum of the mean J&F is maximal. The
    rows are in the order of the matched proposals and numbered 1..K.
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
        count_frame(on_frame)
    J, F = J[:num_proposals], F[:num_proposals]
    proposal_idx, object_idx = linear_sum_assignment(-(J.mean(axis=2) + F.mean(axis=2)) / 2)
    return SequenceScores(frames, ids, J[proposal_idx, object_idx], F[proposal_idx, object_idx], present[object_idx])


def _score_pairs(gt: np.ndarray, pred: np.ndarray, J: np.ndarray, F: np.ndarray) -> None:
    """Fill J and F, both (proposals, objects), with the scores of every proposal against every object."""
    empty = np.zeros(pred.shape, dtype=bool)
    proposals = {i: pred == i + 1 for i in range(J.shape[0])}
    proposals = {i: mask for i, mask in proposals.items() if mask.any()}
    for k in range(J.shape[1]):
        gt_mask = gt == k + 1
        J[:, k], F[:, k] = score_masks(gt_mask, empty)
        for i, pred_mask in proposals.items():
            J[i, k], F[i, k] = score_masks(gt_mask, pred_mask)


def summarize(scores: Mapping[str, SequenceScores]) -> Figures:
    """The benchmark's figures from the scores of the sequences.

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
    """Mean, recall (share above 0.5) and decay (mean of the first quarter minus that of the last) of scores (T,).

    Neighbouring quarters share a frame. (The 8-bit indices of the official code overflow from 256 frames on.)
    """
    # the k-th edge is 1 + k(T - 1)/4, rounded half up and counted from 0, in integers
    edges = [(k * (len(values) - 1) + 2) // 4 for k in range(5)]
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return {
        "mean": float(values.mean()),
        "recall": float((values > RECALL_THRESHOLD).mean()),
        "decay": float(first.mean() - last.mean()),
    }


def _inner_frames(gt_dir: Path) -> tuple[str, ...]:
    """The annotated frames without the first, whose mask methods receive, and the last."""
    frames = annotated_frames(gt_dir)
    if len(frames) < 3:
        raise ValueError(
            f"{gt_dir}: {len(frames)} annotated frames; at least 3 needed, first and last are not scored; leave it out"
        )
    return frames[1:-1]


def _first_ids(gt_dir: Path) -> tuple[int, ...]:
    """The ids 1..K, where K is the highest id in the first annotation."""
    path = Path(gt_dir) / f"{annotated_frames(gt_dir)[0]}.png"
    labels = read_labels(path)
    num_objects = int(labels[labels != UNLABELLED].max(initial=BACKGROUND))
    if num_objects == 0:
        raise ValueError(f"{path}: no object in the first annotation, so there is nothing to score; leave it out")
    return tuple(range(1, num_objects + 1))
