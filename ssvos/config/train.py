"""Parameters of the two training stages (IV-C) and of the augmentation."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ssvos.config.base import Count, Fraction, FrozenConfig, Positive


class StageConfig(FrozenConfig):
    """One training stage (IV-C).

    epochs: number of epochs
    clips_per_epoch: clips of an epoch
    batch_clips: clips of a batch
    clip_frames: frames of a clip
    frame_stride: largest distance between consecutive frames of a clip, frames of the video
    smallest_stride: smallest distance; a clip's distance is drawn from here to frame_stride; 0: always frame_stride
    stride_growth: epochs in which the largest distance grows from smallest_stride to frame_stride; 0: at once
    weights: the sources' `weight` in this stage, by source name; 0 excludes a source
    height: height of a training frame, pixels
    width: width of a training frame, pixels
    learning_rate: initial learning rate of Adam
    lr_decay: factor of the learning rate per epoch
    weight_decay: weight decay of Adam
    auxiliary_weight: weight of the partial cross-entropy on the coarse branch
    regularized_frames: frames of a clip, drawn at random, on which the regularizer is computed; 0: all
    ramp_steps: steps in which the regularizer's weight rises from 0 to its full value; 0: at once
    warmup_steps: steps of linear warm-up of the learning rate
    grad_clip_norm: largest gradient norm; 0: no limit
    ema_decay: decay per step of the exponential moving average that is evaluated and saved in place of the weights; 0:
        off
    patience: epochs without a better held-out score after which the stage ends; 0: never
    holdout_frames: frames of a held-out video that are scored after each epoch; 0: all
    precision: precision of the network in training; the appearance model and the loss always use float32. float16
        scales the loss against underflow and needs a GPU
    accumulate: parts of a batch that pass through the network one after the other, for one optimizer step
    save_every: steps after which the state is saved within an epoch; 0: at the end of the epoch only
    init_checkpoint: checkpoint to start from; empty: random weights in stage 1, stage 1's weights in stage 2
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
                f"batch_clips {self.batch_clips} is not a multiple of accumulate {self.accumulate}; change one of them"
            )
        return self


class AugmentConfig(FrozenConfig):
    """Clip augmentation, the same for all frames of a clip. Pixels from outside the frame are unlabelled.

    flip: probability of mirroring a clip
    reverse: probability of reversing a clip in time
    scale_min: smallest scale, drawn uniformly in its logarithm; an enlarged clip is cropped at a random position
    scale_max: largest scale
    rotation: largest rotation, degrees
    shear: largest shear, pixels per pixel
    color: strength of random gain and brightness
    blur: largest standard deviation of a Gaussian blur, pixels
    cutout: probability, per frame, of one rectangle that is painted over and unlabelled
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
    """Both training stages, and the parameters that they share.

    seed: seed of weights, clips and augmentation
    deterministic: use PyTorch's deterministic algorithms only; an operator without one raises an error
    compile: use torch.compile; if it fails, training continues without it
    max_skipped_batches: batches with a NaN or infinite loss that a stage skips before it stops
    augment: parameters of the augmentation
    stage1: parameters of stage 1
    stage2: parameters of stage 2
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
