"""`ssvos split`: training and held-out videos, and that the scorer finds the same seen and unseen categories."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ssvos.cli import app
from ssvos.config import SourceConfig
from ssvos.data.index import build_index
from ssvos.labels import write_labels
from ssvos.metrics.youtube_vos import evaluate_youtube_vos, read_meta

FRAMES = ["00000", "00005", "00010"]


def meta_of(categories_of: dict[str, list[str]]) -> dict:
    """The content of a meta.json in which objects 1, 2, ... of each video have these categories."""
    videos = {
        video: {"objects": {str(k): {"category": c, "frames": FRAMES} for k, c in enumerate(own, 1)}}
        for video, own in categories_of.items()
    }
    return {"videos": videos}


def many(num_videos: int = 200, num_categories: int = 20) -> dict[str, list[str]]:
    """Videos with one to three of many categories; most have a person."""
    rng = random.Random(3)
    names = [f"kind-{k:02d}" for k in range(num_categories)]
    categories_of = {f"{k:05x}": rng.sample(names, rng.choice((1, 1, 2))) for k in range(num_videos)}
    for video in rng.sample(sorted(categories_of), num_videos * 6 // 10):
        categories_of[video].append("person")
    return categories_of


def write_meta(folder: Path, content: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(content))
    return folder / "meta.json"


def split(meta: Path, out: Path, *more: object):
    return CliRunner().invoke(app, ["split", str(meta), str(out), *map(str, more)])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def categories(meta: Path) -> set[str]:
    return {item.category for items in read_meta(meta).values() for item in items}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_video_is_in_both_lists_and_no_unseen_category_is_in_training(tmp_path, seed):
    categories_of = many()
    done = split(write_meta(tmp_path / "all", meta_of(categories_of)), tmp_path / "out", "--seed", seed)
    assert done.exit_code == 0, done.output
    train, valid = (read_meta(tmp_path / f"out/{name}/meta.json") for name in ("train", "valid"))
    assert not train.keys() & valid.keys() and train.keys() | valid.keys() == categories_of.keys()
    for name, videos in (("train", train), ("valid", valid)):
        assert (tmp_path / f"out/{name}.txt").read_text().split() == sorted(videos)
        for video, items in videos.items():
            assert [item.category for item in items] == categories_of[video] and items[0].frames == frozenset(FRAMES)
    trained = {c for video in train for c in categories_of[video]}
    unseen = {c for video in valid for c in categories_of[video]} - trained
    assert len(unseen) == round(0.29 * 21)  # 20 kinds and the person, which has too many videos to be held out
    assert "person" in trained
    with_unseen = {video for video in categories_of if set(categories_of[video]) & unseen}
    assert with_unseen <= valid.keys() and len(with_unseen) <= len(categories_of) / 2  # preferably 0.29
    assert len(valid) - len(with_unseen) == round(0.1 * (len(categories_of) - len(with_unseen)))
    about = json.loads((tmp_path / "out/split.json").read_text())
    assert set(about["unseen"]) == unseen and set(about["seen"]) == trained
    assert set(about["valid_unseen"]) == with_unseen


def test_the_same_seed_gives_the_same_bytes_for_any_order_of_keys(tmp_path):
    content = meta_of(many())
    videos = list(content["videos"].items())
    random.Random(0).shuffle(videos)
    shuffled = {"videos": {v: {"objects": dict(reversed(entry["objects"].items()))} for v, entry in videos}}
    assert list(shuffled["videos"]) != list(content["videos"])
    for out, meta, seed in (("a", content, 4), ("b", shuffled, 4), ("c", content, 5)):
        assert split(write_meta(tmp_path / f"{out}-all", meta), tmp_path / out, "--seed", seed).exit_code == 0
    assert files(tmp_path / "a") == files(tmp_path / "b") and len(files(tmp_path / "a")) == 5
    assert files(tmp_path / "a")["train.txt"] != files(tmp_path / "c")["train.txt"]


def test_a_category_that_occurs_only_with_an_unseen_one_becomes_unseen(tmp_path):
    """Only videos with a kayak have a paddle, so holding out the kayak holds out both."""
    categories_of = {f"k{k}": ["kayak", "paddle"] for k in range(3)} | {f"c{k}": [f"kind{k % 4}"] for k in range(20)}
    drawn = set()
    for seed in range(8):
        out = tmp_path / str(seed)
        done = split(write_meta(tmp_path / "all", meta_of(categories_of)), out, "--unseen-share", 0.34, "--seed", seed)
        assert done.exit_code == 0, done.output
        trained, held_out = categories(out / "train/meta.json"), categories(out / "valid/meta.json")
        unseen = json.loads((out / "split.json").read_text())["unseen"]
        assert sorted(held_out - trained) == unseen and len(unseen) == 2
        assert ("kayak" in trained) == ("paddle" in trained)
        drawn |= set(unseen)
    assert "kayak" in drawn


def test_every_seen_category_keeps_a_training_video(tmp_path):
    categories_of = {f"v{k}": [f"kind{k // 2}"] for k in range(20)}
    done = split(write_meta(tmp_path / "all", meta_of(categories_of)), tmp_path / "out", "--val-share", 0.9)
    assert done.exit_code == 0, done.output
    about = json.loads((tmp_path / "out/split.json").read_text())
    assert categories(tmp_path / "out/train/meta.json") == set(about["seen"]) and len(about["seen"]) == 7
    assert len(about["valid_seen"]) == 7  # one of each pair, although --val-share is 0.9


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A training set with frames and masks, six videos of three categories."""
    categories_of = {f"v{k}": [("cat", "dog", "owl")[k // 2]] for k in range(6)}
    for video in categories_of:
        for frame in FRAMES:
            mask = np.zeros((40, 60), np.uint8)
            mask[10:20, 10:30] = 1
            write_labels(tmp_path / f"YT/train/Annotations/{video}/{frame}.png", mask)
            image = tmp_path / f"YT/train/JPEGImages/{video}/{frame}.png"
            write_labels(image, mask)
    return write_meta(tmp_path / "YT/train", meta_of(categories_of))


def test_the_split_is_a_data_set_for_the_loader_and_the_scorer(dataset, tmp_path):
    before = files(tmp_path / "YT")
    out = tmp_path / "heldout"
    assert split(dataset, out).exit_code == 0
    assert files(tmp_path / "YT") == before
    index = build_index([SourceConfig(name="yt", layout="youtube-vos", root=str(out), train="train", val="valid")])
    for name in ("train", "valid"):
        listed = {row["sequence"] for row in index.to_pylist() if row["split"] == name}
        assert listed == set((out / f"{name}.txt").read_text().split()) and listed
        assert {path.name for path in (out / name / "Annotations").iterdir()} == listed
    truth, metas = out / "valid/Annotations", (out / "valid/meta.json", out / "train/meta.json")
    scores = evaluate_youtube_vos(truth, truth, *metas)
    assert scores["global"] == {"G": 1.0, "J_seen": 1.0, "J_unseen": 1.0, "F_seen": 1.0, "F_unseen": 1.0}
    unseen = json.loads((out / "split.json").read_text())["unseen"]
    of_video = {f"v{k}_1": ("cat", "dog", "owl")[k // 2] for k in range(6)}
    assert scores["objects"] and len(unseen) == 1
    assert all(score["seen"] == (of_video[name] not in unseen) for name, score in scores["objects"].items())


def test_an_existing_folder_is_not_changed(dataset, tmp_path):
    (tmp_path / "out").mkdir()
    done = split(dataset, tmp_path / "out")
    assert isinstance(done.exception, FileExistsError) and not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("categories_of", "words"),
    [
        ({"v0": ["cat"], "v1": ["cat"]}, "too few categories, 1; at least 2"),
        ({}, "too few categories, 0"),
        ({f"v{k}": ["cat", "dog"] for k in range(9)}, "holding out any category leaves less than half of the videos"),
        ({"v0": ["cat"], "v1": ["dog"]}, "every video is the only one of a seen category"),
        ({"../v0": ["cat"], "v1": ["dog"]}, "'../v0' is not the name of a video"),
    ],
)
def test_too_few_videos_give_a_one_line_error_and_nothing_is_written(tmp_path, categories_of, words):
    meta = write_meta(tmp_path / "all", meta_of(categories_of))
    done = split(meta, tmp_path / "out")
    assert isinstance(done.exception, ValueError) and words in str(done.exception)
    assert str(done.exception).startswith(f"{meta}: ") and "\n" not in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all"]


@pytest.mark.parametrize("option", ["--unseen-share", "--val-share"])
@pytest.mark.parametrize("share", ["0", "1", "-0.2", "nan"])
def test_a_share_outside_0_to_1_is_refused(tmp_path, option, share):
    done = split(write_meta(tmp_path / "all", meta_of(many())), tmp_path / "out", option, share)
    assert isinstance(done.exception, ValueError)
    assert str(done.exception).startswith(f"{option} {share}: is not a share")


def test_nothing_is_left_after_a_failure(dataset, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", full)
    assert isinstance(split(dataset, tmp_path / "out").exception, OSError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["YT"]
    shutil.rmtree(tmp_path / "YT")
