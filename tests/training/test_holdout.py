"""The held-out score, which chooses the checkpoint."""

import dataclasses

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY_STAGE, TinyData, changed, run

from ssvos.data.augment import resize_scribble
from ssvos.data.index import read_index
from ssvos.inference.segmenter import segment
from ssvos.labels import read_labels
from ssvos.metrics.region import region_similarity
from ssvos.training.holdout import holdout_score
from ssvos.training.trainer import first_network
from ssvos.training.training_data import TrainingData, training_data


def without_masks(data: TinyData, folder) -> TrainingData:
    table = read_index(data.index)
    column = table.schema.get_field_index("mask_path")
    table = table.set_column(column, "mask_path", pa.nulls(len(table), pa.string()))
    pq.write_table(table, folder / "index.parquet")
    return training_data(folder / "index.parquet", data.scribbles, data.roots, data.config)


def test_without_masks_the_held_out_loss_chooses_the_checkpoint(tiny_data, tmp_path):
    assert tiny_data.load().choose_by == "J"
    data, config = without_masks(tiny_data, tmp_path), tiny_data.config
    assert data.choose_by == "loss"
    network = first_network(config)
    first, again = (holdout_score(network, data, config, config.train.stage1, "cpu") for _ in range(2))
    assert first == again and -3 < first["holdout_score"] < 0
    state = run(changed(config, epochs=1), data)
    assert state.chosen_by == "loss" and state.best_score < 0 and state.best_weights


def test_the_held_out_score_is_the_mean_J_of_the_objects_after_the_first_frame(tiny_data):
    data, config = tiny_data.load(), tiny_data.config
    network = first_network(config)
    per_object = []
    for video in data.holdout.videos:
        root = data.holdout.roots[video.dataset]
        images = [cv2.imread(str(root / f.image_path))[..., ::-1] for f in video.frames]
        first = data.holdout.scribbles[video.dataset, video.sequence, video.frames[0].name]
        assert resize_scribble(first, 48, 64) is first
        predicted = list(segment(network, images, {0: first}))
        masks = [read_labels(root / f.mask_path) for f in video.frames]
        for i in np.setdiff1d(np.unique(first), [0, 255]):
            per_object.append(
                np.mean([region_similarity(m == i, p == i) for m, p in zip(masks[1:], predicted[1:], strict=True)])
            )
    score = holdout_score(network, data, config, TINY_STAGE, "cpu")["holdout_score"]
    assert score == pytest.approx(np.mean(per_object), abs=1e-9)


def test_a_held_out_video_is_scored_from_its_first_labelled_frame_on(tiny_data):
    data, config = tiny_data.load(), tiny_data.config
    network = first_network(config)
    (video,) = data.holdout.videos
    unlabelled = dataclasses.replace(video.frames[0], mask_path=None, objects=None)
    store = {key: data.holdout.scribbles[key] for key in data.holdout.scribbles if key[2] != unlabelled.name}
    scores = []
    for frames in ((unlabelled, *video.frames[1:]), video.frames[1:]):
        holdout = dataclasses.replace(data.holdout, videos=[dataclasses.replace(video, frames=frames)], scribbles=store)
        changed_data = dataclasses.replace(data, holdout=holdout)
        scores.append(holdout_score(network, changed_data, config, TINY_STAGE, "cpu")["holdout_score"])
    assert scores[0] == pytest.approx(scores[1])


def test_no_video_is_both_for_training_and_held_out(tiny_data):
    data = tiny_data.load()
    names = [{video.sequence for video in part.videos} for part in (data.fit, data.holdout)]
    assert len(names[0]) == 2 and len(names[1]) == 1 and not names[0] & names[1]
