"""All parameters of a variant, and the file of `ssvos fit`."""

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
    """All parameters of one variant. tuned_from: the search that the values come from, if any."""

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

    index, scribbles: Parquet made by the pipeline or an earlier fit; empty: made in `out`.
    init_checkpoint: the checkpoint that the stage starts from; empty: random weights or the backbone's own file.
    """

    renamed: ClassVar[dict[str, str]] = {"start": "init_checkpoint"}

    stage: Literal["stage1", "stage2"] = "stage1"
    out: str
    index: str = ""
    scribbles: str = ""
    init_checkpoint: str = ""


class FitFile(Config):
    """The YAML file of `ssvos fit`: all parameters, and the fit itself."""

    fit: FitConfig
