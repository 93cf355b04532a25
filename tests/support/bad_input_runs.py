"""Bad input of studies, checkpoints, videos, servers and earlier outputs: (command, fault, parts of the message)."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bad_input_parameters import PREDICT, PREPARE, STAGE2, TUNE, _Code, tune
from bad_place import (
    MASKS,
    SIZE,
    a_mask,
    a_scribble,
    a_video,
    an_image,
    cut,
    drawn_alone,
    edit,
    gone,
    one_more_video,
    other_source,
    silent_sound,
    state_of_another,
    write,
)

from pipelines.params import Layout
from pipelines.tracking.stage_records import Records
from pipelines.tune import search_folder, trial_config
from ssvos.config.variants import merge, read_params
from ssvos.labels import write_labels

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
    """Return a fault that writes a study. answers: content of its baselines.json; None writes none."""

    def spoil() -> None:
        write("study.yaml", study)
        if answers is not None:
            write(f"results/{next(Path('data').glob('*/frames')).parent.name}/baselines.json", answers)

    return spoil


def evaluation_without_videos() -> None:
    """Write a run's scores without the scores of its videos."""
    studied()()
    folder = f"results/{next(Path('data').glob('*/frames')).parent.name}/pce-seed0"
    write(f"{folder}/val.json", '{"scores": {"s": {"global": {"J&F-Mean": 0.5, "J-Mean": 0.5, "F-Mean": 0.5}}}}')
    write(f"{folder}/objects.csv", "source,object\ns,clip_1\n")


def two_benchmarks() -> None:
    """Write the study of Table II and a source with scores other than DAVIS-2017's."""
    write("study.yaml", (Path(__file__).parents[2] / "studies" / "table2" / "study.yaml").read_text())
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
    if not (command == SEGMENT and "attention" in words)  # `segment` takes the network from the checkpoint
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
    (f"{SEGMENT} --roi inf", lambda: None, "--roi inf: is not finite"),
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


CLOSED = "127.0.0.1:9"  # the port of the obsolete discard service, where nothing listens
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
    # with a cluster address this machine's CPUs do not limit the workers; the check does not contact the cluster
    (STAGE1, server(SSVOS_WORKERS="3", RAY_ADDRESS=CLOSED), "a batch of 2 clips cannot be divided among 3"),
]


def best(**changes) -> Callable[[], None]:
    """Return a fault that writes tune/best.yaml as a search does, with these changes."""
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
