"""The whole network (Fig. 3): one step per frame, shared by training on clips and by streaming inference."""

from contextlib import nullcontext
from typing import NamedTuple, TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, avg_pool2d, interpolate, pad

from ssvos.config import ModelConfig
from ssvos.labels import UNLABELLED
from ssvos.models import winograd
from ssvos.models.appearance import Appearance, Gaussians
from ssvos.models.attention import ScribbleAttention, Strokes, gather_strokes
from ssvos.models.attention_variants import ATTENTION_VARIANTS
from ssvos.models.backbone import IMAGENET_MEAN, IMAGENET_STD, ResNet, Trunk, load_published
from ssvos.models.decoder import Fusion, Upsampling
from ssvos.models.loop_conv import LoopConv, unrolled
from ssvos.models.memory import Memory, Remembered
from ssvos.models.propagation import Propagation

STRIDE = 16  # frames are padded to its multiples
_FINE_STRIDE = 4  # of layer1's features
_ATTENTIONS = {"scribble": ScribbleAttention, **ATTENTION_VARIANTS}


class ClipPrediction(NamedTuple):
    """logits: (B, T, 2, H, W). coarse_logits: (B, T, 2, H/16, W/16), of the padded size. Channel 0 is background."""

    logits: Tensor
    coarse_logits: Tensor


class Sight(NamedTuple):
    """What a frame gives each of N objects before its state is asked: appearance features (N, D, h, w), the frame's
    share of mask propagation (N, P, h, w), and keys for the memory (N, K, h, w), if there is one."""

    projected: Tensor
    reduced: Tensor
    keys: Tensor | None


class Detail(NamedTuple):
    """What an image adds at finer strides: its shares of the up-sampling (N, E, H/8, W/8) and (N, E, H/4, W/4), and
    shallow appearance features (N, D, H/4, W/4), if the model has them."""

    s8: Tensor
    s4: Tensor
    embedded: Tensor | None


class State(NamedTuple):
    """What is carried from frame to frame for N objects; its size does not grow with the video.

    owner: index of each object's image in the batch of frames, (N,); None: one object an image, in order. strokes: what
    is attended to. mask: previous coarse mask as probabilities, (N, 2, h, w). first: the initial frame's features and
    labels as mask propagation takes them, (N, P, h, w). shallow: Gaussians of the shallow appearance model, if any.
    remembered: labelled cells, if the network has a memory.
    """

    owner: Tensor | None
    strokes: Strokes | None
    gaussians: Gaussians
    mask: Tensor
    first: Tensor
    shallow: Gaussians | None
    remembered: Remembered | None


class Outcome(NamedTuple):
    """A frame's coarse mask encoding (N, E, h, w) and coarse logits (N, 2, h, w); shallow appearance scores
    (N, 4, H/4, W/4), if there are any; fine logits (N, 2, H, W) where the state takes them."""

    encoding: Tensor
    coarse: Tensor
    shallow_scores: Tensor | None
    fine: Tensor | None


Parts = TypeVar("Parts", Trunk, Sight, Detail)


def cell_shares(scribble: Tensor, stride: int = STRIDE) -> Tensor:
    """The share of background and of foreground among the labelled pixels of every cell, 0 in both where nothing is
    labelled: binary scribbles (N, H, W) of 0, 1, 255 -> (N, 2, H/stride, W/stride)."""
    planes = torch.stack([scribble == 0, scribble == 1], dim=1).float()
    shares = avg_pool2d(planes, stride)
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)


def cells_with_stroke(scribble: Tensor, stride: int = STRIDE) -> Tensor:
    """Whether a cell holds any foreground stroke, (N, H/stride, W/stride): max-pooling keeps the thinnest."""
    height, width = scribble.shape[-2] // stride, scribble.shape[-1] // stride
    return adaptive_max_pool2d((scribble == 1).float()[:, None], (height, width))[:, 0] > 0


class Network(nn.Module):
    """Segments objects through a video from a scribble on their first frame.

    Frames are RGB in [0, 1] of any size (they are padded by reflection to multiples of 16); a scribble is one
    object's: 1 on its strokes, 0 on background strokes and other objects' strokes, 255 elsewhere.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.stride = config, config.backbone.stride
        self.backbone = ResNet(config.backbone)
        if config.backbone.frozen:
            self.backbone.freeze()
        channels = self.backbone.channels
        if config.attention.kind != "none":
            self.attention = _ATTENTIONS[config.attention.kind](channels["layer3"], config.attention)
        last = channels[config.backbone.last]
        self.propagation = Propagation(last, config.propagation_channels)
        self.appearance = Appearance(last, config.appearance)
        shallow = config.appearance.shallow
        readouts = 0
        if config.memory.channels:
            self.memory = Memory(last, config.memory)
            readouts = self.memory.num_readouts
        self.fusion = Fusion(
            config.propagation_channels, config.fusion_channels, config.encoding_channels, bool(shallow), readouts
        )
        self.upsampling = Upsampling(config.encoding_channels, channels["layer2"], channels["layer1"], bool(shallow))
        heads = [self.propagation, self.appearance, self.fusion, self.upsampling]
        if shallow:
            small = config.appearance.model_copy(update={"channels": shallow})
            self.shallow_appearance = Appearance(channels["layer1"] + 3, small)
            heads.append(self.shallow_appearance)
        if readouts:
            heads.append(self.memory)
        for head in heads:
            _initialise(head)
        # convolutions would turn their weights round at every call, and the gradients of these
        self.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    @classmethod
    def create(cls, config: ModelConfig) -> "Network":
        """A new network: random weights from torch's global generator, the backbone's from its file if it names one."""
        network = cls(config)
        if config.backbone.weights:
            load_published(network.backbone, config.backbone.weights, config.backbone.sha256)
        return network

    def train(self, mode: bool = True) -> "Network":
        if mode:  # what inference has kept, of weights that now change
            winograd.forget_transformed(self)
        return super().train(mode)

    def forward(self, frames: Tensor, scribble: Tensor) -> ClipPrediction:
        """Segment one object through each clip.

        frames: (B, T, 3, H, W). scribble: of the clips' first frames, (B, H, W).

        All that no earlier prediction decides is computed for the whole clip at once; the loop over frames holds mask
        propagation, appearance and fusion alone.
        """
        batch, length, _, height, width = frames.shape
        # time first, so that the images of one moment lie together
        trunk = self.encode(frames.transpose(0, 1).flatten(0, 1))
        detail = self._detail(trunk)
        moments, details = _split(trunk, batch), _split(detail, batch)
        scribble = _padded(scribble)
        strokes = self._strokes(moments[0], scribble, None)
        sights: list[Sight] = []
        if self.follows_previous:
            features = self.describe(moments[0], None, strokes)
        else:
            features = self.describe(trunk, None, _repeated(strokes, length))
            sights = _split(self._see(features), batch)
        state = self._start(features[:batch], details[0], strokes, scribble, None)
        outcomes = []
        loop = [part for part in self.modules() if isinstance(part, LoopConv)]
        # a compiler sees all steps at once without help
        with nullcontext() if torch.compiler.is_compiling() else unrolled(loop, length, like=state.first):
            for t, moment in enumerate(moments):
                sight = sights[t] if sights else self._see(self.describe(moment, None, state.strokes))
                outcome, state = self._advance(sight, moment, details[t], state)
                outcomes.append(outcome)
        if self.config.state == "fine":
            fine = torch.cat([outcome.fine for outcome in outcomes])
        else:
            scores = torch.cat([o.shallow_scores for o in outcomes]) if state.shallow is not None else None
            fine = self.upsampling(torch.cat([o.encoding for o in outcomes]), detail.s8, detail.s4, scores)
        return ClipPrediction(
            rearrange(fine[..., :height, :width], "(t b) c h w -> b t c h w", b=batch),
            torch.stack([outcome.coarse for outcome in outcomes], dim=1),
        )

    def step(self, trunk: Trunk, state: State) -> tuple[Tensor, Tensor, State]:
        """One frame: trunk of the images (`encode`) -> logits (N, 2, H, W), coarse logits (N, 2, h, w), next state.

        H and W are the padded size.
        """
        detail = _of_each(self._detail(trunk), state.owner)
        sight = self._see(self.describe(trunk, state.owner, state.strokes))
        if not self.per_object:
            sight = _of_each(sight, state.owner)
        outcome, state = self._advance(sight, trunk, detail, state)
        fine = outcome.fine
        if fine is None:
            fine = self.upsampling(outcome.encoding, detail.s8, detail.s4, outcome.shallow_scores)
        return fine, outcome.coarse, state

    def encode(self, frames: Tensor) -> Trunk:
        """Frames (N, 3, H, W) in [0, 1] -> what all objects share; computed once a frame."""
        frames = (frames - self.mean) / self.std
        bottom, right = -frames.shape[-2] % STRIDE, -frames.shape[-1] % STRIDE
        frames = pad(frames, (0, right, 0, bottom), mode="reflect")
        # channels last: convolutions need not turn their input round and back
        return self.backbone.trunk(frames.contiguous(memory_format=torch.channels_last))

    def begin(self, trunk: Trunk, scribble: Tensor, owner: Tensor | None = None) -> State:
        """State of N objects from their initial frame.

        scribble: (N, H, W) of 0, 1, 255; owner: whose image each object is on, (N,); None: one object an image.
        """
        scribble = _padded(scribble)
        strokes = self._strokes(trunk, scribble, owner)
        features = self.describe(trunk, owner, strokes)
        features = features if self.per_object else _each(features, owner)
        return self._start(features, _of_each(self._detail(trunk), owner), strokes, scribble, owner)

    @property
    def per_object(self) -> bool:
        """Whether features after the attention are each object's own, or its image's."""
        return self.config.attention.kind == "scribble" and self.config.attention.keys == "per_object"

    @property
    def follows_previous(self) -> bool:
        """Whether what is attended to changes from frame to frame."""
        return self.config.attention.kind == "scribble" and self.config.attention.source == "previous"

    def describe(self, trunk: Trunk, owner: Tensor | None, strokes: Strokes | None) -> Tensor:
        """Attention and, where the backbone has it, layer4: (N, C, h, w), each object's view of its image, or one view
        an image where objects share it."""
        x = trunk.deep
        match self.config.attention.kind:
            case "scribble":
                x = self.attention(_each(x, owner) if self.per_object else x, strokes)
            case "none":
                pass
            case _:
                x = self.attention(x)
        return x if self.config.backbone.last == "layer3" else self.backbone.layer4(x)

    def _strokes(self, trunk: Trunk, scribble: Tensor, owner: Tensor | None) -> Strokes | None:
        if self.config.attention.kind != "scribble":
            return None
        has_stroke = self._by_image(cells_with_stroke(scribble, self.stride), trunk, owner)
        return gather_strokes(_each(trunk.deep, owner) if self.per_object else trunk.deep, has_stroke)

    def _confident(self, trunk: Trunk, probs: Tensor, owner: Tensor | None) -> Strokes:
        """The cells of this frame that are surely object, for the next frame to attend to; their number is not known
        beforehand, so all cells are kept and masked."""
        sure = self._by_image(probs[:, 1] >= self.config.attention.confident, trunk, owner)
        x = _each(trunk.deep, owner) if self.per_object else trunk.deep
        return Strokes(rearrange(x, "n c h w -> n (h w) c"), sure.flatten(1))

    def _by_image(self, cells: Tensor, trunk: Trunk, owner: Tensor | None) -> Tensor:
        """Cells of each object (N, h, w); with shared keys of each image, the union of its objects'."""
        if self.per_object or owner is None:
            return cells
        union = torch.zeros(len(trunk.deep), *cells.shape[1:], dtype=torch.int64, device=cells.device)
        return union.index_add(0, owner, cells.long()) > 0

    def _see(self, features: Tensor) -> Sight:
        keys = self.memory.embed(features) if self.config.memory.channels else None
        return Sight(self.appearance.embed(features), self.propagation.reduce_features(features), keys)

    def _detail(self, trunk: Trunk) -> Detail:
        embedded = None
        if self.config.appearance.shallow:
            embedded = self.shallow_appearance.embed(torch.cat([trunk.s4, trunk.colour], dim=1))
        return Detail(*self.upsampling.lateral(trunk.s8, trunk.s4), embedded)

    def _start(
        self, features: Tensor, detail: Detail, strokes: Strokes | None, scribble: Tensor, owner: Tensor | None
    ) -> State:
        embedded = self.appearance.embed(features)
        shares = cell_shares(scribble, self.stride).to(embedded.dtype)
        gaussians = self.appearance.fit(embedded, shares)
        shallow = None
        if detail.embedded is not None:
            finer = cell_shares(scribble, _FINE_STRIDE).to(detail.embedded.dtype)
            shallow = self.shallow_appearance.fit(detail.embedded, finer)
        remembered = None
        if self.config.memory.channels:
            remembered = self.memory.start(self.memory.embed(features), shares)
        first = self.propagation.reduce_first(features, shares)
        return State(owner, strokes, gaussians, shares, first, shallow, remembered)

    def _advance(self, sight: Sight, trunk: Trunk, detail: Detail, state: State) -> tuple[Outcome, State]:
        scores = self.appearance.score(sight.projected, state.gaussians)
        shallow_scores = None
        if state.shallow is not None:
            shallow_scores = self.shallow_appearance.score(detail.embedded, state.shallow)
        propagated = self.propagation(sight.reduced, state.first, state.mask)
        readouts = None
        if state.remembered is not None:
            readouts = self.memory.read(sight.keys, state.remembered)
        encoding, coarse = self.fusion(propagated, scores, shallow_scores, readouts)
        fine, probs = None, coarse.softmax(dim=1)
        if self.config.state == "fine":
            fine = self.upsampling(encoding, detail.s8, detail.s4, shallow_scores)
            probs = avg_pool2d(fine.softmax(dim=1), self.stride)
        return Outcome(encoding, coarse, shallow_scores, fine), self._updated(state, sight, trunk, detail, probs)

    def _updated(self, state: State, sight: Sight, trunk: Trunk, detail: Detail, probs: Tensor) -> State:
        """The state after a frame whose coarse mask is `probs`, (N, 2, h, w)."""
        gaussians = self.appearance.update(state.gaussians, sight.projected, probs)
        strokes, shallow, remembered = state.strokes, None, None
        if self.follows_previous:
            strokes = self._confident(trunk, probs, state.owner)
        if state.shallow is not None:
            finer = interpolate(probs, size=detail.embedded.shape[-2:], mode="bilinear", align_corners=False)
            shallow = self.shallow_appearance.update(state.shallow, detail.embedded, finer)
        if state.remembered is not None:
            remembered = self.memory.update(state.remembered, sight.keys, probs)
        return state._replace(strokes=strokes, gaussians=gaussians, mask=probs, shallow=shallow, remembered=remembered)


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


def _each(x: Tensor, owner: Tensor | None) -> Tensor:
    """What is an image's (M, ...), for each of its objects (N, ...)."""
    is_alone = owner is not None and len(owner) == len(x) == 1
    return x if owner is None or is_alone else x.index_select(0, owner)


def _of_each(parts: Parts, owner: Tensor | None) -> Parts:
    return type(parts)(*(part if part is None else _each(part, owner) for part in parts))


def _split(parts: Parts, size: int) -> list[Parts]:
    """A clip's maps, time first, moment by moment."""
    starts = range(0, len(parts[0]), size)
    return [type(parts)(*(p if p is None else p[start : start + size] for p in parts)) for start in starts]


def _repeated(strokes: Strokes | None, length: int) -> Strokes | None:
    """The initial frame's strokes for every frame of a clip, time first."""
    if strokes is None:
        return None
    return Strokes(strokes.features.repeat(length, 1, 1), strokes.is_stroke.repeat(length, 1))


def _padded(scribble: Tensor) -> Tensor:
    """Scribbles (N, H, W), unlabelled where frames are padded to multiples of 16."""
    bottom, right = -scribble.shape[-2] % STRIDE, -scribble.shape[-1] % STRIDE
    return pad(scribble, (0, right, 0, bottom), value=UNLABELLED)


def upsample_coarse(coarse_logits: Tensor, height: int, width: int) -> Tensor:
    """Coarse logits (N, 2, h, w) -> (N, 2, height, width); what was padded is cut off."""
    stride = -(-height // STRIDE) * STRIDE // coarse_logits.shape[-2]
    full = interpolate(coarse_logits, scale_factor=stride, mode="bilinear", align_corners=False)
    return full[..., :height, :width]
