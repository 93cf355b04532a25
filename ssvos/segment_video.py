"""`ssvos segment`: a folder of frames or a video file, a scribble, a checkpoint -> a palette PNG a frame."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssvos.checkpoint import load_checkpoint
from ssvos.data.clips import read_frame
from ssvos.data.preparation import Tracked
from ssvos.data.video_file import VideoWriter, count_frames, read_video
from ssvos.data.videos import IMAGE_SUFFIXES, natural_key
from ssvos.device import choose_device
from ssvos.inference import segment
from ssvos.labels import object_ids, write_labels
from ssvos.scribbles.formats import read_davis_json, read_scribble
from ssvos.viz import overlay

_STROKE_SHARE = 5 / 480  # III-E's 5 px at 480 rows: strokes of a JSON file are lines without a width


@dataclass(frozen=True)
class _Footage:
    """Frames from a number on, with the names of their masks."""

    names: list[str]
    frames: Iterator[np.ndarray]
    rate: float


def segment_video(
    source: Path,
    scribble: Path,
    checkpoint: Path,
    out: Path,
    device: str,
    with_overlay: bool,
    full_size: bool,
    foreground_bias: float,
    tracked: Tracked,
) -> int:
    """Write masks (and overlay.mp4) to `out`; returns the number of frames. Checkpoint, scribble and first frame are
    checked before anything is written; a later frame that fails to decode stops the run and is named."""
    network, info = load_checkpoint(checkpoint)
    network.to(choose_device(device))
    paths = _frame_paths(source) if source.is_dir() else None
    first, labels = _read_strokes(scribble, _size(source, paths))
    if not object_ids(labels):
        raise ValueError(f"{scribble}: no object stroke (1..254); draw at least one on the object to follow")
    footage = _open(source, paths, first)
    if not footage.names:
        raise ValueError(f"{scribble}: its frame {first} is beyond the end of {source}")
    size = None if full_size else _inner_size(info.size, labels.shape)
    video = VideoWriter(out / "overlay.mp4", footage.rate) if with_overlay else nullcontext()
    frames, shown = _twice(footage.frames)
    with tracked("segmenting", len(footage.names)) as advance, video as writer:
        for name, mask in zip(footage.names, segment(network, frames, {0: labels}, size, foreground_bias), strict=True):
            write_labels(out / f"{name}.png", mask)
            if writer:
                writer.write(overlay(shown[0], mask))
            advance()
    return len(footage.names)


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


def _size(source: Path, paths: list[Path] | None) -> tuple[int, int]:
    if paths is not None:
        return read_frame(paths[0]).shape[:2]
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder; give a folder of frames or a video file")
    return next(iter(read_video(source))).shape[:2]


def _read_strokes(path: Path, size: tuple[int, int]) -> tuple[int, np.ndarray]:
    """(number of the frame the scribble is on, labels)."""
    if path.suffix.lower() == ".json":
        drawn = read_davis_json(path, size, max(1, round(size[0] * _STROKE_SHARE)))
        if not drawn:
            raise ValueError(f"{path}: holds no stroke; draw at least one on the object to follow")
        first = min(drawn)
        return first, drawn[first]
    labels = read_scribble(path)
    if labels.shape != size:
        raise ValueError(
            f"{path}: scribble is {labels.shape[0]}x{labels.shape[1]}, the frames {size[0]}x{size[1]}; "
            "draw it on the first frame at its own size"
        )
    return 0, labels


def _open(source: Path, paths: list[Path] | None, first: int) -> _Footage:
    if paths is not None:
        return _Footage([p.stem for p in paths[first:]], (read_frame(p) for p in paths[first:]), rate=24.0)
    total, rate = count_frames(source)
    frames = (frame for k, frame in enumerate(read_video(source)) if k >= first)
    return _Footage([f"{k:05d}" for k in range(first, total)], frames, rate)


def _inner_size(trained: tuple[int, int] | None, frame: tuple[int, int]) -> tuple[int, int] | None:
    """The size nearest the training area at the video's own aspect ratio: squeezed objects look unlike trained ones."""
    if trained is None:
        return None
    scale = (trained[0] * trained[1] / (frame[0] * frame[1])) ** 0.5
    return max(32, round(frame[0] * scale)), max(32, round(frame[1] * scale))
