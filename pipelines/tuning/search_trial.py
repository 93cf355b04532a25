"""In a worker of the search: a trial, with a state to go on from where its population copies it, or as a DDP run."""

import json
import tempfile
from pathlib import Path

from ray.tune import Callback

from pipelines.cluster.worker_errors import bad_input
from pipelines.cluster.worker_inputs import unpack
from pipelines.params import nested
from pipelines.tuning.trainable import State, train_both
from ssvos.config import Config
from ssvos.config.variants import merge

_STATE = "state.pt"


def trial(values: dict, job: dict) -> None:
    """Both stages with these values; job: the parameters, the parcel, and PyTorch threads."""
    from ray import tune

    train_both(_config(values, job), unpack(job["parcel"]), tune.report, threads=job["threads"])


def member(values: dict, job: dict) -> None:
    """The same for one of a population: every epoch leaves a state, from which it or another goes on."""
    from ray import tune

    start, state = tune.get_checkpoint(), State()
    if start:
        with start.as_directory() as folder:
            state = State.load(Path(folder) / _STATE)

    def on_epoch(report: dict) -> None:
        if report["row"]["holdout_score"] >= state.best:
            state.values = values
        with tempfile.TemporaryDirectory(prefix="ssvos-trial-") as folder:
            state.save(Path(folder) / _STATE)
            # as text: Ray Tune's own logs would take every value for a curve
            report |= {"values": json.dumps(state.values), "rows": json.dumps(state.rows)}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))

    train_both(_config(values, job), unpack(job["parcel"]), on_epoch, state, threads=job["threads"])


def distributed(values: dict, job: dict) -> None:
    """The same by several workers, which Ray Train starts beside this process; job: also their number and resources."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    cpus, gpus = job["resources"]
    own = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    scaling = ScalingConfig(num_workers=job["workers"], use_gpu=bool(gpus), resources_per_worker=own)
    with tempfile.TemporaryDirectory(prefix="ssvos-trial-") as storage:
        reports = RunConfig(name="trial", storage_path=storage, callbacks=[TuneReportCallback()])
        trainer = TorchTrainer(
            _worker, train_loop_config={"values": values, "job": job}, scaling_config=scaling, run_config=reports
        )
        try:
            trainer.fit()
        except Exception as error:
            raise bad_input(error) or error from error


class Releasing(Callback):
    """On the driver: frees the room of a trial's workers. Those of a trial that is stopped would keep it: Ray Train
    frees it where its controller ends by itself, or by Ray's dashboard, which a small cluster may not have."""

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        from ray.util.placement_group import PlacementGroup, PlacementGroupID, remove_placement_group

        group = (trial.last_result or {}).get("group")
        if group:
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        self.on_trial_complete(iteration, trials, trial)


def _worker(both: dict) -> None:
    import ray.train
    import ray.train.torch
    from ray.util import get_current_placement_group

    job = both["job"]
    device = ray.train.torch.get_device()
    config, group = _config(both["values"], job), get_current_placement_group().id.hex()

    def on_epoch(report: dict) -> None:
        ray.train.report(report | {"group": group})

    train_both(config, unpack(job["parcel"]), on_epoch, device=device, threads=job["threads"])


def _config(values: dict, job: dict) -> Config:
    return Config.model_validate(merge(job["config"], nested(values)))
