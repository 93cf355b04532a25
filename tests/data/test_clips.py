"""Training clips: what is drawn, and what a clip holds."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TINY_STAGE

from ssvos.config import AugmentConfig
from ssvos.data.clip_sources import read_frame, read_mask
from ssvos.data.clips import ClipDataset, ClipSampler, ClipSpec, Supervision
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


def source_of(videos, weights=None, roots=None, store=None) -> ClipSampler:
    weights = weights or {video.dataset: 1.0 for video in videos}
    return ClipSampler(videos, roots or {}, weights, store if store is not None else {})


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
def labelled(tmp_path) -> ClipSampler:
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


def item(source: ClipSampler, positions=(0, 1, 2), object_id: int = 1, augment=STILL, share=1.0, **changes):
    spec = ClipSpec(0, tuple(positions), object_id, (0, 0, 0))
    return ClipDataset(source, [spec], stage(**changes), augment, share)[0]


def test_a_clip_holds_its_frames_in_rgb_and_its_objects_own_strokes(labelled):
    clip = item(labelled)
    assert clip["frames"].shape == (3, 3, 48, 64) and clip["frames"].dtype == torch.uint8
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert np.array_equal(clip["frames"][0].permute(1, 2, 0).numpy(), image)
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
    wild = AugmentConfig(flip=0.5, reverse=0.5, scale_max=1.5, rotation=20.0, color=0.5)
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


def box(t: int, i: int) -> tuple[slice, slice]:
    """Where object i is in frame t of the video `mixed`."""
    return slice(4 + 20 * (i - 1), 18 + 20 * (i - 1)), slice(4 + 3 * t, 20 + 3 * t)


@pytest.fixture
def mixed(tmp_path) -> ClipSampler:
    """Nine frames of objects 1 and 2, labelled but for frame 1: dense masks with a void corner, a row of each object as
    its stroke, one row of background."""
    rows, frames = [], []
    rng = np.random.default_rng(0)
    for t in range(9):
        name, is_labelled = f"{t:05d}", t != 1
        write_image(tmp_path / "clip" / f"{name}.png", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        mask, scribble = np.zeros((48, 64), np.uint8), np.full((48, 64), 255, np.uint8)
        mask[44:, 60:] = 255
        scribble[46, 2:50] = 0
        for i in (1, 2):
            mask[box(t, i)] = i
            scribble[box(t, i)[0].start + 6, box(t, i)[1]] = i
        if is_labelled:
            write_labels(tmp_path / "masks" / f"{name}.png", mask)
            row = {"dataset": "a", "split": "train", "sequence": "clip", "frame": name, "png": encode_labels(scribble)}
            rows.append(row)
        mask_path = f"masks/{name}.png" if is_labelled else None
        ids = (1, 2) if is_labelled else None
        frames.append(IndexedFrame(name, f"clip/{name}.png", mask_path, None, 48, 64, ids, ""))
    store = ScribbleStore(pa.Table.from_pylist(rows, schema=STORE_SCHEMA))
    return source_of([IndexedVideo("a", "train", "clip", tuple(frames), {})], roots={"a": tmp_path}, store=store)


def supervised(source: ClipSampler, scribble_every: int = 1, dense_every: int = 0) -> ClipSampler:
    return replace(source, supervision={"a": Supervision(scribble_every, dense_every)})


def kinds(source: ClipSampler, positions=range(9), object_id: int = 1) -> str:
    """What each frame's target is: d a dense mask, s strokes, - nothing; checked pixel by pixel."""
    target = item(source, positions, object_id, clip_frames=len(positions))["target"].numpy()
    found = ""
    for t, labels in zip(positions, target, strict=True):
        dense = np.zeros((48, 64), np.uint8)
        dense[44:, 60:] = 255
        dense[box(t, object_id)] = 1
        strokes = np.full((48, 64), 255, np.uint8)
        strokes[46, 2:50] = 0
        for i in (1, 2):
            strokes[box(t, i)[0].start + 6, box(t, i)[1]] = int(i == object_id)
        expected = {"d": dense, "s": strokes, "-": np.full((48, 64), 255, np.uint8)}
        (kind,) = (name for name, one in expected.items() if np.array_equal(labels, one))
        found += kind
    return found


# frame 1 is unlabelled, so that the labelled ones, in order, are 0 2 3 4 5 6 7 8
@pytest.mark.parametrize(
    ("scribble_every", "dense_every", "expected"),
    [
        (1, 0, "s-sssssss"),
        (3, 0, "s---s--s-"),
        (9, 0, "s--------"),
        (1, 1, "d-ddddddd"),
        (1, 4, "d-sssdsss"),
        (2, 3, "d--sds-d-"),
        (4, 8, "d----s---"),
    ],
)
@pytest.mark.parametrize("object_id", [1, 2])
def test_every_so_manieth_labelled_frame_is_a_target(mixed, scribble_every, dense_every, expected, object_id):
    assert kinds(supervised(mixed, scribble_every, dense_every), object_id=object_id) == expected


def test_which_frames_are_targets_does_not_depend_on_where_a_clip_begins(mixed):
    source = supervised(mixed, 3, 4)
    whole = kinds(source)
    assert all(kinds(source, range(k, k + 4)) == whole[k : k + 4] for k in (0, 4))


def test_a_clip_begins_on_a_frame_that_keeps_its_scribble(mixed):
    assert {spec.positions[0] for spec in supervised(mixed).draw(stage(clips_per_epoch=99), 0, 0)} == {0, 2, 3, 4, 5, 6}
    starts = {spec.positions[0] for spec in supervised(mixed, 3, 2).draw(stage(clips_per_epoch=99), 0, 0)}
    assert starts == {0, 4}


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_network_is_given_strokes_where_the_target_is_a_mask(mixed, share):
    given = item(supervised(mixed, 1, 1), share=share)["scribble"].numpy()
    strokes = item(mixed)["target"][0].numpy()
    known = given != 255
    assert (given[known] == strokes[known]).all() and {0, 1} <= set(np.unique(given))
    assert (known.sum() == (strokes != 255).sum()) == (share == 1.0)


def test_a_clip_that_would_begin_on_a_frame_without_scribble_is_not_turned_round(mixed):
    turned, last = AugmentConfig(flip=0.0, reverse=1.0), {}
    for every in (1, 4):
        source = supervised(mixed, every)
        plain, found = (item(source, (5, 6, 7), augment=augment)["frames"] for augment in (STILL, turned))
        last[every] = torch.equal(found, plain.flip(0)), torch.equal(found, plain)
    assert last == {1: (True, False), 4: (False, True)}


def test_a_varied_mask_moves_as_its_frame_and_is_unlabelled_outside(mixed):
    augment = AugmentConfig(flip=1.0)
    plain, flipped = item(supervised(mixed, 1, 1)), item(supervised(mixed, 1, 1), augment=augment)
    assert torch.equal(flipped["target"], plain["target"].flip(-1))
    small = item(supervised(mixed, 1, 1), augment=AugmentConfig(flip=0.0, scale_min=0.5, scale_max=0.5))["target"]
    assert (small[:, :8] == 255).all() and (small[:, :, :12] == 255).all()
    share = (small[[0, 2]] == 1).flatten(1).float().mean(dim=1)
    torch.testing.assert_close(share, torch.full((2,), 14 * 16 / (48 * 64) / 4), atol=0.004, rtol=0)


def test_a_labelled_frame_without_a_mask_keeps_its_scribble(mixed):
    video = mixed.videos[0]
    frames = tuple(replace(f, mask_path=None) if f.name == "00004" else f for f in video.frames)
    source = replace(supervised(mixed, 1, 1), videos=[replace(video, frames=frames)])
    assert kinds(source) == "d-ddsdddd"


def test_sources_are_supervised_each_in_its_own_way(mixed):
    other = replace(mixed.videos[0], dataset="b")
    source = ClipSampler([other], {"b": mixed.roots["a"]}, {"b": 1.0}, mixed.scribbles, {"a": Supervision(9)})
    assert source.supervision_of("b") == Supervision() and source.supervision_of("a") == Supervision(9)


def test_a_mask_is_sampled_at_the_centres_of_its_new_pixels(tmp_path):
    mask = np.kron(np.array([[0, 1, 2], [3, 255, 4]], np.uint8), np.ones((4, 6), np.uint8))
    write_labels(tmp_path / "mask.png", mask)
    assert read_mask(tmp_path / "mask.png", 2, 3).tolist() == [[0, 1, 2], [3, 255, 4]]
    assert read_mask(tmp_path / "mask.png", 8, 18).tolist() == mask.tolist()
    larger = read_mask(tmp_path / "mask.png", 16, 36)
    assert larger.tolist() == np.kron(mask, np.ones((2, 2), np.uint8)).tolist()
