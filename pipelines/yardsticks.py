"""Stage `yardsticks`: what the judged videos give without any training; beside them a model has to stand."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.cluster import cluster, quiet_data
from pipelines.judged import judged_videos, late_objects, mask_folder, score
from pipelines.params import Layout, read_params, write_json
from pipelines.stage import run_stage
from ssvos.config import Config

METHODS = {
    "untrained": "this network with random weights",
    "empty": "the empty mask",
    "copied": "the first true mask copied to every frame",
    "grabcut_flow": "GrabCut and optical flow from the same scribble",
}


def main() -> None:
    config = read_params().base
    layout = Layout(config.data.name)
    out = Path("predictions") / layout.name / "yardsticks"
    result: dict[str, dict] = {}
    with cluster():
        _answer_all(config, layout, out)
    for name in METHODS:
        scores = score(config, layout, out / name) if (out / name).is_dir() else {}
        result[name] = {
            source: {key: one[key] for key in ("protocol", "global", "visibility", "sequences") if key in one}
            for source, one in scores.items()
        }
    write_json(layout.yardsticks, result)
    print(f"{layout.yardsticks}: " + ", ".join(METHODS))


def _answer_all(config: Config, layout: Layout, out: Path) -> None:
    data = quiet_data()
    count = len(judged_videos(layout.index))
    job = {
        "config": config.model_dump(mode="json"),
        "index": str(layout.index.absolute()),
        "scribbles": str(layout.scribbles.absolute()),
        "roots": {name: str(root) for name, root in layout.roots(config).items()},
        "out": str(out.absolute()),
    }
    videos = data.from_items([{"video": k} for k in range(count)], override_num_blocks=count)
    videos.map(_answer, fn_kwargs={"job": job}, num_cpus=1).take_all()


def _answer(row: dict, job: dict) -> dict:
    """Write every method's masks of one video."""
    import cv2

    from ssvos.inference import starting_scribbles
    from ssvos.labels import write_labels
    from ssvos.scribbles.store import read_store

    cv2.setNumThreads(1)
    config = Config.model_validate(job["config"])
    video = judged_videos(Path(job["index"]))[row["video"]]
    root = Path(job["roots"][video.dataset])
    store = read_store(Path(job["scribbles"]))
    scribbles = starting_scribbles(video, store, late_objects(config)[video.dataset])
    for method in METHODS:
        if method == "copied" and mask_folder(video, root) is None:
            continue
        masks = _masks(method, config, video, root, scribbles)
        for frame, mask in zip(video.frames, masks, strict=True):
            write_labels(Path(job["out"]) / method / video.sequence / f"{frame.name}.png", mask)
    return row


def _masks(method: str, config: Config, video, root: Path, scribbles: dict[int, np.ndarray]) -> Iterator[np.ndarray]:
    import torch

    from ssvos import yardsticks
    from ssvos.data.clips import read_frame
    from ssvos.inference import segment
    from ssvos.labels import read_labels
    from ssvos.training import first_network

    start = min(scribbles)
    frames = (read_frame(root / frame.image_path) for frame in video.frames)
    count = len(video.frames)
    if method == "untrained":
        torch.set_num_threads(1)
        size = (config.train.stage2.height, config.train.stage2.width)
        yield from segment(first_network(config), frames, scribbles, size)
        return
    if method == "empty":
        yield from yardsticks.empty(scribbles[start], count)
        return
    # before its first object a video has nothing to copy or to carry
    yield from yardsticks.empty(scribbles[start], start)
    if method == "copied":
        yield from yardsticks.copy_first(read_labels(root / video.frames[start].mask_path), count - start)
    else:
        later = (frame for k, frame in enumerate(frames) if k >= start)
        yield from yardsticks.grabcut_flow(later, scribbles[start])


if __name__ == "__main__":
    run_stage(main)
