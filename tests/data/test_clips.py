"""Training clips: which clips are drawn, and the content of a clip."""

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

NO_AUGMENT = AugmentConfig(flip=0.0)


def make_video(dataset: str, sequence: str, objects: list) -> IndexedVideo:
    """A video from the objects of each frame; None for an unlabelled frame."""
    frames = tuple(
        IndexedFrame(f"{t:05d}", f"{sequence}/{t:05d}.png", None, None, 48, 64, ids, "")
        for t, ids in enumerate(objects)
    )
    return IndexedVideo(dataset, "train", sequence, frames, {})


def make_sampler(videos, weights=None, roots=None, store=None) -> ClipSampler:
    weights = weights or {video.dataset: 1.0 for video in videos}
    return ClipSampler(videos, roots or {}, weights, store if store is not None else {})


def stage(**changes):
    return TINY_STAGE.model_copy(update=changes)


VIDEOS = [
    make_video("a", "late", [(), None, (1,), (1, 2), (2,), (2,), ()]),
    make_video("a", "short", [(1,), (1,)]),
    make_video("b", "many", [(1, 2, 3)] * 9),
]


def test_the_clips_of_an_epoch_depend_only_on_seed_and_epoch():
    config = stage(clips_per_epoch=30)
    sampler = make_sampler(VIDEOS)
    first = sampler.draw(config, seed=3, epoch=5)
    np.random.seed(0)
    assert make_sampler(list(VIDEOS)).draw(config, 3, 5) == first
    assert sampler.draw(config, 3, 6) != first and sampler.draw(config, 4, 5) != first
    assert len({spec.seed for spec in first}) == 30


def test_a_longer_epoch_starts_with_the_clips_of_a_shorter_one():
    sampler = make_sampler(VIDEOS)
    assert sampler.draw(stage(clips_per_epoch=30), 0, 0)[:10] == sampler.draw(stage(clips_per_epoch=10), 0, 0)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_clips_fit_their_video_and_have_an_object_of_their_first_frame(stride):
    specs = make_sampler(VIDEOS).draw(stage(clips_per_epoch=200, frame_stride=stride), 0, 0)
    seen = Counter()
    for spec in specs:
        video = VIDEOS[spec.video]
        steps = set(np.diff(spec.positions))
        assert len(spec.positions) == 3 and len(steps) == 1 and 1 <= steps.pop() <= stride
        assert spec.positions[0] >= 0 and spec.positions[-1] < len(video.frames)
        assert spec.object_id in video.frames[spec.positions[0]].objects
        seen[video.sequence, spec.object_id] += 1
    always = {("late", 1), ("many", 1), ("many", 2), ("many", 3)}
    # from object 2's first frame on, the video is too short for a larger stride
    assert seen.keys() == always | ({("late", 2)} if stride == 1 else set())


def test_data_sets_are_drawn_by_weight_independently_of_their_size():
    videos = [make_video("a", f"a{k}", [(1,)] * 4) for k in range(9)] + [make_video("b", "b0", [(1,)] * 4)]
    specs = make_sampler(videos, {"a": 1.0, "b": 3.0}).draw(stage(clips_per_epoch=2000), 0, 0)
    share = np.mean([videos[spec.video].dataset == "b" for spec in specs])
    assert share == pytest.approx(0.75, abs=0.03)
    counts = Counter(videos[spec.video].sequence for spec in specs if videos[spec.video].dataset == "a")
    assert len(counts) == 9 and max(counts.values()) < 3 * min(counts.values())


def test_clips_longer_than_every_video_raise_an_error_that_names_the_parameter():
    with pytest.raises(ValueError, match="clip_frames"):
        make_sampler(VIDEOS).draw(stage(clip_frames=10), 0, 0)


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
    video = make_video("a", "clip", [(1, 2), (1, 2), (1,), None])
    return make_sampler([video], roots={"a": tmp_path}, store=store)


def write_image(path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def item(sampler: ClipSampler, positions=(0, 1, 2), object_id: int = 1, augment=NO_AUGMENT, share=1.0, **changes):
    spec = ClipSpec(0, tuple(positions), object_id, (0, 0, 0))
    return ClipDataset(sampler, [spec], stage(**changes), augment, share)[0]


def test_a_clip_has_rgb_frames_and_the_strokes_of_its_object(labelled):
    clip = item(labelled)
    assert clip["frames"].shape == (3, 3, 48, 64) and clip["frames"].dtype == torch.uint8
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert np.array_equal(clip["frames"][0].permute(1, 2, 0).numpy(), image)
    assert clip["target"].shape == (3, 48, 64) and clip["target"].dtype == torch.uint8
    assert torch.equal(clip["scribble"], clip["target"][0])


@pytest.mark.parametrize(("object_id", "other"), [(1, (20, 15)), (2, (5, 10))])
def test_strokes_of_other_objects_are_background(labelled, object_id, other):
    target = item(labelled, object_id=object_id)["target"][0]
    assert target[other] == 0 and target[40, 10] == 0
    assert (target == 1).sum() == {1: 36, 2: 40}[object_id]
    assert (target == 255).sum() == 48 * 64 - 36 - 40 - 58


def test_a_frame_without_a_scribble_is_unlabelled(labelled):
    target = item(labelled, positions=(1, 2, 3))["target"]
    assert (target[2] == 255).all() and (target[0] != 255).any()


def test_the_input_is_a_part_of_the_first_frames_strokes(labelled):
    clip = item(labelled, share=0.5)
    scribble, target = clip["scribble"], clip["target"][0]
    labelled = scribble != 255
    assert torch.equal(scribble[labelled], target[labelled]) and 0 < labelled.sum() < (target != 255).sum()
    assert {0, 1} <= set(scribble.unique().tolist())


def test_augmentation_is_the_same_for_all_frames_and_reproducible(labelled):
    augment = AugmentConfig(flip=1.0)
    flipped, plain = item(labelled, augment=augment), item(labelled)
    torch.testing.assert_close(flipped["frames"], plain["frames"].flip(-1))
    assert torch.equal(flipped["target"], plain["target"].flip(-1))
    strong = AugmentConfig(flip=0.5, reverse=0.5, scale_max=1.5, rotation=20.0, color=0.5)
    for first, again in zip(
        item(labelled, augment=strong).values(), item(labelled, augment=strong).values(), strict=True
    ):
        assert torch.equal(first, again)


def test_a_clip_is_reversed_only_if_its_object_is_in_the_last_frame(labelled):
    augment = AugmentConfig(flip=0.0, reverse=1.0)
    plain = item(labelled)
    assert torch.equal(item(labelled, augment=augment)["frames"], plain["frames"].flip(0))
    for object_id, positions in ((2, (0, 1, 2)), (1, (1, 2, 3))):  # without the object, and without labels
        unchanged = item(labelled, positions, object_id, augment)
        assert torch.equal(unchanged["frames"], item(labelled, positions, object_id)["frames"])


@pytest.mark.parametrize(("configured", "count"), [(0, 3), (1, 1), (2, 2), (9, 3)])
def test_regularized_frames_are_distinct_frames_of_the_clip(labelled, configured, count):
    indices = item(labelled, regularized_frames=configured)["regularized"].tolist()
    assert len(set(indices)) == len(indices) == count and set(indices) <= {0, 1, 2}


def test_clips_are_resized_to_the_stages_size(labelled):
    clip = item(labelled, height=32, width=40)
    assert clip["frames"].shape[-2:] == clip["target"].shape[-2:] == clip["scribble"].shape == (32, 40)
    assert (clip["target"] == 1).flatten(1).any(dim=1).all()


def test_strokes_lie_inside_the_objects_of_the_embedded_data_set(tiny_data):
    data = tiny_data.load()
    specs = data.fit.draw(stage(clips_per_epoch=6), 0, 0)
    clips = ClipDataset(data.fit, specs, stage(), NO_AUGMENT, 0.5)
    for spec, clip in zip(specs, clips, strict=False):
        video = data.fit.videos[spec.video]
        for t, position in enumerate(spec.positions):
            mask = read_labels(data.fit.roots[video.dataset] / video.frames[position].mask_path)
            assert (mask[clip["target"][t].numpy() == 1] == spec.object_id).all()
            assert (mask[clip["target"][t].numpy() == 0] != spec.object_id).all()


def test_an_error_names_the_unreadable_frame(tmp_path):
    write_labels(tmp_path / "ok.png", np.zeros((4, 4), np.uint8))
    assert read_frame(tmp_path / "ok.png", 2, 3).shape == (2, 3, 3)
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        read_frame(tmp_path / "bad.jpg")


def box(t: int, i: int) -> tuple[slice, slice]:
    """The position of object i in frame t of the video `mixed`."""
    return slice(4 + 20 * (i - 1), 18 + 20 * (i - 1)), slice(4 + 3 * t, 20 + 3 * t)


@pytest.fixture
def mixed(tmp_path) -> ClipSampler:
    """Nine frames with objects 1 and 2. All frames except frame 1 have a dense mask with an unlabelled corner, and a
    scribble with one row of each object and of the background."""
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
    return make_sampler([IndexedVideo("a", "train", "clip", tuple(frames), {})], roots={"a": tmp_path}, store=store)


def supervised(sampler: ClipSampler, scribble_every: int = 1, dense_every: int = 0) -> ClipSampler:
    return replace(sampler, supervision={"a": Supervision(scribble_every, dense_every)})


def kinds(sampler: ClipSampler, positions=range(9), object_id: int = 1) -> str:
    """The target of each frame: d is a dense mask, s strokes, - unlabelled. All pixels are compared."""
    target = item(sampler, positions, object_id, clip_frames=len(positions))["target"].numpy()
    result = ""
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
        result += kind
    return result


# frame 1 is unlabelled, so the labelled frames are 0 2 3 4 5 6 7 8
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
def test_every_nth_labelled_frame_is_a_target(mixed, scribble_every, dense_every, expected, object_id):
    assert kinds(supervised(mixed, scribble_every, dense_every), object_id=object_id) == expected


def test_the_frames_with_targets_do_not_depend_on_the_start_of_a_clip(mixed):
    sampler = supervised(mixed, 3, 4)
    complete = kinds(sampler)
    assert all(kinds(sampler, range(k, k + 4)) == complete[k : k + 4] for k in (0, 4))


def test_a_clip_starts_on_a_frame_whose_scribble_is_used(mixed):
    assert {spec.positions[0] for spec in supervised(mixed).draw(stage(clips_per_epoch=99), 0, 0)} == {0, 2, 3, 4, 5, 6}
    starts = {spec.positions[0] for spec in supervised(mixed, 3, 2).draw(stage(clips_per_epoch=99), 0, 0)}
    assert starts == {0, 4}


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_input_is_a_scribble_if_the_target_is_a_mask(mixed, share):
    scribble = item(supervised(mixed, 1, 1), share=share)["scribble"].numpy()
    strokes = item(mixed)["target"][0].numpy()
    labelled = scribble != 255
    assert (scribble[labelled] == strokes[labelled]).all() and {0, 1} <= set(np.unique(scribble))
    assert (labelled.sum() == (strokes != 255).sum()) == (share == 1.0)


def test_a_clip_is_not_reversed_if_its_last_frame_has_no_usable_scribble(mixed):
    reverse, result = AugmentConfig(flip=0.0, reverse=1.0), {}
    for every in (1, 4):
        sampler = supervised(mixed, every)
        plain, frames = (item(sampler, (5, 6, 7), augment=augment)["frames"] for augment in (NO_AUGMENT, reverse))
        result[every] = torch.equal(frames, plain.flip(0)), torch.equal(frames, plain)
    assert result == {1: (True, False), 4: (False, True)}


def test_an_augmented_mask_moves_with_its_frame_and_is_unlabelled_outside(mixed):
    augment = AugmentConfig(flip=1.0)
    plain, flipped = item(supervised(mixed, 1, 1)), item(supervised(mixed, 1, 1), augment=augment)
    assert torch.equal(flipped["target"], plain["target"].flip(-1))
    small = item(supervised(mixed, 1, 1), augment=AugmentConfig(flip=0.0, scale_min=0.5, scale_max=0.5))["target"]
    assert (small[:, :8] == 255).all() and (small[:, :, :12] == 255).all()
    share = (small[[0, 2]] == 1).flatten(1).float().mean(dim=1)
    torch.testing.assert_close(share, torch.full((2,), 14 * 16 / (48 * 64) / 4), atol=0.004, rtol=0)


def test_a_labelled_frame_without_a_mask_has_its_scribble_as_target(mixed):
    video = mixed.videos[0]
    frames = tuple(replace(f, mask_path=None) if f.name == "00004" else f for f in video.frames)
    sampler = replace(supervised(mixed, 1, 1), videos=[replace(video, frames=frames)])
    assert kinds(sampler) == "d-ddsdddd"


def test_each_source_has_its_own_supervision(mixed):
    other = replace(mixed.videos[0], dataset="b")
    sampler = ClipSampler([other], {"b": mixed.roots["a"]}, {"b": 1.0}, mixed.scribbles, {"a": Supervision(9)})
    assert sampler.supervision_of("b") == Supervision() and sampler.supervision_of("a") == Supervision(9)


def test_a_mask_is_sampled_at_the_centres_of_the_new_pixels(tmp_path):
    mask = np.kron(np.array([[0, 1, 2], [3, 255, 4]], np.uint8), np.ones((4, 6), np.uint8))
    write_labels(tmp_path / "mask.png", mask)
    assert read_mask(tmp_path / "mask.png", 2, 3).tolist() == [[0, 1, 2], [3, 255, 4]]
    assert read_mask(tmp_path / "mask.png", 8, 18).tolist() == mask.tolist()
    larger = read_mask(tmp_path / "mask.png", 16, 36)
    assert larger.tolist() == np.kron(mask, np.ones((2, 2), np.uint8)).tolist()
