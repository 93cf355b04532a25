"""`ssvos segment`: from frames or a video file, a scribble and a checkpoint to one palette PNG per frame."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ssvos.baselines.label_propagation import LabelPropagation
from ssvos.config import CrfRefinementConfig, PredictConfig, RoiConfig
from ssvos.data.clip_sources import read_frame
from ssvos.data.preparation import Tracked
from ssvos.data.validation import measure_image
from ssvos.data.video_file import VideoWriter, count_frames, read_video
from ssvos.data.videos import IMAGE_SUFFIXES, natural_key
from ssvos.device import choose_device
from ssvos.files import require_writable
from ssvos.inference.segmenter import SMALLEST, segment
from ssvos.labels import UNREADABLE, object_ids, why_unreadable, write_labels
from ssvos.models.checkpoint import load_checkpoint
from ssvos.scribbles.formats import read_davis_json, read_scribble
from ssvos.visualization import overlay

_LARGEST_ENLARGEMENT = 2.0
_STROKE_WIDTH = 5 / 480  # of the frame's height, as in III-E; the strokes of a JSON file have no width


# the default of `ssvos segment` and of models logged to MLflow, chosen for the bundled checkpoint (docs/model-card.md)
DEFAULT_PREDICT = PredictConfig(roi=RoiConfig(margin=0.3), crf_refinement=CrfRefinementConfig(iterations=5, weight=4.0))


@dataclass(frozen=True)
class _VideoFrames:
    """The frames of a video.

    size: (height, width).
    names: one per frame, for its mask.
    rate: frames per second.
    paths: the images, if the video is a folder.
    """

    size: tuple[int, int]
    names: list[str]
    rate: float
    paths: list[Path] | None

    def read(self, source: Path, first: int) -> Iterator[np.ndarray]:
        """The frames from number `first` on."""
        if self.paths is not None:
            return (read_frame(path) for path in self.paths[first:])
        return (frame for k, frame in enumerate(read_video(source)) if k >= first)


def segment_video(
    source: Path,
    scribble: Path,
    checkpoint: Path | None,
    out: Path,
    device: str,
    with_overlay: bool,
    full_size: bool,
    config: PredictConfig,
    tracked: Tracked,
) -> int:
    """Segment a video and write its masks; returns their number.

    All input is read and all output paths are checked before anything is written.

    source: a folder of frames or a video file.
    scribble: a palette PNG of the first frame, or a DAVIS-interactive JSON file.
    checkpoint: a checkpoint of this project; None: label propagation without a trained network.
    out: the folder of the masks.
    device: `auto`, `cpu` or a CUDA device.
    with_overlay: whether to write overlay.mp4 as well.
    full_size: whether a network takes the frames at their own size, not at about the size of its training.
    config: what is applied besides the network.
    tracked: shows progress.
    Raises FileNotFoundError or ValueError for input that cannot be read, OSError for output that cannot be written.
    """
    chosen_device = choose_device(device)
    network, info = load_checkpoint(checkpoint) if checkpoint else (None, None)
    video = _open_video(source, tracked)
    first, labels = _read_strokes(scribble, video)
    if not object_ids(labels):
        raise ValueError(f"{scribble}: no object stroke (1..254); draw at least one on each object to segment")
    names = video.names[first:]
    outputs = [out / f"{name}.png" for name in names] + ([out / "overlay.mp4"] if with_overlay else [])
    _require_outputs(out, outputs, [source, scribble, *([checkpoint] if checkpoint else []), *(video.paths or ())])
    frames = _LastFrame(video.read(source, first))
    if network is None or info is None:
        masks = _propagate(frames, labels, chosen_device)
    else:
        size = None if full_size else _inner_size(info.size, video.size)
        masks = segment(network.to(chosen_device), frames, {0: labels}, size, config, info.loss)
    overlay_video = VideoWriter(out / "overlay.mp4", video.rate) if with_overlay else nullcontext()
    with tracked("segmenting", len(names)) as advance, overlay_video as writer:
        for name, mask in zip(names, masks, strict=True):
            write_labels(out / f"{name}.png", mask)
            if writer:
                writer.write(overlay(frames.last, mask))
            advance()
    return len(names)


def _propagate(frames: Iterable[np.ndarray], scribble: np.ndarray, device: torch.device) -> Iterator[np.ndarray]:
    """Masks of a video by label propagation from the scribble of its first frame."""
    segmenter = LabelPropagation(device)
    for number, frame in enumerate(frames):
        yield segmenter(frame, None if number else scribble)


def _require_outputs(out: Path, outputs: list[Path], inputs: list[Path]) -> None:
    """ValueError if an output would overwrite an input, OSError if one cannot be written."""
    taken = {path.resolve() for path in inputs}
    for path in (out, *outputs):
        if path.resolve() in taken:
            raise ValueError(f"{path}: --out would overwrite an input; choose another folder")
    for path in outputs:
        require_writable(path)


class _LastFrame:
    """Iterates over frames and remembers the last one, because the overlay needs it and memory must not grow."""

    last: np.ndarray

    def __init__(self, frames: Iterator[np.ndarray]):
        self._frames = frames

    def __iter__(self) -> Iterator[np.ndarray]:
        for frame in self._frames:
            self.last = frame
            yield frame


def _frame_paths(folder: Path) -> list[Path]:
    paths = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not paths:
        raise ValueError(f"{folder}: no frames in this folder; expected one .jpg or .png image per frame")
    stems = [p.stem for p in paths]
    duplicates = sorted({stem for stem in stems if stems.count(stem) > 1})
    if duplicates:
        raise ValueError(
            f"{folder}: two images are named {duplicates[0]}; remove one (put scribbles outside the folder)"
        )
    return sorted(paths, key=lambda p: natural_key(p.stem))


def _open_video(source: Path, tracked: Tracked) -> _VideoFrames:
    """Decode the whole video once, to find every fault before anything is written."""
    if source.is_dir():
        paths = _frame_paths(source)
        with tracked("checking frames", len(paths)) as advance:
            sizes = [_frame_size(path, advance) for path in paths]
        for path, size in zip(paths, sizes, strict=True):
            if size != sizes[0]:
                raise ValueError(
                    f"{path}: frame is {size[0]}x{size[1]}, the first {sizes[0][0]}x{sizes[0][1]}; resize it"
                )
        video = _VideoFrames(sizes[0], [path.stem for path in paths], 24.0, paths)
    else:
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or folder; give a folder of frames or a video file")
        count, rate = count_frames(source)
        if not count:
            raise ValueError(f"{source}: no frame can be decoded; convert it to MP4")
        height, width = next(iter(read_video(source))).shape[:2]
        video = _VideoFrames((height, width), [f"{k:05d}" for k in range(count)], rate, None)
    if min(video.size) < SMALLEST:
        height, width = video.size
        raise ValueError(f"{source}: frames are {height}x{width}; enlarge them to at least {SMALLEST} pixels a side")
    return video


def _frame_size(path: Path, advance: Callable[[], None]) -> tuple[int, int]:
    """(height, width) of the image that `read_frame` returns."""
    try:
        (height, width), orientation = measure_image(path.read_bytes())
    except UNREADABLE as error:
        raise ValueError(f"{path}: not a readable image ({why_unreadable(error)}); replace or remove it") from error
    advance()
    return (width, height) if orientation >= 5 else (height, width)  # OpenCV rotates these


def _read_strokes(path: Path, video: _VideoFrames) -> tuple[int, np.ndarray]:
    """The number of the first frame with a scribble, and the scribble, (H, W)."""
    size, count = video.size, len(video.names)
    if path.suffix.lower() == ".json":
        scribbles = read_davis_json(path, size, max(1, round(size[0] * _STROKE_WIDTH)), count)
        first = min(scribbles)
        return first, scribbles[first]
    labels = read_scribble(path)
    if labels.shape != size:
        raise ValueError(
            f"{path}: scribble is {labels.shape[0]}x{labels.shape[1]}, the frames are {size[0]}x{size[1]}; "
            "draw it on the first frame without resizing"
        )
    return 0, labels


def _inner_size(trained: tuple[int, int] | None, frame: tuple[int, int]) -> tuple[int, int] | None:
    """The network's input size: the area of the training frames at the aspect ratio of the video, because distorted
    objects differ from those of the training. Small frames are enlarged at most twice, because a much enlarged object
    is blurred, and larger than those of the training."""
    if trained is None:
        return None
    scale = min(_LARGEST_ENLARGEMENT, (trained[0] * trained[1] / (frame[0] * frame[1])) ** 0.5)
    return max(32, round(frame[0] * scale)), max(32, round(frame[1] * scale))
