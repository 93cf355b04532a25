"""Streaming segmentation of a video: one pass, several objects, a state that does not grow."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ssvos.baselines.grabcut_flow import GrabCutFlow, with_flow
from ssvos.config import LossConfig, PredictConfig
from ssvos.data.augment import resize_frame, resize_scribble
from ssvos.data.index import IndexedVideo
from ssvos.inference.crf_refinement import CrfRefiner
from ssvos.inference.test_time_training import train_at_test_time
from ssvos.labels import BACKGROUND, UNLABELLED, binary_scribbles, object_ids
from ssvos.models.backbone import Trunk
from ssvos.models.network import Network
from ssvos.models.state import State

SMALLEST = 32  # pixels: below it the padding would be larger than the frame
_CLAMP = 1e-7
_PLAIN, _LOSS = PredictConfig(), LossConfig()


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

    size: (height, width) that frames are brought to for the network; None: each frame's own. config: what is done
    beside the network's pass, nothing by default; its height and width are not looked at. loss: of online learning.
    """

    def __init__(
        self,
        network: Network,
        size: tuple[int, int] | None = None,
        config: PredictConfig = _PLAIN,
        loss: LossConfig = _LOSS,
    ):
        self.network, self.size, self.config, self.loss = network.eval(), size, config, loss
        self.device = next(network.parameters()).device
        self._refined = CrfRefiner(self.config.crf_refinement, self.config.color_model)
        self._carried = GrabCutFlow() if self.config.flow.weight else None
        self._groups: list[tuple[tuple[int, ...], State]] = []

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray, scribble: np.ndarray | None = None) -> np.ndarray:
        """frame (H, W, 3) uint8 RGB, scribble (H, W) with objects that begin here -> mask (H, W) uint8 of ids."""
        height, width = frame.shape[:2]
        if min(height, width) < SMALLEST:
            raise ValueError(f"frame is {height}x{width}; the network needs at least {SMALLEST} pixels a side")
        inner = self.size or (height, width)
        carried = self._carried(frame, scribble) if self._carried else None
        small = resize_frame(frame, *inner)
        if scribble is not None:
            scribble = resize_scribble(scribble, *inner)
            if self.config.test_time_training.steps and not self._groups and object_ids(scribble):
                # objects that come later are not learnt: the state of the earlier ones is this network's
                self.network = train_at_test_time(
                    self.network, small, scribble, self.config.test_time_training, self.loss
                )
        tensor = torch.from_numpy(np.ascontiguousarray(small)).to(self.device).permute(2, 0, 1)[None].float() / 255
        trunk = self.network.encode(tensor)
        if scribble is not None:
            self._begin(trunk, scribble)
        if not self._groups:
            return np.zeros((height, width), np.uint8)
        ids, odds = self._advance(trunk, inner)
        if carried is not None:
            odds = with_flow(odds, carried, ids, self.config.flow)
        strokes = None if scribble is None else torch.from_numpy(_classes(scribble, ids)).to(self.device)
        probs = self._refined(aggregate(odds.sigmoid()), small, tensor, strokes)
        if inner != (height, width):
            probs = interpolate(probs[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        best = probs.max(dim=0).indices.cpu().numpy()  # several times faster than argmax here
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
        """The objects' ids and log-odds (K, H, W)."""
        ids, planes = [], []
        for k, (group_ids, state) in enumerate(self._groups):
            logits, _, state = self.network.step(trunk, state)
            self._groups[k] = (group_ids, state)
            ids += group_ids
            odds = (logits[:, 1] - logits[:, 0])[:, : inner[0], : inner[1]]
            planes.append(odds - self.config.foreground_bias)
        return ids, torch.cat(planes)


def _classes(scribble: np.ndarray, ids: list[int]) -> np.ndarray:
    """A scribble's ids by their order in `ids`: 0 background, 1..K, 255 unknown, other objects' strokes too."""
    classes = np.full(256, UNLABELLED, np.uint8)
    classes[[BACKGROUND, *ids]] = range(1 + len(ids))
    return classes[scribble]


def segment(
    network: Network,
    frames: Iterable[np.ndarray],
    scribbles: Mapping[int, np.ndarray],
    size: tuple[int, int] | None = None,
    config: PredictConfig = _PLAIN,
    loss: LossConfig = _LOSS,
) -> Iterator[np.ndarray]:
    """Masks (H, W) uint8 of a video, frame by frame; size, config and loss as `VideoSegmenter` has them.

    frames: (H, W, 3) uint8 RGB each; scribbles: by frame number, (H, W) with 255 unknown; usually {0: scribble}.
    """
    segmenter = VideoSegmenter(network, size, config, loss)
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
