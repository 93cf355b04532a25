"""One clip of two objects learnt by heart: the whole of the method, from scribbles to masks."""

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
from ssvos.training.trainer import TrainingData, TrainState, first_network, holdout_score

HEIGHT, WIDTH, LENGTH = 64, 80, 3
IDS = (1, 2)


class Clip(NamedTuple):
    """frames (T, H, W, 3) and masks (T, H, W) uint8; scribbled: what is trained on, which knows of no mask; judged:
    the same video with its masks."""

    frames: np.ndarray
    masks: np.ndarray
    scribbled: ClipSampler
    judged: ClipSampler

    @property
    def first_scribble(self) -> np.ndarray:
        return self.scribbled.scribbles["a", "clip", "00000"]


def drawn(t: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame and mask: a chequered orange ellipse before stripes, and a blue one with bars that comes towards it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    orange = ((x - 30 - 2 * t) / 26.5) ** 2 + ((y - 18.5 - t) / 12.5) ** 2 <= 1
    blue = (((x - 50 + 2 * t) / 26.5) ** 2 + ((y - 47.5) / 11.5) ** 2 <= 1) & ~orange
    looks = {
        0: (100, 120, 110) + 12 * np.sin(x / 3)[..., None],
        1: (225, 95, 40) + 12 * (np.sin((x - 2 * t) / 1.7) * np.sin((y - t) / 1.9))[..., None],
        2: (60, 80, 190) + 12 * np.sin(y / 1.5)[..., None],
    }
    mask = np.where(orange, 1, np.where(blue, 2, 0)).astype(np.uint8)
    return np.select([(mask == i)[..., None] for i in looks], list(looks.values())).astype(np.uint8), mask


def written_clip(folder: Path) -> Clip:
    frames, masks, rows, listed = [], [], [], []
    for t in range(LENGTH):
        frame, mask = drawn(t)
        name = f"{t:05d}"
        cv2.imwrite(str(folder / f"{name}.png"), frame[..., ::-1])
        write_labels(folder / f"mask-{name}.png", mask)
        scribble = simulate_scribble(mask, scribble_rng(0, "clip", name), ScribbleConfig())
        place = {"dataset": "a", "split": "train", "sequence": "clip", "frame": name}
        rows.append(place | {"png": encode_labels(scribble)})
        listed.append(IndexedFrame(name, f"{name}.png", f"mask-{name}.png", None, HEIGHT, WIDTH, IDS, ""))
        frames.append(frame)
        masks.append(mask)
    store = ScribbleStore(pa.Table.from_pylist(rows, schema=STORE_SCHEMA))
    judged = ClipSampler([IndexedVideo("a", "train", "clip", tuple(listed), {})], {"a": folder}, {"a": 1.0}, store)
    maskless = IndexedVideo("a", "train", "clip", tuple(replace(f, mask_path=None) for f in listed), {})
    return Clip(np.stack(frames), np.stack(masks), replace(judged, videos=[maskless]), judged)


class Learnt(NamedTuple):
    config: Config
    clip: Clip
    before: Network
    after: Network
    progress: TrainState
    masks: np.ndarray  # (T, H, W) of `segment` from the first frame's scribble


@pytest.fixture(scope="module")
def learnt(tiny_config, tmp_path_factory) -> Learnt:
    """The tiny network after 200 steps of the whole loss on clips of one object each, as the sampler draws them.

    Masks have no part in it, and no epoch is chosen: the weights are the running average at the last step.
    """
    clip = written_clip(tmp_path_factory.mktemp("clip"))
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
    progress = run(config, TrainingData(clip.scribbled, clip.scribbled, "loss"))
    averaged = AveragedModel(first_network(config))
    averaged.load_state_dict(progress.average)
    before, after = first_network(config), averaged.module
    masks = np.stack(list(segment(after, clip.frames, {0: clip.first_scribble})))
    return Learnt(config, clip, before, after, progress, masks)


def scores_of(learnt: Learnt, i: int) -> list[float]:
    return [region_similarity(m == i, p == i) for m, p in zip(learnt.clip.masks, learnt.masks, strict=True)]


def test_the_sampler_draws_both_objects_one_a_clip(learnt):
    specs = learnt.clip.scribbled.draw(learnt.config.train.stage1, 0, 0)
    assert {spec.object_id for spec in specs} == set(IDS)
    assert set(np.unique(batch_of(learnt.clip.scribbled, learnt.config, 4)["target"])) == {0, 1, 255}


def test_the_whole_loss_falls_tenfold_and_attention_is_switched_on(learnt):
    batch = batch_of(learnt.clip.scribbled, learnt.config, 8)
    with torch.no_grad():
        before, after = (loss_of(network, batch, learnt.config) for network in (learnt.before, learnt.after))
    assert after < before / 10
    assert all(row["regularizer"] > 0 and row["partial_cross_entropy"] > 0 for row in learnt.progress.history)
    assert float(learnt.before.attention.scale.detach()) == 0.0 and float(learnt.after.attention.scale.detach()) != 0.0


@pytest.mark.parametrize("i", IDS)
def test_each_object_is_found_from_the_scribbles_of_both(learnt, i):
    assert np.mean(scores_of(learnt, i)) > 0.9


def test_the_held_out_score_is_that_of_the_masks_after_the_first(learnt):
    data, stage = TrainingData(learnt.clip.scribbled, learnt.clip.judged, "J"), learnt.config.train.stage1
    expected = np.mean([scores_of(learnt, i)[1:] for i in IDS])
    assert holdout_score(learnt.after, data, learnt.config, stage, "cpu")["holdout_score"] == pytest.approx(expected)


@pytest.mark.parametrize("i", IDS)
def test_the_first_mask_is_predicted_far_beyond_the_strokes(learnt, i):
    strokes = learnt.clip.first_scribble == i
    found = learnt.masks[0] == i
    assert found.sum() > 3 * strokes.sum()


@pytest.mark.parametrize("wrong", [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)])
def test_a_wrong_label_in_the_first_scribble_is_not_copied_to_the_mask(learnt, wrong):
    """A pixel of one label's strokes is given another: the mask there stays what the frame shows."""
    true, false = wrong
    strokes = np.argwhere(learnt.clip.first_scribble == true)
    for y, x in strokes[:: len(strokes) // 5]:
        scribble = learnt.clip.first_scribble.copy()
        scribble[y, x] = false
        assert next(segment(learnt.after, learnt.clip.frames, {0: scribble}))[y, x] == true
