"""Parameters of prediction: the frame size, and the processing of the network's masks."""

from typing import Annotated, ClassVar

from pydantic import Field

from ssvos.config.base import Count, FrozenConfig, Positive
from ssvos.config.train import AugmentConfig


class TestTimeTrainingConfig(FrozenConfig):
    """Test-time training: before a video is segmented, the network trains on its first frame's scribble.

    steps: steps of Adam; 0: off
    learning_rate: learning rate of Adam
    clip_frames: frames of a training clip, each a variation of the first frame
    seed: seed of the variations
    augment: parameters of the variations
    """

    __test__ = False  # pytest collects classes whose name begins with Test

    steps: Annotated[int, Field(ge=0)] = 0
    learning_rate: Positive = 1e-3
    clip_frames: Annotated[int, Field(ge=2)] = 3
    seed: int = 0
    augment: AugmentConfig = AugmentConfig(scale_min=0.8, scale_max=1.3, rotation=15.0, color=0.3)


class CrfRefinementConfig(FrozenConfig):
    """CRF refinement: mean-field inference of the dense CRF on every output mask. It does not change the state.

    iterations: iterations of mean-field inference; 0: off
    weight: weight of the pairwise term, relative to the network's log-probabilities
    sigma_xy: (13)'s position bandwidth, share of the frame's height
    sigma_rgb: (13)'s color bandwidth, 0-255
    """

    iterations: Annotated[int, Field(ge=0)] = 0
    weight: Positive = 6.0
    sigma_xy: Annotated[float, Field(ge=0.02, le=1.0)] = 0.125
    sigma_rgb: Annotated[float, Field(ge=3.0, le=255.0)] = 13.0


class ColorModelConfig(FrozenConfig):
    """The color model: histograms of each object's and the background's colors (ssvos.inference.color_model).

    They are learnt from the frame on which an object first appears, and add evidence to the network's.

    weight: weight of the evidence; 0: off, 1: the log-likelihoods unchanged
    bins: bins of each axis of CIELAB
    limit: largest evidence against a class, nats
    rounds: rounds of alternately learning the colors from the frame's mask and the mask from the colors
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    bins: Annotated[int, Field(ge=2, le=64)] = 16
    limit: Positive = 3.0
    rounds: Count = 2


class FlowConfig(FrozenConfig):
    """GrabCut and optical flow (ssvos.baselines.grabcut_flow), as evidence in addition to the network's.

    weight: largest change of an object's log-odds; 0: off
    agreement: intersection over union of the two masks from which `weight` applies in full; below, it falls linearly
    """

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    agreement: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5


class RoiConfig(FrozenConfig):
    """The region of interest: only the part of the frame around the objects is segmented (ssvos.data.roi).

    It has the frame's proportions, is enlarged to the size of the network's input, and follows the objects.

    margin: space around the objects' box on each side, relative to its longer side; 0: the whole frame
    stroke_margin: the same around the strokes on the frame on which objects begin, which do not reach their outlines
    smallest: smallest side of the region, share of the frame's
    """

    margin: Annotated[float, Field(ge=0.0)] = 0.0
    stroke_margin: Positive = 0.6
    smallest: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3


class PredictConfig(FrozenConfig):
    """Parameters of prediction. Masks are resized back to the size of the video's frames.

    foreground_bias: subtracted from the foreground's log-odds in the output masks, not in the state. Partial
        cross-entropy ignores the unlabelled band around an object, and class balance fills it with object; choose the
        bias on held-out videos
    roi: parameters of the region of interest
    crf_refinement: parameters of CRF refinement
    color_model: parameters of the color model
    flow: parameters of GrabCut and optical flow
    test_time_training: parameters of test-time training
    height: height of the network's input, pixels; 0: stage 2's
    width: width of the network's input, pixels; 0: stage 2's
    """

    renamed: ClassVar[dict[str, str]] = {
        "refinement": "crf_refinement",
        "colour": "color_model",
        "online": "test_time_training",
    }

    foreground_bias: float = 0.0
    roi: RoiConfig = RoiConfig()
    crf_refinement: CrfRefinementConfig = CrfRefinementConfig()
    color_model: ColorModelConfig = ColorModelConfig()
    flow: FlowConfig = FlowConfig()
    test_time_training: TestTimeTrainingConfig = TestTimeTrainingConfig()
    height: Annotated[int, Field(ge=0)] = 0
    width: Annotated[int, Field(ge=0)] = 0
