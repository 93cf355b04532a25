"""Reading the folder layouts: the frames, masks and scribbles of a video."""

import json
from pathlib import Path

import pytest

from ssvos.config import SourceConfig
from ssvos.data.videos import FaultyData, natural_key, read_sequences, read_source


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def source(root: Path, layout: str = "davis", **more) -> SourceConfig:
    return SourceConfig(name="set", layout=layout, root=str(root), **more)


PAIRS = "/JPEGImages/480p/b/00000.jpg /Annotations/480p/b/00000.png\n/JPEGImages/480p/b/00001.jpg /x\n"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("ImageSets/2017/train.txt", "b\na\n"),
        ("ImageSets/2016/train.txt", "b\r\na\r\n\r\n"),
        ("ImageSets/train.txt", "\ufeffb\na"),
        ("ImageSets/480p/train.txt", PAIRS + "/JPEGImages/480p/a/00000.jpg /Annotations/480p/a/00000.png\n"),
    ],
)
def test_every_format_of_davis_list_gives_its_sequences_in_order(tmp_path, path, text):
    write(tmp_path / path, text)
    assert read_sequences(source(tmp_path), "train") == ["b", "a"]


def test_the_2017_list_takes_precedence_over_the_2016_list(tmp_path):
    write(tmp_path / "ImageSets/2016/train.txt", "old\n")
    write(tmp_path / "ImageSets/2017/train.txt", "new\n")
    assert read_sequences(source(tmp_path), "train") == ["new"]


@pytest.mark.parametrize("layout", ["davis", "embedded"])
def test_davis_frames_have_their_masks_and_natural_order(tmp_path, layout):
    write(tmp_path / "ImageSets/2017/train.txt", "a\n")
    touch(tmp_path, *(f"JPEGImages/480p/a/{n}.jpg" for n in ("f10", "f9", "._f9")), "Annotations/480p/a/f9.png")
    (video,) = read_source(source(tmp_path, layout), "train")
    assert (video.dataset, video.split, video.sequence) == ("set", "train", "a")
    assert [frame.name for frame in video.frames] == ["f9", "f10"]
    assert video.frames[0].image_path == "JPEGImages/480p/a/f9.jpg"
    assert video.frames[0].mask_path == "Annotations/480p/a/f9.png"
    assert video.frames[1].mask_path is None and video.needs_masks


@pytest.mark.parametrize("folder", ["Scribbles", "Scribbles/480p"])
def test_a_davis_sequence_with_scribbles_needs_no_masks(tmp_path, folder):
    write(tmp_path / "ImageSets/2017/train.txt", "a\n")
    touch(
        tmp_path,
        "JPEGImages/480p/a/0.jpg",
        "JPEGImages/480p/a/1.jpg",
        f"{folder}/a/0.png",
        f"{folder}/a/001.json",
    )
    (video,) = read_source(source(tmp_path), "train")
    assert [frame.scribble_path for frame in video.frames] == [f"{folder}/a/0.png", None]
    assert [frame.mask_path for frame in video.frames] == [None, None]
    assert not video.needs_masks


def test_a_frame_may_have_both_a_mask_and_a_scribble(tmp_path):
    write(tmp_path / "ImageSets/2017/train.txt", "a\n")
    touch(tmp_path, "JPEGImages/480p/a/0.jpg", "Annotations/480p/a/0.png", "Scribbles/a/0.png")
    (frame,) = read_source(source(tmp_path), "train")[0].frames
    assert (frame.mask_path, frame.scribble_path) == ("Annotations/480p/a/0.png", "Scribbles/a/0.png")


def test_youtube_vos_reads_sparse_masks_and_late_objects(tmp_path):
    objects = {"1": {"category": "cat", "frames": ["00000"]}, "2": {"category": "dog", "frames": ["00005"]}}
    write(tmp_path / "valid/meta.json", json.dumps({"videos": {"v": {"objects": objects}}}))
    touch(tmp_path, *(f"valid/JPEGImages/v/0000{n}.jpg" for n in range(7)))
    touch(tmp_path, "valid/Annotations/v/00000.png", "valid/Annotations/v/00005.png")
    (video,) = read_source(source(tmp_path, "youtube-vos"), "valid")
    assert [frame.name for frame in video.frames if frame.mask_path] == ["00000", "00005"]
    assert video.frames[5].mask_path == "valid/Annotations/v/00005.png"
    assert video.categories == {1: "cat", 2: "dog"} and video.object_frames[2] == ("00005",)
    assert len(video.frames) == 7 and not video.needs_masks


def test_a_folder_source_reads_a_list_or_all_sequences(tmp_path):
    touch(tmp_path, "frames/my b/1.png", "frames/a/1.JPG", "masks/a/1.png", "scribbles/my b/1.png")
    write(tmp_path / "train.txt", "my b\n")
    (video,) = read_source(source(tmp_path, "folder"), "train")
    assert video.frames[0].scribble_path == "scribbles/my b/1.png"
    assert [video.sequence for video in read_source(source(tmp_path, "folder"), "all")] == ["a", "my b"]


@pytest.mark.parametrize("layout", ["davis", "folder", "youtube-vos"])
def test_an_unknown_list_is_rejected_with_the_existing_lists(tmp_path, layout):
    for path in ("ImageSets/2016/fit.txt", "fit.txt"):
        write(tmp_path / path, "a\n")
    write(tmp_path / "fit/meta.json", json.dumps({"videos": {}}))
    with pytest.raises(FaultyData, match=r"train.*choose one of.*fit") as error:
        read_sequences(source(tmp_path, layout), "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "{}", '{"videos": {"v": {"objects": {"one": {"category": "x"}}}}}'])
def test_an_invalid_meta_json_is_rejected_by_name(tmp_path, text):
    write(tmp_path / "train/meta.json", text)
    with pytest.raises(FaultyData, match=r"meta\.json"):
        read_source(source(tmp_path, "youtube-vos"), "train")


def test_a_missing_root_is_rejected_by_name(tmp_path):
    with pytest.raises(FaultyData, match="nowhere"):
        read_source(source(tmp_path / "nowhere"), "train")


def test_natural_order_compares_numbers_by_value():
    assert sorted(["f10", "f9", "9", "10a", "a"], key=natural_key) == ["9", "10a", "a", "f9", "f10"]
