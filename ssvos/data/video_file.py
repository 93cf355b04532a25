"""Video files, by PyAV: reading frames in order, and writing H.264 that browsers play."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from ssvos.files import atomic_path

_MIN_DECODED_SHARE = 0.9  # of the container's duration, which is not exact; a video with less is truncated


def read_video(path: Path) -> Iterator[np.ndarray]:
    """The frames of the first video stream in presentation order, each (H, W, 3) uint8 RGB.

    Raises FileNotFoundError for a missing file, ValueError for a file without a readable video.
    """
    for frame in _decode(path):
        yield frame.to_ndarray(format="rgb24")


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such video; give a video file or a folder of frames")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: contains no video stream; give a video file or a folder of frames")
            yield from container.decode(container.streams.video[0])
    except av.FFmpegError as error:
        raise ValueError(f"{path}: not a readable video ({error.strerror}); convert it to MP4") from error


def count_frames(path: Path) -> tuple[int, float]:
    """The number of frames and the frame rate. Frames are decoded to be counted: containers often give a wrong number.

    returns: number of frames, and frames per second
    Raises as `read_video` does, and ValueError for a truncated file, whose frames end before its stated duration.
    """
    count, end = 0, 0.0
    for frame in _decode(path):
        count += 1
        if frame.pts is not None and frame.time_base is not None:
            end = max(end, float((frame.pts + frame.duration) * frame.time_base))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        stated_end = _stated_end(container, stream)
    if 0 < end < _MIN_DECODED_SHARE * stated_end:
        raise ValueError(
            f"{path}: truncated after {end:.1f} of {stated_end:.1f} seconds; copy it again or convert it to MP4"
        )
    return count, float(rate or 24)


def _stated_end(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """The end of the video according to the container, seconds; 0 if the container does not state the stream's end."""
    if stream.duration and stream.time_base is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    return (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0


class VideoWriter:
    """Writes frames to an H.264 MP4: `with VideoWriter(path, rate) as video: video.write(frame)`.

    The file appears when the block ends; if it ends with an error, no file appears.

    path: the file to write
    rate: frames per second
    """

    def __init__(self, path: Path, rate: float):
        self._target = atomic_path(path)
        self._rate = Fraction(rate).limit_denominator(1001)
        self._stream: av.VideoStream | None = None

    def __enter__(self) -> "VideoWriter":
        self._container = av.open(str(self._target.__enter__()), "w", format="mp4")
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 RGB. H.264 needs even sides, so an odd last row or column is removed."""
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None and error is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        try:
            self._target.__exit__(kind, error, trace)
        except BaseException as raised:
            if raised is not error:  # atomic_path raises the block's error again; `with` itself raises it
                raise
