"""What prediction, evaluation and yardsticks share: the judged videos, where their masks lie, and their scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from pipelines.params import Layout
from ssvos.config import Config, SourceConfig
from ssvos.data.index import IndexedVideo, read_index, videos_of
from ssvos.data.videos import FaultyData
from ssvos.files import write_bytes
from ssvos.inference import SMALLEST
from ssvos.metrics.davis import require_annotations, score_sequence, summarize
from ssvos.metrics.object_scores import SequenceScores, annotated_frames, present_absent_means
from ssvos.metrics.youtube_vos import evaluate_youtube_vos, read_meta

# answers that need no training, beside which a model has to stand
METHODS = {
    "untrained": "this network with random weights",
    "empty": "the empty mask",
    "copied": "the first true mask copied to every frame",
    "grabcut_flow": "GrabCut and optical flow from the same scribble",
}


def judged_videos(index: Path) -> list[IndexedVideo]:
    return [video for video in videos_of(read_index(index)) if video.split == "val"]


def late_objects(config: Config) -> dict[str, bool]:
    """Whether objects of a source may begin after the first frame."""
    return {source.name: source.layout == "youtube-vos" for source in config.data.sources}


def mask_folder(video: IndexedVideo, root: Path) -> Path | None:
    """The folder of a video's true masks, or None if its list has none."""
    path = next((frame.mask_path for frame in video.frames if frame.mask_path), None)
    return (root / path).parent if path else None


def require_scorable(config: Config, layout: Layout, index: pa.Table) -> None:
    """FaultyData now for judged videos that could not be segmented or scored once the training is over."""
    roots, faults = layout.roots(config), []
    for source in config.data.sources:
        root = roots[source.name]
        own = [video for video in videos_of(index) if (video.dataset, video.split) == (source.name, "val")]
        for video in own:
            faults += _faults(video, root, source, known_ids=_known_ids(source, root, own))
    if faults:
        raise FaultyData(faults)


def _known_ids(source: SourceConfig, root: Path, videos: list[IndexedVideo]) -> dict[str, int]:
    """Sequence -> the highest id that the scorer knows; empty where its masks alone decide."""
    if source.layout != "youtube-vos" or not any(mask_folder(video, root) for video in videos):
        return {}
    read_meta(root / source.train / "meta.json")  # says which categories are seen
    judged = read_meta(root / source.val / "meta.json")
    return {name: max((item.object_id for item in objects), default=0) for name, objects in judged.items()}


def _faults(video: IndexedVideo, root: Path, source: SourceConfig, known_ids: dict[str, int]) -> Iterator[str]:
    folder, first = mask_folder(video, root), next(frame for frame in video.frames if frame.objects is not None)
    if min(first.height, first.width) < SMALLEST:
        size = f"{first.height}x{first.width}"
        yield f"{root / first.image_path}: frame is {size}; enlarge it, the network needs {SMALLEST} pixels a side"
    if folder is None or not is_scorable(video):
        return
    if not first.mask_path:
        yield f"{root / first.image_path}: a judged video's first scribble needs a mask beside it; add {first.name}.png"
    if known_ids and max(video.objects) > known_ids[video.sequence]:
        meta = root / source.val / "meta.json"
        yield f"{folder}: {meta} does not know its object {max(video.objects)}; take the one released with it"
    try:
        annotated_frames(folder) if known_ids else require_annotations(folder)
    except ValueError as error:
        yield str(error)


def write_masks(folder: Path, names: Sequence[str], pngs: Sequence[bytes]) -> None:
    """Write a video's masks, each whole or not at all."""
    for name, png in zip(names, pngs, strict=True):
        write_bytes(folder / f"{name}.png", png)


def is_scorable(video: IndexedVideo) -> bool:
    """Whether a video has a mask to be judged by: those of first appearances, which a benchmark gives with videos that
    its server scores, only say where to begin."""
    known: set[int] = set()
    for frame in video.frames:
        if frame.mask_path and not set(frame.objects) - known:
            return True
        known |= set(frame.objects or ())
    return False


def count_truth(layout: Layout) -> int:
    """How many frames of the judged videos have a mask."""
    videos = [video for video in judged_videos(layout.index) if is_scorable(video)]
    return sum(frame.mask_path is not None for video in videos for frame in video.frames)


def score(config: Config, layout: Layout, predictions: Path, on_frame: Callable[[int], None]) -> dict:
    """Scores of <sequence>/<frame>.png under `predictions`: {source: {protocol, global, sequences, ...}}.

    A source whose judged videos have no masks is left out. on_frame: called with 1 after each scored frame.
    """
    roots, videos = layout.roots(config), judged_videos(layout.index)
    scores = {}
    for source in config.data.sources:
        own = [video for video in videos if video.dataset == source.name and is_scorable(video)]
        if own and source.layout == "youtube-vos":
            scores[source.name] = _score_youtube_vos(source, roots[source.name], own, predictions, on_frame)
        elif own:
            scores[source.name] = _score_davis(own, roots[source.name], predictions, on_frame)
    return scores


def _score_davis(videos: list[IndexedVideo], root: Path, predictions: Path, on_frame: Callable[[int], None]) -> dict:
    found: dict[str, SequenceScores] = {
        video.sequence: score_sequence(mask_folder(video, root), predictions / video.sequence, on_frame)
        for video in videos
    }
    result = summarize(found)
    return {
        "protocol": "davis2017",
        "global": result["global"],
        "visibility": asdict(present_absent_means(found.values())),
        "sequences": {name: {"J": float(one.J.mean()), "F": float(one.F.mean())} for name, one in found.items()},
        "objects": result["objects"],
    }


def _score_youtube_vos(
    source: SourceConfig, root: Path, videos: list[IndexedVideo], predictions: Path, on_frame: Callable[[int], None]
) -> dict:
    names = [video.sequence for video in videos]
    result = evaluate_youtube_vos(
        mask_folder(videos[0], root).parent,
        predictions,
        root / source.val / "meta.json",
        root / source.train / "meta.json",
        sequences=names,
        on_frame=on_frame,
    )
    return {"protocol": "youtube-vos", "global": result["global"], "objects": result["objects"]}
