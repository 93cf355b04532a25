"""Parameters of the two training stages (IV-C) and of augmentation."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ssvos.config.base import Count, Fraction, FrozenConfig, Positive


class StageConfig(FrozenConfig):
    """One training stage (IV-C). A batch is `batch_clips` clips of `clip_frames` frames of height x width pixels.

    lr_decay: the learning rate's factor an epoch. auxiliary_weight: weight of the coarse branch's pCE.
    frame_stride: between a clip's frames. smallest_stride: where it is not 0 each clip's stride is drawn, from it to
    frame_stride; stride_growth: epochs in which the longest one grows from the smallest to frame_stride (0: at once).
    weights: of the stage's own, in place of the sources' `weight`, by their names; 0 leaves a source out.
    regularized_frames: on how many frames of a clip, drawn at random, the regularizer is taken (0: all of them).
    ramp_steps: steps in which the regularizer's weight rises from 0 to its own (0: at once).
    warmup_steps: steps of linear warm-up of the learning rate. grad_clip_norm: gradient norm limit (0: none).
    ema_decay: decay a step of the running average of weights that is judged and kept, not the last ones (0: off).
    patience: epochs without a better held-out score before the stage ends early (0: never).
    holdout_frames: how many frames of a held-out video are scored after each epoch (0: all).
    precision: of the network in training; the appearance model and the loss are always in single precision. float16,
    with its loss scaled against underflow, is for GPUs alone.
    accumulate: parts of a batch that go through the network one after the other, for one step of the optimizer.
    save_every: steps after which the state is saved within an epoch as well (0: at its end alone).
    init_checkpoint: a checkpoint to begin with; empty: stage 1 with new weights, stage 2 with stage 1's.
    """

    renamed: ClassVar[dict[str, str]] = {
        "decay": "lr_decay",
        "ramp": "ramp_steps",
        "warmup": "warmup_steps",
        "max_norm": "grad_clip_norm",
        "average": "ema_decay",
        "start": "init_checkpoint",
    }

    epochs: Count = 80
    clips_per_epoch: Count = 2600
    batch_clips: Count = 4
    clip_frames: Annotated[int, Field(ge=2)] = 8
    frame_stride: Count = 1
    smallest_stride: Annotated[int, Field(ge=0)] = 0
    stride_growth: Annotated[int, Field(ge=0)] = 0
    weights: dict[str, Annotated[float, Field(ge=0.0)]] = Field(default_factory=dict)
    height: Annotated[int, Field(ge=32)] = 240
    width: Annotated[int, Field(ge=32)] = 480
    learning_rate: Positive = 1e-4
    lr_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    auxiliary_weight: Annotated[float, Field(ge=0.0)] = 1.0
    regularized_frames: Annotated[int, Field(ge=0)] = 0
    ramp_steps: Annotated[int, Field(ge=0)] = 0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    grad_clip_norm: Annotated[float, Field(ge=0.0)] = 0.0
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    patience: Annotated[int, Field(ge=0)] = 0
    holdout_frames: Annotated[int, Field(ge=0)] = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulate: Count = 1
    save_every: Annotated[int, Field(ge=0)] = 0
    init_checkpoint: str = ""

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
    clip is cropped anywhere. rotation: up to so many degrees; shear: up to so much. color: how far gains and
    brightness go; blur: up to so many pixels (standard deviation). cutout: how often a rectangle of a frame, each
    frame's own, is painted over and unlabelled.
    """

    renamed: ClassVar[dict[str, str]] = {"colour": "color"}

    flip: Fraction = 0.5
    reverse: Fraction = 0.0
    scale_min: Positive = 1.0
    scale_max: Positive = 1.0
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    shear: Fraction = 0.0
    color: Fraction = 0.0
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
    that fails training goes on without it.
    max_skipped_batches: how many batches with a NaN or infinite loss a stage skips before it stops.
    """

    renamed: ClassVar[dict[str, str]] = {"skip_nonfinite": "max_skipped_batches"}

    seed: int = 0
    deterministic: bool = False
    compile: bool = False
    max_skipped_batches: Annotated[int, Field(ge=0)] = 0
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
        lr_decay=0.985,
        weight_decay=1e-6,
        auxiliary_weight=0.0,
    )
