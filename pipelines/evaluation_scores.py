"""Scores of the judged videos' masks, frame by frame: Ray Data shares out the videos."""

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

from pipelines.cluster.ray_cluster import asked_workers, cluster, quiet_data
from pipelines.cluster.worker_inputs import pack, unpack
from pipelines.evaluation_set import (
    evaluation_videos,
    is_scorable,
    mask_folder,
    score_video,
    sources_of,
    summaries,
    write_masks,
)
from pipelines.params import Layout
from ssvos.config import Config
from ssvos.metrics.object_scores import SequenceScores
from ssvos.metrics.object_shape import shapes_in

COLUMNS = ("source", "sequence", "object", "frame", "J", "F", "area", "width")


@dataclass(frozen=True)
class ScoredVideo:
    """One judged video. shapes: (2, K, T) float, area and width (`object_shape`) of its K objects in the T frames."""

    source: str
    sequence: str
    scores: SequenceScores
    shapes: np.ndarray


def workers(layout: Layout) -> AbstractContextManager[None]:
    """The context of `score_predictions`: a cluster, or nothing where SSVOS_WORKERS=0 or no video is left to score."""
    return nullcontext() if asked_workers() == 0 or not count_videos(layout) else cluster()


def score_predictions(
    config: Config, layout: Layout, answers: Mapping[str, Path], advance: Callable[[], None]
) -> dict[str, list[ScoredVideo]]:
    """Scores of <sequence>/<frame>.png under the folder of each answer, in the order of the index; inside `workers`.

    Videos without masks to be scored by are left out. advance: called after each video (`count_videos`) of an answer.
    """
    items = list(_items(layout, answers))
    job = {"config": config.model_dump(mode="json"), "parcel": pack(config, layout, scribbles=False)}
    found: dict[int, ScoredVideo] = {}
    for row in _spread(items, job):
        found[row["item"]] = pickle.loads(row["scored"])
        advance()
    return {name: [found[item["item"]] for item in items if item["answer"] == name] for name in answers}


def count_videos(layout: Layout) -> int:
    """How many of the judged videos have masks to be scored by."""
    return sum(map(is_scorable, evaluation_videos(layout.index)))


def _items(layout: Layout, answers: Mapping[str, Path]) -> Iterator[dict]:
    """The masks travel along: the workers' nodes need not see their folders."""
    videos = [(k, video) for k, video in enumerate(evaluation_videos(layout.index)) if is_scorable(video)]
    pairs = [(name, folder, *video) for name, folder in answers.items() for video in videos]
    for item, (name, folder, k, video) in enumerate(pairs):
        paths = [folder / video.sequence / f"{frame.name}.png" for frame in video.frames if frame.mask_path]
        there = [path for path in paths if path.is_file()]
        yield {
            "item": item,
            "answer": name,
            "video": k,
            "folder": str(folder),
            "names": [path.stem for path in there],
            "masks": [path.read_bytes() for path in there],
        }


def _spread(items: list[dict], job: dict) -> Iterable[dict]:
    if not items or asked_workers() == 0:
        return (_score(item, job) for item in items)
    dataset = quiet_data().from_items(items, override_num_blocks=len(items))
    return dataset.map(_score_alone, fn_kwargs={"job": job}, num_cpus=1).iter_rows()


def _score_alone(row: dict, job: dict) -> dict:
    cv2.setNumThreads(1)  # the other cores have workers of their own
    return _score(row, job)


def _score(row: dict, job: dict) -> dict:
    """A video's scores, pickled. Of a fault the message names the file where it lies for the stage."""
    config, inputs = Config.model_validate(job["config"]), unpack(job["parcel"])
    video = evaluation_videos(inputs.index)[row["video"]]
    root = inputs.roots[video.dataset]
    with tempfile.TemporaryDirectory(prefix="ssvos-score-") as place:
        write_masks(Path(place) / video.sequence, row["names"], row["masks"])
        try:
            scores = score_video(video, sources_of(config)[video.dataset], root, Path(place) / video.sequence)
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(place, row["folder"])) from error
    shapes = shapes_in(mask_folder(video, root), scores)
    return {"item": row["item"], "scored": pickle.dumps(ScoredVideo(video.dataset, video.sequence, scores, shapes))}


def figures(config: Config, layout: Layout, videos: Iterable[ScoredVideo]) -> dict:
    """`summaries` of an answer's videos; a source without any is left out."""
    scored: dict[str, dict[str, SequenceScores]] = {}
    for one in videos:
        scored.setdefault(one.source, {})[one.sequence] = one.scores
    return summaries(config, layout, scored)


def frame_rows(videos: Iterable[ScoredVideo]) -> Iterator[dict]:
    """A row (COLUMNS) for every object and frame that counts: J, F, and the true object's area and width."""
    for one in videos:
        for k, object_id in enumerate(one.scores.object_ids):
            for t in np.flatnonzero(one.scores.counted[k]):
                values = (one.scores.J[k, t], one.scores.F[k, t], *one.shapes[:, k, t])
                names = (one.source, one.sequence, object_id, one.scores.frames[t])
                yield dict(zip(COLUMNS, (*names, *(f"{value:.6g}" for value in values)), strict=True))


def csv_text(rows: Iterable[Mapping[str, object]], first: Sequence[str]) -> str:
    """A CSV file. first: the columns that it always has; rows may bring others, and differ in them."""
    rows = list(rows)
    columns = list(dict.fromkeys((*first, *(key for row in rows for key in row))))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
