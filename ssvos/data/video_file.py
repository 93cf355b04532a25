"""Video files through PyAV: reading frames in order, writing H.264 that browsers play."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ssvos.files import atomic_path


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Frames of the first video stream, (H, W, 3) uint8 RGB each, in order of presentation.

    Raises FileNotFoundError, or ValueError for a file that holds no readable video.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such video; give a video file or a folder of frames")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: holds no video stream; give a video file or a folder of frames")
            for frame in container.decode(container.streams.video[0]):
                yield frame.to_ndarray(format="rgb24")
    except av.FFmpegError as error:
        raise ValueError(f"{path}: not a readable video ({error.strerror}); convert it to MP4") from error


def count_frames(path: Path) -> tuple[int, float]:
    """Number of frames, counted by decoding (containers often lie), and frames a second."""
    count = sum(1 for _ in read_video(path))
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
    return count, float(rate or 24)


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
