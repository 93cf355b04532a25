"""The training loop: it fits, resumes, shares out its batches, and stops on nonsense."""

import copy
import dataclasses
import io

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TINY_MODEL, TINY_STAGE, TinyData

import ssvos.training
from ssvos.checkpoint import save_checkpoint
from ssvos.config import Config, LossConfig
from ssvos.data.augment import resize_scribble
from ssvos.data.clips import ClipDataset, ClipSource
from ssvos.data.index import IndexedFrame, IndexedVideo, read_index
from ssvos.inference import segment
from ssvos.labels import encode_labels, read_labels, write_labels
from ssvos.losses.joint import joint_loss
from ssvos.metrics.region import region_similarity
from ssvos.scribbles.simulate import scribble_rng, simulate_scribble
from ssvos.scribbles.store import STORE_SCHEMA, ScribbleStore
from ssvos.training import Progress, TrainingData, first_network, fit, holdout_score, training_data


def changed(config: Config, **stage) -> Config:
    """The configuration with other values in its first stage."""
    stage1 = config.train.stage1.model_copy(update=stage)
    return config.model_copy(update={"train": config.train.model_copy(update={"stage1": stage1})})


def run(
    config: Config, data: TrainingData, seed: int = 0, resume: Progress | None = None, report=None
) -> Progress:
    network = first_network(
        config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
    )
    report = report or (lambda _: None)
    return fit(network, data, config, config.train.stage1, "cpu", report, resume)


def one_moving_object(folder) -> tuple[ClipSource, list[np.ndarray], list[np.ndarray]]:
    """A clip of a spotted ellipse on stripes with simulated scribbles; also its frames and masks."""
    y, x = np.mgrid[:48, :64]
    frames, masks, rows, listed = [], [], [], []
    for t in range(4):
        mask = (((x - 24 - 4 * t) / 14.0) ** 2 + ((y - 22 - t) / 12.0) ** 2 <= 1).astype(np.uint8)
        stripes = 90 + 50 * np.sin(x / 3.0)
        spots = 150 + 60 * np.sin((x - 4 * t) / 1.7) * np.sin((y - t) / 1.9)
        frame = np.stack([np.where(mask, spots, stripes), stripes, np.where(mask, 60, 130)], axis=2).astype(
            np.uint8
        )
        name = f"{t:05d}"
        cv2.imwrite(str(folder / f"{name}.png"), frame[..., ::-1])
        scribble = simulate_scribble(
            mask, scribble_rng(0, "clip", name), Config.model_fields["scribbles"].default
        )
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


def batch_of(source: ClipSource, config: Config, count: int) -> dict[str, torch.Tensor]:
    stage = config.train.stage1.model_copy(update={"clips_per_epoch": count})
    clips = ClipDataset(
        source, source.draw(stage, 0, 0), stage, config.train.augment, config.model.input_share
    )
    items = [clips[k] for k in range(count)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def loss_of(network, batch: dict[str, torch.Tensor], config: Config) -> torch.Tensor:
    prediction = network(batch["frames"], batch["scribble"])
    return joint_loss(
        prediction,
        batch["frames"],
        batch["target"],
        config.loss,
        config.train.stage1.auxiliary_weight,
        batch["regularized"],
    ).total


def test_gradients_of_a_batch_are_the_mean_of_those_of_its_halves(tiny_data):
    """What DDP relies on: it averages the workers' gradients."""
    config, source = tiny_data.config, tiny_data.load().fit
    batch = batch_of(source, config, 4)
    whole, halved = first_network(config), first_network(config)
    loss_of(whole, batch, config).backward()
    for half in (slice(0, 2), slice(2, 4)):
        (loss_of(halved, {k: v[half] for k, v in batch.items()}, config) / 2).backward()
    for (name, one), two in zip(whole.named_parameters(), halved.parameters(), strict=True):
        if one.grad is None:
            assert two.grad is None, name
            continue
        scale = float(one.grad.abs().max())
        torch.testing.assert_close(two.grad, one.grad, atol=1e-4 * scale + 1e-8, rtol=1e-3, msg=name)


def pretend_rank(monkeypatch, rank: int, world: int) -> None:
    dist = ssvos.training.dist
    monkeypatch.setattr(dist, "is_available", lambda: True)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda *_: rank)
    monkeypatch.setattr(dist, "get_world_size", lambda *_: world)


def test_workers_together_read_the_same_global_batches_as_one(tiny_data, monkeypatch):
    config, source = changed(tiny_data.config, batch_clips=4), tiny_data.load().fit
    stage = config.train.stage1
    specs = source.draw(stage.model_copy(update={"clips_per_epoch": 9}), 0, 0)

    def frames_of(rank: int, world: int) -> list[torch.Tensor]:
        pretend_rank(monkeypatch, rank, world)
        return [batch["frames"] for batch in ssvos.training._batches(source, specs, config, stage, 0)]

    whole, parts = frames_of(0, 1), [frames_of(rank, 2) for rank in range(2)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 2
    for step, batch in enumerate(whole):
        assert torch.equal(batch, torch.cat([part[step] for part in parts]))


def test_a_batch_that_workers_cannot_share_is_refused(tiny_data, monkeypatch):
    pretend_rank(monkeypatch, 0, 2)
    with pytest.raises(ValueError, match=r"batch_clips 3.*2 workers"):
        run(changed(tiny_data.config, batch_clips=3), tiny_data.load())


def test_fewer_clips_than_a_batch_are_refused(tiny_data):
    with pytest.raises(ValueError, match="clips_per_epoch 1"):
        run(changed(tiny_data.config, clips_per_epoch=1), tiny_data.load())


def saved_and_loaded(progress: Progress) -> Progress:
    """Through a file that is read safely, as a resumed run finds it."""
    buffer = io.BytesIO()
    torch.save(vars(progress), buffer)
    buffer.seek(0)
    return Progress(**torch.load(buffer, weights_only=True))


class Interrupted(Exception):
    pass


def test_resuming_at_an_epochs_end_gives_the_weights_of_an_uninterrupted_run(tiny_data):
    config = changed(tiny_data.config, epochs=3, warmup=3, max_norm=1.0)
    whole = run(config, tiny_data.load())
    kept = []

    def interrupt(report):
        kept.append(saved_and_loaded(report.progress))
        raise Interrupted

    with pytest.raises(Interrupted):
        run(config, tiny_data.load(), report=interrupt)
    assert kept[0].epoch == 1
    resumed = run(config, tiny_data.load(), seed=5, resume=kept[0])
    assert resumed.history == whole.history and resumed.best_epoch == whole.best_epoch
    for part in ("weights", "best_weights"):
        one, two = getattr(whole, part), getattr(resumed, part)
        assert one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())


def test_a_finished_progress_trains_no_further(tiny_data):
    done = run(tiny_data.config, tiny_data.load())
    again = run(tiny_data.config, tiny_data.load(), resume=copy.deepcopy(done))
    assert again.epoch == 2 and again.history == done.history


def test_the_best_epoch_is_kept_and_patience_ends_a_stage(tiny_data, monkeypatch):
    scores = iter([0.3, 0.5, 0.4, 0.2, 0.9])
    monkeypatch.setattr(ssvos.training, "holdout_score", lambda *_: {"holdout_score": next(scores)})
    seen = []
    config = changed(tiny_data.config, epochs=5, clips_per_epoch=2, patience=2)
    progress = run(config, tiny_data.load(), report=lambda r: seen.append(copy.deepcopy(r.progress.weights)))
    assert progress.epoch == 4 and (progress.best_epoch, progress.best_score) == (2, 0.5)
    assert all(torch.equal(value, seen[1][key]) for key, value in progress.best_weights.items())
    assert any(not torch.equal(value, seen[3][key]) for key, value in progress.best_weights.items())


def test_the_learning_rate_warms_up_by_step_and_decays_by_epoch(tiny_data, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1],
    )
    run(
        changed(tiny_data.config, learning_rate=0.01, decay=0.5, warmup=4, clips_per_epoch=6, epochs=2),
        tiny_data.load(),
    )
    expected = [0.01 * f for f in (0.25, 0.5, 0.75, 0.5, 0.5, 0.5)]
    assert rates == pytest.approx(expected)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_clips(tiny_data):
    config, data = tiny_data.config, tiny_data.load()
    network = first_network(config)
    torch.nn.init.constant_(network.fusion.join.weight, float("nan"))
    sequence = data.fit.videos[data.fit.draw(config.train.stage1, 0, 0)[0].video].sequence
    with pytest.raises(FloatingPointError, match=rf"epoch 1, step 1 .*{sequence}"):
        fit(network, data, config, config.train.stage1, "cpu", lambda _: None)


def test_the_history_holds_every_term_and_the_total_is_their_sum(tiny_data):
    reports = []
    progress = run(tiny_data.config, tiny_data.load(), report=lambda r: reports.append(r.line("ours", 2)))
    assert [row["epoch"] for row in progress.history] == [1, 2]
    for row in progress.history:
        parts = row["partial_cross_entropy"] + 0.5 * row["auxiliary"] + 0.9 * row["regularizer"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5) and row["regularizer"] > 0
        assert 0 <= row["holdout_score"] <= 1
    assert reports[0].startswith("ours  epoch 1/2  loss ") and "held-out J" in reports[0]


def without_masks(data: TinyData, folder) -> TrainingData:
    table = read_index(data.index)
    place = table.schema.get_field_index("mask_path")
    table = table.set_column(place, "mask_path", pa.nulls(len(table), pa.string()))
    pq.write_table(table, folder / "index.parquet")
    return training_data(folder / "index.parquet", data.scribbles, data.roots, data.config)


def test_without_masks_the_checkpoint_is_chosen_by_held_out_loss(tiny_data, tmp_path):
    assert tiny_data.load().choose_by == "J"
    data, config = without_masks(tiny_data, tmp_path), tiny_data.config
    assert data.choose_by == "loss"
    network = first_network(config)
    first, again = (holdout_score(network, data, config, config.train.stage1, "cpu") for _ in range(2))
    assert first == again and -3 < first["holdout_score"] < 0
    progress = run(changed(config, epochs=1), data)
    assert progress.chosen_by == "loss" and progress.best_score < 0 and progress.best_weights


def test_the_held_out_score_is_the_mean_over_objects_of_j_after_the_first_frame(tiny_data):
    data, config = tiny_data.load(), tiny_data.config
    network = first_network(config)
    per_object = []
    for video in data.holdout.videos:
        root = data.holdout.roots[video.dataset]
        read = [cv2.imread(str(root / f.image_path))[..., ::-1] for f in video.frames]
        first = data.holdout.scribbles[video.dataset, video.sequence, video.frames[0].name]
        assert resize_scribble(first, 48, 64) is first
        found = list(segment(network, read, {0: first}))
        masks = [read_labels(root / f.mask_path) for f in video.frames]
        for i in np.setdiff1d(np.unique(first), [0, 255]):
            per_object.append(
                np.mean(
                    [region_similarity(m == i, p == i) for m, p in zip(masks[1:], found[1:], strict=True)]
                )
            )
    score = holdout_score(network, data, config, TINY_STAGE, "cpu")["holdout_score"]
    assert score == pytest.approx(np.mean(per_object), abs=1e-9)


def test_a_held_out_video_may_begin_with_an_unlabelled_frame(tiny_data):
    """Its score is that of the video from its first labelled frame on."""
    data, config = tiny_data.load(), tiny_data.config
    network = first_network(config)
    (video,) = data.holdout.videos
    bare = dataclasses.replace(video.frames[0], mask_path=None, objects=None)
    store = {key: data.holdout.scribbles[key] for key in data.holdout.scribbles if key[2] != bare.name}
    scores = []
    for frames in ((bare, *video.frames[1:]), video.frames[1:]):
        holdout = dataclasses.replace(
            data.holdout, videos=[dataclasses.replace(video, frames=frames)], scribbles=store
        )
        changed_data = dataclasses.replace(data, holdout=holdout)
        scores.append(holdout_score(network, changed_data, config, TINY_STAGE, "cpu")["holdout_score"])
    assert scores[0] == pytest.approx(scores[1])


def test_training_and_held_out_videos_are_different_ones(tiny_data):
    data = tiny_data.load()
    names = [{video.sequence for video in part.videos} for part in (data.fit, data.holdout)]
    assert len(names[0]) == 2 and len(names[1]) == 1 and not names[0] & names[1]


def test_a_stage_begins_with_a_checkpoint_of_the_same_network_alone(tiny_data, tmp_path):
    config = tiny_data.config
    start = first_network(config.model_copy(update={"train": config.train.model_copy(update={"seed": 9})}))
    save_checkpoint(tmp_path / "start.pt", start.state_dict(), TINY_MODEL, {})
    taken = first_network(config, tmp_path / "start.pt").state_dict()
    assert all(torch.equal(value, taken[key]) for key, value in start.state_dict().items())
    other = config.model_copy(update={"model": TINY_MODEL.model_copy(update={"state": "fine"})})
    with pytest.raises(ValueError, match=r"start\.pt"):
        first_network(other, tmp_path / "start.pt")
