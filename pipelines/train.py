"""Stages `train_stage1` and `train_stage2`: one training stage of one variant as a Ray Train DDP run."""

import argparse
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipelines import tracking
from pipelines.cluster import Workers, asked_workers, cluster, require_workers, train_workers
from pipelines.keeper import following, from_bytes, start_keeper, to_bytes
from pipelines.params import Layout, flatten, read_params
from pipelines.records import Records
from pipelines.shipping import pack, unpack
from pipelines.stage import run_stage, tracked
from ssvos.checkpoint import file_digest
from ssvos.config import Config
from ssvos.data.index import read_index
from ssvos.device import choose_device
from ssvos.files import write_bytes, write_text
from ssvos.run_folder import write_run
from ssvos.training import EpochReport, Progress, first_network, fit, require_clips, training_data

_NOT_IN_WEIGHTS = {"predict", "tune", "adopted"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--stage", required=True, choices=("stage1", "stage2"))
    args = parser.parse_args()
    params = read_params()
    config = params.variant(args.variant)
    stage = getattr(config.train, args.stage)
    require_workers(stage.batch_clips)
    tracking.connect()
    layout = Layout(config.data.name)
    start = layout.run(args.variant, "stage1") / "checkpoint.pt" if args.stage == "stage2" else None
    # a checkpoint of another network, and data without a clip, are found before any worker starts
    first_network(config, start or "")
    require_clips(read_index(layout.index), config, stage, layout.scribbles / "scribbles.parquet")
    kept = Path("resume") / run_name(config, layout, args.variant, args.stage, start)
    records = Records.read(params, layout)
    run_id = _open_run(records, config, args, kept / "mlflow.run")
    out = layout.run(args.variant, args.stage)
    job = {
        "config": config.model_dump(mode="json"),
        "stage": args.stage,
        "label": f"{args.variant} {args.stage}",
    }
    with tracking.failing(run_id), tracked(job["label"], stage.epochs) as advance:
        if asked_workers() == 0:
            job |= {"parcel": pack(config, layout, checkpoint=start)}
            progress = run_here(job, kept / "progress.pt", partial(_on_epoch, run_id, advance))
        else:
            with cluster():
                workers = train_workers(stage.batch_clips)
                job |= {"parcel": pack(config, layout, checkpoint=start), "threads": workers.threads}
                progress = run(job, kept / "progress.pt", workers, partial(_on_epoch, run_id, advance))
    write_run(out, progress, config, args.stage, args.variant)
    tracking.write(records.training(args.variant, args.stage), run_id)
    shutil.rmtree(kept)


def run_name(config: Config, layout: Layout, variant: str, stage: str, start: Path | None) -> str:
    """Name of the resumable run: it carries a digest of all that decides the weights."""
    content = [
        json.dumps(config.model_dump(mode="json", exclude=_NOT_IN_WEIGHTS), sort_keys=True),
        file_digest(layout.index),
        file_digest(layout.scribbles / "scribbles.parquet"),
        file_digest(start) if start else "",
    ]
    return f"{layout.name}-{variant}-{stage}-{hashlib.sha256(' '.join(content).encode()).hexdigest()[:12]}"


def run(job: dict, kept: Path, workers: Workers, on_epoch: Callable[[dict, str], None]) -> Progress:
    """Train on the cluster and return the finished progress; an interrupted run goes on from the state in `kept`."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    keeper = start_keeper(kept.read_bytes() if kept.is_file() else None)
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
    with tempfile.TemporaryDirectory(prefix="ssvos-train-") as storage:
        trainer = TorchTrainer(
            _worker,
            train_loop_config=job | {"keeper": keeper},
            scaling_config=ScalingConfig(
                num_workers=workers.count, use_gpu=bool(workers.gpus), resources_per_worker=resources
            ),
            # Ray goes on with whatever a run of the same name left: a fresh place, our own state is with the keeper
            run_config=RunConfig(name="run", storage_path=storage, failure_config=FailureConfig(max_failures=2)),
        )

        with following(keeper, kept, on_epoch):
            trainer.fit()
        return from_bytes(ray.get(keeper.latest.remote()))


def run_here(job: dict, kept: Path, on_epoch: Callable[[dict, str], None]) -> Progress:
    """The same loop in this process, without Ray: SSVOS_WORKERS=0, for a debugger and for very short runs."""

    def keep(metrics: dict[str, float], line: str, progress: Progress) -> None:
        write_bytes(kept, to_bytes(progress))
        on_epoch(metrics, line)

    return _train(job, keep, choose_device("auto"), kept.read_bytes() if kept.is_file() else None)


def _on_epoch(run_id: str, advance: Callable[[], None], metrics: dict[str, float], line: str) -> None:
    print(line, flush=True)
    advance()
    tracking.log_live(run_id, metrics, step=int(metrics["epoch"]))


def _worker(job: dict) -> None:
    import ray
    import ray.train
    import ray.train.torch
    import torch

    torch.set_num_threads(job["threads"])
    keeper = job["keeper"]
    is_first = ray.train.get_context().get_world_rank() == 0

    def keep(metrics: dict[str, float], line: str, progress: Progress) -> None:
        if is_first:
            ray.get(keeper.put.remote(metrics, line, to_bytes(progress)))
        ray.train.report(metrics)

    _train(job, keep, ray.train.torch.get_device(), ray.get(keeper.latest.remote()))


def _train(job: dict, keep: Callable[[dict, str, Progress], None], device, state: bytes | None) -> Progress:
    """One rank's training; `keep` gets each epoch's metrics, line and progress, `state` is where to go on from."""
    config, inputs = Config.model_validate(job["config"]), unpack(job["parcel"])
    stage = getattr(config.train, job["stage"])
    data = training_data(inputs.index, inputs.scribbles, inputs.roots, config)

    def report(epoch: EpochReport) -> None:
        metrics = epoch.row | {"clips_per_second": epoch.clips_per_second}
        keep(metrics, epoch.line(job["label"], stage.epochs), epoch.progress)

    network = first_network(inputs.here(config), inputs.checkpoint or "")
    return fit(network, data, config, stage, device, report, from_bytes(state) if state else None)


def _open_run(records: Records, config: Config, args: argparse.Namespace, kept: Path) -> str:
    """The MLflow run of this training, the same one again after an interruption."""
    tags = {"variant": args.variant, "stage": f"train_{args.stage}", "data": records.layout.name}
    tags["data.digest"] = records.data.digest
    use = tracking.DataUse(**(vars(records.data) | {"context": "training"}))
    name = f"{args.variant} train_{args.stage}"
    record = tracking.Record(name, tags, flatten(config), use)
    run_id = tracking.open_run(record, kept.read_text() if kept.is_file() else "")
    write_text(kept, run_id)
    return run_id


if __name__ == "__main__":
    run_stage(main)
