"""Fixtures and functions that tests share: a tiny network, and a tiny embedded data set prepared once."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from cluster_head import OPEN, cluster_head
from sandbox import make_project
from sandbox import run as reproduce

from ssvos.config import (
    AppearanceConfig,
    BackboneConfig,
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    ScribbleConfig,
    SourceConfig,
    StageConfig,
    SyntheticConfig,
    TrainConfig,
)
from ssvos.data.clips import ClipDataset, ClipSampler
from ssvos.data.index import labelled_frames, write_index
from ssvos.data.preparation import prepare, source_roots
from ssvos.losses.joint import joint_loss
from ssvos.models.network import Network
from ssvos.scribbles.store import STORE_SCHEMA, scribble_row, write_store
from ssvos.training.train_state import EpochReport, TrainState
from ssvos.training.trainer import first_network, fit
from ssvos.training.training_data import TrainingData, training_data

# `make check` runs the tests in these folders and files unless marked slow; `make test` then runs the rest
FAST = ("config", "data", "losses", "metrics", "models", "scribbles")
FAST_FILES = ("test_device.py", "test_imports.py", "test_labels.py")

TINY_MODEL = ModelConfig(
    backbone=BackboneConfig(name="resnet18", width=8, norm="group"),
    appearance=AppearanceConfig(channels=16, output="mean_log_scores", pseudo_count=0.1),
    propagation_channels=16,
    fusion_channels=16,
    encoding_channels=16,
)
TINY_STAGE = StageConfig(
    epochs=2,
    clips_per_epoch=4,
    batch_clips=2,
    clip_frames=3,
    height=48,
    width=64,
    learning_rate=1e-3,
    auxiliary_weight=0.5,
    regularized_frames=1,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the fast tests. Put the files that start pipelines first: two processes then end at about the same time."""
    tests = Path(__file__).parent
    for item in items:
        if item.path.relative_to(tests).parts[0] in FAST + FAST_FILES and not item.get_closest_marker("slow"):
            item.add_marker("fast")
    items.sort(key=lambda item: item.path.parent.name != "pipelines" and item.path.name != "test_guides.py")


@dataclass(frozen=True)
class TinyData:
    """The prepared data set: parameters, source roots, and the paths of the index and the scribble store."""

    config: Config
    roots: dict[str, Path]
    index: Path
    scribbles: Path

    def load(self) -> TrainingData:
        return training_data(self.index, self.scribbles, self.roots, self.config)


@contextmanager
def untracked(_what: str, _total: int) -> Iterator:
    yield lambda *_: None


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return Config(
        data=DataConfig(name="tiny", sources=(SourceConfig(name="embedded", layout="embedded"),), holdout_fraction=0.3),
        synthetic=SyntheticConfig(num_train=3, num_val=1, num_frames=6, height=48, width=64),
        scribbles=ScribbleConfig(width=2),
        model=TINY_MODEL,
        loss=LossConfig(sigma_xy=20.0),
        train=TrainConfig(stage1=TINY_STAGE, stage2=TINY_STAGE),
    )


@pytest.fixture(scope="session")
def tiny_data(tiny_config, tmp_path_factory) -> TinyData:
    folder = tmp_path_factory.mktemp("tiny")
    roots = source_roots(tiny_config, folder / "embedded")
    index = prepare(tiny_config, roots, untracked)
    write_index(index, folder / "index.parquet")
    rows = [
        scribble_row(row, roots[row["dataset"]], tiny_config.scribbles) for row in labelled_frames(index).to_pylist()
    ]
    write_store(pa.Table.from_pylist(rows, schema=STORE_SCHEMA), folder / "scribbles.parquet")
    return TinyData(tiny_config, roots, folder / "index.parquet", folder / "scribbles.parquet")


@pytest.fixture(scope="session")
def hidden(tmp_path_factory) -> Path:
    """A folder that the cluster's processes find empty, even after a test writes to it."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="session")
def address(hidden) -> Iterator[str]:
    """The address of a Ray cluster that runs during the tests."""
    with cluster_head(hidden) as found:
        yield found


@pytest.fixture(scope="session")
def project(hidden, address) -> Path:
    """A copy of the project with tiny parameters and its own git and DVC, reproduced once.

    The stage's own process trains `pce`. Two workers of a cluster that cannot see the project's folder train `ours`.
    """
    folder = make_project(hidden / "project")
    reproduce(["dvc", "repro", "scribbles"], folder, RAY_ADDRESS=address, **OPEN)
    reproduce(["dvc", "repro", "train_stage2@pce"], folder, RAY_ADDRESS=address, SSVOS_WORKERS="0", **OPEN)
    reproduce(["dvc", "repro"], folder, RAY_ADDRESS=address, **OPEN)
    return folder


@pytest.fixture
def project_copy(project, tmp_path) -> Path:
    """A copy of the reproduced project that a test may change. Its MLflow runs refer to the original's artifacts."""
    return shutil.copytree(project, tmp_path / "copy", symlinks=True)


def make_network(seed: int = 0, **changes) -> Network:
    """Return a tiny random network whose output depends visibly on its input.

    Its attention scale is 1: the initial scale of 0 would leave attention untested. The heads' weights have He's gain:
    PyTorch's default initialization would shrink every difference between two masks.
    """
    torch.manual_seed(seed)
    network = Network.create(TINY_MODEL.model_copy(update=changes)).eval()
    for name, parameter in network.named_parameters():
        if parameter.dim() == 4 and not name.startswith("backbone"):
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    if hasattr(network, "attention"):
        torch.nn.init.constant_(network.attention.scale, 1.0)
    return network


def changed(config: Config, **stage) -> Config:
    """Return the configuration with other values in its first stage."""
    stage1 = config.train.stage1.model_copy(update=stage)
    return config.model_copy(update={"train": config.train.model_copy(update={"stage1": stage1})})


def run(
    config: Config,
    data: TrainingData,
    seed: int = 0,
    resume: TrainState | None = None,
    report: Callable[[EpochReport], None] = lambda _: None,
) -> TrainState:
    """Fit the first stage from random weights."""
    network = first_network(config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})}))
    return fit(network, data, config, config.train.stage1, "cpu", report, resume)


def batch_of(source: ClipSampler, config: Config, count: int) -> dict[str, torch.Tensor]:
    """Return the first clips of the first epoch, stacked to a batch."""
    stage = config.train.stage1.model_copy(update={"clips_per_epoch": count})
    clips = ClipDataset(source, source.draw(stage, 0, 0), stage, config.train.augment, config.model.input_share)
    items = [clips[k] for k in range(count)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def loss_of(network: Network, batch: dict[str, torch.Tensor], config: Config) -> torch.Tensor:
    """Return the joint loss of a batch, with gradient."""
    frames = batch["frames"].float() / 255
    return joint_loss(
        network(frames, batch["scribble"]),
        frames,
        batch["target"],
        config.loss,
        config.train.stage1.auxiliary_weight,
        batch["regularized"],
    ).total
