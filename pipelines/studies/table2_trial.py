"""A trial in a worker: trains a grid point of Table II in both stages, predicts and evaluates as the stages do."""

import json
import tempfile
from pathlib import Path

from pipelines.cluster.worker_inputs import WorkerInputs, unpack
from pipelines.evaluation_set import evaluation_videos, is_scorable, late_objects, mask_folder, write_masks
from pipelines.tuning.trainable import train_both
from ssvos.config import Config
from ssvos.data.clip_sources import read_frame
from ssvos.inference.segmenter import segment, starting_scribbles
from ssvos.labels import encode_labels
from ssvos.metrics.davis import score_sequence, summarize
from ssvos.models.network import Network
from ssvos.scribbles.store import read_store


def trial(values: dict, job: dict) -> None:
    """Train and evaluate one run. Reports every epoch, then the scores.

    values: `run`, the name of the run
    job:    `configs`, the parameters of all runs by name; `inputs`, the packed worker inputs
    """
    from ray import tune

    config = Config.model_validate(job["configs"][values["run"]])
    inputs = unpack(job["inputs"])
    last: dict = {}

    def on_epoch(report: dict) -> None:
        last.update(report)
        tune.report(report)

    network, device = train_both(config, inputs, on_epoch)
    # as text, because Ray Tune logs every number of a report as a curve
    tune.report(last | {"scores": json.dumps(evaluate(network.to(device), config, inputs))})


def evaluate(network: Network, config: Config, inputs: WorkerInputs) -> dict:
    """DAVIS-2017 scores of the evaluation videos of a study's source: {source: {protocol, global, objects}}."""
    (source,) = config.data.sources
    store, late, root = read_store(inputs.scribbles), late_objects(config), inputs.roots[source.name]
    size = (config.predict.height or config.train.stage2.height, config.predict.width or config.train.stage2.width)
    scores = {}
    with tempfile.TemporaryDirectory(prefix="ssvos-masks-") as folder:
        for video in filter(is_scorable, evaluation_videos(inputs.index)):
            frames = (read_frame(root / frame.image_path) for frame in video.frames)
            scribbles = starting_scribbles(video, store, late[source.name])
            masks = segment(network, frames, scribbles, size, config.predict, config.loss)
            masks_dir, names = Path(folder) / video.sequence, [frame.name for frame in video.frames]
            write_masks(masks_dir, names, [encode_labels(mask) for mask in masks])
            scores[video.sequence] = score_sequence(mask_folder(video, root), masks_dir)
    result = summarize(scores)
    return {source.name: {"protocol": "davis2017", "global": result["global"], "objects": result["objects"]}}
