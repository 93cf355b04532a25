"""Parameters of the data: the sources of training and evaluation videos, and the renderer of the embedded clips."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssvos.config.base import Count, Fraction, FrozenConfig, Name, Positive


class RichConfig(FrozenConfig):
    """Effects that make rendered clips as hard as real video (ssvos.data.synthetic.rich_scenes); 0: effect off.

    A `..._share` that names objects or clips is a probability. A strength is the largest value that is drawn.

    smallest_share: smallest share of the frame that an object covers
    parts: color difference between the parts of an object
    blob_share: share of objects without a skeleton
    deformation: deformation of outlines, and foreshortening as if objects rotated in depth
    speed_spread: standard deviation of the logarithm of speed
    still_share: share of objects that do not move
    turn_share: share of objects that change direction abruptly
    leaving_share: share of objects that leave the frame and return
    growth: change of the logarithm of an object's scale over a clip
    distractors: largest number of unannotated objects that move like the annotated ones
    twin_share: share of distractors, and of objects after the first, that look like another object
    occluders: largest number of unannotated objects in front of the scene
    clutter: largest number of unannotated objects in the background
    scene_share: share of backgrounds with a horizon
    ripple_share: share of backgrounds that wave like water
    parallax: extra camera motion of near surfaces relative to far ones
    follow_share: share of clips whose camera follows the first object
    camera: zoom and rotation of the camera
    shake: jitter of the camera, pixels on a frame 224 pixels wide
    motion_blur: exposure time as a share of the frame interval
    defocus: blur, pixels on a frame 224 pixels wide
    lighting: variation of gain across the frame and over time
    exposure: drift of brightness and color balance
    haze: opacity of fog
    smoke_share: share of clips with drifting smoke
    shadow: share of light that an object's shadow removes from the ground
    grain: noise, gray levels
    jpeg_share: share of clips with strong JPEG compression
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
    """The embedded data set: clips that ssvos renders (ssvos.data.synthetic.clips).

    seed: seed of all clips
    num_train: number of training clips
    num_val: number of evaluation clips
    num_frames: frames of a clip
    height: height of a frame, pixels
    width: width of a frame, pixels
    max_objects: largest number of annotated objects in a clip
    object_share: largest share of the frame that one object covers
    speed: mean motion of an object, pixels per frame on a frame 224 pixels wide
    camouflage: share of objects whose colors come from the background
    rich: effects of clips for training before real video (RichConfig, all defaults if empty); none: the demo's plain
        clips
    uses: training clips cut from each rendered clip of an unlimited source, each with its own object, frames and
        variation
    """

    seed: int = 0
    num_train: Annotated[int, Field(ge=2)] = 40  # one clip is held out
    num_val: Count = 8
    num_frames: Annotated[int, Field(ge=3)] = 16  # DAVIS scores neither the first frame nor the last
    height: Annotated[int, Field(ge=32)] = 128
    width: Annotated[int, Field(ge=32)] = 224
    max_objects: Annotated[int, Field(ge=1, le=8)] = 3
    object_share: Annotated[float, Field(gt=0.0, le=0.4)] = 0.32
    speed: Positive = 3.6
    camouflage: Fraction = 0.4
    rich: RichConfig | None = None
    uses: Count = 1


class SourceConfig(FrozenConfig):
    """One data set: its folder, its layout, and its lists for training and evaluation.

    name: name in outputs and in `weights` of a training stage
    layout: folder layout, see docs/data.md; `embedded`: the clips of SyntheticConfig
    root: folder of the data set; empty for layout embedded
    train: list of training sequences
    val: list of evaluation sequences; empty: the source is used for training only, and none of it is held out
    weight: relative frequency of its clips in training
    unlimited: render new training clips as they are drawn, so that none repeats (layout embedded only); the clips on
        disk still serve as held-out and evaluation clips
    scribble_every: a training video's labelled frames 0, n, 2n, ... keep their scribble as target
    dense_every: a training video's labelled frames 0, n, 2n, ... have their dense mask as target instead; 0: none
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
            raise ValueError(
                f"unlimited needs layout embedded, source {self.name} has layout {self.layout}; set unlimited to false"
            )
        return self


class DataConfig(FrozenConfig):
    """The training and evaluation data.

    name: name of the data set in the path of every output, so that outputs of different data sets never collide
    sources: the data sets
    seed: seed of the choice of held-out sequences
    holdout_split: list of sequences that are held out of training to choose the checkpoint; empty: choose by
        holdout_fraction
    holdout_fraction: share of each source's training list that is held out; evaluation lists never choose a checkpoint
    fingerprint: digest of the file listings of sources outside the project, so that DVC detects a changed folder
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
            raise ValueError(f"no source has an evaluation list; set val of source {names[0]}")
        for source in self.sources:
            if names.count(source.name) > 1:
                raise ValueError(f"two sources are named {source.name}; rename one")
            if self.holdout_split in (source.train, source.val) and self.holdout_split:
                raise ValueError(
                    f"holdout_split {self.holdout_split} is also the train or val list of {source.name}; "
                    "name another list"
                )
        return self
