"""One clip learnt by heart: the whole of the method, from scribbles to masks."""

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import batch_of, changed, loss_of, run

from ssvos.config import Config, LossConfig
from ssvos.data.clips import ClipSource
from ssvos.data.index import IndexedFrame, IndexedVideo
from ssvos.inference import segment
from ssvos.labels import encode_labels, write_labels
from ssvos.metrics.region import region_similarity
from ssvos.scribbles.simulate import scribble_rng, simulate_scribble
from ssvos.scribbles.store import STORE_SCHEMA, ScribbleStore
from ssvos.training import TrainingData, first_network


def one_moving_object(folder) -> tuple[ClipSource, list[np.ndarray], list[np.ndarray]]:
    """A clip of a spotted ellipse on stripes with simulated scribbles; also its frames and masks."""
    y, x = np.mgrid[:48, :64]
    frames, masks, rows, listed = [], [], [], []
    for t in range(4):
        mask = (((x - 24 - 4 * t) / 14.0) ** 2 + ((y - 22 - t) / 12.0) ** 2 <= 1).astype(np.uint8)
        stripes = 90 + 50 * np.sin(x / 3.0)
        spots = 150 + 60 * np.sin((x - 4 * t) / 1.7) * np.sin((y - t) / 1.9)
        frame = np.stack([np.where(mask, spots, stripes), stripes, np.where(mask, 60, 130)], axis=2).astype(np.uint8)
        name = f"{t:05d}"
        cv2.imwrite(str(folder / f"{name}.png"), frame[..., ::-1])
        scribble = simulate_scribble(mask, scribble_rng(0, "clip", name), Config.model_fields["scribbles"].default)
        rows.append(
            {
                "dataset": "a",
                "split": "train",
                "sequence": "clip",
                "frame": name,
                "png": encode_labels(scribble),
            }
        )
        write_labels(folder / f"mask-{name}.png", mask)
        listed.append(IndexedFrame(name, f"{name}.png", f"mask-{name}.png", None, 48, 64, (1,), ""))
        frames.append(frame)
        masks.append(mask)
    video = IndexedVideo("a", "train", "clip", tuple(listed), {})
    store = ScribbleStore(pa.Table.from_pylist(rows, schema=STORE_SCHEMA))
    return ClipSource([video], {"a": folder}, {"a": 1.0}, store), frames, masks


def test_one_clip_is_learnt_by_heart_from_its_scribbles(tiny_config, tmp_path):
    source, frames, masks = one_moving_object(tmp_path)
    config = changed(
        tiny_config,
        epochs=4,
        clips_per_epoch=30,
        batch_clips=1,
        clip_frames=4,
        learning_rate=3e-3,
        decay=0.7,
        max_norm=1.0,
        weight_decay=0.0,
    )
    config = config.model_copy(update={"loss": LossConfig(sigma_xy=20.0, filter="exact")})
    progress = run(config, TrainingData(source, source, "J"))
    before, after = first_network(config), first_network(config)
    after.load_state_dict(progress.weights)
    with torch.no_grad():
        batch = batch_of(source, config, 1)
        assert loss_of(after, batch, config) < loss_of(before, batch, config) / 10
    found = list(segment(after, frames, {0: source.scribbles["a", "clip", "00000"]}))
    scores = [region_similarity(m == 1, p == 1) for m, p in zip(masks, found, strict=True)]
    assert np.mean(scores) > 0.9
    assert progress.history[-1]["holdout_score"] == pytest.approx(np.mean(scores[1:]))
