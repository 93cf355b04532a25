"""Stages `train_stage1` and `train_stage2`: one training stage of one variant as a Ray Train DDP run."""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipelines.cluster.checkpoint_actor import following, start_checkpoint_actor
from pipelines.cluster.checkpoint_store import CheckpointStore
from pipelines.cluster.ray_cluster import Workers, asked_workers, cluster, num_loaders, require_workers, train_workers
from pipelines.cluster.storage import Place, put, remove_folder, require_storage, resume_folder, storage
from pipelines.cluster.worker_inputs import pack, unpack
from pipelines.params import Layout, flatten, read_params
from pipelines.stage import run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.run_records import Records
from ssvos.config import Config
from ssvos.data.index import read_index
from ssvos.device import choose_device
from ssvos.progress import progress_bar
from ssvos.training.run_dir import write_run
from ssvos.training.train_state import EpochReport, TrainState, from_bytes, run_digest, to_bytes
from ssvos.training.trainer import first_network, fit
from ssvos.training.training_data import require_clips, training_data


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
    start = _start(stage.init_checkpoint, layout, args)
    # a checkpoint of another network, and data without a clip, are found before any worker starts
    first_network(config, start or "")
    require_clips(read_index(layout.index), config, stage, layout.scribbles / "scribbles.parquet")
    files = [layout.index, layout.scribbles / "scribbles.parquet", *([start] if start else [])]
    digest = run_digest(config, args.stage, files)
    folder = resume_folder(f"{layout.name}-{args.variant}-{args.stage}-{digest}")
    kept = CheckpointStore(folder / "progress.pt", digest)
    resume = kept.read()
    records = Records.read(params, layout)
    run_id = _open_run(records, config, args, folder / "mlflow.run")
    out = layout.run(args.variant, args.stage)
    job = {
        "config": config.model_dump(mode="json"),
        "stage": args.stage,
        "label": f"{args.variant} {args.stage}",
        "digest": digest,
        "loaders": loaders,
    }
    with tracking.failing(run_id), progress_bar(job["label"], stage.epochs) as advance:
        if asked_workers() == 0:
            job |= {"parcel": pack(config, layout, checkpoint=start)}
            progress = run_here(job, kept, resume, partial(_on_row, run_id, advance))
        else:
            with cluster():
                workers = train_workers(stage.batch_clips // stage.accumulate)
                job |= {"parcel": pack(config, layout, checkpoint=start), "threads": workers.threads}
                progress = run(job, kept, resume, workers, partial(_on_row, run_id, advance))
    write_run(out, progress, config, args.stage, args.variant)
    tracking.write(records.training(args.variant, args.stage), run_id)
    remove_folder(folder)


def _start(given: str, layout: Layout, args: argparse.Namespace) -> Path | None:
    """The checkpoint that a stage begins with, if any."""
    if given:
        return Path(given).expanduser()
    return layout.run(args.variant, "stage1") / "checkpoint.pt" if args.stage == "stage2" else None


def run(
    job: dict, kept: CheckpointStore, resume: TrainState | None, workers: Workers, on_row: Callable[[dict, str], None]
) -> TrainState:
    """Train on the cluster and return the finished progress; the latest state is put into `kept`.

    Where all machines see it, by the worker of rank 0, else by this process.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    shared = kept if storage() else None
    keeper = start_checkpoint_actor(to_bytes(resume, kept.digest) if resume and not shared else None)
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
    with tempfile.TemporaryDirectory(prefix="ssvos-train-") as scratch:
        trainer = TorchTrainer(
            _worker,
            train_loop_config=job | {"keeper": keeper, "kept": shared},
            scaling_config=ScalingConfig(
                num_workers=workers.count, use_gpu=bool(workers.gpus), resources_per_worker=resources
            ),
            # Ray goes on with whatever a run of the same name left: a fresh place, our own state is with the keeper
            run_config=RunConfig(name="run", storage_path=scratch, failure_config=FailureConfig(max_failures=2)),
        )

        with following(keeper, kept.write, on_row):
            trainer.fit()
        return shared.read() if shared else from_bytes(ray.get(keeper.latest.remote()))[0]


def run_here(
    job: dict, kept: CheckpointStore, resume: TrainState | None, on_row: Callable[[dict, str], None]
) -> TrainState:
    """The same loop in this process, without Ray: SSVOS_WORKERS=0, for a debugger and for very short runs."""

    def keep(metrics: dict[str, float], line: str, state: Callable[[], bytes] | None) -> None:
        if state:
            kept.write(state())
        if line:
            on_row(metrics, line)

    return _train(job, keep, choose_device("auto"), resume)


def _on_row(run_id: str, advance: Callable[[], None], metrics: dict[str, float], line: str) -> None:
    print(line, flush=True)
    if metrics:
        advance()
        tracking.log_live(run_id, [metrics])


def _worker(job: dict) -> None:
    import ray
    import ray.train
    import ray.train.torch

    from ssvos.device import use_threads

    use_threads(job["threads"])
    keeper, shared = job["keeper"], job["kept"]
    is_first = ray.train.get_context().get_world_rank() == 0

    def keep(metrics: dict[str, float], line: str, state: Callable[[], bytes] | None) -> None:
        if is_first:
            content = state() if state else None
            if shared and content:
                shared.write(content)
            ray.get(keeper.put.remote(metrics, line, None if shared else content))
        if metrics:
            ray.train.report(metrics)

    state = None if shared else ray.get(keeper.latest.remote())
    resume = shared.read() if shared else from_bytes(state)[0] if state else None
    _train(job, keep, ray.train.torch.get_device(), resume)


def _train(
    job: dict, keep: Callable[[dict, str, Callable[[], bytes] | None], None], device, resume: TrainState | None
) -> TrainState:
    """One rank's training; `keep` gets each epoch's metrics, line and state, a state alone, or a line alone."""
    config, inputs = Config.model_validate(job["config"]), unpack(job["parcel"])
    stage = getattr(config.train, job["stage"])
    data = training_data(inputs.index, inputs.scribbles, inputs.roots, config)

    def report(epoch: EpochReport) -> None:
        line = epoch.line(job["label"], stage.epochs)
        keep(epoch.row | epoch.speed, line, partial(to_bytes, epoch.train_state, job["digest"]))

    network = first_network(inputs.here(config), inputs.checkpoint or "")
    return fit(
        network,
        data,
        config,
        stage,
        device,
        report,
        resume,
        num_loaders=job["loaders"],
        save=lambda progress: keep({}, "", partial(to_bytes, progress, job["digest"])),
        warn=lambda line: keep({}, f"{job['label']}  {line}", None),
    )


def _open_run(records: Records, config: Config, args: argparse.Namespace, kept: Path | Place) -> str:
    """The MLflow run of this training, the same one again after an interruption."""
    tags = {"variant": args.variant, "stage": f"train_{args.stage}", "data": records.layout.name}
    tags["data.digest"] = records.data.digest
    use = tracking.DataUse(**(vars(records.data) | {"context": "training"}))
    name = f"{args.variant} train_{args.stage}"
    record = tracking.Record(name, tags, flatten(config), use)
    run_id = tracking.open_run(record, kept.read_text() if kept.is_file() else "")
    put(kept, run_id.encode())
    return run_id


if __name__ == "__main__":
    run_stage(main)
