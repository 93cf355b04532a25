"""Streaming segmentation of a video: one pass over the frames, several objects, a state of constant size."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ssvos.baselines.grabcut_flow import GrabCutFlow, with_flow
from ssvos.config import LossConfig, PredictConfig
from ssvos.data.augment import resize_frame, resize_scribble
from ssvos.data.index import IndexedVideo
from ssvos.data.roi import FollowingRoi, Roi
from ssvos.inference.crf_refinement import CrfRefiner
from ssvos.inference.test_time_training import train_at_test_time
from ssvos.labels import BACKGROUND, UNLABELLED, binary_scribbles, object_ids
from ssvos.models.backbone import Trunk
from ssvos.models.network import Network
from ssvos.models.state import State

SMALLEST = 32  # pixels a side; the padding of a smaller frame could be larger than the frame
_CLAMP = 1e-7
_NETWORK_ONLY, _LOSS = PredictConfig(), LossConfig()


def aggregate(foreground: Tensor) -> Tensor:
    """Soft aggregation of the foreground probabilities of K objects: (K, H, W) -> (K + 1, H, W), background first.

    The background probability is the smallest of the objects' background probabilities. The odds p / (1 - p) of
    background and objects are normalised to sum to 1. A single object is returned unchanged, because aggregation would
    only sharpen it.
    """
    if len(foreground) == 1:
        return torch.cat([1.0 - foreground, foreground])
    background = (1.0 - foreground).amin(dim=0, keepdim=True)
    probs = torch.cat([background, foreground]).clamp(_CLAMP, 1.0 - _CLAMP)
    odds = probs / (1.0 - probs)
    return odds / odds.sum(dim=0, keepdim=True)


class VideoSegmenter:
    """Segments a video frame by frame. An object begins on the frame of its first scribble.

    size: (height, width) to which frames are resized for the network; None: the frame's own size.
    config: what is applied besides the network, by default nothing; its height and width are ignored.
    loss: the loss of test-time training.
    """

    def __init__(
        self,
        network: Network,
        size: tuple[int, int] | None = None,
        config: PredictConfig = _NETWORK_ONLY,
        loss: LossConfig = _LOSS,
    ):
        self.network, self.size, self.config, self.loss = network.eval(), size, config, loss
        self.device = next(network.parameters()).device
        self._refiner = CrfRefiner(self.config.crf_refinement, self.config.color_model)
        self._grabcut_flow = GrabCutFlow() if self.config.flow.weight else None
        self._following_roi = FollowingRoi(self.config.roi)
        self._roi: Roi | None = None  # of the previous frame
        self._previous: np.ndarray | None = None  # its mask
        self._groups: list[tuple[tuple[int, ...], State]] = []  # objects that began on the same frame share a state

    @torch.inference_mode()
    def __call__(self, frame: np.ndarray, scribble: np.ndarray | None = None) -> np.ndarray:
        """Segment the next frame.

        frame: (H, W, 3) uint8 RGB.
        scribble: the strokes of the objects that begin on this frame, (H, W) of ids, 255 for unlabelled.
        returns: the mask of object ids, (H, W) uint8.
        """
        height, width = frame.shape[:2]
        if min(height, width) < SMALLEST:
            raise ValueError(f"frame is {height}x{width}, the network needs {SMALLEST} pixels a side; enlarge it")
        flow_mask = self._grabcut_flow(frame, scribble) if self._grabcut_flow else None
        starting = scribble if scribble is not None and self._new_ids(scribble) else None
        roi = self._following_roi.of_frame((height, width), self._previous, starting)
        inner = self.size or (height, width)
        if self._roi is not None and self._roi != roi:
            move, is_jump = roi.move_from(self._roi), starting is not None
            self._groups = [(ids, self.network.move(state, inner, move, is_jump)) for ids, state in self._groups]
        mask = self._segment(
            roi.crop(frame),
            None if scribble is None else roi.crop(scribble),
            inner,
            None if flow_mask is None else roi.crop(flow_mask),
        )
        self._roi, self._previous = roi, roi.paste(mask, (height, width))
        return self._previous

    def _segment(
        self, frame: np.ndarray, scribble: np.ndarray | None, inner: tuple[int, int], flow_mask: np.ndarray | None
    ) -> np.ndarray:
        """Segment the region of interest: all arguments and the mask are crops, `inner` is the network's input size."""
        height, width = frame.shape[:2]
        resized = resize_frame(frame, *inner)
        if scribble is not None:
            scribble = resize_scribble(scribble, *inner)
            self._train_on_first(resized, scribble)
        tensor = torch.from_numpy(np.ascontiguousarray(resized)).to(self.device).permute(2, 0, 1)[None].float() / 255
        trunk = self.network.encode(tensor)
        num_known = len(self._groups)
        if scribble is not None:
            self._begin(trunk, scribble)
        if not self._groups:
            return np.zeros((height, width), np.uint8)
        ids, odds = self._advance(trunk, inner, num_known)
        if flow_mask is not None:
            odds = with_flow(odds, flow_mask, ids, self.config.flow)
        strokes = None if scribble is None else torch.from_numpy(_class_indices(scribble, ids)).to(self.device)
        probs = self._refiner(aggregate(odds.sigmoid()), resized, tensor, strokes)
        if inner != (height, width):
            probs = interpolate(probs[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        best = probs.max(dim=0).indices.cpu().numpy()  # several times faster than argmax on a CPU
        mask: np.ndarray = np.array([0, *ids], np.uint8)[best]
        return mask

    def _train_on_first(self, frame: np.ndarray, scribble: np.ndarray) -> None:
        """Test-time training on the first scribble with an object. Later scribbles do not change the network, because
        the state of the earlier objects depends on it."""
        config = self.config.test_time_training
        if config.steps and not self._groups and object_ids(scribble):
            self.network = train_at_test_time(self.network, frame, scribble, config, self.loss)

    def _begin(self, trunk: Trunk, scribble: np.ndarray) -> None:
        """Start the objects of a scribble that are not known yet."""
        ids = self._new_ids(scribble)
        if not ids:
            return
        strokes = torch.from_numpy(binary_scribbles(scribble, ids)).to(self.device)
        owner = torch.zeros(len(ids), dtype=torch.int64, device=self.device)
        self._groups.append((ids, self.network.begin(trunk, strokes, owner)))

    def _new_ids(self, scribble: np.ndarray) -> tuple[int, ...]:
        known = {i for ids, _ in self._groups for i in ids}
        return tuple(i for i in object_ids(scribble) if i not in known)

    def _advance(self, trunk: Trunk, inner: tuple[int, int], num_known: int) -> tuple[list[int], Tensor]:
        """Take one network step for all objects -> their ids and their log-odds, (K, H, W).

        num_known: number of groups that began on an earlier frame.
        """
        ids: list[int] = []
        planes: list[Tensor] = []
        for k, (group_ids, state) in enumerate(self._groups):
            step = self.network.step if k < num_known else self.network.first_step
            logits, _, state = step(trunk, state)
            self._groups[k] = (group_ids, state)
            ids += group_ids
            odds = (logits[:, 1] - logits[:, 0])[:, : inner[0], : inner[1]]
            planes.append(odds - self.config.foreground_bias)
        return ids, torch.cat(planes)


def _class_indices(scribble: np.ndarray, ids: list[int]) -> np.ndarray:
    """Replace the ids of a scribble by class indices: 0 background, 1..K for `ids` in order. Other objects and 255
    become 255."""
    lookup = np.full(256, UNLABELLED, np.uint8)
    lookup[[BACKGROUND, *ids]] = range(1 + len(ids))
    classes: np.ndarray = lookup[scribble]
    return classes


def segment(
    network: Network,
    frames: Iterable[np.ndarray],
    scribbles: Mapping[int, np.ndarray],
    size: tuple[int, int] | None = None,
    config: PredictConfig = _NETWORK_ONLY,
    loss: LossConfig = _LOSS,
) -> Iterator[np.ndarray]:
    """Segment a video; yields the mask of each frame, (H, W) uint8 of object ids.

    frames: (H, W, 3) uint8 RGB each.
    scribbles: frame number -> (H, W) of ids, 255 for unlabelled; usually {0: scribble}.
    size, config, loss: as in `VideoSegmenter`.
    """
    segmenter = VideoSegmenter(network, size, config, loss)
    for number, frame in enumerate(frames):
        yield segmenter(frame, scribbles.get(number))


def starting_scribbles(
    video: IndexedVideo, scribbles: Mapping[tuple[str, str, str], np.ndarray], late_objects: bool
) -> dict[int, np.ndarray]:
    """The scribbles with which an evaluation video is segmented, by frame number.

    late_objects: False (DAVIS): only the objects of the first labelled frame are segmented, from its scribble. True
        (YouTube-VOS): every object begins with the scribble of the first frame that shows it.
    """
    starting: dict[int, np.ndarray] = {}
    known: set[int] = set()
    for number, frame in enumerate(video.frames):
        ids = set(frame.objects or ())
        if ids - known and (late_objects or not starting):
            starting[number] = scribbles[(video.dataset, video.sequence, frame.name)]
            known |= ids
    return starting
