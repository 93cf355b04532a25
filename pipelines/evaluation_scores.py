"""Scores of masks of the evaluation videos, frame by frame; Ray Data distributes the videos."""

import csv
import io
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipelines.cluster.ray_cluster import cluster_or_process, quiet_ray_data, requested_workers
from pipelines.cluster.worker_inputs import pack, unpack
from pipelines.evaluation_set import (
    evaluation_videos,
    is_scorable,
    mask_folder,
    score_video,
    sources_of,
    summarize_sources,
    write_masks,
)
from pipelines.params import Layout
from ssvos.config import Config
from ssvos.metrics.object_scores import SequenceScores
from ssvos.metrics.object_shape import shapes_in

COLUMNS = ("source", "sequence", "object", "frame", "J", "F", "area", "width")


@dataclass(frozen=True)
class ScoredVideo:
    """Scores of one evaluation video.

    shapes: (2, K, T) float, area and width (`object_shape`) of its K objects in its T frames.
    """

    source: str
    sequence: str
    scores: SequenceScores
    shapes: np.ndarray


def scoring_cluster(layout: Layout) -> AbstractContextManager[None]:
    """Return the context of `score_predictions`: a cluster, or nothing if SSVOS_WORKERS=0 or no video has masks."""
    return cluster_or_process() if count_videos(layout) else nullcontext()


def score_predictions(
    config: Config, layout: Layout, predictions: Mapping[str, Path], advance: Callable[[], None]
) -> dict[str, list[ScoredVideo]]:
    """Score the masks of variants or baselines, inside `scoring_cluster` -> their videos in the order of the index.

    Videos without true masks (`count_videos`) are left out.

    predictions: by name, a folder of <sequence>/<frame>.png.
    advance: called after each video of each folder.
    """
    items = list(_items(layout, predictions))
    job = {"config": config.model_dump(mode="json"), "packed_inputs": pack(config, layout, scribbles=False)}
    scored: dict[int, ScoredVideo] = {}
    for row in _score_all(items, job):
        scored[row["item"]] = pickle.loads(row["scored"])
        advance()
    return {name: [scored[item["item"]] for item in items if item["name"] == name] for name in predictions}


def count_videos(layout: Layout) -> int:
    """Return how many of the evaluation videos have true masks to be scored with."""
    return sum(map(is_scorable, evaluation_videos(layout.index)))


def _items(layout: Layout, predictions: Mapping[str, Path]) -> Iterator[dict]:
    """Yield an item per folder and video, with the masks in it: the workers' nodes need not see the folders."""
    videos = [(k, video) for k, video in enumerate(evaluation_videos(layout.index)) if is_scorable(video)]
    pairs = [(name, folder, *video) for name, folder in predictions.items() for video in videos]
    for item, (name, folder, k, video) in enumerate(pairs):
        paths = [folder / video.sequence / f"{frame.name}.png" for frame in video.frames if frame.mask_path]
        existing = [path for path in paths if path.is_file()]
        yield {
            "item": item,
            "name": name,
            "video": k,
            "folder": str(folder),
            "names": [path.stem for path in existing],
            "masks": [path.read_bytes() for path in existing],
        }


def _score_all(items: list[dict], job: dict) -> Iterable[dict]:
    if not items or requested_workers() == 0:
        return (_score(item, job) for item in items)
    dataset = quiet_ray_data().from_items(items, override_num_blocks=len(items))
    return dataset.map(_score_single_threaded, fn_kwargs={"job": job}, num_cpus=1).iter_rows()


def _score_single_threaded(row: dict, job: dict) -> dict:
    cv2.setNumThreads(1)  # each core has its own worker
    return _score(row, job)


def _score(row: dict, job: dict) -> dict:
    """Return a video's scores, pickled. An error names the file in the stage's folder, not the worker's copy."""
    config, inputs = Config.model_validate(job["config"]), unpack(job["packed_inputs"])
    video = evaluation_videos(inputs.index)[row["video"]]
    root = inputs.roots[video.dataset]
    with tempfile.TemporaryDirectory(prefix="ssvos-score-") as copy:
        write_masks(Path(copy) / video.sequence, row["names"], row["masks"])
        try:
            scores = score_video(video, sources_of(config)[video.dataset], root, Path(copy) / video.sequence)
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(copy, row["folder"])) from error
    shapes = shapes_in(mask_folder(video, root), scores)
    return {"item": row["item"], "scored": pickle.dumps(ScoredVideo(video.dataset, video.sequence, scores, shapes))}


def summarize_videos(config: Config, layout: Layout, videos: Iterable[ScoredVideo]) -> dict:
    """Return `summarize_sources` of the videos; a source without any video is left out."""
    scored: dict[str, dict[str, SequenceScores]] = {}
    for video in videos:
        scored.setdefault(video.source, {})[video.sequence] = video.scores
    return summarize_sources(config, layout, scored)


def frame_rows(videos: Iterable[ScoredVideo]) -> Iterator[dict]:
    """Yield a row (COLUMNS) per scored object and frame: J, F, and the true object's area and width."""
    for video in videos:
        for k, object_id in enumerate(video.scores.object_ids):
            for t in np.flatnonzero(video.scores.counted[k]):
                values = (video.scores.J[k, t], video.scores.F[k, t], *video.shapes[:, k, t])
                names = (video.source, video.sequence, object_id, video.scores.frames[t])
                yield dict(zip(COLUMNS, (*names, *(f"{value:.6g}" for value in values)), strict=True))


def csv_text(rows: Iterable[Mapping[str, object]], first: Sequence[str]) -> str:
    """Return a CSV file's text.

    first: the columns that it always has. Rows may have further columns, which may differ from row to row.
    """
    rows = list(rows)
    columns = list(dict.fromkeys((*first, *(key for row in rows for key in row))))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
