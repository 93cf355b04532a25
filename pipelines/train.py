"""Stages `train_stage1` and `train_stage2`: one training stage of one variant as a Ray Train DDP run."""

import argparse
import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines import tracking
from pipelines.cluster import Workers, cluster, train_workers
from pipelines.params import Layout, flatten, read_params
from pipelines.stage import run_stage
from ssvos.checkpoint import file_digest
from ssvos.config import Config
from ssvos.data.index import read_index
from ssvos.files import write_text
from ssvos.run_folder import write_run
from ssvos.training import EpochReport, Progress, first_network, fit, training_data

_STATE = "progress.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--stage", required=True, choices=("stage1", "stage2"))
    args = parser.parse_args()
    config = read_params().variant(args.variant)
    layout = Layout(config.data.name)
    start = layout.run(args.variant, "stage1") / "checkpoint.pt" if args.stage == "stage2" else None
    name = run_name(config, layout, args.variant, args.stage, start)
    job = {
        "config": config.model_dump(mode="json"),
        "stage": args.stage,
        "index": str(layout.index.absolute()),
        "scribbles": str(layout.scribbles.absolute()),
        "roots": {source: str(root) for source, root in layout.roots(config).items()},
        "start": str(start.absolute()) if start else "",
        "label": f"{args.variant} {args.stage}",
    }
    run_id = _open_run(config, layout, args, name)
    with cluster():
        progress = run(job, name, train_workers(getattr(config.train, args.stage).batch_clips), run_id)
    out = layout.run(args.variant, args.stage)
    write_run(out, progress, config, args.stage, args.variant)
    _close_run(run_id, progress, out)
    shutil.rmtree(Path("resume") / name)
    (Path("resume") / f"{name}.run").unlink(missing_ok=True)


def run_name(config: Config, layout: Layout, variant: str, stage: str, start: Path | None) -> str:
    """Name of the resumable run. It carries a digest of all that decides the weights, because Ray goes on with whatever
    an earlier run of the same name left."""
    content = [
        json.dumps(config.model_dump(mode="json", exclude={"predict"}), sort_keys=True),
        file_digest(layout.index),
        file_digest(layout.scribbles / "scribbles.parquet"),
        file_digest(start) if start else "",
    ]
    return f"{layout.name}-{variant}-{stage}-{hashlib.sha256(' '.join(content).encode()).hexdigest()[:12]}"


def run(job: dict, name: str, workers: Workers, run_id: str) -> Progress:
    """Train on the cluster; an interrupted run of the same name goes on after its last epoch."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    rows = Queue(actor_options={"num_cpus": 0})
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
    trainer = TorchTrainer(
        _worker,
        train_loop_config=job | {"threads": workers.threads, "rows": rows},
        scaling_config=ScalingConfig(
            num_workers=workers.count, use_gpu=bool(workers.gpus), resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(Path("resume").absolute()),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=2),
        ),
    )
    with _live(rows, run_id):
        result = trainer.fit()
    with result.checkpoint.as_directory() as folder:
        return read_progress(Path(folder))


def _worker(job: dict) -> None:
    import logging

    import ray.train
    import ray.train.torch
    import torch

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(job["threads"])
    config = Config.model_validate(job["config"])
    stage = getattr(config.train, job["stage"])
    roots = {source: Path(root) for source, root in job["roots"].items()}
    data = training_data(Path(job["index"]), Path(job["scribbles"]), roots, config)
    resume = None
    if ray.train.get_checkpoint():
        with ray.train.get_checkpoint().as_directory() as folder:
            resume = read_progress(Path(folder))
    is_first = ray.train.get_context().get_world_rank() == 0

    def report(epoch: EpochReport) -> None:
        metrics = epoch.row | {"clips_per_second": epoch.clips_per_second}
        if not is_first:
            ray.train.report(metrics)
            return
        job["rows"].put((metrics, epoch.line(job["label"], stage.epochs)))
        with tempfile.TemporaryDirectory() as folder:
            torch.save(vars(epoch.progress), Path(folder) / _STATE)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    network = first_network(config, job["start"])
    fit(network, data, config, stage, ray.train.torch.get_device(), report, resume)


def read_progress(folder: Path) -> Progress:
    import torch

    return Progress(**torch.load(folder / _STATE, map_location="cpu", weights_only=True))


@contextmanager
def _live(rows, run_id: str) -> Iterator[None]:
    """While the block runs, print each epoch's line and write its metrics to MLflow as they come from rank 0."""
    from queue import Empty

    done = threading.Event()

    def follow() -> None:
        while True:
            last_look = done.is_set()  # before looking: what came before the end is still taken
            try:
                metrics, line = rows.get(timeout=1.0)
            except Empty:
                if last_look:
                    return
                continue
            print(line, flush=True)
            tracking.log_metrics(run_id, metrics, step=int(metrics["epoch"]))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=30)


def _open_run(config: Config, layout: Layout, args: argparse.Namespace, name: str) -> str:
    index = read_index(layout.index)
    digest = tracking.data_digest(index)
    kept = Path("resume") / f"{name}.run"
    earlier = kept.read_text() if kept.is_file() else ""
    tags = {
        "stage": f"train_{args.stage}",
        "variant": args.variant,
        "data": layout.name,
        "data.digest": digest,
    }
    run_id = tracking.open_run(f"{args.variant} {args.stage}", tags, flatten(config), earlier)
    write_text(kept, run_id)
    if run_id != earlier:
        tracking.log_input(run_id, layout.name, digest, str(layout.index), "training", {"frames": len(index)})
    return run_id


def _close_run(run_id: str, progress: Progress, out: Path) -> None:
    tracking.set_tags(run_id, {"checkpoint.digest": file_digest(out / "checkpoint.pt")})
    tracking.log_metrics(run_id, {"best_holdout_score": progress.best_score, "best_epoch": progress.best_epoch})
    tracking.log_files(run_id, [out / "checkpoint.pt", out / "history.csv"])
    tracking.close_run(run_id)


if __name__ == "__main__":
    run_stage(main)
