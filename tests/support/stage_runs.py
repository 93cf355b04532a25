"""Runs of a training stage on the CPU, for the tests of the training loop."""

import io

import torch

from ssvos.config import Config
from ssvos.training.train_state import TrainState
from ssvos.training.trainer import first_network, fit
from ssvos.training.training_data import TrainingData


def with_train(config: Config, **values) -> Config:
    """Return the configuration with other values in `train`. `conftest.changed` changes the values of stage 1."""
    return config.model_copy(update={"train": config.train.model_copy(update=values)})


def fit_with_warnings(config: Config, data: TrainingData) -> tuple[TrainState, list[str]]:
    """Return the final state of stage 1 and the warnings."""
    warnings: list[str] = []
    network, stage = first_network(config), config.train.stage1
    return fit(network, data, config, stage, "cpu", lambda _: None, warn=warnings.append), warnings


def saved_and_loaded(train_state: TrainState) -> TrainState:
    """Save the state and load it with weights_only, as a resumed run does."""
    buffer = io.BytesIO()
    torch.save(vars(train_state), buffer)
    buffer.seek(0)
    return TrainState(**torch.load(buffer, weights_only=True))
