"""Scores in the pipeline: workers, one process and the benchmark's own evaluation give the same values."""

import json
from pathlib import Path

import numpy as np
import pytest
from bad_place import a_mask, an_image
from conftest import untracked

from pipelines.evaluation_scores import (
    COLUMNS,
    ScoredVideo,
    count_videos,
    csv_text,
    frame_rows,
    score_predictions,
    scoring_cluster,
    summarize_videos,
)
from pipelines.params import Layout
from ssvos.config.variants import Params, params_from
from ssvos.data.index import write_index
from ssvos.data.preparation import prepare, source_roots
from ssvos.labels import read_labels, write_labels
from ssvos.metrics import evaluate_davis2017, evaluate_youtube_vos

LAYOUT = Layout("tiny")
DAVIS = {"name": "dense", "layout": "davis", "root": "set"}
YOUTUBE = {"name": "late", "layout": "youtube-vos", "root": "yt"}
FOLDERS = {"dense": Path("set/Annotations/480p"), "late": Path("yt/val/Annotations")}
META = {"1": {"category": "cat", "frames": ["00000"]}, "2": {"category": "dog", "frames": ["00002"]}}


def write_video(images: Path, masks: Path, first: int = 0, late: int = 0) -> None:
    """Write six frames of moving objects 1 and 2; object 2 appears at frame `late`."""
    for t in range(6):
        an_image(images / f"{t:05d}.jpg", first + t)
        mask = a_mask(1, 2) if t >= late else a_mask(1)
        write_labels(masks / f"{t:05d}.png", np.roll(mask, t, axis=1))


def predict(masks: Path, out: Path, shift: int) -> None:
    """Write the true masks, moved down by `shift` pixels."""
    for path in sorted(masks.rglob("*.png")):
        write_labels(out / path.relative_to(masks), np.roll(read_labels(path), shift, axis=0))


@pytest.fixture
def params(tmp_path, monkeypatch) -> Params:
    """Two sources with two evaluation videos each; predictions `near` and `far` from the true masks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for k, name in enumerate("abcd"):
        write_video(Path("set/JPEGImages/480p") / name, Path("set/Annotations/480p") / name, 10 * k)
        split = Path("yt/train" if name in "ab" else "yt/val")
        write_video(split / "JPEGImages" / f"y{name}", split / "Annotations" / f"y{name}", 50 + 10 * k, late=2)
    for split, names in (("train", "ab"), ("val", "cd")):
        listed = Path("set/ImageSets/2017") / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names) + "\n")
        videos = {f"y{name}": {"objects": META if split == "val" else {"1": META["1"]}} for name in names}
        Path(f"yt/{split}/meta.json").write_text(json.dumps({"videos": videos}))
    values = {"data": {"name": "tiny", "sources": [DAVIS, YOUTUBE], "holdout_fraction": 0.5}, "variants": {"ours": {}}}
    params = params_from(values, "params.yaml")
    write_index(prepare(params.base, source_roots(params.base, Path()), untracked), LAYOUT.index)
    for name, shift in (("near", 1), ("far", 5)):
        for folder in FOLDERS.values():
            predict(folder, Path(name), shift)
    return params


def score(params: Params, monkeypatch, workers: str, *names: str) -> dict[str, list[ScoredVideo]]:
    monkeypatch.setenv("SSVOS_WORKERS", workers)
    done = []
    with scoring_cluster(LAYOUT):
        videos = score_predictions(params.base, LAYOUT, {name: Path(name) for name in names}, lambda: done.append(1))
    assert len(done) == len(names) * count_videos(LAYOUT)
    return videos


def test_workers_and_one_process_give_identical_scores(params, monkeypatch):
    in_process = score(params, monkeypatch, "0", "near", "far")
    by_workers = score(params, monkeypatch, "", "near", "far")
    for name in ("near", "far"):
        summaries = [summarize_videos(params.base, LAYOUT, videos[name]) for videos in (by_workers, in_process)]
        assert summaries[0] == summaries[1]
        assert list(frame_rows(by_workers[name])) == list(frame_rows(in_process[name]))
    assert [video.sequence for video in by_workers["near"]] == ["c", "d", "yc", "yd"]
    # a worker's error names the file in the stage's folder
    (Path("far/c") / "00002.png").write_bytes(b"no mask")
    with pytest.raises(ValueError, match=r"^far/c/00002\.png: not a readable image"):
        score(params, monkeypatch, "", "far")


def test_the_summary_equals_the_benchmarks_evaluation(params, monkeypatch):
    summary = summarize_videos(params.base, LAYOUT, score(params, monkeypatch, "0", "near")["near"])
    assert list(summary) == ["dense", "late"]
    dense = evaluate_davis2017(FOLDERS["dense"], Path("near"), ["c", "d"])
    late = evaluate_youtube_vos(FOLDERS["late"], Path("near"), Path("yt/val/meta.json"), Path("yt/train/meta.json"))
    for name, benchmark in (("dense", dense), ("late", late)):
        assert {key: summary[name][key] for key in ("global", "objects")} == benchmark
    assert summary["late"]["global"]["J_seen"] is not None and summary["late"]["global"]["J_unseen"] is not None


def test_every_scored_object_and_frame_has_a_row(params, monkeypatch):
    videos = score(params, monkeypatch, "0", "near")["near"]
    rows = list(frame_rows(videos))
    assert all(tuple(row) == COLUMNS for row in rows)
    frames = {key: [] for key in [("c", 1), ("c", 2), ("d", 1), ("d", 2), ("yc", 1), ("yc", 2), ("yd", 1), ("yd", 2)]}
    for row in rows:
        frames[row["sequence"], row["object"]].append(int(row["frame"]))
    # DAVIS omits the first and last frame; YouTube-VOS omits an object's first frame and those before it
    for (sequence, object_id), numbers in frames.items():
        assert numbers == ([1, 2, 3, 4] if sequence in "cd" else [*range(object_id * 2 - 1, 6)])
    scores = {row["J"] for row in rows if row["sequence"] == "c" and row["object"] == 1}
    assert scores == {f"{11 / 13:.6g}"}, "boxes of 12 x 6 pixels, one row apart"
    sizes = {(float(row["area"]), float(row["width"])) for row in rows}
    assert sizes == {(72 / (48 * 64), 0.104167)}, "12 x 6 of 48 x 64 pixels: 5 of 48 pixels high at its widest"


def test_a_csv_file_has_its_first_columns_and_those_of_its_rows():
    assert csv_text([], ("source", "object")) == "source,object\n"
    assert csv_text([{"source": "s", "J": 1}, {"source": "t", "seen": 2}], ("source",)) == "source,J,seen\ns,1,\nt,,2\n"


def test_without_a_video_to_score_no_cluster_starts(params, monkeypatch):
    monkeypatch.setattr("pipelines.evaluation_scores.evaluation_videos", lambda _: [])
    monkeypatch.setattr("pipelines.evaluation_scores.cluster_or_process", lambda: pytest.fail("a cluster started"))
    assert score(params, monkeypatch, "", "near") == {"near": []}
    assert summarize_videos(params.base, LAYOUT, []) == {}
