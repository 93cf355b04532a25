"""The whole network (Fig. 3): one step per frame, shared by training on clips and by streaming inference."""

from contextlib import nullcontext

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from ssvos.config import ModelConfig
from ssvos.models import winograd
from ssvos.models.appearance import Appearance
from ssvos.models.attention import ScribbleAttention, Strokes, gather_strokes
from ssvos.models.attention_variants import ATTENTION_VARIANTS
from ssvos.models.backbone import Trunk, select_images
from ssvos.models.decoder import Fusion, Upsampling
from ssvos.models.grid import STRIDE, Move, cell_shares, cells_with_stroke, move_cells, pad_scribble
from ssvos.models.loop_conv import LoopConv, unrolled
from ssvos.models.matching import cell_keys
from ssvos.models.memory import NUM_READOUTS, Memory
from ssvos.models.propagation import Propagation
from ssvos.models.published_weights import create_backbone, load_published
from ssvos.models.state import (
    ClipPrediction,
    DecoderFeatures,
    FrameFeatures,
    State,
    StepOutput,
    concatenate_frames,
    repeat_strokes,
    select_image_maps,
    split_frames,
)

_FINE_STRIDE = 4  # of layer1's features
_ATTENTIONS = {"scribble": ScribbleAttention, **ATTENTION_VARIANTS}


class Network(nn.Module):
    """Segments objects through a video from a scribble on their first frame.

    Frames are RGB in [0, 1] of any size; they are padded by reflection to multiples of 16. A scribble belongs to one
    object: 1 on its strokes, 0 on background strokes and on other objects' strokes, 255 elsewhere.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.stride = config, config.backbone.stride
        self.backbone = create_backbone(config.backbone)
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
        if config.memory.frames:
            self.memory = Memory(config.memory)
            readouts = NUM_READOUTS
        self.fusion = Fusion(
            config.propagation_channels, config.fusion_channels, config.encoding_channels, bool(shallow), readouts
        )
        self.upsampling = Upsampling(config.encoding_channels, channels["layer2"], channels["layer1"], bool(shallow))
        heads = [self.propagation, self.appearance, self.fusion, self.upsampling]
        if shallow:
            shallow_config = config.appearance.model_copy(update={"channels": shallow})
            self.shallow_appearance = Appearance(channels["layer1"] + 3, shallow_config)
            heads.append(self.shallow_appearance)
        for head in heads:
            _initialise(head)
        # otherwise convolutions would reorder their weights, and the gradients of these, at every call
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not annotate it
        self.register_buffer("mean", torch.tensor(self.backbone.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(self.backbone.std)[:, None, None], persistent=False)

    @classmethod
    def create(cls, config: ModelConfig) -> "Network":
        """A new network with random weights from torch's global generator.

        The backbone's weights are ImageNet's if the configuration names them.
        """
        network = cls(config)
        if config.backbone.weights:
            load_published(network.backbone, config.backbone)
        return network

    def train(self, mode: bool = True) -> "Network":
        if mode:  # the weights are about to change: free the transformed filters that inference cached
            winograd.clear_cache(self)
        return super().train(mode)

    def forward(self, frames: Tensor, scribble: Tensor) -> ClipPrediction:
        """Segment one object through each clip.

        Everything that does not depend on a prediction is computed for the whole clip at once. The loop over frames
        contains only mask propagation, appearance, memory and fusion.

        frames: (B, T, 3, H, W)
        scribble: of the clips' first frames, (B, H, W)
        """
        batch, length, _, height, width = frames.shape
        # time first, so that the images of one frame index are adjacent
        trunk = self.encode(frames.transpose(0, 1).flatten(0, 1))
        decoder_features = self._decoder_features(trunk)
        trunks, decoder_frames = split_frames(trunk, batch), split_frames(decoder_features, batch)
        scribble = pad_scribble(scribble)
        strokes = self._initial_strokes(trunks[0], scribble, None)
        frame_features: list[FrameFeatures] = []
        if self.attends_to_previous:
            x = self.attend(trunks[0], None, strokes)
        else:
            x = self.attend(trunk, None, repeat_strokes(strokes, length))
            frame_features = split_frames(self._frame_features(x), batch)
        state = self._initial_state(x[:batch], trunks[0], decoder_frames[0], strokes, scribble, None)
        outputs = []
        convs = [module for module in self.modules() if isinstance(module, LoopConv)]
        # a compiler sees all steps at once and needs no `unrolled`
        with nullcontext() if torch.compiler.is_compiling() else unrolled(convs, length, like=state.first):
            for t in range(length):
                if frame_features:
                    features = frame_features[t]
                else:
                    features = self._frame_features(self.attend(trunks[t], None, state.strokes))
                output, state = self._advance(features, trunks[t], decoder_frames[t], state)
                outputs.append(output)
        fine = concatenate_frames([output.fine_logits for output in outputs])
        if fine is None:
            scores = concatenate_frames([output.shallow_scores for output in outputs])
            encoding = torch.cat([output.encoding for output in outputs])
            coarse = torch.cat([output.coarse_logits for output in outputs])
            fine = self._upsample(encoding, coarse, decoder_features, scores)
        return ClipPrediction(
            rearrange(fine[..., :height, :width], "(t b) c h w -> b t c h w", b=batch),
            torch.stack([output.coarse_logits for output in outputs], dim=1),
        )

    def step(self, trunk: Trunk, state: State) -> tuple[Tensor, Tensor, State]:
        """Segment one frame.

        trunk: of the images of the frame (`encode`)
        returns: logits (N, 2, H, W) at the padded size, coarse logits (N, 2, h, w), and the next state
        """
        decoder_features = select_image_maps(self._decoder_features(trunk), state.image_idx)
        features = self._frame_features(self.attend(trunk, state.image_idx, state.strokes))
        if not self.has_object_features:
            features = select_image_maps(features, state.image_idx)
        output, state = self._advance(features, trunk, decoder_features, state)
        fine = output.fine_logits
        if fine is None:
            fine = self._upsample(output.encoding, output.coarse_logits, decoder_features, output.shallow_scores)
        return fine, output.coarse_logits, state

    def first_step(self, trunk: Trunk, state: State) -> tuple[Tensor, Tensor, State]:
        """`step` on the frame on which objects begin.

        Before it, the state knows a few strokes alone. With a memory, the step also stores the frame with its mask, so
        a second look at the same frame gives better logits. The state is that of the first look.
        """
        logits, coarse, state = self.step(trunk, state)
        if state.memory is not None:
            logits, coarse, _ = self.step(trunk, state)
        return logits, coarse, state

    def move(self, state: State, size: tuple[int, int], move: Move, is_jump: bool) -> State:
        """The state for frames that show another part of the scene.

        size: (height, width) of the frames
        is_jump: whether recent frames of the memory are moved, too. After a small move they stay as they are, because
            their cells are compared in windows and repeated interpolation would blur them
        """
        foreground = move_cells(state.mask[:, 1:], size, self.stride, move)
        memory = state.memory
        if is_jump and memory is not None:
            memory = self.memory.move(memory, size, self.stride, move)
        return state._replace(mask=torch.cat([1 - foreground, foreground], dim=1), memory=memory)

    def encode(self, frames: Tensor) -> Trunk:
        """Backbone features of frames (N, 3, H, W) in [0, 1]; all objects of a frame share them."""
        frames = (frames - self.mean) / self.std
        bottom, right = -frames.shape[-2] % STRIDE, -frames.shape[-1] % STRIDE
        frames = pad(frames, (0, right, 0, bottom), mode="reflect")
        # channels last: convolutions need not reorder their input
        return self.backbone.trunk(frames.contiguous(memory_format=torch.channels_last))

    def begin(self, trunk: Trunk, scribble: Tensor, image_idx: Tensor | None = None) -> State:
        """State of N objects from their initial frame.

        trunk: of the images of the frame (`encode`)
        scribble: (N, H, W) of 0, 1, 255
        image_idx: index of each object's image, (N,); None: one object per image, in order
        """
        scribble = pad_scribble(scribble)
        strokes = self._initial_strokes(trunk, scribble, image_idx)
        x = self.attend(trunk, image_idx, strokes)
        x = x if self.has_object_features else select_images(x, image_idx)
        decoder_features = select_image_maps(self._decoder_features(trunk), image_idx)
        return self._initial_state(x, trunk, decoder_features, strokes, scribble, image_idx)

    @property
    def has_object_features(self) -> bool:
        """Whether features after the attention belong to one object; otherwise the objects of an image share them."""
        return self.config.attention.kind == "scribble" and self.config.attention.keys == "per_object"

    @property
    def attends_to_previous(self) -> bool:
        """Whether attention attends to cells of the previous frame, and not to the initial frame's strokes."""
        return self.config.attention.kind == "scribble" and self.config.attention.source == "previous"

    def attend(self, trunk: Trunk, image_idx: Tensor | None, strokes: Strokes | None) -> Tensor:
        """Attention and, if the backbone has it, layer4.

        returns: (N, C, h, w); N is the number of objects if `has_object_features`, the number of images otherwise
        """
        x = trunk.deep
        match self.config.attention.kind:
            case "scribble":
                x = self.attention(self._attention_features(trunk, image_idx), strokes)
            case "none":
                pass
            case _:
                x = self.attention(x)
        if self.config.backbone.last == "layer4":
            x = self.backbone.layer4(x)
        return x

    def _initial_strokes(self, trunk: Trunk, scribble: Tensor, image_idx: Tensor | None) -> Strokes | None:
        if self.config.attention.kind != "scribble":
            return None
        has_stroke = self._cells_to_attend(cells_with_stroke(scribble, self.stride), trunk, image_idx)
        return gather_strokes(self._attention_features(trunk, image_idx), has_stroke)

    def _confident_cells(self, trunk: Trunk, probs: Tensor, image_idx: Tensor | None) -> Strokes:
        """The cells of this frame that are confidently foreground, for the next frame to attend to.

        Their number is not known in advance, so the result contains all cells, with a mask.
        """
        confident = self._cells_to_attend(probs[:, 1] >= self.config.attention.confident, trunk, image_idx)
        x = self._attention_features(trunk, image_idx)
        return Strokes(rearrange(x, "n c h w -> n (h w) c"), confident.flatten(1))

    def _attention_features(self, trunk: Trunk, image_idx: Tensor | None) -> Tensor:
        """Input of scribble attention, (N, C, h, w): layer3's features of each object, or of each image."""
        return select_images(trunk.deep, image_idx) if self.has_object_features else trunk.deep

    def _cells_to_attend(self, cells: Tensor, trunk: Trunk, image_idx: Tensor | None) -> Tensor:
        """Cells of each object, (N, h, w) bool; with shared keys, the union over the objects of each image."""
        if self.has_object_features or image_idx is None:
            return cells
        union = torch.zeros(len(trunk.deep), *cells.shape[1:], dtype=torch.int64, device=cells.device)
        return union.index_add(0, image_idx, cells.long()) > 0

    def _frame_features(self, x: Tensor) -> FrameFeatures:
        return FrameFeatures(self.appearance.embed(x), self.propagation.reduce_features(x))

    def _decoder_features(self, trunk: Trunk) -> DecoderFeatures:
        shallow = None
        if self.config.appearance.shallow:
            shallow = self.shallow_appearance.embed(torch.cat([trunk.s4, trunk.color], dim=1))
        return DecoderFeatures(*self.upsampling.lateral(trunk.s8, trunk.s4), shallow)

    def _initial_state(
        self,
        x: Tensor,
        trunk: Trunk,
        decoder_features: DecoderFeatures,
        strokes: Strokes | None,
        scribble: Tensor,
        image_idx: Tensor | None,
    ) -> State:
        """The state before the first step: x is (N, C, h, w) from `attend`, scribble is padded."""
        embedded = self.appearance.embed(x)
        shares = cell_shares(scribble, self.stride).to(embedded.dtype)
        gaussians = self.appearance.fit(embedded, shares)
        shallow = None
        if decoder_features.shallow is not None:
            fine_shares = cell_shares(scribble, _FINE_STRIDE).to(decoder_features.shallow.dtype)
            shallow = self.shallow_appearance.fit(decoder_features.shallow, fine_shares)
        memory = None
        if self.config.memory.frames:
            memory = self.memory.start(trunk, scribble, self.stride, image_idx)
        first = self.propagation.reduce_first(x, shares)
        return State(image_idx, strokes, gaussians, shares, first, shallow, memory)

    def _advance(
        self, features: FrameFeatures, trunk: Trunk, decoder_features: DecoderFeatures, state: State
    ) -> tuple[StepOutput, State]:
        """Predict one frame from the state, and update the state with the prediction."""
        scores = self.appearance.score(features.appearance, state.gaussians)
        shallow_scores = None
        if state.shallow is not None:
            assert decoder_features.shallow is not None
            shallow_scores = self.shallow_appearance.score(decoder_features.shallow, state.shallow)
        propagated = self.propagation(features.reduced, state.first, state.mask)
        readouts = keys = None
        if state.memory is not None:
            keys = cell_keys(trunk, state.memory.statistics)
            readouts = self.memory.read(keys, state.memory, state.image_idx)
        encoding, coarse = self.fusion(propagated, scores, shallow_scores, readouts)
        fine, probs = None, coarse.softmax(dim=1)
        if self.config.state == "fine":
            fine = self._upsample(encoding, coarse, decoder_features, shallow_scores)
            probs = avg_pool2d(fine.softmax(dim=1), self.stride)
        output = StepOutput(encoding, coarse, shallow_scores, fine)
        return output, self._next_state(state, features, trunk, keys, decoder_features, probs)

    def _upsample(
        self, encoding: Tensor, coarse: Tensor, decoder_features: DecoderFeatures, shallow_scores: Tensor | None
    ) -> Tensor:
        """Fine logits. With a memory they are the coarse logits, which contain its evidence, and a correction."""
        evidence = coarse if self.config.memory.frames else None
        fine: Tensor = self.upsampling(encoding, decoder_features.s8, decoder_features.s4, shallow_scores, evidence)
        return fine

    def _next_state(
        self,
        state: State,
        features: FrameFeatures,
        trunk: Trunk,
        keys: Tensor | None,
        decoder_features: DecoderFeatures,
        probs: Tensor,
    ) -> State:
        """The state after a frame with the coarse mask `probs`, (N, 2, h, w); keys: `cell_keys` of its images."""
        gaussians = self.appearance.update(state.gaussians, features.appearance, probs)
        strokes, shallow, memory = state.strokes, None, None
        if self.attends_to_previous:
            strokes = self._confident_cells(trunk, probs, state.image_idx)
        if state.shallow is not None:
            assert decoder_features.shallow is not None
            size = decoder_features.shallow.shape[-2:]
            fine_probs = interpolate(probs, size=size, mode="bilinear", align_corners=False)
            shallow = self.shallow_appearance.update(state.shallow, decoder_features.shallow, fine_probs)
        if state.memory is not None:
            assert keys is not None
            memory = self.memory.update(state.memory, keys, probs.detach())
        return state._replace(strokes=strokes, gaussians=gaussians, mask=probs, shallow=shallow, memory=memory)


def _initialise(head: nn.Module) -> None:
    """Kaiming initialisation. PyTorch's default initialisation shrinks the signal at every layer, and the heads have no
    normalisation that would restore it."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            is_classifier = module.out_channels == 2
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if is_classifier else "relu")
            nn.init.zeros_(module.bias)
            if is_classifier:  # small logits: training starts from undecided masks
                module.weight.data.mul_(0.1)
