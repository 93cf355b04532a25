"""Ray Tune's trials, each a training of both stages. The search and the study of Table II share them."""

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ray.tune import Callback

from pipelines.cluster.ray_cluster import trial_resources
from pipelines.cluster.storage import Place
from pipelines.cluster.worker_inputs import WorkerInputs
from pipelines.params import Layout
from pipelines.tuning.search_callback import SearchCallback, Trial
from pipelines.tuning.search_space import STAGES
from ssvos.config import Config
from ssvos.data.index import read_index
from ssvos.models.network import Network
from ssvos.training.train_state import EpochReport, TrainState
from ssvos.training.trainer import first_network, fit
from ssvos.training.training_data import require_clips, training_data


def require_trainable(config: Config, layout: Layout) -> None:
    """Weights that are not there, and what every trial would fail of, are found before any trial starts."""
    first_network(config)
    for stage in STAGES:
        stored = layout.scribbles / "scribbles.parquet"
        require_clips(read_index(layout.index), config, getattr(config.train, stage), stored)


def run_trials(
    trial: Callable,
    job: dict,
    follower: SearchCallback,
    space: dict,
    resources: dict[str, float] | None = None,
    concurrent: int | None = None,
    storage: Path | Place | None = None,
    also: Sequence[Callback] = (),
    **search,
) -> list[Trial]:
    """All trials, inside `cluster()`. A failed one is told by the follower, it is not the end of the others.

    trial: called in a worker with its values and `job`, reports `score`; space, search: what Ray Tune draws values of.
    resources: of a trial, with how many of them run at a time; one a GPU, else one a CPU. storage: a folder that keeps
    the trials' state, from which they go on; a fresh one that nothing remains of. also: what follows the trials beside.
    """
    from ray import tune

    if not os.environ.get("SSVOS_DEBUG"):
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the follower tells of a failed trial, in a line
    if resources is None:
        resources, concurrent = trial_resources()
    with nullcontext(storage) if storage else tempfile.TemporaryDirectory(prefix="ssvos-tune-") as place:
        # `tune.Tuner` that is restored would call the callbacks it has pickled, not this process's
        tune.run(
            tune.with_parameters(trial, job=job),
            name="search",
            config=space,
            resources_per_trial=resources,
            max_concurrent_trials=concurrent,
            callbacks=[follower, *also],
            **_where(place),
            resume=storage is not None and can_go_on(storage),
            # a population starts its members again and again, and a process takes seconds to import PyTorch
            reuse_actors=storage is not None,
            raise_on_failed_trial=False,
            verbose=0,
            **search,
        )
    return follower.trials


def can_go_on(storage: Path | Place) -> bool:
    """Whether Ray Tune has left the state of its trials there."""
    return any((storage / "search").glob("experiment_state-*.json"))


def _where(place: Path | Place | str) -> dict:
    if isinstance(place, Place):
        return {"storage_path": place.path, "storage_filesystem": place.filesystem}
    return {"storage_path": str(Path(place).absolute())}


@dataclass
class State:
    """How far a trial has come: the stage's number and its progress, the best score with the values it came of, and
    the rows of all epochs that led here, which a member that is copied hands on with its weights."""

    stage: int = 0
    progress: TrainState | None = None
    best: float = float("-inf")
    values: dict = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        import torch

        torch.save(vars(self) | {"progress": vars(self.progress)}, path)

    @classmethod
    def load(cls, path: Path) -> "State":
        import torch

        content = torch.load(path, map_location="cpu", weights_only=True)
        return cls(**content | {"progress": TrainState(**content["progress"])})


def train_both(
    config: Config,
    inputs: WorkerInputs,
    on_epoch: Callable[[dict], None],
    state: State | None = None,
    device: object = None,
    threads: int = 1,
) -> tuple[Network, str]:
    """In a worker: both stages, the second from the first's best weights -> the network with the second's, its device.

    on_epoch: gets `score`, the best so far, `row`, the epoch's with epochs counted over both stages, and `chosen_by`;
    state: where to go on from, which holds what the epoch has come to when it is called.
    """
    import torch

    from ssvos.device import use_threads

    use_threads(threads)
    data = training_data(inputs.index, inputs.scribbles, inputs.roots, config)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = first_network(inputs.here(config))
    state = state or State()
    for number, name in list(enumerate(STAGES))[state.stage :]:
        stage = getattr(config.train, name)

        def report(epoch: EpochReport, offset: int = number * config.train.stage1.epochs) -> None:
            state.progress, state.best = epoch.train_state, max(state.best, epoch.row["holdout_score"])
            row = epoch.row | {"epoch": epoch.row["epoch"] + offset}
            state.rows = [*state.rows, row]
            on_epoch({"score": state.best, "row": row, "chosen_by": epoch.train_state.chosen_by})

        progress = fit(network, data, config, stage, device, report, state.progress)
        network.load_state_dict(progress.best_weights)
        state.stage, state.progress = number + 1, None
    return network, device
