"""The whole network (Fig. 3): one step per frame, shared by training on clips and by streaming inference."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, avg_pool2d, interpolate, pad

from ssvos.config import ModelConfig
from ssvos.labels import UNLABELLED
from ssvos.models.appearance import Appearance, Gaussians
from ssvos.models.attention import ScribbleAttention, Strokes, gather_strokes
from ssvos.models.backbone import IMAGENET_MEAN, IMAGENET_STD, ResNet, Trunk, load_published
from ssvos.models.decoder import Fusion, Upsampling
from ssvos.models.propagation import Propagation

STRIDE = 16


class ClipPrediction(NamedTuple):
    """logits: (B, T, 2, H, W). coarse_logits: (B, T, 2, H/16, W/16), of the padded size. Channel 0 is background."""

    logits: Tensor
    coarse_logits: Tensor


class State(NamedTuple):
    """What is carried from frame to frame for N objects; its size does not grow with the video.

    owner: index of each object's image in the batch of frames, (N,). mask: previous coarse mask as probabilities,
    first_mask: labelled shares of the initial frame, both (N, 2, h, w); first_features: (N, C, h, w).
    """

    owner: Tensor
    strokes: Strokes
    gaussians: Gaussians
    mask: Tensor
    first_mask: Tensor
    first_features: Tensor


def cell_shares(scribble: Tensor) -> Tensor:
    """Binary scribbles (N, H, W) of 0, 1, 255 -> (N, 2, H/16, W/16): the share of background and of foreground among
    the labelled pixels of every cell, 0 in both where nothing is labelled. H and W are multiples of 16."""
    planes = torch.stack([scribble == 0, scribble == 1], dim=1).float()
    shares = avg_pool2d(planes, STRIDE)
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)


def cells_with_stroke(scribble: Tensor) -> Tensor:
    """Whether a cell holds any foreground stroke, (N, H/16, W/16): max-pooling keeps strokes thinner than a cell."""
    height, width = scribble.shape[-2] // STRIDE, scribble.shape[-1] // STRIDE
    return adaptive_max_pool2d((scribble == 1).float()[:, None], (height, width))[:, 0] > 0


class Network(nn.Module):
    """Segments objects through a video from a scribble on their first frame.

    Frames are RGB in [0, 1] of any size (they are padded by reflection to multiples of 16); a scribble is one
    object's: 1 on its strokes, 0 on background strokes and other objects' strokes, 255 elsewhere.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.backbone = ResNet(config.backbone)
        if config.backbone.frozen:
            self.backbone.freeze()
        channels = self.backbone.channels
        if config.attention.kind == "scribble":
            self.attention = ScribbleAttention(channels["layer3"], config.attention)
        last = channels[config.backbone.last]
        self.propagation = Propagation(last, config.propagation_channels)
        self.appearance = Appearance(last, config.appearance)
        self.fusion = Fusion(config.propagation_channels, config.fusion_channels, config.encoding_channels)
        self.upsampling = Upsampling(config.encoding_channels, channels["layer2"], channels["layer1"])
        for head in (self.propagation, self.appearance, self.fusion, self.upsampling):
            _initialise(head)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    @classmethod
    def create(cls, config: ModelConfig) -> "Network":
        """A new network: random weights from torch's global generator, the backbone's from its file if it names one."""
        network = cls(config)
        if config.backbone.weights:
            load_published(network.backbone, config.backbone.weights, config.backbone.sha256)
        return network

    def forward(self, frames: Tensor, scribble: Tensor) -> ClipPrediction:
        """Segment one object through each clip.

        frames: (B, T, 3, H, W). scribble: of the clips' first frames, (B, H, W).
        """
        batch, length, _, height, width = frames.shape
        trunk = self.encode(frames.flatten(0, 1))
        by_frame = Trunk(*(features.unflatten(0, (batch, length)) for features in trunk))
        state, first = self.begin(Trunk(*(f[:, 0] for f in by_frame)), scribble)
        owner = torch.arange(batch * length, device=frames.device)
        later = owner.unflatten(0, (batch, length))[:, 1:].flatten()
        strokes = Strokes(*(s.repeat_interleave(length - 1, dim=0) for s in state.strokes))
        described = self.describe(trunk, later, strokes).unflatten(0, (batch, length - 1))
        logits, coarse = [], []
        for t in range(length):
            features = first if t == 0 else described[:, t - 1]
            frame = Trunk(*(f[:, t] for f in by_frame))
            fine, rough, state = self._advance(features, frame, state)
            logits.append(fine)
            coarse.append(rough)
        return ClipPrediction(torch.stack(logits, 1)[..., :height, :width], torch.stack(coarse, 1))

    def step(self, trunk: Trunk, state: State) -> tuple[Tensor, Tensor, State]:
        """One frame: trunk of the images (`encode`) -> logits (N, 2, H, W), coarse logits (N, 2, h, w), next state.

        H and W are the padded size.
        """
        return self._advance(self.describe(trunk, state.owner, state.strokes), trunk, state)

    def encode(self, frames: Tensor) -> Trunk:
        """Frames (N, 3, H, W) in [0, 1] -> what all objects share; computed once a frame."""
        frames = (frames - self.mean) / self.std
        bottom, right = -frames.shape[-2] % STRIDE, -frames.shape[-1] % STRIDE
        return self.backbone.trunk(pad(frames, (0, right, 0, bottom), mode="reflect"))

    def begin(self, trunk: Trunk, scribble: Tensor, owner: Tensor | None = None) -> tuple[State, Tensor]:
        """State of N objects from their initial frame, and that frame's features.

        scribble: (N, H, W) of 0, 1, 255; owner: whose image each object is on, (N,); by default one object an image.
        """
        owner = torch.arange(len(scribble), device=scribble.device) if owner is None else owner
        bottom, right = -scribble.shape[-2] % STRIDE, -scribble.shape[-1] % STRIDE
        scribble = pad(scribble, (0, right, 0, bottom), value=UNLABELLED)
        strokes = self._strokes(trunk, scribble, owner)
        features = self.describe(trunk, owner, strokes)
        shares = cell_shares(scribble).to(features.dtype)
        gaussians = self.appearance.fit(self.appearance.project(features), shares)
        return State(owner, strokes, gaussians, shares, shares, features), features

    def describe(self, trunk: Trunk, owner: Tensor, strokes: Strokes) -> Tensor:
        """Attention and, where the backbone has it, layer4: each object's view of its image, (N, C, h, w)."""
        last = getattr(self.backbone, "layer4", nn.Identity())
        if self.config.attention.kind == "none":
            return last(trunk.s16)[owner]
        return last(self.attention(trunk.s16[owner], strokes))

    def _strokes(self, trunk: Trunk, scribble: Tensor, owner: Tensor) -> Strokes:
        has_stroke = cells_with_stroke(scribble)
        if self.config.attention.keys == "shared":
            union = torch.zeros_like(has_stroke[:1], dtype=torch.int64).repeat(len(trunk.s16), 1, 1)
            union.index_add_(0, owner, has_stroke.long())
            has_stroke = (union > 0)[owner]
        return gather_strokes(trunk.s16[owner], has_stroke)

    def _advance(self, features: Tensor, trunk: Trunk, state: State) -> tuple[Tensor, Tensor, State]:
        projected = self.appearance.project(features)
        scores = self.appearance.score(projected, state.gaussians)
        propagated = self.propagation(features, state.first_features, state.mask, state.first_mask)
        encoding, coarse = self.fusion(propagated, scores)
        fine = self.upsampling(encoding, trunk.s8[state.owner], trunk.s4[state.owner])
        probs = coarse.softmax(dim=1) if self.config.state == "coarse" else _at_stride(fine.softmax(dim=1))
        gaussians = self.appearance.update(state.gaussians, projected, probs)
        return fine, coarse, state._replace(gaussians=gaussians, mask=probs)


def _initialise(head: nn.Module) -> None:
    """Kaiming's initial weights: PyTorch's own shrink the signal at every layer, and the heads have no normalisation
    that would restore it."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            # the two classifiers begin undecided
            gain = "linear" if module.out_channels == 2 else "relu"
            nn.init.kaiming_normal_(module.weight, nonlinearity=gain)
            nn.init.zeros_(module.bias)
            if module.out_channels == 2:
                module.weight.data.mul_(0.1)


def _at_stride(probs: Tensor) -> Tensor:
    return avg_pool2d(probs, STRIDE)


def upsample_coarse(coarse_logits: Tensor, height: int, width: int) -> Tensor:
    """Coarse logits (N, 2, h, w) -> (N, 2, height, width); what was padded is cut off."""
    full = interpolate(coarse_logits, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return full[..., :height, :width]
