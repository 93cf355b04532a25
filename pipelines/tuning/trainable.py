"""Runs Ray Tune's trials, each a training of both stages; the search and the study of Table II use it."""

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ray.tune import Callback

from pipelines.cluster.ray_cluster import default_trial_resources
from pipelines.cluster.storage import StorageLocation
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
    """Check weights and data before any trial starts. Raises what every trial would raise."""
    first_network(config)
    for stage in STAGES:
        scribbles = layout.scribbles / "scribbles.parquet"
        require_clips(read_index(layout.index), config, getattr(config.train, stage), scribbles)


def run_trials(
    trial: Callable,
    job: dict,
    callback: SearchCallback,
    space: dict,
    resources: dict[str, float] | None = None,
    concurrent: int | None = None,
    storage: Path | StorageLocation | None = None,
    extra_callbacks: Sequence[Callback] = (),
    **search,
) -> list[Trial]:
    """Run all trials, inside `cluster()`. The callback reports a failed trial; the others continue.

    trial: function that a worker calls with the trial's values and `job`; it reports `score`.
    space, search: where Ray Tune takes the values from.
    resources: of each trial, by default `default_trial_resources`.
    concurrent: number of trials that run at a time.
    storage: folder for the trials' states, to resume from; by default a temporary folder.
    extra_callbacks: called in addition to `callback`.
    """
    from ray import tune

    if not os.environ.get("SSVOS_DEBUG"):
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the callback prints one line for a failed trial
    if resources is None:
        resources, concurrent = default_trial_resources()
    with nullcontext(storage) if storage else tempfile.TemporaryDirectory(prefix="ssvos-tune-") as folder:
        # a restored `tune.Tuner` would use the callbacks that it pickled, not those of this process
        tune.run(
            tune.with_parameters(trial, job=job),
            name="search",
            config=space,
            resources_per_trial=resources,
            max_concurrent_trials=concurrent,
            callbacks=[callback, *extra_callbacks],
            **_storage_options(folder),
            resume=storage is not None and has_saved_trials(storage),
            # a population restarts its members often, and a new process needs seconds to import PyTorch
            reuse_actors=storage is not None,
            raise_on_failed_trial=False,
            verbose=0,
            **search,
        )
    return callback.trials


def has_saved_trials(storage: Path | StorageLocation) -> bool:
    """Return whether Ray Tune has saved the state of its trials in this folder."""
    return any((storage / "search").glob("experiment_state-*.json"))


def _storage_options(folder: Path | StorageLocation | str) -> dict:
    if isinstance(folder, StorageLocation):
        return {"storage_path": folder.path, "storage_filesystem": folder.filesystem}
    return {"storage_path": str(Path(folder).absolute())}


@dataclass
class TrialState:
    """The state to resume a trial from.

    stage: index of the current stage.
    progress: state of that stage's training.
    best: best held-out score so far.
    values: the searched values that reached it.
    rows: of all epochs that led to these weights; a member that is copied passes them on with its weights.
    """

    stage: int = 0
    progress: TrainState | None = None
    best: float = float("-inf")
    values: dict = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        import torch

        torch.save(vars(self) | {"progress": vars(self.progress)}, path)

    @classmethod
    def load(cls, path: Path) -> "TrialState":
        import torch

        content = torch.load(path, map_location="cpu", weights_only=True)
        return cls(**content | {"progress": TrainState(**content["progress"])})


def train_both(
    config: Config,
    inputs: WorkerInputs,
    on_epoch: Callable[[dict], None],
    state: TrialState | None = None,
    device: object = None,
    threads: int = 1,
) -> tuple[Network, str]:
    """Train both stages in a worker -> the network with stage 2's best weights, its device.

    Stage 2 starts from stage 1's best weights.

    on_epoch: receives `score` (the best so far), `row` (the epoch's, epochs counted over both stages) and `chosen_by`.
    state: where to resume; it is updated before each call of `on_epoch`.
    threads: of PyTorch.
    """
    import torch

    from ssvos.device import use_threads

    use_threads(threads)
    data = training_data(inputs.index, inputs.scribbles, inputs.roots, config)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = first_network(inputs.local_config(config))
    state = state or TrialState()
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
