"""Overfitting one clip of two objects: the complete method, from scribbles to masks."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TINY_MODEL, batch_of, changed, loss_of, run
from torch.optim.swa_utils import AveragedModel

from ssvos.config import Config, LossConfig, ScribbleConfig
from ssvos.data.clips import ClipSampler
from ssvos.data.index import IndexedFrame, IndexedVideo
from ssvos.inference.segmenter import segment
from ssvos.labels import encode_labels, write_labels
from ssvos.metrics.region import region_similarity
from ssvos.models.network import Network
from ssvos.scribbles.simulate import scribble_rng, simulate_scribble
from ssvos.scribbles.store import STORE_SCHEMA, ScribbleStore
from ssvos.training.holdout import holdout_score
from ssvos.training.train_state import TrainState
from ssvos.training.trainer import first_network
from ssvos.training.training_data import TrainingData

HEIGHT, WIDTH, LENGTH = 64, 80, 3
IDS = (1, 2)


class Clip(NamedTuple):
    """A video and its data.

    frames: (T, H, W, 3) uint8
    masks: (T, H, W) uint8
    scribbled: the training data, without masks
    annotated: the same video with its masks, for the held-out score
    """

    frames: np.ndarray
    masks: np.ndarray
    scribbled: ClipSampler
    annotated: ClipSampler

    @property
    def first_scribble(self) -> np.ndarray:
        return self.scribbled.scribbles["a", "clip", "00000"]


def draw_frame(t: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame and mask: a chequered orange ellipse on stripes, and a blue one with bars that moves towards it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    orange = ((x - 30 - 2 * t) / 26.5) ** 2 + ((y - 18.5 - t) / 12.5) ** 2 <= 1
    blue = (((x - 50 + 2 * t) / 26.5) ** 2 + ((y - 47.5) / 11.5) ** 2 <= 1) & ~orange
    textures = {
        0: (100, 120, 110) + 12 * np.sin(x / 3)[..., None],
        1: (225, 95, 40) + 12 * (np.sin((x - 2 * t) / 1.7) * np.sin((y - t) / 1.9))[..., None],
        2: (60, 80, 190) + 12 * np.sin(y / 1.5)[..., None],
    }
    mask = np.where(orange, 1, np.where(blue, 2, 0)).astype(np.uint8)
    return np.select([(mask == i)[..., None] for i in textures], list(textures.values())).astype(np.uint8), mask


def write_clip(folder: Path) -> Clip:
    frames, masks, rows, indexed = [], [], [], []
    for t in range(LENGTH):
        frame, mask = draw_frame(t)
        name = f"{t:05d}"
        cv2.imwrite(str(folder / f"{name}.png"), frame[..., ::-1])
        write_labels(folder / f"mask-{name}.png", mask)
        scribble = simulate_scribble(mask, scribble_rng(0, "clip", name), ScribbleConfig())
        key = {"dataset": "a", "split": "train", "sequence": "clip", "frame": name}
        rows.append(key | {"png": encode_labels(scribble)})
        indexed.append(IndexedFrame(name, f"{name}.png", f"mask-{name}.png", None, HEIGHT, WIDTH, IDS, ""))
        frames.append(frame)
        masks.append(mask)
    store = ScribbleStore(pa.Table.from_pylist(rows, schema=STORE_SCHEMA))
    annotated = ClipSampler([IndexedVideo("a", "train", "clip", tuple(indexed), {})], {"a": folder}, {"a": 1.0}, store)
    maskless = IndexedVideo("a", "train", "clip", tuple(replace(f, mask_path=None) for f in indexed), {})
    return Clip(np.stack(frames), np.stack(masks), replace(annotated, videos=[maskless]), annotated)


class Overfitted(NamedTuple):
    config: Config
    clip: Clip
    before: Network
    after: Network
    train_state: TrainState
    masks: np.ndarray  # (T, H, W) of `segment` from the first frame's scribble


@pytest.fixture(scope="module")
def overfitted(tiny_config, tmp_path_factory) -> Overfitted:
    """The tiny network after 200 steps with the joint loss on clips that the sampler draws, one object each.

    No mask is used, and no epoch is chosen: the weights are the running average after the last step.
    """
    clip = write_clip(tmp_path_factory.mktemp("clip"))
    config = changed(
        tiny_config,
        epochs=5,
        clips_per_epoch=40,
        batch_clips=1,
        clip_frames=LENGTH,
        height=HEIGHT,
        width=WIDTH,
        learning_rate=3e-3,
        lr_decay=0.7,
        grad_clip_norm=1.0,
        weight_decay=0.0,
        ema_decay=0.95,
    )
    config = config.model_copy(update={"loss": LossConfig(sigma_xy=20.0), "model": TINY_MODEL})
    assert config.loss.regularizer == "scribble_supervised" and config.model.attention.kind == "scribble"
    train_state = run(config, TrainingData(clip.scribbled, clip.scribbled, "loss"))
    averaged = AveragedModel(first_network(config))
    averaged.load_state_dict(train_state.average)
    before, after = first_network(config), averaged.module
    masks = np.stack(list(segment(after, clip.frames, {0: clip.first_scribble})))
    return Overfitted(config, clip, before, after, train_state, masks)


def scores_of(overfitted: Overfitted, i: int) -> list[float]:
    return [region_similarity(m == i, p == i) for m, p in zip(overfitted.clip.masks, overfitted.masks, strict=True)]


def test_the_sampler_draws_clips_of_both_objects(overfitted):
    specs = overfitted.clip.scribbled.draw(overfitted.config.train.stage1, 0, 0)
    assert {spec.object_id for spec in specs} == set(IDS)
    assert set(np.unique(batch_of(overfitted.clip.scribbled, overfitted.config, 4)["target"])) == {0, 1, 255}


def test_the_joint_loss_falls_tenfold_and_attention_gets_weight(overfitted):
    batch = batch_of(overfitted.clip.scribbled, overfitted.config, 8)
    with torch.no_grad():
        before, after = (
            loss_of(network, batch, overfitted.config) for network in (overfitted.before, overfitted.after)
        )
    assert after < before / 10
    assert all(row["regularizer"] > 0 and row["partial_cross_entropy"] > 0 for row in overfitted.train_state.history)
    assert (
        float(overfitted.before.attention.scale.detach()) == 0.0
        and float(overfitted.after.attention.scale.detach()) != 0.0
    )


@pytest.mark.parametrize("i", IDS)
def test_each_object_is_segmented(overfitted, i):
    assert np.mean(scores_of(overfitted, i)) > 0.9


def test_the_held_out_score_is_that_of_the_masks_after_the_first_frame(overfitted):
    data, stage = (
        TrainingData(overfitted.clip.scribbled, overfitted.clip.annotated, "J"),
        overfitted.config.train.stage1,
    )
    expected = np.mean([scores_of(overfitted, i)[1:] for i in IDS])
    assert holdout_score(overfitted.after, data, overfitted.config, stage, "cpu")["holdout_score"] == pytest.approx(
        expected
    )


@pytest.mark.parametrize("i", IDS)
def test_the_first_mask_is_much_larger_than_its_strokes(overfitted, i):
    strokes = overfitted.clip.first_scribble == i
    mask = overfitted.masks[0] == i
    assert mask.sum() > 3 * strokes.sum()


@pytest.mark.parametrize(("label", "wrong_label"), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)])
def test_a_wrong_label_in_the_first_scribble_is_not_copied_to_the_mask(overfitted, label, wrong_label):
    """One stroke pixel gets another label; its mask label does not change."""
    strokes = np.argwhere(overfitted.clip.first_scribble == label)
    for y, x in strokes[:: len(strokes) // 5]:
        scribble = overfitted.clip.first_scribble.copy()
        scribble[y, x] = wrong_label
        assert next(segment(overfitted.after, overfitted.clip.frames, {0: scribble}))[y, x] == label
