"""The functions that run a search's trial in a worker: in one process, as a member of a population, or by DDP."""

import json
import tempfile
from pathlib import Path

from ray.tune import Callback

from pipelines.cluster.worker_errors import bad_input
from pipelines.cluster.worker_inputs import unpack
from pipelines.params import nested
from pipelines.tuning.trainable import TrialState, train_both
from ssvos.config import Config
from ssvos.config.variants import merge

_STATE_FILE = "state.pt"


def trial(values: dict, job: dict) -> None:
    """Train both stages with these values, and report every epoch to Ray Tune.

    values: the searched parameters, by dotted name.
    job: `config`, `packed_inputs`, and `threads` of PyTorch.
    """
    from ray import tune

    train_both(_trial_config(values, job), unpack(job["packed_inputs"]), tune.report, threads=job["threads"])


def population_member(values: dict, job: dict) -> None:
    """`trial` as a member of a population: each epoch saves a state, from which this or another member resumes."""
    from ray import tune

    start, state = tune.get_checkpoint(), TrialState()
    if start:
        with start.as_directory() as folder:
            state = TrialState.load(Path(folder) / _STATE_FILE)

    def on_epoch(report: dict) -> None:
        if report["row"]["holdout_score"] >= state.best:
            state.values = values
        with tempfile.TemporaryDirectory(prefix="ssvos-trial-") as folder:
            state.save(Path(folder) / _STATE_FILE)
            # as text: Ray Tune's loggers would treat each number as a metric
            report |= {"values": json.dumps(state.values), "rows": json.dumps(state.rows)}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))

    inputs = unpack(job["packed_inputs"])
    train_both(_trial_config(values, job), inputs, on_epoch, state, threads=job["threads"])


def distributed_trial(values: dict, job: dict) -> None:
    """`trial` on several workers, which Ray Train starts in addition to this process.

    job: also `workers`, their number, and `resources`, (CPUs, GPUs) of each.
    """
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    cpus, gpus = job["resources"]
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    scaling = ScalingConfig(num_workers=job["workers"], use_gpu=bool(gpus), resources_per_worker=resources)
    with tempfile.TemporaryDirectory(prefix="ssvos-trial-") as storage:
        reports = RunConfig(name="trial", storage_path=storage, callbacks=[TuneReportCallback()])
        trainer = TorchTrainer(
            _worker, train_loop_config={"values": values, "job": job}, scaling_config=scaling, run_config=reports
        )
        try:
            trainer.fit()
        except Exception as error:
            raise bad_input(error) or error from error


class ReleaseWorkers(Callback):
    """Frees the resources of a stopped trial's workers, on the driver.

    Ray Train frees them only if its controller ends by itself, or through Ray's dashboard, which a small cluster may
    not have.
    """

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        from ray.util.placement_group import PlacementGroup, PlacementGroupID, remove_placement_group

        group = (trial.last_result or {}).get("group")
        if group:
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        self.on_trial_complete(iteration, trials, trial)


def _worker(loop_config: dict) -> None:
    import ray.train
    import ray.train.torch
    from ray.util import get_current_placement_group

    job = loop_config["job"]
    device = ray.train.torch.get_device()
    config, group = _trial_config(loop_config["values"], job), get_current_placement_group().id.hex()

    def on_epoch(report: dict) -> None:
        ray.train.report(report | {"group": group})

    train_both(config, unpack(job["packed_inputs"]), on_epoch, device=device, threads=job["threads"])


def _trial_config(values: dict, job: dict) -> Config:
    return Config.model_validate(merge(job["config"], nested(values)))
