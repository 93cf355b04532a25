"""Training clips: what is drawn, and what a clip holds."""

from collections import Counter

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TINY_STAGE

from ssvos.config import AugmentConfig
from ssvos.data.clips import ClipDataset, ClipSource, ClipSpec, read_frame
from ssvos.data.index import IndexedFrame, IndexedVideo
from ssvos.labels import encode_labels, read_labels, write_labels
from ssvos.scribbles.store import STORE_SCHEMA, ScribbleStore

STILL = AugmentConfig(flip=0.0)


def made_video(dataset: str, sequence: str, objects: list) -> IndexedVideo:
    """A video by the objects of each frame; None: an unlabelled frame."""
    frames = tuple(
        IndexedFrame(f"{t:05d}", f"{sequence}/{t:05d}.png", None, None, 48, 64, ids, "")
        for t, ids in enumerate(objects)
    )
    return IndexedVideo(dataset, "train", sequence, frames, {})


def source_of(videos, weights=None, roots=None, store=None) -> ClipSource:
    weights = weights or {video.dataset: 1.0 for video in videos}
    return ClipSource(videos, roots or {}, weights, store if store is not None else {})


def stage(**changes):
    return TINY_STAGE.model_copy(update=changes)


VIDEOS = [
    made_video("a", "late", [(), None, (1,), (1, 2), (2,), (2,), ()]),
    made_video("a", "short", [(1,), (1,)]),
    made_video("b", "many", [(1, 2, 3)] * 9),
]


def test_an_epoch_is_a_function_of_seed_and_epoch_alone():
    drawn = stage(clips_per_epoch=30)
    source = source_of(VIDEOS)
    first = source.draw(drawn, seed=3, epoch=5)
    np.random.seed(0)
    assert source_of(list(VIDEOS)).draw(drawn, 3, 5) == first
    assert source.draw(drawn, 3, 6) != first and source.draw(drawn, 4, 5) != first
    assert len({spec.seed for spec in first}) == 30


def test_a_longer_epoch_begins_with_the_shorter_one():
    source = source_of(VIDEOS)
    assert source.draw(stage(clips_per_epoch=30), 0, 0)[:10] == source.draw(stage(clips_per_epoch=10), 0, 0)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_clips_lie_in_their_video_and_follow_an_object_of_their_first_frame(stride):
    specs = source_of(VIDEOS).draw(stage(clips_per_epoch=200, frame_stride=stride), 0, 0)
    seen = Counter()
    for spec in specs:
        video = VIDEOS[spec.video]
        steps = set(np.diff(spec.positions))
        assert len(spec.positions) == 3 and len(steps) == 1 and 1 <= steps.pop() <= stride
        assert spec.positions[0] >= 0 and spec.positions[-1] < len(video.frames)
        assert spec.object_id in video.frames[spec.positions[0]].objects
        seen[video.sequence, spec.object_id] += 1
    always = {("late", 1), ("many", 1), ("many", 2), ("many", 3)}
    # from object 2's first frame on, a longer stride does not fit into the video
    assert seen.keys() == always | ({("late", 2)} if stride == 1 else set())


def test_data_sets_are_drawn_by_their_weights_whatever_their_sizes():
    videos = [made_video("a", f"a{k}", [(1,)] * 4) for k in range(9)] + [made_video("b", "b0", [(1,)] * 4)]
    specs = source_of(videos, {"a": 1.0, "b": 3.0}).draw(stage(clips_per_epoch=2000), 0, 0)
    share = np.mean([videos[spec.video].dataset == "b" for spec in specs])
    assert share == pytest.approx(0.75, abs=0.03)
    counts = Counter(videos[spec.video].sequence for spec in specs if videos[spec.video].dataset == "a")
    assert len(counts) == 9 and max(counts.values()) < 3 * min(counts.values())


def test_no_video_that_is_long_enough_is_an_error_that_says_what_to_change():
    with pytest.raises(ValueError, match="clip_frames"):
        source_of(VIDEOS).draw(stage(clip_frames=10), 0, 0)


@pytest.fixture
def labelled(tmp_path) -> ClipSource:
    """One video of four frames with strokes of objects 1 and 2 and of background; frame 3 has no scribble."""
    rng = np.random.default_rng(0)
    rows = []
    for t in range(4):
        write_image(tmp_path / "clip" / f"{t:05d}.png", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        if t == 3:
            continue
        scribble = np.full((48, 64), 255, np.uint8)
        scribble[5 + t, 4:40], scribble[20:22, 10:30], scribble[40, 2:60] = 1, 2, 0
        row = {"dataset": "a", "split": "train", "sequence": "clip", "frame": f"{t:05d}"}
        rows.append(row | {"png": encode_labels(scribble)})
    store = ScribbleStore(pa.Table.from_pylist(rows, schema=STORE_SCHEMA))
    video = made_video("a", "clip", [(1, 2), (1, 2), (1,), None])
    return source_of([video], roots={"a": tmp_path}, store=store)


def write_image(path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def item(source: ClipSource, positions=(0, 1, 2), object_id: int = 1, augment=STILL, share=1.0, **changes):
    spec = ClipSpec(0, tuple(positions), object_id, (0, 0, 0))
    return ClipDataset(source, [spec], stage(**changes), augment, share)[0]


def test_a_clip_holds_its_frames_in_rgb_and_its_objects_own_strokes(labelled):
    clip = item(labelled)
    assert clip["frames"].shape == (3, 3, 48, 64) and clip["frames"].dtype == torch.float32
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(clip["frames"][0].permute(1, 2, 0).numpy(), image / 255, atol=1e-6)
    assert clip["target"].shape == (3, 48, 64) and clip["target"].dtype == torch.uint8
    assert torch.equal(clip["scribble"], clip["target"][0])


@pytest.mark.parametrize(("object_id", "other"), [(1, (20, 15)), (2, (5, 10))])
def test_other_objects_strokes_are_background(labelled, object_id, other):
    target = item(labelled, object_id=object_id)["target"][0]
    assert target[other] == 0 and target[40, 10] == 0
    assert (target == 1).sum() == {1: 36, 2: 40}[object_id]
    assert (target == 255).sum() == 48 * 64 - 36 - 40 - 58


def test_a_frame_without_a_scribble_is_unlabelled(labelled):
    target = item(labelled, positions=(1, 2, 3))["target"]
    assert (target[2] == 255).all() and (target[0] != 255).any()


def test_the_network_is_given_a_part_of_the_first_frames_strokes(labelled):
    clip = item(labelled, share=0.5)
    given, target = clip["scribble"], clip["target"][0]
    known = given != 255
    assert torch.equal(given[known], target[known]) and 0 < known.sum() < (target != 255).sum()
    assert {0, 1} <= set(given.unique().tolist())


def test_a_clip_is_varied_alike_on_all_its_frames_and_the_same_every_time(labelled):
    augment = AugmentConfig(flip=1.0)
    flipped, plain = item(labelled, augment=augment), item(labelled)
    torch.testing.assert_close(flipped["frames"], plain["frames"].flip(-1))
    assert torch.equal(flipped["target"], plain["target"].flip(-1))
    wild = AugmentConfig(flip=0.5, reverse=0.5, scale_max=1.5, rotation=20.0, colour=0.5)
    for first, again in zip(item(labelled, augment=wild).values(), item(labelled, augment=wild).values(), strict=True):
        assert torch.equal(first, again)


def test_a_clip_is_turned_round_only_if_its_object_is_in_the_last_frame(labelled):
    augment = AugmentConfig(flip=0.0, reverse=1.0)
    plain = item(labelled)
    assert torch.equal(item(labelled, augment=augment)["frames"], plain["frames"].flip(0))
    for object_id, positions in ((2, (0, 1, 2)), (1, (1, 2, 3))):  # gone, and a frame without labels
        kept = item(labelled, positions, object_id, augment)
        assert torch.equal(kept["frames"], item(labelled, positions, object_id)["frames"])


@pytest.mark.parametrize(("asked", "count"), [(0, 3), (1, 1), (2, 2), (9, 3)])
def test_regularized_frames_are_distinct_frames_of_the_clip(labelled, asked, count):
    chosen = item(labelled, regularized_frames=asked)["regularized"].tolist()
    assert len(set(chosen)) == len(chosen) == count and set(chosen) <= {0, 1, 2}


def test_clips_come_to_the_stages_size(labelled):
    clip = item(labelled, height=32, width=40)
    assert clip["frames"].shape[-2:] == clip["target"].shape[-2:] == clip["scribble"].shape == (32, 40)
    assert (clip["target"] == 1).flatten(1).any(dim=1).all()


def test_strokes_lie_inside_the_objects_of_the_embedded_data(tiny_data):
    data = tiny_data.load()
    specs = data.fit.draw(stage(clips_per_epoch=6), 0, 0)
    clips = ClipDataset(data.fit, specs, stage(), STILL, 0.5)
    for spec, clip in zip(specs, clips, strict=False):
        video = data.fit.videos[spec.video]
        for t, position in enumerate(spec.positions):
            mask = read_labels(data.fit.roots[video.dataset] / video.frames[position].mask_path)
            assert (mask[clip["target"][t].numpy() == 1] == spec.object_id).all()
            assert (mask[clip["target"][t].numpy() == 0] != spec.object_id).all()


def test_an_unreadable_frame_is_named(tmp_path):
    write_labels(tmp_path / "ok.png", np.zeros((4, 4), np.uint8))
    assert read_frame(tmp_path / "ok.png", 2, 3).shape == (2, 3, 3)
    (tmp_path / "bad.jpg").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        read_frame(tmp_path / "bad.jpg")
