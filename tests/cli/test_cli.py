"""The command line: its output files, exit statuses, and one line for bad input."""

import hashlib
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ssvos import cli
from ssvos.config import ModelConfig, PredictConfig, parse, read_yaml
from ssvos.data.video_file import VideoWriter, read_video
from ssvos.inference import segment_video
from ssvos.inference.segment_video import DEFAULT_PREDICT
from ssvos.labels import read_labels, write_labels
from ssvos.models.checkpoint import BUNDLED, load_checkpoint, save_checkpoint
from ssvos.models.network import Network

ORACLE = Path(__file__).parents[1] / "oracle" / "metrics"
PROJECT = Path(__file__).parents[2]


def call(*arguments) -> subprocess.CompletedProcess:
    """Run the command in this process, which has imported PyTorch; test_wheel.py runs it as a program."""
    command, out, err = ["ssvos", *map(str, arguments)], io.StringIO(), io.StringIO()
    status: object = 0
    with mock.patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
    return subprocess.CompletedProcess(command, int(status), out.getvalue(), err.getvalue())


def fails(message: str, *arguments) -> None:
    done = call(*arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Frames, a scribble and a checkpoint of a small random network."""
    folder = tmp_path_factory.mktemp("clip")
    rng = np.random.default_rng(0)
    (folder / "frames").mkdir()
    for t in range(4):
        frame = np.full((50, 70, 3), 60, np.uint8)
        frame[10:30, 10 + 5 * t : 30 + 5 * t] = (200, 80, 30)
        noisy = np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "frames" / f"{t:05d}.png"), noisy)
    scribble = np.full((50, 70), 255, np.uint8)
    scribble[19:21, 15:25], scribble[45:47] = 1, 0
    write_labels(folder / "scribble.png", scribble)
    model = ModelConfig(
        backbone={"name": "resnet18", "width": 8, "norm": "group"},
        appearance={"channels": 8},
        propagation_channels=8,
        fusion_channels=8,
        encoding_channels=8,
    )
    save_checkpoint(folder / "checkpoint.pt", Network(model).state_dict(), model, {"height": 48, "width": 64})
    return folder


def segment(clip, out, *more, source="frames", scribble="scribble.png"):
    options = ("--scribble", clip / scribble, "--checkpoint", clip / "checkpoint.pt", "--out", out)
    return call("segment", clip / source, *options, *more)


def test_version_and_help_of_every_command():
    assert call("--version").stdout.startswith("ssvos 0.")
    for command in ("scribble", "evaluate", "segment", "fit"):
        done = call(command, "--help")
        assert done.returncode == 0 and "Example: ssvos" in done.stdout


def test_an_unknown_option_is_a_usage_error():
    assert call("scribble", "--wdth", "5").returncode == 2


def test_segment_writes_a_palette_png_per_frame_and_a_readable_overlay(clip, tmp_path):
    done = segment(clip, tmp_path, "--overlay")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [*(f"{t:05d}.png" for t in range(4)), "overlay.mp4"]
    with Image.open(tmp_path / "00002.png") as image:
        assert image.mode == "P" and image.size == (70, 50)
    assert [frame.shape for frame in read_video(tmp_path / "overlay.mp4")] == [(50, 70, 3)] * 4


def test_a_video_file_gives_one_mask_per_frame(clip, tmp_path):
    with VideoWriter(clip / "clip.mp4", rate=12) as writer:
        for path in sorted((clip / "frames").iterdir()):
            writer.write(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))
    assert segment(clip, tmp_path, source="clip.mp4").returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{t:05d}.png" for t in range(4)]


def test_segmentation_starts_at_the_frame_of_a_davis_interactive_scribble(clip, tmp_path):
    strokes = [
        [],
        [{"path": [[0.2, 0.4], [0.35, 0.4]], "object_id": 1}, {"path": [[0.1, 0.9], [0.9, 0.9]], "object_id": 0}],
    ]
    (clip / "strokes.json").write_text(json.dumps({"sequence": "clip", "scribbles": [*strokes, [], []]}))
    assert segment(clip, tmp_path, scribble="strokes.json").returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{t:05d}.png" for t in range(1, 4)]


def test_without_a_checkpoint_segment_uses_the_bundled_one(clip, tmp_path):
    """The square moves. The network was trained neither on such videos nor on real ones."""
    done = call("segment", clip / "frames", "--scribble", clip / "scribble.png", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for t in range(4):
        mask, truth = read_labels(tmp_path / f"{t:05d}.png"), np.zeros((50, 70), bool)
        truth[10:30, 10 + 5 * t : 30 + 5 * t] = True
        assert ((mask == 1) & truth).sum() / ((mask == 1) | truth).sum() > 0.5


def test_segment_without_a_network_propagates_labels(clip, tmp_path):
    method = ("--method", "label-propagation")
    done = call("segment", clip / "frames", "--scribble", clip / "scribble.png", "--out", tmp_path, *method)
    assert done.returncode == 0, done.stderr
    for t in range(4):
        mask, truth = read_labels(tmp_path / f"{t:05d}.png"), np.zeros((50, 70), bool)
        truth[10:30, 10 + 5 * t : 30 + 5 * t] = True
        assert ((mask == 1) & truth).sum() / ((mask == 1) | truth).sum() > 0.6
    refused = segment(clip, tmp_path / "out", *method)
    assert refused.returncode == 1 and "label propagation uses no checkpoint; leave out one" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_without_options_segment_uses_DEFAULT_PREDICT(clip, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(segment_video, "segment_video", lambda *args, **kwargs: used.extend([*args, *kwargs.values()]))
    CliRunner().invoke(cli.app, ["segment", str(clip / "frames"), "--scribble", "s.png", "--out", str(tmp_path)])
    assert [one for one in used if isinstance(one, PredictConfig)] == [DEFAULT_PREDICT]


def test_the_bundled_checkpoint_is_that_of_the_model_card_and_of_the_evaluated_row():
    content = BUNDLED.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    card = (PROJECT / "docs/model-card.md").read_text()
    row = read_yaml(PROJECT / "studies/davis2016/checkpoints.yaml")["imagenet_roi"]
    assert f"`{digest}`" in card and row["sha256"] == digest and len(content) < 16e6
    assert parse(PredictConfig, row["predict"] | {"height": 0, "width": 0}, "checkpoints.yaml") == DEFAULT_PREDICT
    score = json.loads((PROJECT / "studies/davis2016/results/imagenet_roi.json").read_text())["global"]["J&F-Mean"]
    assert f"**{100 * score:.1f}**" in card
    network, info = load_checkpoint(BUNDLED)
    assert info.size == (row["predict"]["height"], row["predict"]["width"])
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_segment_reports_bad_input_and_writes_nothing(clip, tmp_path):
    checkpoint, out = clip / "checkpoint.pt", tmp_path / "out"
    rest = ("--checkpoint", checkpoint, "--out", out)
    fails("no such file", "segment", clip / "nowhere", "--scribble", clip / "scribble.png", *rest)
    empty = tmp_path / "empty.png"
    write_labels(empty, np.full((50, 70), 255, np.uint8))
    fails("no object stroke", "segment", clip / "frames", "--scribble", empty, *rest)
    small = tmp_path / "small.png"
    write_labels(small, np.ones((20, 20), np.uint8))
    fails("scribble is 20x20, the frames are 50x70", "segment", clip / "frames", "--scribble", small, *rest)
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"no checkpoint")
    one = ("segment", clip / "frames", "--scribble", clip / "scribble.png")
    fails("bad.pt: not a checkpoint", *one, "--checkpoint", bad, "--out", out)
    fails("device 'tpu'", *one, *rest, "--device", "tpu")
    assert not out.exists()


def test_scribbles_are_inside_the_masks_and_the_same_for_the_same_seed(tmp_path):
    mask = np.zeros((60, 80), np.uint8)
    mask[15:45, 20:60] = 1
    write_labels(tmp_path / "masks/a/00000.png", mask)
    for out in ("one", "two"):
        assert call("scribble", tmp_path / "masks", tmp_path / out, "--width", 3).returncode == 0
    drawn = read_labels(tmp_path / "one/a/00000.png")
    assert set(np.unique(drawn)) == {0, 1, 255} and (mask[drawn == 1] == 1).all() and (mask[drawn == 0] == 0).all()
    assert (tmp_path / "one/a/00000.png").read_bytes() == (tmp_path / "two/a/00000.png").read_bytes()


def test_a_broken_mask_stops_scribble_before_anything_is_written(tmp_path):
    write_labels(tmp_path / "masks/a/00000.png", np.ones((9, 9), np.uint8))
    (tmp_path / "masks/a/00001.png").write_bytes(b"PNG?")
    fails("00001.png", "scribble", tmp_path / "masks", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["c02_shifted", "c12_late_objects"])
def test_evaluate_writes_the_exact_scores(case, tmp_path):
    split = tmp_path / "split.txt"
    split.write_text(case + "\n")
    folders = (ORACLE / "davis/Annotations/480p", ORACLE / "davis/results")
    done = call("evaluate", *folders, "--split", split, "--json", tmp_path / "scores.json")
    assert done.returncode == 0 and "J&F-Mean" in done.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    expected = json.loads((ORACLE / f"expected/{case}.json").read_text())["davis2017_semi_supervised"]
    for key, value in scores["global"].items():
        assert value == pytest.approx(expected["global"][key], abs=1e-9)
    assert set(scores["objects"]) == set(expected["objects"])


def test_evaluate_refuses_a_missing_frame_and_leaves_earlier_scores(tmp_path):
    write_labels(tmp_path / "gt/a/00000.png", np.ones((9, 9), np.uint8))
    for t in (1, 2):
        write_labels(tmp_path / f"gt/a/{t:05d}.png", np.ones((9, 9), np.uint8))
    (tmp_path / "pred/a").mkdir(parents=True)
    (tmp_path / "scores.json").write_text("{}")
    fails("00001.png", "evaluate", tmp_path / "gt", tmp_path / "pred", "--json", tmp_path / "scores.json")
    assert (tmp_path / "scores.json").read_text() == "{}"


def test_youtube_vos_without_its_meta_files_is_a_usage_error(tmp_path):
    done = call("evaluate", tmp_path, tmp_path, "--protocol", "youtube-vos", "--json", tmp_path / "s.json")
    assert done.returncode == 2 and "--meta" in done.stderr


def test_fit_names_an_unknown_key(tmp_path):
    (tmp_path / "fit.yaml").write_text("data: {name: a, sources: [{name: e, layout: embedded}]}\nfit: {ot: x}\n")
    fails("fit.ot: unknown key, did you mean out?", "fit", tmp_path / "fit.yaml")
