"""Stages `train_stage1` and `train_stage2`: one training stage of one variant as a Ray Train DDP run."""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipelines.cluster.checkpoint_actor import poll_checkpoint_actor, start_checkpoint_actor
from pipelines.cluster.checkpoint_store import CheckpointStore
from pipelines.cluster.ray_cluster import (
    Workers,
    cluster,
    num_loaders,
    requested_workers,
    require_workers,
    train_workers,
)
from pipelines.cluster.storage import StorageLocation, put, remove_folder, require_storage, resume_folder, storage
from pipelines.cluster.worker_inputs import pack, unpack
from pipelines.params import Layout, flatten, read_params
from pipelines.stage import run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.mlflow_metrics import try_log_history
from pipelines.tracking.record import DataUse, Record
from pipelines.tracking.stage_records import Records
from ssvos.config import Config
from ssvos.data.index import read_index
from ssvos.device import choose_device
from ssvos.progress import progress_bar
from ssvos.training.run_dir import write_run
from ssvos.training.train_state import EpochReport, TrainState, from_bytes, run_digest, to_bytes
from ssvos.training.trainer import first_network, fit
from ssvos.training.training_data import require_clips, training_data

# receives an epoch's metrics, a line to print, and a function that returns the state as bytes
Report = Callable[[dict[str, float], str, Callable[[], bytes] | None], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--stage", required=True, choices=("stage1", "stage2"))
    args = parser.parse_args()
    params = read_params()
    config = params.variant(args.variant)
    stage = getattr(config.train, args.stage)
    require_workers(stage.batch_clips // stage.accumulate)
    loaders = num_loaders()
    require_storage()
    tracking.connect()
    layout = Layout(config.data.name)
    start = _start_checkpoint(stage.init_checkpoint, layout, args)
    # raise for a checkpoint of another network, and for data without a clip, before any worker starts
    first_network(config, start or "")
    require_clips(read_index(layout.index), config, stage, layout.scribbles / "scribbles.parquet")
    files = [layout.index, layout.scribbles / "scribbles.parquet", *([start] if start else [])]
    digest = run_digest(config, args.stage, files)
    folder = resume_folder(f"{layout.name}-{args.variant}-{args.stage}-{digest}")
    checkpoint_store = CheckpointStore(folder / "progress.pt", digest)
    resume = checkpoint_store.read()
    records = Records.read(params, layout)
    run_id = _open_run(records, config, args, folder / "mlflow.run")
    job = {
        "config": config.model_dump(mode="json"),
        "stage": args.stage,
        "label": f"{args.variant} {args.stage}",
        "digest": digest,
        "loaders": loaders,
    }
    with tracking.mark_failed_on_error(run_id), progress_bar(job["label"], stage.epochs) as advance:
        on_row = partial(_on_row, run_id, advance)
        if requested_workers() == 0:
            job |= {"packed_inputs": pack(config, layout, checkpoint=start)}
            progress = train_in_process(job, checkpoint_store, resume, on_row)
        else:
            with cluster():
                workers = train_workers(stage.batch_clips // stage.accumulate)
                job |= {"packed_inputs": pack(config, layout, checkpoint=start), "threads": workers.threads}
                progress = train_on_cluster(job, checkpoint_store, resume, workers, on_row)
    write_run(layout.run(args.variant, args.stage), progress, config, args.stage, args.variant)
    tracking.write(records.training(args.variant, args.stage), run_id)
    remove_folder(folder)


def _start_checkpoint(init_checkpoint: str, layout: Layout, args: argparse.Namespace) -> Path | None:
    """Return the checkpoint whose weights the stage starts from, if any."""
    if init_checkpoint:
        return Path(init_checkpoint).expanduser()
    return layout.run(args.variant, "stage1") / "checkpoint.pt" if args.stage == "stage2" else None


def train_on_cluster(
    job: dict,
    checkpoint_store: CheckpointStore,
    resume: TrainState | None,
    workers: Workers,
    on_row: Callable[[dict, str], None],
) -> TrainState:
    """Train on the cluster -> the finished progress. The latest state is saved in `checkpoint_store`.

    With SSVOS_STORAGE, the worker of rank 0 saves it there, else this process saves what the actor passes on.

    resume: state to resume from.
    on_row: receives each epoch's metrics and line.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    shared_store = checkpoint_store if storage() else None
    state = to_bytes(resume, checkpoint_store.digest) if resume and not shared_store else None
    checkpoint_actor = start_checkpoint_actor(state)
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
    with tempfile.TemporaryDirectory(prefix="ssvos-train-") as scratch:
        trainer = TorchTrainer(
            _worker,
            train_loop_config=job | {"checkpoint_actor": checkpoint_actor, "shared_store": shared_store},
            scaling_config=ScalingConfig(
                num_workers=workers.count, use_gpu=bool(workers.gpus), resources_per_worker=resources
            ),
            # a fresh folder: Ray would resume an earlier run of the same name, but the actor has the state
            run_config=RunConfig(name="run", storage_path=scratch, failure_config=FailureConfig(max_failures=2)),
        )

        with poll_checkpoint_actor(checkpoint_actor, checkpoint_store.write, on_row):
            trainer.fit()
        return shared_store.read() if shared_store else from_bytes(ray.get(checkpoint_actor.latest.remote()))[0]


def train_in_process(
    job: dict, checkpoint_store: CheckpointStore, resume: TrainState | None, on_row: Callable[[dict, str], None]
) -> TrainState:
    """Train in this process without Ray (SSVOS_WORKERS=0), for a debugger and for very short runs."""

    def report(metrics: dict[str, float], line: str, state: Callable[[], bytes] | None) -> None:
        if state:
            checkpoint_store.write(state())
        if line:
            on_row(metrics, line)

    return _train(job, report, choose_device("auto"), resume)


def _on_row(run_id: str, advance: Callable[[], None], metrics: dict[str, float], line: str) -> None:
    print(line, flush=True)
    if metrics:
        advance()
        try_log_history(run_id, [metrics])


def _worker(job: dict) -> None:
    import ray
    import ray.train
    import ray.train.torch

    from ssvos.device import use_threads

    use_threads(job["threads"])
    checkpoint_actor, shared_store = job["checkpoint_actor"], job["shared_store"]
    is_first = ray.train.get_context().get_world_rank() == 0

    def report(metrics: dict[str, float], line: str, state: Callable[[], bytes] | None) -> None:
        if is_first:
            content = state() if state else None
            if shared_store and content:
                shared_store.write(content)
            ray.get(checkpoint_actor.put.remote(metrics, line, None if shared_store else content))
        if metrics:
            ray.train.report(metrics)

    state = None if shared_store else ray.get(checkpoint_actor.latest.remote())
    resume = shared_store.read() if shared_store else from_bytes(state)[0] if state else None
    _train(job, report, ray.train.torch.get_device(), resume)


def _train(job: dict, report: Report, device, resume: TrainState | None) -> TrainState:
    """Train one rank. `report` receives each epoch's metrics, line and state; a state alone; or a line alone."""
    config, inputs = Config.model_validate(job["config"]), unpack(job["packed_inputs"])
    stage = getattr(config.train, job["stage"])
    data = training_data(inputs.index, inputs.scribbles, inputs.roots, config)

    def on_epoch(epoch: EpochReport) -> None:
        line = epoch.line(job["label"], stage.epochs)
        report(epoch.row | epoch.speed, line, partial(to_bytes, epoch.train_state, job["digest"]))

    network = first_network(inputs.local_config(config), inputs.checkpoint or "")
    return fit(
        network,
        data,
        config,
        stage,
        device,
        on_epoch,
        resume,
        num_loaders=job["loaders"],
        save=lambda train_state: report({}, "", partial(to_bytes, train_state, job["digest"])),
        warn=lambda line: report({}, f"{job['label']}  {line}", None),
    )


def _open_run(records: Records, config: Config, args: argparse.Namespace, path: Path | StorageLocation) -> str:
    """Open the training's MLflow run, or after an interruption the same run again -> its id, which `path` stores."""
    tags = {"variant": args.variant, "stage": f"train_{args.stage}", "data": records.layout.name}
    tags["data.digest"] = records.data.digest
    use = DataUse(**(vars(records.data) | {"context": "training"}))
    name = f"{args.variant} train_{args.stage}"
    record = Record(name, tags, flatten(config), use)
    run_id = tracking.open_run(record, path.read_text() if path.is_file() else "")
    put(path, run_id.encode())
    return run_id


if __name__ == "__main__":
    run_stage(main)
