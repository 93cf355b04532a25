"""Parameters of the data: which videos train and evaluate, and how the embedded clips are rendered."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssvos.config.base import Count, Fraction, FrozenConfig, Name, Positive


class RichConfig(FrozenConfig):
    """What makes rendered clips as hard as real video (ssvos.data.synthetic.rich_scenes); every one of them at 0 leaves
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
    """The embedded data set: clips that the project renders itself (ssvos.data.synthetic.clips).

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
