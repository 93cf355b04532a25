"""`ssvos segment`: a folder of frames or a video file, a scribble, a checkpoint -> a palette PNG a frame."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssvos.config import ColorModelConfig, CrfRefinementConfig, FlowConfig, PredictConfig
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

_STROKE_SHARE = 5 / 480  # III-E's 5 px at 480 rows: strokes of a JSON file are lines without a width


# what is done beside the network where nothing else is asked for: by `ssvos segment`, and by a model logged to MLflow
DEFAULT_PREDICT = PredictConfig(
    crf_refinement=CrfRefinementConfig(iterations=5),
    color_model=ColorModelConfig(weight=1.0),
    flow=FlowConfig(weight=4.0),
)


@dataclass(frozen=True)
class _VideoFrames:
    """The video: (height, width), names of its frames' masks, frames a second, and its images if it is a folder."""

    size: tuple[int, int]
    names: list[str]
    rate: float
    paths: list[Path] | None

    def frames(self, source: Path, first: int) -> Iterator[np.ndarray]:
        """Its frames from a number on."""
        if self.paths is not None:
            return (read_frame(path) for path in self.paths[first:])
        return (frame for k, frame in enumerate(read_video(source)) if k >= first)


def segment_video(
    source: Path,
    scribble: Path,
    checkpoint: Path,
    out: Path,
    device: str,
    with_overlay: bool,
    full_size: bool,
    config: PredictConfig,
    tracked: Tracked,
) -> int:
    """Write masks (and overlay.mp4) to `out`; returns the number of frames.

    All that is given is opened to its end, and all that will be written is tried, before anything is written.
    """
    network, info = load_checkpoint(checkpoint)
    network.to(choose_device(device))
    footage = _open(source, tracked)
    first, labels = _read_strokes(scribble, footage)
    if not object_ids(labels):
        raise ValueError(f"{scribble}: no object stroke (1..254); draw at least one on the object to follow")
    names = footage.names[first:]
    written = [out / f"{name}.png" for name in names] + ([out / "overlay.mp4"] if with_overlay else [])
    _require_free(out, written, [source, scribble, checkpoint, *(footage.paths or ())])
    size = None if full_size else _inner_size(info.size, labels.shape)
    video = VideoWriter(out / "overlay.mp4", footage.rate) if with_overlay else nullcontext()
    frames, shown = _twice(footage.frames(source, first))
    with tracked("segmenting", len(names)) as advance, video as writer:
        for name, mask in zip(names, segment(network, frames, {0: labels}, size, config, info.loss), strict=True):
            write_labels(out / f"{name}.png", mask)
            if writer:
                writer.write(overlay(shown[0], mask))
            advance()
    return len(names)


def _require_free(out: Path, written: list[Path], given: list[Path]) -> None:
    """Masks may not take the place of what they are made from."""
    taken = {path.resolve() for path in given}
    for path in (out, *written):
        if path.resolve() in taken:
            raise ValueError(f"{path}: --out would write over what is given; choose another folder")
    for path in written:
        require_writable(path)


def _twice(frames: Iterator[np.ndarray]) -> tuple[Iterator[np.ndarray], list[np.ndarray]]:
    """The frames, and a list that holds the one last taken: the overlay needs it again, memory must not grow."""
    last: list[np.ndarray] = [None]

    def remember() -> Iterator[np.ndarray]:
        for frame in frames:
            last[0] = frame
            yield frame

    return remember(), last


def _frame_paths(folder: Path) -> list[Path]:
    paths = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not paths:
        raise ValueError(f"{folder}: holds no frames; expected .jpg or .png images, one a frame")
    stems = [p.stem for p in paths]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise ValueError(f"{folder}: two images are named {twice[0]}; keep one (a scribble belongs outside the folder)")
    return sorted(paths, key=lambda p: natural_key(p.stem))


def _open(source: Path, tracked: Tracked) -> _VideoFrames:
    """Decode the whole video once."""
    if source.is_dir():
        paths = _frame_paths(source)
        with tracked("checking frames", len(paths)) as advance:
            sizes = [_size(path, advance) for path in paths]
        for path, size in zip(paths, sizes, strict=True):
            if size != sizes[0]:
                raise ValueError(
                    f"{path}: frame is {size[0]}x{size[1]}, the first {sizes[0][0]}x{sizes[0][1]}; resize it"
                )
        footage = _VideoFrames(sizes[0], [path.stem for path in paths], 24.0, paths)
    else:
        if not source.exists():
            raise FileNotFoundError(f"{source}: no such file or folder; give a folder of frames or a video file")
        count, rate = count_frames(source)
        if not count:
            raise ValueError(f"{source}: holds no frame that decodes; convert it to MP4")
        size = next(iter(read_video(source))).shape[:2]
        footage = _VideoFrames(size, [f"{k:05d}" for k in range(count)], rate, None)
    if min(footage.size) < SMALLEST:
        height, width = footage.size
        raise ValueError(
            f"{source}: frames are {height}x{width}; enlarge them, the network needs {SMALLEST} pixels a side"
        )
    return footage


def _size(path: Path, advance: Callable[[], None]) -> tuple[int, int]:
    """(height, width) of a frame as `read_frame` gives it."""
    try:
        (height, width), orientation = measure_image(path.read_bytes())
    except UNREADABLE as error:
        raise ValueError(
            f"{path}: not a readable image ({why_unreadable(error)}); replace it or take it out"
        ) from error
    advance()
    return (width, height) if orientation >= 5 else (height, width)  # OpenCV turns it


def _read_strokes(path: Path, footage: _VideoFrames) -> tuple[int, np.ndarray]:
    """(number of the frame the scribble is on, labels)."""
    size, count = footage.size, len(footage.names)
    if path.suffix.lower() == ".json":
        drawn = read_davis_json(path, size, max(1, round(size[0] * _STROKE_SHARE)), count)
        first = min(drawn)
        return first, drawn[first]
    labels = read_scribble(path)
    if labels.shape != size:
        raise ValueError(
            f"{path}: scribble is {labels.shape[0]}x{labels.shape[1]}, the frames {size[0]}x{size[1]}; "
            "draw it on the first frame at its own size"
        )
    return 0, labels


def _inner_size(trained: tuple[int, int] | None, frame: tuple[int, int]) -> tuple[int, int] | None:
    """The size nearest the training area at the video's own aspect ratio: squeezed objects look unlike trained ones."""
    if trained is None:
        return None
    scale = (trained[0] * trained[1] / (frame[0] * frame[1])) ** 0.5
    return max(32, round(frame[0] * scale)), max(32, round(frame[1] * scale))
