"""The YouTube-VOS protocol (Xu et al. 2018): J and F, each over seen and unseen categories, and their mean G.

The code of the benchmark's server is not public, and the paper does not say exactly which frames of an object count;
`CONVENTIONS` lists the possible readings.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssvos.metrics.object_scores import (
    Evaluation,
    Figures,
    OnFrame,
    SequenceScores,
    Task,
    count_frame,
    score_objects,
)
from ssvos.metrics.sequence_folders import annotated_frames, find_sequences, read_pair, require_predictions

# (frame, the object's first listed frame, all its listed frames, the video's last annotated frame) -> whether it counts
CONVENTIONS: Mapping[str, Callable[[str, str, frozenset[str], str], bool]] = {
    "after_entry": lambda frame, entry, listed, last: frame > entry,
    "after_entry_listed_only": lambda frame, entry, listed, last: frame > entry and frame in listed,
    "from_entry": lambda frame, entry, listed, last: frame >= entry,
    "after_entry_without_last": lambda frame, entry, listed, last: entry < frame < last,
}


@dataclass(frozen=True)
class MetaObject:
    """One object of a meta.json: its id, its category and its listed frames."""

    object_id: int
    category: str
    frames: frozenset[str]


def evaluate_youtube_vos(
    gt_dir: Path,
    pred_dir: Path,
    meta: Path,
    train_meta: Path,
    convention: str = "after_entry",
    sequences: Sequence[str] | None = None,
    on_frame: OnFrame | None = None,
) -> Figures:
    """Score folders <video>/<frame>.png by the YouTube-VOS protocol.

    gt_dir: the folders of annotations.
    pred_dir: the folders of predictions.
    meta: the meta.json of the scored videos.
    train_meta: that of the training videos, whose categories are the seen ones.
    convention: which annotated frames of an object count (`CONVENTIONS`); by default all after its first listed frame,
        whose mask methods receive, to the end of the video.
    sequences: which videos to score; None: all folders of gt_dir.
    on_frame: called with 1 after each scored frame, for a progress bar.
    returns: fractions, {"global": {"G", "J_seen", "J_unseen", "F_seen", "F_unseen"},
        "objects": {"<video>_<id>": {"J", "F", "seen"}}}. An object of which no frame counts is not in them. The figures
        of a split without objects are None, and so is G.
    Raises FileNotFoundError or ValueError for faulty input; for a missing folder or file before anything is scored.
    """
    evaluation = youtube_vos_evaluation(gt_dir, pred_dir, meta, train_meta, convention, sequences)
    return evaluation.summarize(evaluation.score(on_frame))


def youtube_vos_evaluation(
    gt_dir: Path,
    pred_dir: Path,
    meta: Path,
    train_meta: Path,
    convention: str = "after_entry",
    sequences: Sequence[str] | None = None,
) -> Evaluation:
    """The tasks of a YouTube-VOS evaluation. Raises the errors of `evaluate_youtube_vos` for missing input."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention {convention!r} is unknown; choose one of {', '.join(CONVENTIONS)}")
    gt_dir, pred_dir = Path(gt_dir), Path(pred_dir)
    objects, train_objects = read_meta(meta), read_meta(train_meta)
    tasks = []
    for video in find_sequences(gt_dir, pred_dir, sequences):
        if video not in objects:
            raise ValueError(f"{meta}: video {video!r} is not listed; give the meta.json that belongs to {gt_dir}")
        frames = _counted_frames(annotated_frames(gt_dir / video), objects[video], convention)
        require_predictions(pred_dir / video, frames)
        score = partial(score_video, gt_dir / video, pred_dir / video, objects[video], convention)
        tasks.append(Task(video, len(frames), score))
    if not any(task.num_frames for task in tasks):
        raise ValueError(f"{gt_dir}: no object of {meta} has an annotated frame that counts; check that they match")
    return Evaluation(
        tuple(tasks), partial(summarize_youtube_vos, objects=objects, seen=seen_categories(train_objects))
    )


def seen_categories(train_objects: Mapping[str, Iterable[MetaObject]]) -> frozenset[str]:
    """The categories of the objects of the training videos. train_objects: from `read_meta`."""
    return frozenset(item.category for items in train_objects.values() for item in items)


def read_meta(path: Path) -> dict[str, tuple[MetaObject, ...]]:
    """Read the objects of every video from a YouTube-VOS meta.json.

    Raises FileNotFoundError if the file is missing, ValueError if it is not a YouTube-VOS meta.json.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the meta.json of a YouTube-VOS split")
    try:
        videos = json.loads(Path(path).read_text(encoding="utf-8"))["videos"]
        return {
            video: tuple(
                MetaObject(int(object_id), str(item["category"]), frozenset(map(str, item["frames"])))
                for object_id, item in entry["objects"].items()
            )
            for video, entry in videos.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a YouTube-VOS meta.json ({type(error).__name__}: {error}); "
            "expected videos -> <video> -> objects -> <id> -> category, frames"
        ) from error


def score_video(
    gt_dir: Path,
    pred_dir: Path,
    objects: Sequence[MetaObject],
    convention: str = "after_entry",
    on_frame: OnFrame | None = None,
) -> SequenceScores:
    """Score the folders of <frame>.png of one video in the frames that count for one of its objects.

    objects: the video's objects in meta.json.
    returns: J and F are NaN if a frame does not count for an object. An object of which no frame counts is not in them.
    """
    frames = _counted_frames(annotated_frames(gt_dir), objects, convention)
    ids = tuple(item.object_id for item in objects if any(item.object_id in own for own in frames.values()))
    J, F = np.full((2, len(ids), len(frames)), np.nan)
    present = np.zeros(J.shape, dtype=bool)
    max_id = max((item.object_id for item in objects), default=0)
    for t, (frame, own) in enumerate(frames.items()):
        rows = [ids.index(object_id) for object_id in own]
        J[rows, t], F[rows, t], present[rows, t] = score_objects(*read_pair(gt_dir, pred_dir, frame, max_id), own)
        count_frame(on_frame)
    return SequenceScores(tuple(frames), ids, J, F, present)


def _counted_frames(annotated: Sequence[str], objects: Iterable[MetaObject], convention: str) -> dict[str, list[int]]:
    """Frame -> ids of the objects for which it counts, without frames that count for no object."""
    counts = CONVENTIONS[convention]
    counted: dict[str, list[int]] = {}
    for frame in annotated:
        for item in objects:
            if item.frames and counts(frame, min(item.frames), item.frames, annotated[-1]):
                counted.setdefault(frame, []).append(item.object_id)
    return counted


def summarize_youtube_vos(
    scores: Mapping[str, SequenceScores], objects: Mapping[str, Sequence[MetaObject]], seen: Collection[str]
) -> Figures:
    """The benchmark's figures from the scores of the videos, as `evaluate_youtube_vos` returns them.

    objects: video -> its objects in meta.json.
    seen: the categories of the training videos.
    """
    rows = {}
    for video, one in scores.items():
        categories = {item.object_id: item.category for item in objects[video]}
        for k, object_id in enumerate(one.object_ids):
            counted = one.counted[k]
            means = {"J": float(one.J[k, counted].mean()), "F": float(one.F[k, counted].mean())}
            rows[f"{video}_{object_id}"] = means | {"seen": categories[object_id] in seen}
    return {"global": _split_means(rows.values()), "objects": rows}


def _split_means(objects: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean J and F of the seen and of the unseen objects with equal weight, and G, the mean of these four."""
    objects = list(objects)
    means: dict[str, float | None] = {}
    for measure in ("J", "F"):
        for split, is_seen in (("seen", True), ("unseen", False)):
            values = [row[measure] for row in objects if row["seen"] is is_seen]
            means[f"{measure}_{split}"] = float(np.mean(values)) if values else None
    figures = [value for value in means.values() if value is not None]
    return {"G": float(np.mean(figures)) if len(figures) == 4 else None, **means}
