"""Scores in the pipeline: the same from Ray's workers as from one process, and as the benchmark's own evaluation."""

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
    figures,
    frame_rows,
    score_predictions,
    workers,
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
    """Six frames of objects 1 and 2, the second from frame `late` on, drifting."""
    for t in range(6):
        an_image(images / f"{t:05d}.jpg", first + t)
        mask = a_mask(1, 2) if t >= late else a_mask(1)
        write_labels(masks / f"{t:05d}.png", np.roll(mask, t, axis=1))


def predict(masks: Path, to: Path, by: int) -> None:
    for path in sorted(masks.rglob("*.png")):
        write_labels(to / path.relative_to(masks), np.roll(read_labels(path), by, axis=0))


@pytest.fixture
def params(tmp_path, monkeypatch) -> Params:
    """Two sources, two judged videos in each; answers `near` and `far`."""
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
    for answer, by in (("near", 1), ("far", 5)):
        for folder in FOLDERS.values():
            predict(folder, Path(answer), by)
    return params


def scored(params: Params, monkeypatch, processes: str, *names: str) -> dict[str, list[ScoredVideo]]:
    monkeypatch.setenv("SSVOS_WORKERS", processes)
    done = []
    with workers(LAYOUT):
        found = score_predictions(params.base, LAYOUT, {name: Path(name) for name in names}, lambda: done.append(1))
    assert len(done) == len(names) * count_videos(LAYOUT)
    return found


def test_workers_give_what_one_process_gives_to_the_last_bit(params, monkeypatch):
    here = scored(params, monkeypatch, "0", "near", "far")
    spread = scored(params, monkeypatch, "", "near", "far")
    for name in ("near", "far"):
        assert figures(params.base, LAYOUT, spread[name]) == figures(params.base, LAYOUT, here[name])
        assert list(frame_rows(spread[name])) == list(frame_rows(here[name]))
    assert [one.sequence for one in spread["near"]] == ["c", "d", "yc", "yd"]
    # a fault that a worker finds names the file where it lies for the stage
    (Path("far/c") / "00002.png").write_bytes(b"no mask")
    with pytest.raises(ValueError, match=r"^far/c/00002\.png: not a readable image"):
        scored(params, monkeypatch, "", "far")


def test_the_figures_are_those_of_the_benchmarks_evaluation(params, monkeypatch):
    found = figures(params.base, LAYOUT, scored(params, monkeypatch, "0", "near")["near"])
    assert list(found) == ["dense", "late"]
    dense = evaluate_davis2017(FOLDERS["dense"], Path("near"), ["c", "d"])
    late = evaluate_youtube_vos(FOLDERS["late"], Path("near"), Path("yt/val/meta.json"), Path("yt/train/meta.json"))
    for name, benchmark in (("dense", dense), ("late", late)):
        assert {key: found[name][key] for key in ("global", "objects")} == benchmark
    assert found["late"]["global"]["J_seen"] is not None and found["late"]["global"]["J_unseen"] is not None


def test_every_object_and_frame_that_counts_has_a_row(params, monkeypatch):
    videos = scored(params, monkeypatch, "0", "near")["near"]
    rows = list(frame_rows(videos))
    assert all(tuple(row) == COLUMNS for row in rows)
    frames = {key: [] for key in [("c", 1), ("c", 2), ("d", 1), ("d", 2), ("yc", 1), ("yc", 2), ("yd", 1), ("yd", 2)]}
    for row in rows:
        frames[row["sequence"], row["object"]].append(int(row["frame"]))
    # DAVIS leaves out the first and the last, YouTube-VOS the frame at which the object enters and those before it
    assert all(own == ([1, 2, 3, 4] if key[0] in "cd" else [*range(key[1] * 2 - 1, 6)]) for key, own in frames.items())
    found = {row["J"] for row in rows if row["sequence"] == "c" and row["object"] == 1}
    assert found == {f"{11 / 13:.6g}"}, "boxes of 12 x 6 pixels, one row apart"
    sizes = {(float(row["area"]), float(row["width"])) for row in rows}
    assert sizes == {(72 / (48 * 64), 0.104167)}, "12 x 6 of 48 x 64 pixels: 5 of 48 high at its widest"


def test_a_csv_has_its_first_columns_without_rows_and_others_where_rows_bring_them():
    assert csv_text([], ("source", "object")) == "source,object\n"
    assert csv_text([{"source": "s", "J": 1}, {"source": "t", "seen": 2}], ("source",)) == "source,J,seen\ns,1,\nt,,2\n"


def test_nothing_to_score_starts_no_cluster(params, monkeypatch):
    monkeypatch.setattr("pipelines.evaluation_scores.evaluation_videos", lambda _: [])
    monkeypatch.setattr("pipelines.evaluation_scores.cluster", lambda: pytest.fail("no work for it"))
    assert scored(params, monkeypatch, "", "near") == {"near": []}
    assert figures(params.base, LAYOUT, []) == {}
