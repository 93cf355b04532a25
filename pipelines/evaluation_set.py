"""The evaluation videos, their true masks and their scores; prediction, evaluation and baselines use it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipelines.params import Layout
from ssvos.config import Config, SourceConfig
from ssvos.data.index import IndexedVideo, read_index, videos_of
from ssvos.data.videos import FaultyData
from ssvos.files import write_bytes
from ssvos.metrics import youtube_vos
from ssvos.metrics.davis import require_annotations, score_sequence, summarize
from ssvos.metrics.object_scores import SequenceScores, present_absent_means
from ssvos.metrics.sequence_folders import annotated_frames
from ssvos.metrics.youtube_vos import read_meta


class Method(NamedTuple):
    """A baseline without any training on video.

    title: its name in tables
    about: what it does
    is_competitor: whether it segments well enough that a trained model below it is named as such
    """

    title: str
    about: str
    is_competitor: bool


METHODS = {
    "untrained": Method("untrained", "this network before training", False),
    "empty": Method("empty", "the empty mask", False),
    "copied": Method("copied", "the first true mask copied to every frame", False),
    "grabcut_flow": Method("grabcut + flow", "GrabCut and optical flow from the same scribble", True),
    "label_propagation": Method(
        "label propagation", "label propagation with ImageNet features from the same scribble", True
    ),
}


def evaluation_videos(index: Path) -> list[IndexedVideo]:
    """Return the videos of the split `val`, in the order of the index."""
    return [video for video in videos_of(read_index(index)) if video.split == "val"]


def late_objects(config: Config) -> dict[str, bool]:
    """Return, by source, whether objects may appear after the first frame."""
    return {source.name: source.layout == "youtube-vos" for source in config.data.sources}


def mask_folder(video: IndexedVideo, root: Path) -> Path | None:
    """Return the folder of a video's true masks, or None if the video has none."""
    path = next((frame.mask_path for frame in video.frames if frame.mask_path), None)
    return (root / path).parent if path else None


def require_scorable(config: Config, layout: Layout, index: pa.Table) -> None:
    """Raise FaultyData, before any training, for evaluation videos that could not be segmented or scored later."""
    roots, faults = layout.roots(config), []
    for source in config.data.sources:
        root = roots[source.name]
        videos = [video for video in videos_of(index) if (video.dataset, video.split) == (source.name, "val")]
        for video in videos:
            faults += _faults(video, root, source, known_ids=_known_ids(source, root, videos))
    if faults:
        raise FaultyData(faults)


def _known_ids(source: SourceConfig, root: Path, videos: list[IndexedVideo]) -> dict[str, int]:
    """Return the highest object id in meta.json by sequence; empty if the scorer reads the ids from the masks."""
    if source.layout != "youtube-vos" or not any(mask_folder(video, root) for video in videos):
        return {}
    read_meta(root / source.train / "meta.json")  # raises if it is broken; scoring reads the seen categories from it
    val_meta = read_meta(root / source.val / "meta.json")
    return {name: max((item.object_id for item in objects), default=0) for name, objects in val_meta.items()}


def _faults(video: IndexedVideo, root: Path, source: SourceConfig, known_ids: dict[str, int]) -> Iterator[str]:
    from ssvos.inference.segmenter import SMALLEST  # imports PyTorch, which workers that only score do not need

    folder, first = mask_folder(video, root), next(frame for frame in video.frames if frame.objects is not None)
    if min(first.height, first.width) < SMALLEST:
        size = f"{first.height}x{first.width}"
        needed = f"the network needs at least {SMALLEST}x{SMALLEST} pixels"
        yield f"{root / first.image_path}: frame is {size}, {needed}; enlarge it"
    if folder is None or not is_scorable(video):
        return
    if not first.mask_path:
        path = root / first.image_path
        yield f"{path}: the first scribble of an evaluation video needs a mask of the same frame; add {first.name}.png"
    if known_ids and max(video.objects) > known_ids[video.sequence]:
        meta = root / source.val / "meta.json"
        yield f"{folder}: object {max(video.objects)} is not in {meta}; use the meta.json released with these masks"
    try:
        annotated_frames(folder) if known_ids else require_annotations(folder)
    except ValueError as error:
        yield str(error)


def write_masks(folder: Path, names: Sequence[str], pngs: Sequence[bytes]) -> None:
    """Write a video's masks, each completely or not at all."""
    for name, png in zip(names, pngs, strict=True):
        write_bytes(folder / f"{name}.png", png)


def is_scorable(video: IndexedVideo) -> bool:
    """Return whether a video has a mask to score with.

    Masks of objects' first appearances do not count: a benchmark that scores on its server publishes them to show what
    to segment.
    """
    known: set[int] = set()
    for frame in video.frames:
        if frame.mask_path and not set(frame.objects) - known:
            return True
        known |= set(frame.objects or ())
    return False


def sources_of(config: Config) -> dict[str, SourceConfig]:
    return {source.name: source for source in config.data.sources}


def score_video(video: IndexedVideo, source: SourceConfig, root: Path, masks: Path) -> SequenceScores:
    """Score a folder of <frame>.png by the protocol of the benchmark whose layout the source has."""
    truth = mask_folder(video, root)
    if source.layout != "youtube-vos":
        return score_sequence(truth, masks)
    objects = read_meta(root / source.val / "meta.json")[video.sequence]
    return youtube_vos.score_video(truth, masks, objects)


def summarize_sources(config: Config, layout: Layout, scored: Mapping[str, Mapping[str, SequenceScores]]) -> dict:
    """Summarize scores by source and sequence -> {source: {protocol, global, objects, ...}}."""
    roots, sources = layout.roots(config), sources_of(config)
    result = {}
    for name, scores in scored.items():
        if sources[name].layout == "youtube-vos":
            objects = read_meta(roots[name] / sources[name].val / "meta.json")
            seen = youtube_vos.seen_categories(read_meta(roots[name] / sources[name].train / "meta.json"))
            summary = youtube_vos.summarize_youtube_vos(scores, objects, seen)
            result[name] = {"protocol": "youtube-vos", "global": summary["global"], "objects": summary["objects"]}
        else:
            result[name] = _davis_summary(scores)
    return result


def _davis_summary(scores: Mapping[str, SequenceScores]) -> dict:
    summary = summarize(scores)
    return {
        "protocol": "davis2017",
        "global": summary["global"],
        "visibility": asdict(present_absent_means(scores.values())),
        "sequences": {name: {"J": float(one.J.mean()), "F": float(one.F.mean())} for name, one in scores.items()},
        "objects": summary["objects"],
    }


def evenly(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers 0..count - 1, evenly spaced, including both ends."""
    steps = min(most, count)
    return sorted({round(i * (count - 1) / max(1, steps - 1)) for i in range(steps)})
