"""Streaming segmentation of a video: one pass, several objects, a state that does not grow."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ssvos.data.augment import resize_frame, resize_scribble
from ssvos.data.index import IndexedVideo
from ssvos.labels import binary_scribbles, object_ids
from ssvos.models.network import Network, State, Trunk

SMALLEST = 32  # pixels: below it the padding would be larger than the frame
_CLAMP = 1e-7


def aggregate(foreground: Tensor) -> Tensor:
    """Soft aggregation of K independent foreground probabilities (K, H, W) -> (K + 1, H, W), background first.

    Background is the smallest of the objects' background probabilities; odds p / (1 - p) are normalised over all.
    One object is left as it is: aggregation would only sharpen it.
    """
    if len(foreground) == 1:
        return torch.cat([1.0 - foreground, foreground])
    background = (1.0 - foreground).amin(dim=0, keepdim=True)
    probs = torch.cat([background, foreground]).clamp(_CLAMP, 1.0 - _CLAMP)
    odds = probs / (1.0 - probs)
    return odds / odds.sum(dim=0, keepdim=True)


class VideoSegmenter:
    """Takes frames one by one and gives each one's mask; objects begin on the frame of their first scribble.

    size: (height, width) that frames are brought to for the network; None: each frame's own.
    foreground_bias: taken off the foreground's log-odds of the masks given out; the state keeps its own.
    """

    def __init__(self, network: Network, size: tuple[int, int] | None = None, foreground_bias: float = 0.0):
        self.network, self.size, self.foreground_bias = network.eval(), size, foreground_bias
        self.device = next(network.parameters()).device
        self._groups: list[tuple[tuple[int, ...], State]] = []

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray, scribble: np.ndarray | None = None) -> np.ndarray:
        """frame (H, W, 3) uint8 RGB, scribble (H, W) with objects that begin here -> mask (H, W) uint8 of ids."""
        height, width = frame.shape[:2]
        if min(height, width) < SMALLEST:
            raise ValueError(f"frame is {height}x{width}; the network needs at least {SMALLEST} pixels a side")
        inner = self.size or (height, width)
        small = resize_frame(frame, *inner)
        tensor = torch.from_numpy(np.ascontiguousarray(small)).to(self.device).permute(2, 0, 1)[None].float() / 255
        trunk = self.network.encode(tensor)
        if scribble is not None:
            self._begin(trunk, resize_scribble(scribble, *inner))
        if not self._groups:
            return np.zeros((height, width), np.uint8)
        ids, foreground = self._advance(trunk, inner)
        probs = aggregate(foreground)
        if inner != (height, width):
            probs = interpolate(probs[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        best = probs.argmax(dim=0).cpu().numpy()
        return np.array([0, *ids], np.uint8)[best]

    def _begin(self, trunk: Trunk, scribble: np.ndarray) -> None:
        known = {i for ids, _ in self._groups for i in ids}
        ids = tuple(i for i in object_ids(scribble) if i not in known)
        if not ids:
            return
        strokes = torch.from_numpy(binary_scribbles(scribble, ids)).to(self.device)
        owner = torch.zeros(len(ids), dtype=torch.int64, device=self.device)
        self._groups.append((ids, self.network.begin(trunk, strokes, owner)))

    def _advance(self, trunk: Trunk, inner: tuple[int, int]) -> tuple[list[int], Tensor]:
        ids, planes = [], []
        for k, (group_ids, state) in enumerate(self._groups):
            logits, _, state = self.network.step(trunk, state)
            self._groups[k] = (group_ids, state)
            ids += group_ids
            odds = (logits[:, 1] - logits[:, 0])[:, : inner[0], : inner[1]]
            planes.append((odds - self.foreground_bias).sigmoid())
        return ids, torch.cat(planes)


def segment(
    network: Network,
    frames: Iterable[np.ndarray],
    scribbles: Mapping[int, np.ndarray],
    size: tuple[int, int] | None = None,
    foreground_bias: float = 0.0,
) -> Iterator[np.ndarray]:
    """Masks (H, W) uint8 of a video, frame by frame.

    frames: (H, W, 3) uint8 RGB each; scribbles: by frame number, (H, W) with 255 unknown; usually {0: scribble}.
    """
    segmenter = VideoSegmenter(network, size, foreground_bias)
    for number, frame in enumerate(frames):
        yield segmenter(frame, scribbles.get(number))


def starting_scribbles(
    video: IndexedVideo, scribbles: Mapping[tuple[str, str, str], np.ndarray], late_objects: bool
) -> dict[int, np.ndarray]:
    """The scribbles a video is judged with, by frame number: of its first labelled frame, and with `late_objects`
    (YouTube-VOS) of each object on the first frame that shows it. DAVIS knows only the first frame's objects."""
    found: dict[int, np.ndarray] = {}
    known: set[int] = set()
    for number, frame in enumerate(video.frames):
        if set(frame.objects or ()) - known and (late_objects or not found):
            found[number] = scribbles[(video.dataset, video.sequence, frame.name)]
            known |= set(frame.objects)
    return found
