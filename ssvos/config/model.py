"""Parameters of the network (Fig. 3): backbone, attention, appearance model, memory and widths."""

from typing import Annotated, Literal

from pydantic import Field

from ssvos.config.base import Count, Fraction, FrozenConfig, Positive


class BackboneConfig(FrozenConfig):
    """ResNet (torchvision's names). `width` is the stem's channel count: 64 is the published network.

    norm: `frozen_batch` for published weights, `group` from random initial weights.
    weights, sha256: a local checkpoint file and its digest; without one the weights are random.
    frozen: stem to layer3 take no gradient (A-GAME's choice for pretrained weights).
    stride: of layer3 and layer4. 8 keeps thin objects on small frames, at four times the cells.
    last: where the features of propagation and appearance come from. Without layer4 they are the same for all objects
    but for the attention, more local, and cheaper: for small networks on small frames.
    """

    name: Literal["resnet18", "resnet50", "resnet101"] = "resnet101"
    width: Count = 64
    norm: Literal["frozen_batch", "group"] = "frozen_batch"
    weights: str = ""
    sha256: str = ""
    frozen: bool = False
    stride: Literal[8, 16] = 16
    last: Literal["layer3", "layer4"] = "layer4"


class AttentionConfig(FrozenConfig):
    """Attention after layer3: scribble attention (8)-(10), or one of its rivals in Table III.

    keys, source and confident are scribble attention's: whose positions are attended to. source: the initial frame's
    strokes, or the previous frame's cells whose foreground probability is at least `confident`.
    scaled: divides the affinities by sqrt(d); the paper does not. Point-wise attention has none to divide.
    grid: point-wise attention's (rows, columns), whatever the frame's size; its parameters grow with them.
    initial_scale: what gamma starts from; the paper's 0 leaves a short training next to without attention.
    """

    kind: Literal["scribble", "none", "non_local", "criss_cross", "point_wise"] = "scribble"
    keys: Literal["per_object", "shared"] = "per_object"
    source: Literal["initial", "previous"] = "initial"
    confident: Fraction = 0.9
    scaled: bool = False
    grid: Annotated[tuple[Count, Count], Field(strict=False)] = (15, 27)
    initial_scale: Fraction = 0.0


class AppearanceConfig(FrozenConfig):
    """Appearance model (1)-(7). update_rate: lambda of (5)(6); pseudo_count: epsilon in mean and variance.

    shallow: channels of a second model, at stride 4, of layer1's features and the colours (0: none, the paper's). Deep
    features that are learnt from nothing know objects apart late; colours and simple textures do at once.
    """

    channels: Count = 512
    shallow: Annotated[int, Field(ge=0)] = 0
    update_rate: Fraction = 0.1
    pseudo_count: Positive = 1.0
    output: Literal["log_scores", "mean_log_scores", "log_posteriors", "posteriors"] = "log_scores"


class MemoryConfig(FrozenConfig):
    """Memory of labelled cells, beyond the paper: every cell reads what those most like it were labelled.

    channels: of the keys that are compared (0: no memory). frames: how many recent frames are remembered besides the
    first one's strokes. confident: a recent frame's cells count where foreground or background has this probability.
    """

    channels: Annotated[int, Field(ge=0)] = 0
    frames: Annotated[int, Field(ge=0)] = 1
    confident: Fraction = 0.8


class ModelConfig(FrozenConfig):
    """The network's parts and widths (A-GAME's for ResNet-101).

    input_share: the share of the first frame's strokes given to the network in training; all are its target.
    state: what updates the state from frame to frame, the coarse mask (the paper) or the fine one.
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
