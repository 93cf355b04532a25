"""Parameters of prediction: frame size and what is applied to the network's masks."""

from typing import Annotated, ClassVar

from pydantic import Field

from ssvos.config.base import Count, FrozenConfig, Positive
from ssvos.config.train import AugmentConfig


class TestTimeTrainingConfig(FrozenConfig):
    """Test-time training from a video's own first scribble before it is segmented: `steps` of Adam on clips of
    `clip_frames` variations of that frame, with the loss of training. 0 steps: off.
    """

    __test__ = False  # its name begins with Test, and pytest must not collect it

    steps: Annotated[int, Field(ge=0)] = 0
    learning_rate: Positive = 1e-3
    clip_frames: Annotated[int, Field(ge=2)] = 3
    seed: int = 0
    augment: AugmentConfig = AugmentConfig(scale_min=0.8, scale_max=1.3, rotation=15.0, color=0.3)


class CrfRefinementConfig(FrozenConfig):
    """Mean-field inference of the dense CRF on every mask; the state keeps the network's own. 0 iterations: off.

    weight: of agreement with the pixels around, beside the network's log-probabilities. sigma_xy, sigma_rgb: (13)'s
    bandwidths, the first in shares of the frame's height.
    """

    iterations: Annotated[int, Field(ge=0)] = 0
    weight: Positive = 6.0
    sigma_xy: Annotated[float, Field(ge=0.02, le=1.0)] = 0.125
    sigma_rgb: Annotated[float, Field(ge=3.0, le=255.0)] = 13.0


class ColorModelConfig(FrozenConfig):
    """Colours of the objects and of the background, learnt from the frame on which objects begin, as evidence beside
    the network's (ssvos.inference.color_model). weight 0: off; 1 takes them as they are.

    bins: of each axis of CIELAB. limit: how much a colour can say against a class, in nats. rounds: of learning the
    colours from that frame's mask and the mask from the colours.
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    bins: Annotated[int, Field(ge=2, le=64)] = 16
    limit: Positive = 3.0
    rounds: Count = 2


class FlowConfig(FrozenConfig):
    """What GrabCut and optical flow make of the first frame's scribble, as evidence beside the network's
    (ssvos.baselines.grabcut_flow). weight: what it adds to an object's log-odds, or takes off; 0: off. agreement: the
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

    renamed: ClassVar[dict[str, str]] = {
        "refinement": "crf_refinement",
        "colour": "color_model",
        "online": "test_time_training",
    }

    foreground_bias: float = 0.0
    crf_refinement: CrfRefinementConfig = CrfRefinementConfig()
    color_model: ColorModelConfig = ColorModelConfig()
    flow: FlowConfig = FlowConfig()
    test_time_training: TestTimeTrainingConfig = TestTimeTrainingConfig()
    height: Annotated[int, Field(ge=0)] = 0
    width: Annotated[int, Field(ge=0)] = 0
