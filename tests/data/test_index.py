"""The index and its validation, on a tiny data set with one fault at a time."""

import hashlib
import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssvos.config import SourceConfig
from ssvos.data.index import (
    build_index,
    fingerprint_listing,
    hold_out,
    index_table,
    labelled_frames,
    list_videos,
    read_index,
    videos_of,
    write_index,
)
from ssvos.data.validation import index_video
from ssvos.data.videos import FaultyData
from ssvos.labels import write_labels

SIZE = (24, 40)


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


def make_mask(*objects: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, dtype=np.uint8)
    for object_id in objects:
        mask[2:8, 4 * object_id : 4 * object_id + 3] = object_id
    return mask


@pytest.fixture
def root(tmp_path) -> Path:
    """A DAVIS-layout folder: a and b for training, c for evaluation, three frames each."""
    root = tmp_path / "davis"
    for number, sequence in enumerate("abc"):
        for frame in range(3):
            write_image(root / f"JPEGImages/480p/{sequence}/{frame:05d}.jpg", seed=10 * number + frame)
            write_labels(root / f"Annotations/480p/{sequence}/{frame:05d}.png", make_mask(1, 2))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/train.txt").write_text("a\nb\n")
    (root / "ImageSets/2017/val.txt").write_text("c\n")
    return root


def source(root: Path, **more) -> SourceConfig:
    return SourceConfig(**{"name": "set", "layout": "davis", "root": str(root), **more})


def faults_of(root: Path, **more) -> list[str]:
    with pytest.raises(FaultyData) as error:
        build_index([source(root, **more)])
    assert all("\n" not in fault for fault in error.value.faults)
    return error.value.faults


def only_fault(root: Path, **more) -> str:
    (fault,) = faults_of(root, **more)
    return fault


def test_a_row_describes_the_files_of_a_frame(root):
    calls = []
    row = build_index([source(root)], on_frame=lambda: calls.append(1)).to_pylist()[4]
    image, mask = "JPEGImages/480p/b/00001.jpg", "Annotations/480p/b/00001.png"
    data = (root / image).read_bytes() + (root / mask).read_bytes()
    assert row == {
        "dataset": "set",
        "split": "train",
        "sequence": "b",
        "frame": "00001",
        "position": 1,
        "image_path": image,
        "mask_path": mask,
        "scribble_path": None,
        "height": 24,
        "width": 40,
        "objects": [1, 2],
        "categories": None,
        "fingerprint": hashlib.sha256(data).hexdigest()[:16],
    }
    assert len(calls) == 9


def test_an_index_survives_a_round_trip_and_groups_into_videos(root, tmp_path):
    table = build_index([source(root)])
    write_index(table, tmp_path / "index.parquet")
    assert read_index(tmp_path / "index.parquet").equals(table)
    videos = videos_of(table)
    assert [(video.split, video.sequence) for video in videos] == [
        ("train", "a"),
        ("train", "b"),
        ("val", "c"),
    ]
    assert [frame.name for frame in videos[2].frames] == ["00000", "00001", "00002"]
    assert videos[0].objects == videos[0].frames[1].objects == (1, 2)


def test_videos_indexed_separately_give_the_same_table(root):
    videos, faults = list_videos([source(root)])
    jobs = pickle.loads(pickle.dumps(videos))
    indexed = [index_video(*job) for job in reversed(jobs)]
    assert index_table(reversed(indexed), faults).equals(build_index([source(root)]))


def test_all_faults_are_reported_at_once(root):
    (root / "Annotations/480p/a/00001.png").unlink()
    (root / "JPEGImages/480p/b/00002.jpg").write_bytes(b"not an image")
    (root / "ImageSets/2017/val.txt").write_text("c\nghost\na\n")
    text = "\n".join(faults := faults_of(root))
    for expected in ("a/00001.jpg: has no mask", "b/00002.jpg: not a readable", "ghost", "a is in both"):
        assert expected in text
    assert len(faults) == 5  # a is in both lists


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("path", ["JPEGImages/480p/a/00001.jpg", "Annotations/480p/c/00002.png"])
def test_a_truncated_file_is_a_fault(root, path, share):
    data = (root / path).read_bytes()
    (root / path).write_bytes(data[: int(share * len(data))])
    assert only_fault(root).startswith(f"{root / path}: not a readable image")


def test_a_mask_of_another_size_than_its_frame_is_a_fault(root):
    write_labels(root / "Annotations/480p/a/00002.png", make_mask(1, size=(12, 20)))
    assert "mask is 12x20, its frame 24x40" in only_fault(root)


def test_a_frame_of_another_size_than_its_video_is_a_fault(root):
    write_image(root / "JPEGImages/480p/a/00002.jpg", size=(12, 20))
    write_labels(root / "Annotations/480p/a/00002.png", make_mask(1, size=(12, 20)))
    assert "frame is 12x20, the video's first is 24x40" in only_fault(root)


def test_an_rgb_mask_is_a_fault(root):
    write_image(root / "Annotations/480p/a/00000.png")
    assert "00000.png: a label image must be" in only_fault(root)


def test_only_the_first_mask_of_a_video_must_have_an_object(root):
    write_labels(root / "Annotations/480p/a/00001.png", make_mask())
    build_index([source(root)])
    write_labels(root / "Annotations/480p/a/00000.png", make_mask())
    assert "first mask has no object" in only_fault(root)


def test_a_label_without_its_frame_is_a_fault(root):
    write_labels(root / "Annotations/480p/a/3.png", make_mask(1))
    assert only_fault(root).startswith(f"{root}/Annotations/480p/a/3.png: no frame")


def test_a_listed_sequence_without_frames_or_without_labels_is_one_fault(root):
    shutil.rmtree(root / "JPEGImages/480p/c")
    shutil.rmtree(root / "Annotations/480p/c")
    assert "has no frames" in only_fault(root)
    shutil.copytree(root / "JPEGImages/480p/a", root / "JPEGImages/480p/c")
    assert "neither masks nor scribbles" in only_fault(root)


def test_an_unknown_list_is_a_fault_that_names_the_existing_lists(root):
    assert "choose one of train, val" in only_fault(root, val="test")


def test_one_list_for_training_and_evaluation_is_a_fault(root):
    assert "is both the train and the val list" in only_fault(root, val="train")


def test_two_sources_with_one_name_are_a_fault(root):
    with pytest.raises(FaultyData, match="set: two sources"):
        build_index([source(root), source(root)])


def test_a_held_out_list_may_be_part_of_the_training_list(root):
    (root / "ImageSets/2017/holdout.txt").write_text("b\n")
    table = build_index([source(root)], {"set": ["train", "holdout", "val"]})
    assert [video.split for video in videos_of(table)] == ["train", "train", "holdout", "val"]


def replace_masks_by_scribbles(root: Path) -> None:
    """Remove all masks, and add a scribble to the middle frame of each video."""
    shutil.rmtree(root / "Annotations")
    for sequence in "abc":
        scribble = np.where(make_mask(1) > 0, make_mask(1), 255).astype(np.uint8)
        scribble[20] = 0
        write_labels(root / f"Scribbles/{sequence}/00001.png", scribble)


def test_videos_with_one_scribble_and_no_mask_are_indexed(root):
    replace_masks_by_scribbles(root)
    table = build_index([source(root)])
    assert table["objects"].to_pylist() == [None, [1], None] * 3
    assert labelled_frames(table)["scribble_path"].to_pylist() == [f"Scribbles/{s}/00001.png" for s in "abc"]


@pytest.mark.parametrize("value", [0, 255])
def test_a_first_scribble_without_object_strokes_is_a_fault(root, value):
    replace_masks_by_scribbles(root)
    scribble = np.full(SIZE, 255, dtype=np.uint8)
    scribble[3] = value
    write_labels(root / "Scribbles/a/00001.png", scribble)
    assert "first scribble has no object" in only_fault(root)


def test_strokes_drawn_on_0_are_a_fault(root):
    replace_masks_by_scribbles(root)
    write_labels(root / "Scribbles/a/00001.png", make_mask(1))
    assert "draw strokes on 255" in only_fault(root)


def test_youtube_vos_has_unlabelled_frames_and_categories(tmp_path):
    for split, video in (("train", "t"), ("valid", "v")):
        for frame in ("00003", "00004", "00005"):
            write_image(tmp_path / split / f"JPEGImages/{video}/{frame}.jpg")
        write_labels(tmp_path / split / f"Annotations/{video}/00003.png", make_mask(1))
        write_labels(tmp_path / split / f"Annotations/{video}/00005.png", make_mask(1, 2))
        objects = {"1": {"category": "cat", "frames": []}, "2": {"category": "dog", "frames": ["00005"]}}
        (tmp_path / split / "meta.json").write_text(json.dumps({"videos": {video: {"objects": objects}}}))
    table = build_index([source(tmp_path, layout="youtube-vos", val="valid")])
    video = videos_of(table)[1]
    assert video.sequence == "v" and video.categories == {1: "cat", 2: "dog"}
    assert [frame.objects for frame in video.frames] == [(1,), None, (1, 2)]


def test_a_grey_davis_2016_mask_is_object_1(root):
    buffer = io.BytesIO()
    Image.fromarray((make_mask(1) * 255).astype(np.uint8)).save(buffer, format="PNG")
    for path in (root / "Annotations/480p/a").iterdir():
        path.write_bytes(buffer.getvalue())
    assert videos_of(build_index([source(root)]))[0].objects == (1,)


def test_the_listing_digest_depends_only_on_names_and_sizes(root):
    before = fingerprint_listing(root)
    path = root / "JPEGImages/480p/a/00000.jpg"
    data = path.read_bytes()
    path.write_bytes(data[::-1])
    assert fingerprint_listing(root) == before
    path.write_bytes(data + b"x")
    longer = fingerprint_listing(root)
    path.write_bytes(data)
    path.rename(path.with_name("9.jpg"))
    assert len({before, longer, fingerprint_listing(root)}) == 3


@pytest.mark.parametrize(("num", "fraction", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (30, 0.15, 4), (5, 0.99, 4)])
def test_at_least_one_sequence_is_held_out_and_never_all(num, fraction, expected):
    names = [f"s{idx}" for idx in range(num)]
    held_out = hold_out(names, fraction, seed=1)
    assert len(held_out) == expected and held_out < set(names)
    assert hold_out(names[::-1], fraction, seed=1) == held_out


def test_held_out_sequences_depend_on_the_seed_and_need_two_sequences():
    names = [f"s{idx}" for idx in range(30)]
    assert hold_out(names, 0.2, seed=0) != hold_out(names, 0.2, seed=1)
    with pytest.raises(ValueError, match="only"):
        hold_out(["only"], 0.2, seed=0)


def test_a_missing_or_invalid_index_is_rejected_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        read_index(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"bad\.parquet"):
        read_index(tmp_path / "bad.parquet")


@pytest.mark.skipif("SSVOS_REAL_DATA" not in os.environ, reason="SSVOS_REAL_DATA is not set")
def test_real_multi_object_clip_has_seven_objects_on_80_frames():
    root = Path(os.environ["SSVOS_REAL_DATA"]) / "multi-object"
    table = build_index([source(root)], {"set": ["val"]})
    assert table.num_rows == 80 and videos_of(table)[0].objects == (1, 2, 3, 4, 5, 6, 7)
