"""Stage `predict`: a variant's masks of the evaluation videos, by Ray Data actors."""

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

from pipelines.cluster.ray_cluster import cluster_or_process, quiet_ray_data, requested_workers
from pipelines.cluster.worker_inputs import pack, unpack
from pipelines.evaluation_set import evaluation_videos, late_objects, write_masks
from pipelines.params import Layout, read_params, write_json
from pipelines.stage import run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.stage_records import Records
from ssvos.config import Config, PredictConfig
from ssvos.hardware import available_cpus
from ssvos.models.checkpoint import file_digest, load_checkpoint
from ssvos.progress import progress_bar
from ssvos.training.trainer import first_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    args = parser.parse_args()
    params = read_params()
    config = params.variant(args.variant)
    tracking.connect()
    layout = Layout(config.data.name)
    checkpoint = layout.run(args.variant, "stage2") / "checkpoint.pt"
    first_network(config, checkpoint)  # raises for a broken checkpoint, or another network's, before any worker starts
    with cluster_or_process():
        rows = predict(config, layout, checkpoint, layout.predictions(args.variant))
    write_json(layout.speed(args.variant), _speed(checkpoint, rows))
    tracking.write(Records.read(params, layout).prediction(args.variant))
    frames = sum(row["num_frames"] for row in rows)
    print(f"{layout.predictions(args.variant)}: {frames} masks of {len(rows)} videos")


def predict(config: Config, layout: Layout, checkpoint: Path, out: Path) -> list[dict]:
    """Write the masks to `out` -> a row per video: sequence, num_frames, seconds of segmentation."""
    job = {
        "packed_inputs": pack(config, layout, checkpoint=checkpoint),
        "late_objects": late_objects(config),
        "size": _prediction_size(config),
        "predict": config.predict.model_dump(mode="json"),
    }
    videos = evaluation_videos(layout.index)
    rows = []
    with progress_bar("segmenting videos", len(videos)) as advance:
        for row in _predict_all(len(videos), job):
            write_masks(out / row["sequence"], row.pop("names"), row.pop("masks"))
            rows.append(row)
            advance()
    return sorted(rows, key=lambda row: row["sequence"])


def _predict_all(count: int, job: dict) -> Iterable[dict]:
    """Yield a row with masks per video.

    Each actor segments whole videos and sends the masks back, so its node need not see the stage's folder.
    """
    items = [{"video": k} for k in range(count)]
    if requested_workers() == 0:
        return map(_Predictor(job | {"threads": available_cpus()}), items)
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    cpus = int(ray.cluster_resources().get("CPU", 1))
    actors = max(1, min(count, gpus or cpus))
    data = quiet_ray_data()
    results = data.from_items(items, override_num_blocks=count).map(
        _Predictor,
        fn_constructor_kwargs={"job": job | {"threads": max(1, cpus // actors)}},
        compute=data.ActorPoolStrategy(size=actors),
        # actors that reserve every CPU leave none for Ray Data's own tasks, and both would wait forever
        num_cpus=0.1 if gpus else 0.5,
        num_gpus=1 if gpus else 0,
    )
    return results.iter_rows()


def _speed(checkpoint: Path, rows: list[dict]) -> dict:
    """Return the number of frames, frames per second of one worker, and the rows of the videos."""
    frames, seconds = sum(row["num_frames"] for row in rows), sum(row["seconds"] for row in rows)
    return {
        "checkpoint": file_digest(checkpoint),
        "frames": frames,
        "frames_per_worker_second": frames / seconds,
        "videos": rows,
    }


def _prediction_size(config: Config) -> tuple[int, int]:
    predict_config, stage2 = config.predict, config.train.stage2
    return (predict_config.height or stage2.height, predict_config.width or stage2.width)


class _Predictor:
    """An actor that loads the checkpoint once, then segments whole videos."""

    def __init__(self, job: dict) -> None:
        from ssvos.device import choose_device, use_threads
        from ssvos.scribbles.store import read_store

        use_threads(job["threads"])
        inputs = unpack(job["packed_inputs"])
        self.job, self.roots, self.videos = job, inputs.roots, evaluation_videos(inputs.index)
        self.store = read_store(inputs.scribbles)
        network, info = load_checkpoint(inputs.checkpoint)
        self.network, self.loss = network.to(choose_device("auto")), info.loss
        self.config = PredictConfig.model_validate(job["predict"])

    def __call__(self, row: dict) -> dict:
        from ssvos.data.clip_sources import read_frame
        from ssvos.inference.segmenter import segment, starting_scribbles
        from ssvos.labels import encode_labels

        video = self.videos[row["video"]]
        root = self.roots[video.dataset]
        start = time.perf_counter()
        frames = (read_frame(root / frame.image_path) for frame in video.frames)
        scribbles = starting_scribbles(video, self.store, self.job["late_objects"][video.dataset])
        masks = segment(self.network, frames, scribbles, self.job["size"], self.config, self.loss)
        return {
            "sequence": video.sequence,
            "num_frames": len(video.frames),
            "masks": [encode_labels(mask) for mask in masks],
            "names": [frame.name for frame in video.frames],
            "seconds": time.perf_counter() - start,
        }


if __name__ == "__main__":
    run_stage(main)
