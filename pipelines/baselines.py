"""Stage `baselines`: masks of the evaluation videos without any training, and their scores, to compare models with."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pipelines.cluster.ray_cluster import cluster_or_process, quiet_ray_data, requested_workers
from pipelines.cluster.worker_inputs import pack, unpack
from pipelines.evaluation_scores import (
    COLUMNS,
    count_videos,
    csv_text,
    frame_rows,
    score_predictions,
    summarize_videos,
)
from pipelines.evaluation_set import METHODS, evaluation_videos, late_objects, mask_folder, write_masks
from pipelines.params import Layout, read_params, write_json
from pipelines.stage import no_arguments, run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.stage_records import Records
from ssvos.config import Config
from ssvos.files import write_text
from ssvos.progress import progress_bar
from ssvos.training.trainer import first_network

_SCORE_KEYS = ("protocol", "global", "visibility", "sequences")


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    config = params.base
    tracking.connect()
    layout = Layout(config.data.name)
    out = Path("predictions") / layout.name / "baselines"
    first_network(config)  # raises for missing weights before any worker starts
    with cluster_or_process():
        _predict_all(config, layout, out)
        predictions = {name: out / name for name in METHODS if (out / name).is_dir()}
        with progress_bar("scoring videos", len(predictions) * count_videos(layout)) as advance:
            videos = score_predictions(config, layout, predictions, advance)
    scores = {name: summarize_videos(config, layout, scored) for name, scored in videos.items()}
    result = {name: {source: _selected(s) for source, s in scores.get(name, {}).items()} for name in METHODS}
    write_json(layout.baselines, result)
    rows = [{"baseline": name} | row for name, scored in videos.items() for row in frame_rows(scored)]
    write_text(layout.baseline_frames, csv_text(rows, ("baseline", *COLUMNS)))
    tracking.write(Records.read(params, layout).baselines())
    print(f"{layout.baselines}: " + ", ".join(METHODS))


def _selected(summary: dict) -> dict:
    return {key: summary[key] for key in _SCORE_KEYS if key in summary}


def _predict_all(config: Config, layout: Layout, out: Path) -> None:
    """Write the masks of every baseline and video to out/<baseline>/<sequence>/<frame>.png."""
    count = len(evaluation_videos(layout.index))
    job = {"config": config.model_dump(mode="json"), "packed_inputs": pack(config, layout)}
    items = [{"video": k, "method": method} for k in range(count) for method in METHODS]
    if requested_workers() == 0:
        predictions: Iterable[dict] = (_predict(item, job) for item in items)
    else:
        videos = quiet_ray_data().from_items(items, override_num_blocks=count)
        predictions = videos.map(_predict, fn_kwargs={"job": job}, num_cpus=1).iter_rows()
    with progress_bar("running baselines", len(items)) as advance:
        for row in predictions:
            if row["names"] is not None:
                write_masks(out / row["method"] / row["sequence"], row["names"], row["masks"])
            advance()


def _predict(row: dict, job: dict) -> dict:
    """Return a baseline's masks of one video; None if the baseline needs true masks and the video has none."""
    import cv2

    from ssvos.inference.segmenter import starting_scribbles
    from ssvos.labels import encode_labels
    from ssvos.scribbles.store import read_store

    cv2.setNumThreads(1)
    config, inputs = Config.model_validate(job["config"]), unpack(job["packed_inputs"])
    video = evaluation_videos(inputs.index)[row["video"]]
    root, method = inputs.roots[video.dataset], row["method"]
    prediction = {"method": method, "sequence": video.sequence, "names": None, "masks": None}
    if method == "copied" and mask_folder(video, root) is None:
        return prediction
    scribbles = starting_scribbles(video, read_store(inputs.scribbles), late_objects(config)[video.dataset])
    masks = [encode_labels(mask) for mask in _masks(method, inputs.local_config(config), video, root, scribbles)]
    return prediction | {"names": [frame.name for frame in video.frames], "masks": masks}


def _masks(method: str, config: Config, video, root: Path, scribbles: dict[int, np.ndarray]) -> Iterator[np.ndarray]:
    """Yield a mask (H, W) uint8 per frame. scribbles: by frame number."""
    import torch

    from ssvos.baselines import trivial as baselines
    from ssvos.baselines.label_propagation import LabelPropagation
    from ssvos.data.clip_sources import read_frame
    from ssvos.inference.segmenter import segment
    from ssvos.labels import read_labels

    start = min(scribbles)
    frames = (read_frame(root / frame.image_path) for frame in video.frames)
    count = len(video.frames)
    if method == "untrained":
        torch.set_num_threads(1)
        size = (config.train.stage2.height, config.train.stage2.width)
        yield from segment(first_network(config), frames, scribbles, size)
        return
    if method == "empty":
        yield from baselines.empty(scribbles[start], count)
        return
    # before its first object a video has nothing to copy or to propagate
    yield from baselines.empty(scribbles[start], start)
    if method == "copied":
        yield from baselines.copy_first(read_labels(root / video.frames[start].mask_path), count - start)
        return
    later = (frame for k, frame in enumerate(frames) if k >= start)
    if method == "grabcut_flow":
        yield from baselines.grabcut_flow(later, scribbles[start])
    else:
        torch.set_num_threads(1)
        propagate = LabelPropagation()
        for k, frame in enumerate(later, start):
            yield propagate(frame, scribbles.get(k))


if __name__ == "__main__":
    run_stage(main)
