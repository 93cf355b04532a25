"""All parameters of the method: frozen, strict models. Defaults are the paper's values where those have an effect."""

from ssvos.config.base import Count, Fraction, FrozenConfig, Model, Name, Positive
from ssvos.config.data import DataConfig, RichConfig, SourceConfig, SyntheticConfig
from ssvos.config.loss import LossConfig, ProximalConfig, TeacherConfig
from ssvos.config.model import AppearanceConfig, AttentionConfig, BackboneConfig, MemoryConfig, ModelConfig
from ssvos.config.predict import (
    ColorModelConfig,
    CrfRefinementConfig,
    FlowConfig,
    PredictConfig,
    RoiConfig,
    TestTimeTrainingConfig,
)
from ssvos.config.reading import parse, read_yaml
from ssvos.config.root import Config, FitConfig, FitFile
from ssvos.config.scribbles import ScribbleConfig
from ssvos.config.train import AugmentConfig, StageConfig, TrainConfig
from ssvos.config.tune import RangeConfig, ResourcesConfig, TuneConfig

__all__ = [
    "AppearanceConfig",
    "AttentionConfig",
    "AugmentConfig",
    "BackboneConfig",
    "ColorModelConfig",
    "Config",
    "Count",
    "CrfRefinementConfig",
    "DataConfig",
    "FitConfig",
    "FitFile",
    "FlowConfig",
    "Fraction",
    "FrozenConfig",
    "LossConfig",
    "MemoryConfig",
    "Model",
    "ModelConfig",
    "Name",
    "Positive",
    "PredictConfig",
    "ProximalConfig",
    "RangeConfig",
    "ResourcesConfig",
    "RichConfig",
    "RoiConfig",
    "ScribbleConfig",
    "SourceConfig",
    "StageConfig",
    "SyntheticConfig",
    "TeacherConfig",
    "TestTimeTrainingConfig",
    "TrainConfig",
    "TuneConfig",
    "parse",
    "read_yaml",
]
