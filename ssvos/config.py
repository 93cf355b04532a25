"""Every parameter of the method: frozen, strict models whose defaults are the paper's values where those act."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]


class FrozenConfig(BaseModel):
    """Unknown keys, wrong types and infinite numbers are errors that name the key; nothing changes after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=FrozenConfig)


class RichConfig(FrozenConfig):
    """What makes rendered clips hard in the ways that real video is (ssvos.data.rich); every one of them at 0 leaves
    its effect out. Shares are probabilities, of an object or of a clip; strengths are the most that is drawn.

    smallest_share: of the frame that an object takes. parts: how far an object's parts differ in colour; blob_share:
    of objects without a skeleton. deformation: of outlines, and how far objects are squeezed as if they turned.
    speed_spread: deviation of the logarithm of speed; still_share, turn_share, leaving_share: of objects that stay,
    that change direction at once, that leave and come back. growth: of the logarithm of an object's scale over a
    clip. distractors, occluders, clutter: most things that are not annotated: that move as objects do, that stand in
    front of all, that are part of the background. twin_share: of distractors and further objects that look like
    another one. scene_share: of backgrounds with a horizon; ripple_share: of those that wave, as water does.
    parallax: how much more the near moves with the camera than the far. follow_share: of clips whose camera follows
    the first object. camera: zoom and turn; shake: in pixels on a frame 224 wide. motion_blur: open share of a
    frame's time; defocus: in pixels on a frame 224 wide. lighting: of gain across the frame and over time; exposure:
    of drift in brightness and colour balance; haze: share of fog; smoke_share: of clips that smoke drifts through;
    shadow: share of light that an object takes from the ground. grain: in grey levels; jpeg_share: of clips
    compressed badly.
    """

    smallest_share: Annotated[float, Field(gt=0.0, le=0.1)] = 0.004
    parts: Fraction = 0.8
    blob_share: Fraction = 0.3
    deformation: Fraction = 0.6
    speed_spread: Annotated[float, Field(ge=0.0, le=1.5)] = 0.7
    still_share: Fraction = 0.12
    turn_share: Fraction = 0.2
    leaving_share: Fraction = 0.08
    growth: Annotated[float, Field(ge=0.0, le=1.0)] = 0.35
    distractors: Annotated[int, Field(ge=0, le=8)] = 2
    twin_share: Fraction = 0.4
    occluders: Annotated[int, Field(ge=0, le=8)] = 2
    clutter: Annotated[int, Field(ge=0, le=40)] = 14
    scene_share: Fraction = 0.75
    ripple_share: Fraction = 0.15
    parallax: Fraction = 0.6
    follow_share: Fraction = 0.5
    camera: Fraction = 0.5
    shake: Annotated[float, Field(ge=0.0, le=8.0)] = 1.0
    motion_blur: Fraction = 0.3
    defocus: Annotated[float, Field(ge=0.0, le=4.0)] = 0.6
    lighting: Fraction = 0.25
    exposure: Fraction = 0.2
    haze: Fraction = 0.3
    smoke_share: Fraction = 0.12
    shadow: Fraction = 0.5
    grain: Annotated[float, Field(ge=0.0, le=30.0)] = 5.0
    jpeg_share: Fraction = 0.5


class SyntheticConfig(FrozenConfig):
    """The embedded data set: clips that the project renders itself (ssvos.data.synthetic).

    object_share: largest share of the frame that one object takes; speed: its mean motion in pixels a frame, on a
    frame 224 wide. camouflage: share of objects whose colours are the background's own. rich: none for the plain
    clips of the demo; a table of it, also an empty one, for those to learn from before real video. uses: how many
    training clips of an unlimited source are cut from one that is rendered, each with an object, frames and a variation
    of its own.
    """

    seed: int = 0
    num_train: Annotated[int, Field(ge=2)] = 40  # one of them is held out
    num_val: Count = 8
    num_frames: Annotated[int, Field(ge=3)] = 16  # the first and the last are not scored
    height: Annotated[int, Field(ge=32)] = 128
    width: Annotated[int, Field(ge=32)] = 224
    max_objects: Annotated[int, Field(ge=1, le=8)] = 3
    object_share: Annotated[float, Field(gt=0.0, le=0.4)] = 0.32
    speed: Positive = 3.6
    camouflage: Fraction = 0.4
    rich: RichConfig | None = None
    uses: Count = 1


class SourceConfig(FrozenConfig):
    """One data set: where it lies, how it is laid out, which lists of it train and judge.

    val: empty for a source that trains alone, of which nothing is held out either.
    weight: how often its clips are drawn for training, relative to the other sources.
    unlimited: of the embedded data set: training clips are rendered as they are drawn, no two alike, beside those on
    disk, which choose and judge.
    scribble_every, dense_every: of a training video's labelled frames, counted from its first, every so manieth keeps
    its scribble as target, and every so manieth (0: none) has its dense mask as target in place of it.
    """

    name: Name
    layout: Literal["embedded", "davis", "youtube-vos", "folder"]
    root: str = ""
    train: str = "train"
    val: str = "val"
    weight: Positive = 1.0
    unlimited: bool = False
    scribble_every: Count = 1
    dense_every: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> "SourceConfig":
        if self.unlimited and self.layout != "embedded":
            raise ValueError(f"{self.name} is unlimited and of layout {self.layout}; only embedded clips have no end")
        return self


class DataConfig(FrozenConfig):
    """What is trained and judged on. `name` names every output, so that data sets never overwrite each other.

    holdout_split: a list of sequences kept out of training to choose the checkpoint; empty: a seeded
    `holdout_fraction` of each source's training list. The judging split is never used for choosing.
    fingerprint: digest of the file listing of sources outside the project, so that a changed folder is noticed.
    """

    name: Name
    sources: Annotated[tuple[SourceConfig, ...], Field(strict=False, min_length=1)]
    seed: int = 0
    holdout_split: str = ""
    holdout_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    fingerprint: str = ""

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        names = [source.name for source in self.sources]
        if not any(source.val for source in self.sources):
            raise ValueError(f"no source has a list to judge, so none is held out; name val of {names[0]}")
        for source in self.sources:
            if names.count(source.name) > 1:
                raise ValueError(f"two sources are named {source.name}; rename one")
            if self.holdout_split in (source.train, source.val) and self.holdout_split:
                raise ValueError(
                    f"holdout_split {self.holdout_split} also trains or judges {source.name}; name a list of its own"
                )
        return self


class ScribbleConfig(FrozenConfig):
    """Scribble simulation (III-E). The background rectangle keeps a margin drawn from [margin_min, margin_max],
    in shares of the longer image side, from the objects' bounding box."""

    seed: int = 0
    width: Annotated[int, Field(ge=1, le=255)] = 5
    margin_min: Fraction = 0.02
    margin_max: Fraction = 0.12

    @model_validator(mode="after")
    def _check(self) -> "ScribbleConfig":
        if self.margin_min > self.margin_max:
            raise ValueError(f"margin_min {self.margin_min} is above margin_max {self.margin_max}; lower it")
        return self


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


class ProximalConfig(FrozenConfig):
    """Cross-entropy to the network's own mask refined by the dense CRF (ssvos.losses.proximal). weight 0: off.

    pull, sigma_xy, sigma_rgb, iterations: as RefinementConfig's weight and the others; scale: as the loss's. bias:
    taken off the object's log-odds before the mask is looked for, as `predict.foreground_bias` at the end: the band
    around an object, of which no stroke says anything, is then learnt as background where the image agrees.
    filter: `exact` keeps all pairs of pixels while a batch's mask is looked for, 5 GB for 16 frames of 72x128 on a GPU,
    and is several times faster there.
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    bias: float = 0.0
    iterations: Count = 5
    pull: Positive = 6.0
    sigma_xy: Annotated[float, Field(ge=0.02, le=1.0)] = 0.125
    sigma_rgb: Annotated[float, Field(ge=3.0, le=255.0)] = 13.0
    scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    filter: Literal["lattice", "exact"] = "lattice"


class LossConfig(FrozenConfig):
    """Joint loss (19): partial cross-entropy (11) plus `weight` (lambda) times a dense-CRF regularizer (12)-(18).

    sigma_xy (gamma_d, pixels of the prediction) and sigma_rgb (gamma_r, 0-255) are (13)'s bandwidths; the energy
    is taken at `scale` of the prediction's size. beta, the extra weight of unreliable pixels (18), which lie
    between `unreliable_above` and `unreliable_below`. normalization: the raw double sum (`none`), that over the
    number of pixels (`pixel`), or every affinity row divided by its sum (`row`).
    filter: `lattice` (permutohedral) or `exact` (the O(N^2) sum).
    """

    regularizer: Literal["none", "dense_crf", "scribble_supervised"] = "scribble_supervised"
    weight: Annotated[float, Field(ge=0.0)] = 0.9
    beta: Annotated[float, Field(ge=0.0)] = 0.1
    unreliable_above: Fraction = 0.05
    unreliable_below: Fraction = 0.3
    sigma_xy: Positive = 100.0
    sigma_rgb: Positive = 15.0
    scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    normalization: Literal["none", "pixel", "row"] = "row"
    filter: Literal["lattice", "exact"] = "lattice"
    balance: Literal["pixel", "class"] = "class"
    proximal: ProximalConfig = ProximalConfig()

    @model_validator(mode="after")
    def _check(self) -> "LossConfig":
        if self.unreliable_above >= self.unreliable_below:
            raise ValueError(
                f"unreliable_above {self.unreliable_above} must be below unreliable_below {self.unreliable_below}"
            )
        return self


class StageConfig(FrozenConfig):
    """One training stage (IV-C). A batch is `batch_clips` clips of `clip_frames` frames of height x width pixels.

    decay: the learning rate's factor an epoch. auxiliary_weight: weight of the coarse branch's pCE.
    frame_stride: between a clip's frames. smallest_stride: where it is not 0 each clip's stride is drawn, from it to
    frame_stride; stride_growth: epochs in which the longest one grows from the smallest to frame_stride (0: at once).
    weights: of the stage's own, in place of the sources' `weight`, by their names; 0 leaves a source out.
    regularized_frames: on how many frames of a clip, drawn at random, the regularizer is taken (0: all of them).
    ramp: steps in which the regularizer's weight rises from 0 to its own (0: at once).
    warmup: steps of linear warm-up of the learning rate. max_norm: gradient norm limit (0: none).
    average: decay a step of the running average of weights that is judged and kept, not the last ones (0: off).
    patience: epochs without a better held-out score before the stage ends early (0: never).
    holdout_frames: how many frames of a held-out video are scored after each epoch (0: all).
    precision: of the network in training; the appearance model and the loss are always in single precision. float16,
    with its loss scaled against underflow, is for GPUs alone.
    accumulate: parts of a batch that go through the network one after the other, for one step of the optimizer.
    save_every: steps after which the state is saved within an epoch as well (0: at its end alone).
    start: a checkpoint to begin with; empty: stage 1 with new weights, stage 2 with stage 1's.
    """

    epochs: Count = 80
    clips_per_epoch: Count = 2600
    batch_clips: Count = 4
    clip_frames: Annotated[int, Field(ge=2)] = 8
    frame_stride: Count = 1
    smallest_stride: Annotated[int, Field(ge=0)] = 0
    stride_growth: Annotated[int, Field(ge=0)] = 0
    weights: dict[str, Annotated[float, Field(ge=0.0)]] = {}
    height: Annotated[int, Field(ge=32)] = 240
    width: Annotated[int, Field(ge=32)] = 480
    learning_rate: Positive = 1e-4
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    auxiliary_weight: Annotated[float, Field(ge=0.0)] = 1.0
    regularized_frames: Annotated[int, Field(ge=0)] = 0
    ramp: Annotated[int, Field(ge=0)] = 0
    warmup: Annotated[int, Field(ge=0)] = 0
    max_norm: Annotated[float, Field(ge=0.0)] = 0.0
    average: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    patience: Annotated[int, Field(ge=0)] = 0
    holdout_frames: Annotated[int, Field(ge=0)] = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulate: Count = 1
    save_every: Annotated[int, Field(ge=0)] = 0
    start: str = ""

    @model_validator(mode="after")
    def _check(self) -> "StageConfig":
        if self.clips_per_epoch < self.batch_clips:
            raise ValueError(
                f"clips_per_epoch {self.clips_per_epoch} is less than one batch of {self.batch_clips}; raise it"
            )
        if self.smallest_stride > self.frame_stride:
            raise ValueError(
                f"smallest_stride {self.smallest_stride} is above frame_stride {self.frame_stride}; lower it"
            )
        if self.batch_clips % self.accumulate:
            raise ValueError(
                f"batch_clips {self.batch_clips} is no multiple of accumulate {self.accumulate}; change one of them"
            )
        return self


class AugmentConfig(FrozenConfig):
    """Clip augmentation, the same for all frames of a clip; what comes in from outside the frame is unlabelled.

    flip, reverse: how often a clip is mirrored, or shown backwards. scale: drawn evenly over its logarithm; a magnified
    clip is cropped anywhere. rotation: up to so many degrees; shear: up to so much. colour: how far gains and
    brightness go; blur: up to so many pixels (standard deviation). cutout: how often a rectangle of a frame, each
    frame's own, is painted over and unlabelled.
    """

    flip: Fraction = 0.5
    reverse: Fraction = 0.0
    scale_min: Positive = 1.0
    scale_max: Positive = 1.0
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    shear: Fraction = 0.0
    colour: Fraction = 0.0
    blur: Annotated[float, Field(ge=0.0)] = 0.0
    cutout: Fraction = 0.0

    @model_validator(mode="after")
    def _check(self) -> "AugmentConfig":
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} is above scale_max {self.scale_max}; lower it")
        return self


class TrainConfig(FrozenConfig):
    """Both stages and what they share.

    deterministic: PyTorch's deterministic algorithms alone, an error where it has none. compile: torch.compile; where
    that fails training goes on without it. skip_nonfinite: batches of a stage that may be left out because their loss
    is not finite, before it stops.
    """

    seed: int = 0
    deterministic: bool = False
    compile: bool = False
    skip_nonfinite: Annotated[int, Field(ge=0)] = 0
    augment: AugmentConfig = AugmentConfig()
    stage1: StageConfig = StageConfig()
    stage2: StageConfig = StageConfig(
        epochs=100,
        clips_per_epoch=120,
        batch_clips=2,
        clip_frames=14,
        height=480,
        width=854,
        learning_rate=1e-5,
        decay=0.985,
        weight_decay=1e-6,
        auxiliary_weight=0.0,
    )


class OnlineConfig(FrozenConfig):
    """Online learning from a video's own first scribble before it is segmented: `steps` of Adam on clips of
    `clip_frames` variations of that frame, with the loss of training. 0 steps: off.
    """

    steps: Annotated[int, Field(ge=0)] = 0
    learning_rate: Positive = 1e-3
    clip_frames: Annotated[int, Field(ge=2)] = 3
    seed: int = 0
    augment: AugmentConfig = AugmentConfig(scale_min=0.8, scale_max=1.3, rotation=15.0, colour=0.3)


class RefinementConfig(FrozenConfig):
    """Mean-field inference of the dense CRF on every mask; the state keeps the network's own. 0 iterations: off.

    weight: of agreement with the pixels around, beside the network's log-probabilities. sigma_xy, sigma_rgb: (13)'s
    bandwidths, the first in shares of the frame's height.
    """

    iterations: Annotated[int, Field(ge=0)] = 0
    weight: Positive = 6.0
    sigma_xy: Annotated[float, Field(ge=0.02, le=1.0)] = 0.125
    sigma_rgb: Annotated[float, Field(ge=3.0, le=255.0)] = 13.0


class ColourConfig(FrozenConfig):
    """Colours of the objects and of the background, learnt from the frame on which objects begin, as evidence beside
    the network's (ssvos.colour_model). weight 0: off; 1 takes them as they are.

    bins: of each axis of CIELAB. limit: how much a colour can say against a class, in nats. rounds: of learning the
    colours from that frame's mask and the mask from the colours.
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    bins: Annotated[int, Field(ge=2, le=64)] = 16
    limit: Positive = 3.0
    rounds: Count = 2


class FlowConfig(FrozenConfig):
    """What GrabCut and optical flow make of the first frame's scribble, as evidence beside the network's
    (ssvos.grabcut_flow). weight: what it adds to an object's log-odds, or takes off; 0: off. agreement: the
    intersection over union of the two masks from which its weight is full; below, it falls with it.
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    agreement: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5


class PredictConfig(FrozenConfig):
    """Frames are resized to height x width for the network (0: stage 2's), masks back to the frame's own size.

    foreground_bias: taken off the foreground's log-odds of the masks written, not of the state. Partial cross-entropy
    says nothing of the band around an object that no stroke touches, and class balance fills it with object; choose the
    bias on held-out videos.
    """

    foreground_bias: float = 0.0
    refinement: RefinementConfig = RefinementConfig()
    colour: ColourConfig = ColourConfig()
    flow: FlowConfig = FlowConfig()
    online: OnlineConfig = OnlineConfig()
    height: Annotated[int, Field(ge=0)] = 0
    width: Annotated[int, Field(ge=0)] = 0


class RangeConfig(FrozenConfig):
    """Where a searched parameter may lie: from `low` to `high`, both included, or one of `choices`.

    log: drawn evenly over its logarithm. num: points of the range that a grid takes, both ends among them; 0: none.
    """

    low: float | None = None
    high: float | None = None
    log: bool = True
    num: Annotated[int, Field(ge=0)] = 0
    choices: Annotated[tuple[bool | int | float | str, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _check(self) -> "RangeConfig":
        if self.choices:
            if self.low is not None or self.high is not None or self.num:
                raise ValueError("has choices and a range; give one of them")
            if len(set(self.choices)) < max(2, len(self.choices)):
                raise ValueError("has fewer than two different choices, or one twice; correct them")
            return self
        if self.low is None or self.high is None:
            raise ValueError("has no range; give low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} must be above 0 where log is true")
        if self.num == 1:
            raise ValueError("num 1 is no grid; give at least 2")
        return self


class ResourcesConfig(FrozenConfig):
    """What a trial of the search takes, or each of its workers; below one GPU several trials share it."""

    cpus: Positive = 1.0
    gpus: Annotated[float, Field(ge=0.0)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> "ResourcesConfig":
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus {self.gpus} is neither a whole number nor a part of one GPU; round it")
        return self


class TuneConfig(FrozenConfig):
    """The search (Table II): `trials` settings of the parameters in `space`, the first one the present values.

    variant: whose parameters are searched. trial: overrides that make a trial cheap, as under `variants`.
    space: dotted keys and their ranges. algorithm: `tpe` (Optuna), `random`, `grid` (all combinations, not above
    `trials`), or `pbt`, a population of `trials` that copies its best members every `perturb` epochs. seconds: of the
    whole search, 0 without end. workers: of a trial that is a DDP run, 0 for one process. resources: of a trial, or of
    each of its workers; none: a GPU or a CPU. scheduler: `asha` stops weak trials, other than in `pbt`; grace: epochs
    of both stages together before it may stop one; reduction: of the trials that reach a rung, one in so many goes on.
    """

    variant: str = "ours"
    algorithm: Literal["tpe", "random", "grid", "pbt"] = "tpe"
    scheduler: Literal["asha", "none"] = "asha"
    trials: Count = 16
    seconds: Annotated[float, Field(ge=0.0)] = 0.0
    seed: int = 0
    grace: Count = 2
    reduction: Annotated[int, Field(ge=2)] = 3
    perturb: Count = 1
    workers: Annotated[int, Field(ge=0)] = 0
    resources: ResourcesConfig | None = None
    trial: dict[str, Any] = {}
    space: dict[str, RangeConfig] = {
        "train.stage1.learning_rate": RangeConfig(low=1e-5, high=1e-3),
        "train.stage2.learning_rate": RangeConfig(low=1e-6, high=1e-4),
        "loss.sigma_xy": RangeConfig(low=25.0, high=200.0),
        "loss.sigma_rgb": RangeConfig(low=5.0, high=45.0),
        "loss.weight": RangeConfig(low=0.01, high=10.0),
        "loss.beta": RangeConfig(low=0.01, high=3.0),
    }


class Config(FrozenConfig):
    """All parameters of one variant. adopted: which search the values come from, written when its winner is taken."""

    data: DataConfig
    synthetic: SyntheticConfig = SyntheticConfig()
    scribbles: ScribbleConfig = ScribbleConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()
    tune: TuneConfig = TuneConfig()
    adopted: str = ""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        names = [source.name for source in self.data.sources]
        for stage in ("stage1", "stage2"):
            for name in getattr(self.train, stage).weights:
                if name not in names:
                    raise ValueError(
                        f"train.{stage}.weights: {name} is none of data.sources ({', '.join(names)}); rename it"
                    )
        return self


class FitConfig(FrozenConfig):
    """What `ssvos fit` adds to the parameters: which stage, from what, to where. Paths count from the YAML file.

    index, scribbles: Parquet made by the pipeline or an earlier fit; empty: made in `out`. start: a checkpoint whose
    weights the stage begins with; empty: random (or the backbone's own file).
    """

    stage: Literal["stage1", "stage2"] = "stage1"
    out: str
    index: str = ""
    scribbles: str = ""
    start: str = ""


class FitFile(Config):
    """The YAML file of `ssvos fit`: all parameters, and the fit itself."""

    fit: FitConfig


def read_yaml(path: Path) -> dict:
    """Read YAML 1.2, in which 1e-05 is a number (YAML 1.1 takes it for text). Empty files give {}."""
    from ruamel.yaml import YAML  # only commands that read parameters pay for the import
    from ruamel.yaml.error import YAMLError

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; give a YAML file of parameters")
    try:
        content = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML; {_yaml_fault(error)}; correct it") from error
    if not isinstance(content, dict | None):
        raise ValueError(f"{path}: expected a table of parameters, found {type(content).__name__}")
    return content or {}


def _yaml_fault(error: Exception) -> str:
    """`line 3: what is wrong`, of an error that otherwise draws the place over several lines."""
    mark = getattr(error, "problem_mark", None)
    reason = " ".join(str((mark and getattr(error, "problem", None)) or error).split())[:200]
    return f"line {mark.line + 1}: {reason}" if mark else reason


def parse(model: type[Model], values: dict, source: str | Path) -> Model:
    """Check values against a model; ValueError with one line that names file, key and what was expected."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(_explain(model, item) for item in _causes(error))) from error


def _causes(error: ValidationError) -> list[dict]:
    """The faults, without those that others cause: a list whose only item is faulty counts as empty, too."""
    places = [item["loc"] for item in error.errors()]

    def is_consequence(item: dict) -> bool:
        within = [loc for loc in places if loc != item["loc"] and loc[: len(item["loc"])] == item["loc"]]
        return item["type"] == "too_short" and bool(within)

    return [item for item in error.errors() if not is_consequence(item)]


def _explain(model: type[BaseModel], item: dict) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = get_close_matches(str(item["loc"][-1]), _known_names(model, item["loc"][:-1]), 1)
        return f"{key}: unknown key" + (f", did you mean {near[0]}?" if near else ", remove it")
    if item["type"] == "missing":
        return f"{key}: missing, add it"
    if item["type"] == "value_error":  # of a model's own, which says all
        return f"{key}: {item['ctx']['error']}" if key else str(item["ctx"]["error"])
    if item["type"] in ("model_type", "dict_type"):
        return f"{key}: expected a table of parameters, not {item['input']!r}"
    if item["type"] == "too_short":
        return f"{key}: name at least {item['ctx']['min_length']}"
    if item["type"] == "string_pattern_mismatch":  # of Name, the only pattern
        return f"{key}: letters, digits, '_', '.' and '-' only, beginning with a letter or digit, not {item['input']!r}"
    return f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r}"


def _known_names(model: type[BaseModel], place: tuple) -> list[str]:
    for part in place:
        if not isinstance(part, str):
            continue  # the position in a list; its field named the model
        field = model.model_fields.get(part)
        inner = field and next((t for t in (field.annotation, *get_args(field.annotation)) if _is_model(t)), None)
        if not inner:
            return []
        model = inner
    return list(model.model_fields)


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
