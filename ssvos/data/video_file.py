"""Video files through PyAV: reading frames in order, writing H.264 that browsers play."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ssvos.files import atomic_path

_WHOLE = 0.9  # of the time that a container names, which is not exact


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Frames of the first video stream, (H, W, 3) uint8 RGB each, in order of presentation.

    Raises FileNotFoundError, or ValueError for a file that holds no readable video.
    """
    for frame in _decode(path):
        yield frame.to_ndarray(format="rgb24")


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such video; give a video file or a folder of frames")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: holds no video stream; give a video file or a folder of frames")
            yield from container.decode(container.streams.video[0])
    except av.FFmpegError as error:
        raise ValueError(f"{path}: not a readable video ({error.strerror}); convert it to MP4") from error


def count_frames(path: Path) -> tuple[int, float]:
    """Number of frames, counted by decoding (containers often lie), and frames a second.

    Raises ValueError for a file that was cut off, whose frames end well before the time that it names as its own.
    """
    count, end = 0, 0.0
    for frame in _decode(path):
        count += 1
        end = max(end, float((frame.pts + frame.duration) * frame.time_base) if frame.pts is not None else 0.0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        named = _named_end(container, stream)
    if 0 < end < _WHOLE * named:
        raise ValueError(f"{path}: cut off after {end:.1f} of {named:.1f} seconds; copy it again or convert it to MP4")
    return count, float(rate or 24)


def _named_end(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """When the video ends by its container's own words, in seconds, or 0 where they are of another stream too."""
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    return (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0


class VideoWriter:
    """Writes frames to an H.264 MP4: `with VideoWriter(path, rate) as video: video.write(frame)`.

    The file appears whole when the block ends, and not at all if it ends with an error. rate: frames a second.
    """

    def __init__(self, path: Path, rate: float):
        self._target = atomic_path(path)
        self._rate = Fraction(rate).limit_denominator(1001)
        self._stream = None

    def __enter__(self) -> "VideoWriter":
        self._container = av.open(str(self._target.__enter__()), "w", format="mp4")
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 RGB; an odd last row or column is cut, H.264's colour needs even sides."""
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def __exit__(self, kind, error, trace) -> None:
        if self._stream is not None and error is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        try:
            self._target.__exit__(kind, error, trace)
        except BaseException as raised:
            if raised is not error:  # atomic_path raises the block's own error again; `with` does that itself
                raise
