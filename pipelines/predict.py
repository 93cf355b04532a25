"""Stage `predict`: masks of the judged videos from a variant's checkpoint, by Ray Data actors."""

import argparse
import os
import time
from pathlib import Path

from pipelines import tracking
from pipelines.cluster import cluster, quiet_data
from pipelines.judged import judged_videos, late_objects
from pipelines.params import Layout, flatten, read_params
from pipelines.stage import run_stage
from ssvos.checkpoint import file_digest
from ssvos.config import Config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    args = parser.parse_args()
    config = read_params().variant(args.variant)
    layout = Layout(config.data.name)
    checkpoint = layout.run(args.variant, "stage2") / "checkpoint.pt"
    started = time.perf_counter()
    with cluster():
        rows = predict(config, layout, checkpoint, layout.predictions(args.variant))
    seconds = time.perf_counter() - started
    _track(config, layout, args.variant, checkpoint, rows, seconds)
    frames = sum(row["num_frames"] for row in rows)
    print(f"{layout.predictions(args.variant)}: {frames} masks of {len(rows)} videos in {seconds:.0f} s")


def predict(config: Config, layout: Layout, checkpoint: Path, out: Path) -> list[dict]:
    """One row a video: sequence, num_frames, seconds of segmentation. The actors share out whole videos."""
    import ray

    data = quiet_data()
    videos = judged_videos(layout.index)
    gpus = int(ray.cluster_resources().get("GPU", 0))
    cpus = int(ray.cluster_resources().get("CPU", 1))
    actors = max(1, min(len(videos), gpus or cpus))
    dataset = data.from_items([{"video": k} for k in range(len(videos))], override_num_blocks=len(videos))
    job = {
        "index": str(layout.index.absolute()),
        "scribbles": str(layout.scribbles.absolute()),
        "roots": {name: str(root) for name, root in layout.roots(config).items()},
        "checkpoint": str(checkpoint.absolute()),
        "late_objects": late_objects(config),
        "size": _size(config),
        "foreground_bias": config.predict.foreground_bias,
        "out": str(out.absolute()),
        "threads": max(1, cpus // actors),
    }
    results = dataset.map(
        _Predictor,
        fn_constructor_kwargs={"job": job},
        compute=data.ActorPoolStrategy(size=actors),
        # actors that held every CPU would leave none for Ray Data's own tasks, and both would wait for ever
        num_cpus=0.1 if gpus else 0.5,
        num_gpus=1 if gpus else 0,
    ).take_all()
    return sorted(results, key=lambda row: row["sequence"])


def _size(config: Config) -> tuple[int, int]:
    given = config.predict
    return (given.height or config.train.stage2.height, given.width or config.train.stage2.width)


class _Predictor:
    """An actor: loads the checkpoint once, then segments whole videos."""

    def __init__(self, job: dict):
        import torch

        from ssvos.checkpoint import load_checkpoint
        from ssvos.device import choose_device
        from ssvos.scribbles.store import read_store

        self.job = job
        torch.set_num_threads(job["threads"])
        self.videos = judged_videos(Path(job["index"]))
        self.store = read_store(Path(job["scribbles"]))
        self.network = load_checkpoint(job["checkpoint"])[0].to(choose_device("auto"))

    def __call__(self, row: dict) -> dict:
        from ssvos.data.clips import read_frame
        from ssvos.inference import segment, starting_scribbles
        from ssvos.labels import write_labels

        video = self.videos[row["video"]]
        root, out = Path(self.job["roots"][video.dataset]), Path(self.job["out"]) / video.sequence
        started = time.perf_counter()
        frames = (read_frame(root / frame.image_path) for frame in video.frames)
        scribbles = starting_scribbles(video, self.store, self.job["late_objects"][video.dataset])
        masks = segment(self.network, frames, scribbles, self.job["size"], self.job["foreground_bias"])
        for frame, mask in zip(video.frames, masks, strict=True):
            write_labels(out / f"{frame.name}.png", mask)
        return {
            "sequence": video.sequence,
            "num_frames": len(video.frames),
            "seconds": time.perf_counter() - started,
        }


def _track(config: Config, layout: Layout, variant: str, checkpoint: Path, rows: list[dict], seconds: float) -> None:
    tags = {
        "stage": "predict",
        "variant": variant,
        "data": layout.name,
        "checkpoint.digest": file_digest(checkpoint),
        "workers": os.environ.get("SSVOS_WORKERS", ""),
    }
    run_id = tracking.open_run(f"{variant} predict", tags, flatten(config))
    frames, busy = sum(row["num_frames"] for row in rows), sum(row["seconds"] for row in rows)
    tracking.log_metrics(run_id, {"frames": frames, "frames_per_worker_second": frames / busy, "seconds": seconds})
    tracking.log_table(run_id, rows, "videos.json")
    tracking.close_run(run_id)


if __name__ == "__main__":
    run_stage(main)
