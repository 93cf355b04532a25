"""All parameters of a variant, and the YAML file of `ssvos fit`."""

from typing import ClassVar, Literal

from pydantic import model_validator

from ssvos.config.base import FrozenConfig
from ssvos.config.data import DataConfig, SyntheticConfig
from ssvos.config.loss import LossConfig
from ssvos.config.model import ModelConfig
from ssvos.config.predict import PredictConfig
from ssvos.config.scribbles import ScribbleConfig
from ssvos.config.train import TrainConfig
from ssvos.config.tune import TuneConfig


class Config(FrozenConfig):
    """All parameters of one variant.

    data: the training and evaluation data
    synthetic: parameters of the embedded data set
    scribbles: parameters of the scribble simulation
    model: parameters of the network
    loss: parameters of the loss
    train: parameters of training
    predict: parameters of prediction
    tune: parameters of the search
    tuned_from: the search that the values come from; empty: none
    """

    renamed: ClassVar[dict[str, str]] = {"adopted": "tuned_from"}

    data: DataConfig
    synthetic: SyntheticConfig = SyntheticConfig()
    scribbles: ScribbleConfig = ScribbleConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()
    tune: TuneConfig = TuneConfig()
    tuned_from: str = ""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.train.compile and self.model.memory.frames:
            # the number of stroke cells, which the memory's classifier gathers, is not known before a clip is read
            raise ValueError("train.compile: a network with model.memory cannot be compiled; turn one of them off")
        names = [source.name for source in self.data.sources]
        for stage in ("stage1", "stage2"):
            for name in getattr(self.train, stage).weights:
                if name not in names:
                    raise ValueError(
                        f"train.{stage}.weights: {name} is not in data.sources ({', '.join(names)}); rename it"
                    )
        return self


class FitConfig(FrozenConfig):
    """Settings of `ssvos fit` in addition to the parameters. Paths are relative to the YAML file.

    stage: the training stage to run
    out: output folder
    index: Parquet index of the data; empty: written to `out`
    scribbles: Parquet store of the scribbles; empty: written to `out`
    init_checkpoint: checkpoint to start from; empty: random weights, or the backbone's weights file
    """

    renamed: ClassVar[dict[str, str]] = {"start": "init_checkpoint"}

    stage: Literal["stage1", "stage2"] = "stage1"
    out: str
    index: str = ""
    scribbles: str = ""
    init_checkpoint: str = ""


class FitFile(Config):
    """The YAML file of `ssvos fit`: all parameters of Config, and `fit`.

    fit: settings of the fit
    """

    fit: FitConfig
