"""Bad input, everywhere: one line that names the file or key and the remedy, and not a byte changed on disk.

A fault is a function that spoils a small place of work; then the real command runs in this process. What it says must
stand in docs/errors.md, and what stands there must have been said in the end.
"""

import importlib
import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_place import (
    IMAGES,
    LISTS,
    MASKS,
    SIZE,
    a_mask,
    a_scribble,
    a_video,
    an_image,
    cut,
    drawn_alone,
    edit,
    fewer_frames,
    gone,
    make_place,
    one_more_video,
    one_turned,
    other_objects,
    other_source,
    renamed,
    scribble_before_mask,
    silent_sound,
    small_evaluation_frame,
    state_of_another,
    write,
)
from PIL import Image

from pipelines.cluster.worker_errors import bad_input
from pipelines.params import Layout
from pipelines.stage import run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.stage_records import Records
from pipelines.tune import search_folder, trial_config
from ssvos import cli
from ssvos.config.variants import merge, read_params
from ssvos.labels import write_labels

# what was said is looked at in the end, so that one process must run them all
TABLE = Path(__file__).parent.parent / "docs" / "errors.md"
SAID: list[str] = []  # every line that a command ended with


def quoted() -> dict[str, re.Pattern]:
    """The messages of docs/errors.md, which has … for what differs from case to case."""
    rows = re.findall(r"^\| .+? \| (`+)(.+?)\1 \| .+ \|$", TABLE.read_text(encoding="utf-8"), re.M)
    return {quote.strip(): re.compile(re.escape(quote.strip()).replace("…", ".+")) for _, quote in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    make_place(place)
    return place


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """One tracking store for all: making its tables takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        tracking.require_store()
    return uri


@pytest.fixture
def place(whole, database, tmp_path, monkeypatch) -> Path:
    shutil.copytree(whole, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    for name in ("RAY_ADDRESS", "SSVOS_LOADERS", "SSVOS_STORAGE", "SSVOS_WORKERS", "SSVOS_DEBUG", "DVC_ROOT"):
        monkeypatch.setenv(name, "")  # as if it were unset, and what a test sets is taken back
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    return tmp_path / "place"


def youtube(spoil: Callable[[], object] = lambda: None) -> Callable[[], None]:
    def change() -> None:
        source = {"name": "y", "layout": "youtube-vos", "root": "yt"}
        edit("params.yaml", data={"sources": [source], "holdout_split": ""})
        spoil()

    return change


PREPARE = "pipelines.prepare"
DATA = [
    (PREPARE, lambda: (gone("set"), Path("set").mkdir()), "set: contains no JPEGImages/, so its layout is not davis"),
    (PREPARE, lambda: gone("set/Annotations"), "set: contains neither Annotations/ nor Scribbles/"),
    (PREPARE, lambda: gone(f"{LISTS}/train.txt"), "train.txt: no such list; choose one of val"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "c\nghost\n"), "480p/ghost: listed in val, but has no frames"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "\n"), "val.txt: the list is empty"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", b"\xff\xfe\x00a"), "val.txt: not a text file"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "c\na\n"), "a is in both train and val"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "../x\n"), "val.txt: '../x' is not a sequence"),
    (PREPARE, lambda: write(f"{LISTS}/val.txt", "c/00000\n"), "val.txt: 'c/00000' is not a sequence"),
    (
        PREPARE,
        lambda: write(f"{LISTS}/train.txt", "a\n"),
        "a: too few training sequences to hold one out … data.holdout_split",
    ),
    (PREPARE, lambda: fewer_frames("a", 1), "480p/a: the video has only one frame"),
    (PREPARE, lambda: fewer_frames("c", 2), "480p/c: 2 annotated frames; at least 3 needed"),
    (PREPARE, lambda: write_labels(f"{MASKS}/a/00000.png", a_mask()), "a/00000.png: the video's first mask has no"),
    (PREPARE, lambda: cut(f"{MASKS}/a/00001.png"), "a/00001.png: not a readable image … as a palette PNG"),
    (PREPARE, lambda: cut(f"{IMAGES}/a/00001.jpg"), "a/00001.jpg: not a readable image (image file is truncated"),
    (PREPARE, lambda: write(f"{IMAGES}/a/00001.jpg", "x"), "a/00001.jpg: not a readable image (unknown format)"),
    (PREPARE, lambda: write_labels(f"{MASKS}/a/00001.png", a_mask(1, size=(24, 32))), "mask is 24x32, its frame 48x64"),
    (PREPARE, lambda: an_image(f"{MASKS}/a/00001.png"), "a/00001.png: a label image must be an 8-bit … is RGB"),
    (PREPARE, lambda: Image.new("I;16", SIZE).save(f"{MASKS}/a/00001.png"), "a/00001.png: a label … is I;16"),
    (PREPARE, lambda: an_image(f"{MASKS}/a/00001.png", format="JPEG"), "must be a PNG, this one is JPEG"),
    (
        PREPARE,
        lambda: write_labels(f"{MASKS}/a/9.png", a_mask(1)),
        "a/9.png: no frame has this name, or two images share it",
    ),
    (PREPARE, lambda: an_image(f"{IMAGES}/a/00001.png"), "a/00001.png: no frame has this name, or two images"),
    (PREPARE, lambda: gone(f"{MASKS}/a/00001.png"), "a/00001.jpg: has no mask; add 00001.png"),
    (PREPARE, lambda: renamed(f"{MASKS}/c/00001.png", ".PNG"), "c/00001.PNG: the suffix must be .png"),
    (PREPARE, lambda: write(f"{MASKS}/c/notes.txt"), "c/notes.txt: expected only annotations <frame>.png"),
    (PREPARE, one_turned, "a/00001.jpg: its EXIF orientation is 6; rotate the pixels"),
    (PREPARE, small_evaluation_frame, "c/00000.jpg: frame is 24x40, the network needs at least 32x32"),
    (PREPARE, other_objects, "Scribbles/c/00000.png: its object 3 is not in the frame's mask"),
    (PREPARE, scribble_before_mask, "c/00000.jpg: the first scribble of an evaluation video needs a mask"),
    (PREPARE, youtube(lambda: write("yt/val/meta.json", "{")), "val/meta.json: not a YouTube-VOS meta.json"),
    (PREPARE, youtube(lambda: write("yt/val/meta.json", '{"videos": {}}')), "val/meta.json: lists no video"),
    (PREPARE, youtube(lambda: write_labels("yt/val/Annotations/v/00002.png", a_mask(3))), "object 3 is not in "),
]


def two_sources(first: dict, second: dict) -> None:
    edit(
        "params.yaml", data={"sources": [{"name": "s", "layout": "davis", "root": "set"} | s for s in (first, second)]}
    )


def loss(**values) -> Callable[[], None]:
    return lambda: edit("params.yaml", loss=values)


def space(**ranges) -> Callable[[], None]:
    """Ranges by key, with `__` for the dots."""
    return lambda: edit("params.yaml", tune={"space": {key.replace("__", "."): r for key, r in ranges.items()}})


def tune(**values) -> Callable[[], None]:
    return lambda: edit("params.yaml", tune=values)


TUNE, WIDTH = "pipelines.tune", "model__fusion_channels"
GRID = {key: {"num": 3} for key in ("train.stage1.learning_rate", "loss.weight")}
PARAMS = [
    (PREPARE, loss(sigma_rbg=1.0), "params.yaml: loss.sigma_rbg: unknown key, did you mean sigma_rgb?"),
    (PREPARE, loss(zzz=1), "params.yaml: loss.zzz: unknown key, remove it"),
    (PREPARE, lambda: edit("params.yaml", adopted=""), "params.yaml: adopted: renamed to tuned_from; use the new name"),
    (PREPARE, loss(weight="much"), "params.yaml: loss.weight: input should be a valid number, not 'much'"),
    (PREPARE, loss(weight=-1.0), "params.yaml: loss.weight: input should be greater than or equal to 0, not -1.0"),
    (PREPARE, loss(filter="latice"), "params.yaml: loss.filter: input should be 'lattice' or 'exact', not 'latice'"),
    (PREPARE, loss(weight=float("nan")), "params.yaml: loss.weight: input should be a finite number, not nan"),
    (PREPARE, loss(unreliable_above=0.5), "params.yaml: loss: unreliable_above 0.5 must be below unreliable_below"),
    (PREPARE, lambda: edit("params.yaml", loss=None), "params.yaml: loss: expected a mapping of parameters, not None"),
    (PREPARE, lambda: edit("params.yaml", variants={"ours": 3}), "params.yaml: variants.ours: expected a mapping"),
    (PREPARE, lambda: edit("params.yaml", variants=None), "params.yaml: variants: no variant is defined"),
    (PREPARE, lambda: write("params.yaml", "data:\n  name: x\n a: [\n"), "params.yaml: not readable as YAML; line 3:"),
    (PREPARE, lambda: write("params.yaml", "- 1\n"), "params.yaml: expected a mapping of parameters, found list"),
    (PREPARE, lambda: write("params.yaml"), "params.yaml: the file is empty … ssvos plan --preset demo --write"),
    (PREPARE, lambda: gone("params.yaml"), "params.yaml: no such file … ssvos plan --preset demo --write"),
    (
        PREPARE,
        lambda: edit("params.yaml", scribbles={"margin_min": 0.3}),
        "scribbles: margin_min 0.3 is above margin_max",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", train={"augment": {"scale_min": 2.0}}),
        "train.augment: scale_min 2.0 is above",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", train={"stage1": {"batch_clips": 9}}),
        "train.stage1: clips_per_epoch 4 is less",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", train={"stage2": {"smallest_stride": 9}}),
        "train.stage2: smallest_stride 9 is above frame_stride",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", train={"stage1": {"weights": {"sets": 0.0}}}),
        "params.yaml: train.stage1.weights: sets is not in data.sources (s); rename it",
    ),
    (
        PREPARE,
        lambda: two_sources({"unlimited": True}, {}),
        "params.yaml: data.sources.0: unlimited needs layout embedded, source s has layout davis",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", data={"name": "../x"}),
        "params.yaml: data.name: '../x' is not a name; use letters",
    ),
    (
        PREPARE,
        lambda: edit("params.yaml", data={"sources": []}),
        "params.yaml: data.sources: too few entries; give at least 1",
    ),
    (PREPARE, lambda: edit("params.yaml", data={"sources": [{"name": "s"}]}), "data.sources.0.layout: missing, add it"),
    (
        PREPARE,
        lambda: edit("params.yaml", data={"sources": [{"name": "s", "layout": "davis", "root": "set", "val": ""}]}),
        "params.yaml: data: no source has an evaluation list; set val of source s",
    ),
    (PREPARE, lambda: edit("params.yaml", train={"stage1": {"accumulate": 4}}), "batch_clips 2 is not a multiple"),
    (
        PREPARE,
        lambda: edit("params.yaml", data={"holdout_split": "val"}),
        "data: holdout_split val is also the train or val list of s",
    ),
    (PREPARE, lambda: two_sources({}, {}), "params.yaml: data: two sources are named s; rename one"),
    (PREPARE, lambda: two_sources({"root": ""}, {"name": "t"}), "data.sources: s has no root"),
    # the embedded one is not rendered before the other has been looked at, let alone into the other's folder
    (
        PREPARE,
        lambda: two_sources({"name": "e", "layout": "embedded"}, {"root": "no"}),
        "no: no such folder; set the root",
    ),
    (PREPARE, lambda: two_sources({"layout": "embedded"}, {}), "params.yaml: data: two sources are named s"),
    (
        PREPARE,
        lambda: two_sources({"name": "e", "layout": "embedded", "val": "x"}, {}),
        "e is embedded and has no list x",
    ),
    (TUNE, space(loss__wieght={"low": 0.1, "high": 1.0}), "tune.space.loss.wieght: … did you mean weight?"),
    (TUNE, space(loss__weight={"low": 2.0, "high": 1.0}), "tune.space.loss.weight: low 2.0 must be below high 1.0"),
    (TUNE, space(loss__beta={"low": 0.0, "high": 1.0}), "tune.space.loss.beta: low 0.0 must be above 0 if log is true"),
    (TUNE, space(loss__scale={"low": 0.5, "high": 4.0}), "tune.space.loss.scale: … less than or equal to 1, not 4.0"),
    (TUNE, space(train__stage1__epochs={"low": 1.0, "high": 4.0}), "train.stage1.epochs: all trials have the same"),
    (TUNE, space(data__sources={"choices": ["a", "b"]}), "tune.space.data.sources: not a single value"),
    (TUNE, space(scribbles__margin_max={"low": 0.1, "high": 0.2}), "scribbles.margin_max: has no effect on a trial"),
    (TUNE, space(loss__beta={"low": 0.1}), "tune.space.loss.beta: has no range; give low and high, or choices"),
    (TUNE, space(loss__weight={"choices": [0.1, 0.2]}), "tune.space.loss.weight: has both choices and a range"),
    (TUNE, space(loss__beta={"choices": [0.1, 0.1]}), "tune.space.loss.beta: has fewer than two choices"),
    (TUNE, space(loss__regularizer={"low": 0.1, "high": 1.0}), "tune.space.loss.regularizer: not a number … choices"),
    (TUNE, space(loss__regularizer={"choices": ["none", "crf"]}), "loss.regularizer: input should be … not 'crf'"),
    (TUNE, space(**{WIDTH: {"low": 4.5, "high": 8.0}}), "fusion_channels: an integer, but its range is 4.5 to 8.0"),
    (TUNE, space(loss__beta={"low": 0.1, "high": 1.0, "num": 1}), "tune.space.loss.beta: num 1 is not a grid"),
    (TUNE, tune(searcher="grid"), "tune.space.loss.weight: a grid needs points, not a range; add num"),
    (TUNE, tune(searcher="grid", space=GRID), "params.yaml: tune.trials: 3 trials, but the grid has 9 points"),
    (TUNE, tune(searcher="pbt", space={"model.fusion_channels": {"low": 4, "high": 8}}), "cannot change during"),
    (TUNE, tune(searcher="pbt", trials=1), "params.yaml: tune.trials: a population needs at least 2 members"),
    (
        TUNE,
        tune(searcher="pbt", perturbation_interval=2),
        "params.yaml: tune.perturbation_interval: 2, but a trial has only 2 epochs; lower it",
    ),
    (TUNE, tune(searcher="pbt", workers=2), "params.yaml: tune.workers: 2 workers, but pbt trains a trial in one"),
    (TUNE, tune(workers=3), "tune.workers: a batch of 2 clips (train.stage1) cannot be divided among 3"),
    (TUNE, tune(resources={"cpus": 999.0}), "params.yaml: tune.resources: 999 CPUs and 0 GPUs requested, but"),
    (TUNE, tune(resources={"gpus": 1.5}), "params.yaml: tune.resources: gpus 1.5 is above 1"),
    (
        TUNE,
        lambda: edit("params.yaml", tune={"variant": "urs"}),
        "params.yaml: tune.variant: no variant 'urs'; choose one of",
    ),
    (TUNE, lambda: edit("params.yaml", tune={"trial": {"los": 1}}), "tune.trial: los: unknown key, did you mean loss?"),
    (
        "pipelines.train --variant urs --stage stage1",
        lambda: None,
        "variants: no variant 'urs'; choose one of",
    ),
]


class _Code:
    def __reduce__(self):
        return open, ("it-ran", "w")


STAGE2, PREDICT = "pipelines.train --variant ours --stage stage2", "pipelines.predict --variant ours"
SCORE, FIT = "pipelines.evaluate --variant ours", "ssvos fit fit.yaml --device cpu"
SEGMENT = "ssvos segment clip --scribble scribble.png --checkpoint checkpoint.pt --out out"
FIRST, SECOND = (f"runs/tiny/ours/stage{n}/checkpoint.pt" for n in (1, 2))
SPOILT = {
    "its network has model.attention.kind none, not scribble": lambda p: shutil.copy(str(p).replace("ours", "pce"), p),
    "not a checkpoint that loads safely": lambda p: cut(p),
    "not a checkpoint that loads safely (UnpicklingError)": lambda p: write(p, pickle.dumps(_Code())),
    "not an ssvos checkpoint": lambda p: torch.save({"a": torch.zeros(3)}, p),
    "no such checkpoint": lambda p: gone(p),
}


def spoilt(path: str, spoil: Callable[[str], object], **fit) -> Callable[[], None]:
    def change() -> None:
        spoil(path)
        edit("fit.yaml", fit=fit)

    return change


TABLE3, TABLES, SWEEP = "pipelines.studies.table3", "pipelines.tables", "pipelines.studies.table2_sweep"
ROWS = "seeds: [0]\nrows: [pce, pce_sa, pce_psa, pce_nl, pce_cca, pce_ss, pce_dcrf, full]\n"


def studied(answers: str | None = None, study: str = ROWS) -> Callable[[], None]:
    """A study's folder; answers: what its baselines.json holds."""

    def spoil() -> None:
        write("study.yaml", study)
        if answers is not None:
            write(f"results/{next(Path('data').glob('*/frames')).parent.name}/baselines.json", answers)

    return spoil


def evaluation_without_videos() -> None:
    """A run's scores without those of its videos."""
    studied()()
    folder = f"results/{next(Path('data').glob('*/frames')).parent.name}/pce-seed0"
    write(f"{folder}/val.json", '{"scores": {"s": {"global": {"J&F-Mean": 0.5, "J-Mean": 0.5, "F-Mean": 0.5}}}}')
    write(f"{folder}/objects.csv", "source,object\ns,clip_1\n")


def two_benchmarks() -> None:
    """Table II's study on a source that is not scored after DAVIS-2017."""
    write("study.yaml", (Path(__file__).parent.parent / "studies" / "table2" / "study.yaml").read_text())
    edit("params.yaml", data={"sources": [{"name": "s", "layout": "youtube-vos", "root": "set"}]})


STUDIES = [
    (TABLE3, evaluation_without_videos, "objects.csv: a row has no number in J.mean or F.mean; delete the file"),
    (SWEEP, two_benchmarks, "params.yaml: data.sources: a study evaluates one source, with DAVIS-2017 scores"),
    (
        PREPARE,
        lambda: edit("params.yaml", variants={"ours-seed1": {}}),
        "ours-seed1: this name denotes ours with seed 1",
    ),
    (TABLE3, studied(study="seeds: [0]\nrows: [pce]\n"), "study.yaml: pce_sa: missing or listed twice; list it once"),
    (TABLE3, studied(study=ROWS.replace("full", "full, whole")), "study.yaml: whole: not a row of the table; choose"),
    (TABLE3, studied(), "baselines.json: no such file; `dvc repro` makes it"),
    (TABLE3, studied("{"), "baselines.json: not readable as JSON … makes it again"),
    (TABLE3, studied('{"empty": {}}'), "baselines.json: expected DAVIS-2017 scores of one source"),
    (TABLES, studied("[]"), "baselines.json: not a result (it has no scores); `dvc repro` makes it again"),
    (TABLES, studied('{"empty": {"s": 1}}'), "baselines.json: not a result (s: "),
]
CHECKPOINTS = [
    (command, spoilt(path, spoil, init_checkpoint=FIRST if path == FIRST else ""), f"{path}: {words}")
    for words, spoil in SPOILT.items()
    for command, path in ((STAGE2, FIRST), (FIT, FIRST), (PREDICT, SECOND), (SEGMENT, "checkpoint.pt"))
    if not (command == SEGMENT and "attention" in words)  # it brings its own network
]


def stroke_file(content: object) -> Callable[[], None]:
    return lambda: write("strokes.json", content if isinstance(content, str) else json.dumps(content))


STROKES, VIDEO = SEGMENT.replace("scribble.png", "strokes.json"), SEGMENT.replace("clip", "clip.mkv")
SEGMENTED = [
    (SEGMENT, lambda: write_labels("scribble.png", np.full(SIZE, 255, np.uint8)), "scribble.png: no object stroke"),
    (
        SEGMENT,
        lambda: write_labels("scribble.png", a_mask(1, size=(20, 20))),
        "scribble is 20x20, the frames are 48x64",
    ),
    (SEGMENT, lambda: gone("scribble.png"), "scribble.png: no such scribble"),
    (STROKES, stroke_file("{"), "strokes.json: not JSON"),
    (STROKES, stroke_file([1]), "strokes.json: no list of strokes per frame"),
    (STROKES, stroke_file({"scribbles": [[], []]}), "strokes.json: no stroke on any frame"),
    (STROKES, stroke_file({"scribbles": [[{"path": [[0, 0]], "object_id": 0}]]}), "strokes.json: no object stroke"),
    (STROKES, stroke_file({"scribbles": [[1]]}), "strokes.json: frame 0 has a stroke without"),
    (STROKES, stroke_file({"scribbles": [[{"path": [[0, 9]], "object_id": 1}]]}), "strokes.json: frame 0 has a path"),
    (STROKES, stroke_file({"sequence": "camel", "scribbles": [[]] * 90}), "is for 90 frames of camel, the video has 4"),
    (SEGMENT, lambda: gone("clip"), "clip: no such file or folder"),
    (SEGMENT, lambda: (gone("clip"), Path("clip").mkdir()), "clip: no frames in this folder"),
    (SEGMENT, lambda: cut("clip/00002.png"), "clip/00002.png: not a readable image … replace or remove it"),
    (SEGMENT, lambda: an_image("clip/00002.png", size=(40, 50)), "clip/00002.png: frame is 40x50, the first 48x64"),
    (SEGMENT, lambda: an_image("clip/00002.jpg"), "clip: two images are named 00002"),
    (
        SEGMENT,
        lambda: [an_image(f"clip/{t:05d}.png", size=(20, 20)) for t in range(4)],
        "clip: frames are 20x20; enlarge",
    ),
    (VIDEO, lambda: write("clip.mkv", "x" * 99), "clip.mkv: not a readable video"),
    (VIDEO, lambda: a_video("clip.mkv", 0.6), "clip.mkv: truncated after … of 1.2 seconds"),
    (VIDEO, lambda: silent_sound("clip.mkv"), "clip.mkv: contains no video stream"),
    (f"{SEGMENT} --device cuda:99", lambda: None, "device 'cuda:99': PyTorch sees"),
    (f"{SEGMENT} --device gpu", lambda: None, "device 'gpu': unknown"),
    (f"{SEGMENT} --foreground-bias nan", lambda: None, "--foreground-bias nan: is not finite"),
    (f"{SEGMENT} --colours inf", lambda: None, "--colours inf: is not finite"),
    (SEGMENT, lambda: write("out"), "out/00000.png: cannot be written … out is a file"),
    (SEGMENT.replace("--out out", "--out clip"), lambda: None, "clip: --out would overwrite an input"),
    (
        SEGMENT.replace("scribble.png", "out/00000.png"),
        lambda: write_labels("out/00000.png", a_scribble(1)),
        "out/00000.png: --out would overwrite an input",
    ),
    (f"{SEGMENT} --overlay", lambda: Path("out/overlay.mp4").mkdir(parents=True), "out/overlay.mp4: is a folder"),
]


def server(**environment: str) -> Callable[[], None]:
    return lambda: os.environ.update(environment)


CLOSED = "127.0.0.1:9"  # the port of a service that nobody runs any more
STAGE1 = STAGE2.replace("stage2", "stage1")
SURROUNDINGS = [
    (PREPARE, server(MLFLOW_TRACKING_URI=f"http://{CLOSED}"), f"http://{CLOSED}: no MLflow server answers at this"),
    (PREPARE, server(MLFLOW_TRACKING_URI="mlruns"), "MLFLOW_TRACKING_URI mlruns: not usable"),
    (PREPARE, server(MLFLOW_TRACKING_URI="sqlite:///params.yaml/x.db"), "params.yaml is a file; move it away"),
    (PREPARE, server(MLFLOW_TRACKING_URI="sqlite:///scribble.png"), "scribble.png: file is not a database"),
    ("pipelines.scribbles", server(RAY_ADDRESS=CLOSED), f"RAY_ADDRESS {CLOSED}: no cluster answers at this"),
    ("pipelines.scribbles", server(RAY_ADDRESS="somewhere"), "RAY_ADDRESS somewhere: expected host:port"),
    (
        "pipelines.scribbles",
        server(SSVOS_STORAGE="ftp://x/y", RAY_ADDRESS=CLOSED),
        "SSVOS_STORAGE ftp://x/y: not usable",
    ),
    (STAGE1, server(SSVOS_STORAGE="/proc/states"), "SSVOS_STORAGE /proc/states: not usable"),
    (TUNE, server(SSVOS_STORAGE="states"), "SSVOS_STORAGE states: a folder needs an absolute path"),
    (
        TUNE,
        lambda: (tune(searcher="pbt", perturbation_interval=1)(), server(RAY_ADDRESS=CLOSED)()),
        "params.yaml: tune.searcher: pbt copies weights between machines; set SSVOS_STORAGE",
    ),
    (STAGE1, server(SSVOS_WORKERS="two"), "SSVOS_WORKERS: 'two' is not a number of workers"),
    (STAGE1, server(SSVOS_LOADERS="-1"), "SSVOS_LOADERS: '-1' is not a number of processes"),
    (STAGE1, server(SSVOS_WORKERS="999"), "SSVOS_WORKERS: 999 workers requested, but there are"),
    # for a cluster, which is not contacted: the number of CPUs of this machine does not matter
    (STAGE1, server(SSVOS_WORKERS="3", RAY_ADDRESS=CLOSED), "a batch of 2 clips cannot be divided among 3"),
]


def best(**changes) -> Callable[[], None]:
    """Write tune/best.yaml as a search does, with these changes."""
    search = {"data": "tiny", "data_digest": "d", "variant": "ours", "trials": 3, "metric": "J", "digest": "s"}
    found = {"search": search, "best": {"trial": 1, "score": 0.5}, "before": None, "params": {"loss": {"weight": 0.5}}}
    return lambda: write("tune/best.yaml", json.dumps(merge(found, changes)))  # JSON is YAML


ADOPT, RECORDS = "pipelines.tuning.apply_best --yes", "pipelines.tracking.run_records"


def broken_trial() -> None:
    """Break a saved trial of an interrupted search."""
    params = read_params(Path("params.yaml"))
    records = Records.read(params, Layout("tiny"))
    write(str(search_folder(records, params, trial_config(params)) / "trial-0000.json"), "{")


NO_INDEX = "index.parquet: no such index; prepare the data first"
LATER = [
    (STAGE1, lambda: gone("data"), NO_INDEX),
    (TUNE, lambda: gone("data"), NO_INDEX),
    (TUNE, broken_trial, "trial-0000.json: not a saved trial"),
    (STAGE1, lambda: write("data/tiny/frames/index.parquet", "x"), "index.parquet: not an index"),
    (STAGE1, lambda: gone("data/tiny/scribbles"), "scribbles.parquet: no scribble store; make the scribbles first"),
    (STAGE1, lambda: write("data/tiny/scribbles/scribbles.parquet", "x"), "scribbles.parquet: not a scribble store"),
    (STAGE1, lambda: edit("params.yaml", train={"stage1": {"clip_frames": 50}}), "clip_frames 50: no video"),
    (TUNE, lambda: edit("params.yaml", tune={"trial": {"train": {"stage2": {"clip_frames": 50}}}}), "clip_frames 50:"),
    (STAGE1, lambda: edit("params.yaml", model={"backbone": {"weights": "no.pth"}}), "no.pth: no such backbone"),
    (SCORE, lambda: None, "predictions/tiny/ours/val: no masks to score"),
    (ADOPT, lambda: None, "tune/best.yaml: no such file, no search has finished"),
    (ADOPT, best(search={"data": "davis"}), "best.yaml: the search used data set davis, but params.yaml uses tiny"),
    (ADOPT, lambda: write("tune/best.yaml", "search: [\n"), "tune/best.yaml: not readable as YAML; line 2:"),
    (ADOPT, best(search={"data": None, "trials": {}}, best=1), "tune/best.yaml: not the result of a search"),
    (ADOPT, best(params={"loss": {"weight": "x"}}), "tune/best.yaml: not the result of a search"),
    (ADOPT, best(params={"loss": {"wieght": 1.0}}), "tune/best.yaml: loss.wieght is not a parameter"),
    (RECORDS, lambda: gone("data"), "index.parquet: no such file, so nothing to record"),
    (RECORDS, lambda: None, "ours train_stage1: incomplete outputs … history.csv"),
    (FIT, lambda: gone("fit.yaml"), "fit.yaml: no such file"),
    (FIT, lambda: edit("fit.yaml", train={"stage1": {"precision": "float16"}}), "precision float16 needs a GPU"),
    (FIT, lambda: drawn_alone("fit.yaml", dense_every=2), "data.sources: s has no dense mask to train on"),
    (
        FIT,
        lambda: edit("fit.yaml", train={"stage1": {"weights": {"s": 0.0}}}),
        "weights: no source that can be trained on has a weight above 0",
    ),
    (
        "ssvos pack fit.yaml new",
        lambda: edit(
            "fit.yaml",
            data={
                "sources": [{"name": "m", "layout": "embedded"}, {"name": "embedded", "layout": "davis", "root": "set"}]
            },
        ),
        "data.sources: a pack holds rendered clips in the folder embedded; rename that source",
    ),
    ("ssvos pack fit.yaml set", lambda: None, "set: already exists; name a new folder"),
    (FIT, lambda: state_of_another("fit.yaml"), ".pt: the state of a run with other parameters or data"),
    (FIT, lambda: shutil.copy("params.yaml", "fit.yaml"), "fit.yaml: fit: missing, add it"),
    (FIT, lambda: edit("fit.yaml", fit={"stage": "stage3"}), "fit.yaml: fit.stage: input should be"),
    (FIT, lambda: write("out"), "out/checkpoint.pt: cannot be written … out is a file"),
    (FIT, lambda: edit("fit.yaml", fit={"index": "no.parquet"}), "no.parquet: no such index"),
    (FIT, lambda: other_source("fit.yaml"), "the index has videos of s, which data.sources lacks"),
    (FIT, lambda: one_more_video("fit.yaml"), "scribbles.parquet: has no scribble of d/00000"),
    (FIT, lambda: (cut(f"{MASKS}/a/00001.png"), cut(f"{MASKS}/b/00001.png")), "not a readable … (1 of 2 faults)"),
]

EVALUATE, SCRIBBLE = "ssvos evaluate gt pred --json scores.json", "ssvos scribble gt out"


def moved(old: str, new: str) -> None:
    Path(new).parent.mkdir(parents=True, exist_ok=True)
    Path(old).rename(new)


def entered_last() -> None:
    """The only video's objects are listed from its last frame on."""
    shutil.copytree("yt/val/Annotations/v", "pred/v")
    objects = {"1": {"category": "cat", "frames": ["00003"]}}
    write("yt/val/meta.json", json.dumps({"videos": {"v": {"objects": objects}}}))


YOUTUBE = f"{EVALUATE} --protocol youtube-vos --train-meta yt/train/meta.json --meta"
SCORED = [
    (EVALUATE, lambda: gone("pred"), "pred: no such folder of predictions"),
    (EVALUATE, lambda: gone("pred/b"), "pred/b: no predictions of this sequence"),
    (EVALUATE, lambda: gone("pred/b/00002.png"), "pred/b/00002.png: no prediction for this annotated frame"),
    (EVALUATE, lambda: write_labels("pred/b/00002.png", a_mask(1, size=(9, 9))), "prediction is 9 x 9 pixels"),
    (EVALUATE, lambda: write_labels("pred/b/00002.png", a_mask(3)), "predicted id 3, the largest id is 2"),
    (EVALUATE, lambda: an_image("pred/b/00002.png"), "pred/b/00002.png: a label image must be … is RGB"),
    (EVALUATE, lambda: cut("pred/b/00002.png"), "pred/b/00002.png: not a readable image"),
    (EVALUATE, lambda: gone("gt"), "gt: no such folder of annotations"),
    (EVALUATE, lambda: gone("gt/a", "gt/b"), "gt: no sequence to score"),
    (EVALUATE, lambda: [gone(f"gt/b/{t:05d}.png") for t in range(4)], "gt/b: no annotation in this folder"),
    (EVALUATE, lambda: [gone(f"gt/b/{t:05d}.png") for t in range(1, 4)], "gt/b: 1 annotated frames; at least 3 needed"),
    (EVALUATE, lambda: write("gt/notes.txt"), "gt/notes.txt: expected only folders <sequence>/"),
    (EVALUATE, lambda: write("gt/b/notes.txt"), "gt/b/notes.txt: expected only annotations"),
    (EVALUATE.replace(" pred", " set"), lambda: None, "no sequences in this folder, but some in set/Annotations/480p"),
    (EVALUATE.replace("gt pred", "gt pred/a"), lambda: None, "pred/a: holds frames, not sequences; give the folder"),
    (EVALUATE.replace("gt", "gt/a"), lambda: None, "gt/a: holds frames, not sequences; give the folder above"),
    (EVALUATE.replace("gt", "set/Annotations"), lambda: None, "but some in set/Annotations/480p; give that folder"),
    (EVALUATE.replace("pred", "up"), lambda: moved("pred", "up/x"), "no sequences in this folder, but some in up/x;"),
    (f"{EVALUATE} --frames gt", lambda: None, "gt: is a folder; give the name of a file"),
    (EVALUATE, lambda: renamed("gt/b/00002.png", ".PNG"), "gt/b/00002.PNG: expected only annotations"),
    (EVALUATE, lambda: write_labels("gt/a/00000.png", a_mask()), "gt/a/00000.png: no object in the first annotation"),
    (f"{EVALUATE} --split no.txt", lambda: None, "no.txt: no such list"),
    (f"{EVALUATE} --split l.txt", lambda: write("l.txt", "../gt/a\n"), "l.txt: '../gt/a' is not a sequence"),
    (f"{EVALUATE} --split l.txt", lambda: write("l.txt", "\n"), "l.txt: the list is empty"),
    (f"{EVALUATE} --split l.txt", lambda: write("l.txt", "zebra\n"), "gt/zebra: no annotations of this sequence"),
    (EVALUATE.replace("scores.json", "gt"), lambda: None, "gt: is a folder; give the name of a file"),
    (f"{EVALUATE}/x", lambda: None, "scores.json/x: cannot be written … scores.json is a file"),
    (f"{YOUTUBE} no.json", lambda: None, "no.json: no such file; expected the meta.json"),
    (f"{YOUTUBE} l.json", lambda: write("l.json", "{"), "l.json: not a YouTube-VOS meta.json"),
    (f"{YOUTUBE} yt/val/meta.json", lambda: None, "yt/val/meta.json: video 'a' is not listed"),
    (YOUTUBE.replace("gt", "yt/val/Annotations") + " yt/val/meta.json", entered_last, "no object of yt/val/meta.json"),
    (SCRIBBLE, lambda: gone("gt"), "gt: no such folder"),
    (SCRIBBLE, lambda: (gone("gt"), Path("gt").mkdir()), "gt: holds no <seq>/<frame>.png"),
    (SCRIBBLE, lambda: write_labels("gt/0.png", a_mask(1)), "gt/0.png: is next to the sequences"),
    (SCRIBBLE, lambda: write("gt/b/00003.png", "x"), "gt/b/00003.png: not a readable image (unknown format)"),
    (SCRIBBLE, lambda: renamed("gt/b/00003.png", ".PNG"), "gt/b/00003.PNG: the suffix must be .png"),
    (SCRIBBLE.replace("out", "gt"), lambda: None, "gt: is in gt, scribbles would overwrite masks"),
    (SCRIBBLE.replace("out", "gt/s"), lambda: None, "gt/s: is in gt"),
    (SCRIBBLE, lambda: write("out/b"), "out/b/00000.png: cannot be written … out/b is a file"),
]


def sent(spoil: Callable[[], object] = lambda: None) -> Callable[[], None]:
    """`pred` answers test-dev's two sequences, but for what is spoilt."""
    return lambda: (write(f"{LISTS}/test-dev.txt", "a\nb\n"), spoil())


def a_folder_too_many(path: str) -> None:
    Path(path).rename("moved")
    Path(path).mkdir()
    Path("moved").rename(f"{path}/deep")


def other_colours(path: str) -> None:
    image = Image.fromarray(a_mask(1))
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.save(path)


def train_meta(categories: dict[str, str]) -> Callable[[], None]:
    """A meta.json whose videos have these categories, a letter each."""
    videos = {
        video: {"objects": {str(k): {"category": c, "frames": []} for k, c in enumerate(found, 1)}}
        for video, found in categories.items()
    }
    return lambda: write("yt/train/meta.json", json.dumps({"videos": videos}))


SUBMIT = "ssvos submit pred out.zip --benchmark davis2017-testdev --data set"
SUBMITTED = [
    (SUBMIT.replace(".zip", ".rar"), sent(), "out.rar: a submission is a zip"),
    (SUBMIT.replace("out.zip", "pred/out.zip"), sent(), "pred/out.zip: is in pred, among the masks"),
    (SUBMIT.replace("set", "no"), sent(), "no: no such folder; name the benchmark's data set"),
    (SUBMIT.replace("davis2017-testdev", "youtube-vos"), sent(), "set/meta.json: no such file; name YouTube-VOS's"),
    (SUBMIT, lambda: None, "test-dev.txt: no such list; choose one of train, val"),
    (SUBMIT, sent(lambda: gone(f"{MASKS}/a")), "480p/a: its frames or its first annotation are missing"),
    (SUBMIT, sent(lambda: gone("pred")), "pred: no such folder; expected <seq>/<frame>.png below it"),
    (SUBMIT, sent(lambda: a_folder_too_many("pred")), "pred: the sequences are in pred/deep"),
    (SUBMIT, sent(lambda: a_folder_too_many("pred/b")), "pred/b/deep: is an extra folder … to pred/b"),
    (SUBMIT, sent(lambda: write("pred/b/Thumbs.db")), "pred/b/Thumbs.db: is not part of a submission"),
    (SUBMIT, sent(lambda: write_labels("pred/0.png", a_mask())), "pred/0.png: is next to the sequences"),
    (SUBMIT, sent(lambda: gone("pred/b")), "pred/b: missing, the benchmark has this sequence"),
    (SUBMIT, sent(lambda: (gone("pred/b"), Path("pred/b").mkdir())), "pred/b: holds none of the 4 masks"),
    (SUBMIT, sent(lambda: gone("pred/b/00003.png")), "pred/b/00003.png: missing, the benchmark requires this frame"),
    (SUBMIT, sent(lambda: an_image("pred/b/00003.png")), "pred/b/00003.png: a label image must be … is RGB"),
    (SUBMIT, sent(lambda: Image.fromarray(a_mask(1, 2)).save("pred/b/00003.png")), "b/00003.png: is a grey PNG"),
    (SUBMIT, sent(lambda: other_colours("pred/b/00003.png")), "b/00003.png: its palette is neither DAVIS's nor"),
    (SUBMIT, sent(lambda: write_labels("pred/b/00003.png", a_mask(1, size=(24, 32)))), "mask is 24x32, its frame"),
    (SUBMIT, sent(lambda: write_labels("pred/b/00003.png", a_mask(3))), "unknown object 3, this sequence has 1, 2"),
    (SUBMIT, sent(lambda: write("out.zip/x")), "out.zip: is a folder"),
]
SPLIT = "ssvos split yt/train/meta.json held"
SPLITTING = [
    (SPLIT, lambda: None, "yt/train/meta.json: too few categories, 1; at least 2"),
    (SPLIT, train_meta({"v": "ab", "w": "ab"}), "yt/train/meta.json: holding out any category leaves less"),
    (SPLIT, train_meta({"v": "a", "w": "b"}), "yt/train/meta.json: every video is the only one of a seen"),
    (SPLIT, train_meta({"../v": "a", "w": "b"}), "yt/train/meta.json: '../v' is not the name of a video"),
    (SPLIT.replace("held", "set"), train_meta({"v": "a", "w": "b"}), "set: exists already; choose another folder"),
    (f"{SPLIT} --val-share 1.5", lambda: None, "--val-share 1.5: is not a share"),
    (SPLIT.replace("train", "no"), lambda: None, "yt/no/meta.json: no such file; expected the meta.json"),
]


def contents(place: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(place)): p.read_bytes() if p.is_file() else None for p in sorted(place.rglob("*"))}


def call(command: str, monkeypatch, capfd) -> tuple[int, str]:
    """Exit status and standard error of a stage, `pipelines.…`, or of `ssvos …`, as its `main` leaves."""
    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main() if name == "ssvos" else run_stage(importlib.import_module(name).main)
    return left.value.code, capfd.readouterr().err


ALL = [*DATA, *PARAMS, *STUDIES, *CHECKPOINTS, *SEGMENTED, *SURROUNDINGS, *LATER, *SCORED, *SUBMITTED, *SPLITTING]


@pytest.mark.parametrize(("command", "spoil", "words"), ALL)
def test_one_line_names_the_fault_and_nothing_changes(command, spoil, words, place, monkeypatch, capfd):
    spoil()
    before = contents(place)
    status, error = call(command, monkeypatch, capfd)
    assert (status, error.count("\n")) == (1, 1), error
    speaker, _, said = error.strip().partition(": ")
    assert speaker == ("ssvos" if command.startswith("ssvos") else "error")
    for part in words.split(" … "):
        assert part in said
    assert contents(place) == before
    SAID.append(said)
    assert any(pattern.fullmatch(said) for pattern in quoted().values()), "docs/errors.md lists it"


@pytest.mark.parametrize(
    "command",
    [
        "ssvos evalute gt pred",
        "ssvos scribble gt out --width 0",
        "ssvos evaluate gt pred --json scores.json --protocol davis2018",
        "ssvos evaluate gt pred --json new.json --frames new.json",
        "ssvos evaluate gt pred --json new.json --convention from_entry",
        "ssvos segment clip --out out",
        "pipelines.predict",
        "pipelines.train --variant ours --stage stage3",
    ],
)
def test_a_command_that_is_not_understood_ends_with_2(command, place, monkeypatch, capfd):
    before = contents(place)
    status, error = call(command, monkeypatch, capfd)
    assert status == 2 and "Traceback" not in error and contents(place) == before


def test_scribbles_join_what_lies_in_their_folder(place, monkeypatch, capfd):
    write("out/a/mine.png", "mine")
    write("out/a/00000.png", "from an earlier run")
    monkeypatch.setattr(sys, "argv", SCRIBBLE.split())
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code and Path("out/a/mine.png").read_text() == "mine"
    assert len(list(Path("out").glob("*/*.png"))) == 9 and Path("out/a/00000.png").read_bytes().startswith(b"\x89PNG")


def test_a_workers_error_about_its_input_is_extracted_from_rays_error():
    from ray.exceptions import RayTaskError, UserCodeException
    from ray.train.v2.api.exceptions import WorkerGroupError

    nan = FloatingPointError("loss is nan; lower learning_rate")
    lost = ConnectionResetError("connection closed by peer")
    assert bad_input(WorkerGroupError("rank 0 …", {0: RuntimeError("gloo"), 1: lost, 2: nan})) is nan
    trace = "Traceback …\n    raise ValueError(\nValueError: a.png: not a readable image; replace it\n\nThe above …"
    wrapped = RayTaskError("map", f"{trace}\nray.exceptions.UserCodeException: failed", UserCodeException("failed"))
    assert str(bad_input(wrapped.as_instanceof_cause())) == "a.png: not a readable image; replace it"
    assert bad_input(RayTaskError("map", "KeyError: 'a'", KeyError("a")).as_instanceof_cause()) is None


def test_all_that_the_table_of_errors_lists_is_said():
    if len(SAID) < len(ALL):
        pytest.skip("only where all of the above have run in one process")
    unsaid = [quote for quote, pattern in quoted().items() if not any(pattern.fullmatch(said) for said in SAID)]
    assert not unsaid
