"""Parameters of the network (Fig. 3): backbone, attention, appearance model, memory and widths."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssvos.config.base import Count, Fraction, FrozenConfig, Positive

IMAGENET = "imagenet"  # in place of a file of weights


class BackboneConfig(FrozenConfig):
    """The backbone: a ResNet with torchvision's names, or an EfficientNet-Lite.

    name: the network; the EfficientNets end at layer3, so set `last` to `layer3`
    width: channels of a ResNet's stem; 64: the published network
    norm: `frozen_batch` for published weights, `group` for random initial weights
    weights: `imagenet`: an EfficientNet's weights from its Python package; a path: checkpoint file of a ResNet; empty:
        random weights
    sha256: SHA-256 of that file, or its first 8 digits or more
    frozen: train neither the stem nor layer1 to layer3, as A-GAME does with pretrained weights
    stride: stride of layer3 and layer4; 8 preserves thin objects on small frames and has four times as many cells
    last: layer whose features propagation and appearance use. With `layer3` these features are cheaper, more local, and
        the same for all objects except for the attention; for small networks on small frames
    """

    name: Literal["resnet18", "resnet50", "resnet101", "efficientnet_lite0", "efficientnet_lite2"] = "resnet101"
    width: Count = 64
    norm: Literal["frozen_batch", "group"] = "frozen_batch"
    weights: str = ""
    sha256: str = ""
    frozen: bool = False
    stride: Literal[8, 16] = 16
    last: Literal["layer3", "layer4"] = "layer4"

    @property
    def weights_file(self) -> str:
        """The file that `weights` names; empty for weights from a package and for random weights."""
        return "" if self.weights == IMAGENET else self.weights

    @model_validator(mode="after")
    def _check(self) -> "BackboneConfig":
        if not self.name.startswith("efficientnet"):
            if self.weights == IMAGENET:
                raise ValueError(f"weights: {self.name} has no package of weights; give a file (docs/backbones.md)")
            return self
        if self.last != "layer3":
            raise ValueError(f"last: {self.name} has no layer4; set it to layer3")
        if self.width != 64:
            raise ValueError(f"width: {self.name} has one width; leave it out")
        if self.weights not in ("", IMAGENET):
            raise ValueError(f"weights: {self.name} takes its weights from a package; set it to {IMAGENET}")
        return self


class AttentionConfig(FrozenConfig):
    """Attention after layer3: scribble attention (8)-(10), or one of the variants of Table III.

    kind: `scribble`, or the variant
    keys: whose strokes an object attends to, with kind scribble: its own (`per_object`), or those of all objects
        (`shared`)
    source: positions to attend to, with kind scribble: the initial frame's strokes (`initial`), or the previous frame's
        cells with a foreground probability of at least `confident` (`previous`)
    confident: smallest foreground probability of a cell that source `previous` attends to
    scaled: divide the affinities by sqrt(d); the paper does not. Kind point_wise has no affinities to divide
    grid: rows and columns of the grid of kind point_wise, for every frame size; its number of parameters grows with
        them
    initial_scale: initial value of gamma; with the paper's 0 the attention has little effect after a short training
    """

    kind: Literal["scribble", "none", "non_local", "criss_cross", "point_wise"] = "scribble"
    keys: Literal["per_object", "shared"] = "per_object"
    source: Literal["initial", "previous"] = "initial"
    confident: Fraction = 0.9
    scaled: bool = False
    grid: Annotated[tuple[Count, Count], Field(strict=False)] = (15, 27)
    initial_scale: Fraction = 0.0


class AppearanceConfig(FrozenConfig):
    """The appearance model (1)-(7).

    channels: channels of the embedded features
    shallow: channels of a second appearance model at stride 4, on layer1's features and the colors; 0: none, as in the
        paper. Features trained from random weights learn to separate objects late; colors and simple textures separate
        them at once
    update_rate: lambda of (5) and (6)
    pseudo_count: epsilon in the mean (3) and the variance (4)
    output: form of the output: `log_scores`, `mean_log_scores` (divided by the channels), `posteriors` (7),
        `log_posteriors`
    """

    channels: Count = 512
    shallow: Annotated[int, Field(ge=0)] = 0
    update_rate: Fraction = 0.1
    pseudo_count: Positive = 1.0
    output: Literal["log_scores", "mean_log_scores", "log_posteriors", "posteriors"] = "log_scores"


class MemoryConfig(FrozenConfig):
    """Label propagation inside the network, beyond the paper: every cell reads the labels of the cells most like it.

    frames: number of recent frames whose cells are compared, in addition to the initial frame's; 0: no memory
    interval: besides the latest frame, every n-th frame is stored
    radius: cells of recent frames are compared if they are at most this many rows and columns away
    matches: number of most similar cells whose labels are read
    temperature: of the softmax over their cosines
    """

    frames: Annotated[int, Field(ge=0)] = 0
    interval: Count = 4
    radius: Count = 10
    matches: Count = 10
    temperature: Positive = 0.1


class ModelConfig(FrozenConfig):
    """The parts of the network and their widths; the defaults are A-GAME's for ResNet-101.

    backbone: parameters of the backbone
    attention: parameters of the attention
    appearance: parameters of the appearance model
    memory: parameters of the memory
    propagation_channels: width of mask propagation
    fusion_channels: width of the fusion of propagation and appearance
    encoding_channels: width of the encoding that the decoder reads
    state: mask that updates the state from frame to frame: `coarse` (the paper) or `fine`
    input_share: share of the first frame's strokes that are the network's input in training; all strokes are its target
    """

    backbone: BackboneConfig = BackboneConfig()
    attention: AttentionConfig = AttentionConfig()
    appearance: AppearanceConfig = AppearanceConfig()
    memory: MemoryConfig = MemoryConfig()
    propagation_channels: Count = 512
    fusion_channels: Count = 512
    encoding_channels: Count = 128
    state: Literal["coarse", "fine"] = "coarse"
    input_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
