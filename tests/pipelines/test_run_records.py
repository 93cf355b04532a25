"""MLflow runs from the stages' files: a tiny data set, handwritten outputs and a real store."""

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_MODEL, make_network, untracked
from PIL import Image

from pipelines.params import Layout, read_params
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking import run_records
from pipelines.tracking.mlflow_metrics import try_log_history
from pipelines.tracking.record import data_digest
from pipelines.tracking.stage_records import Records
from ssvos.data.index import read_index, videos_of
from ssvos.inference.segment_video import DEFAULT_PREDICT, segment_video
from ssvos.labels import read_labels, write_labels
from ssvos.models.checkpoint import save_checkpoint
from ssvos.scribbles.store import read_store

HISTORY = {
    "stage1": "epoch,learning_rate,loss,holdout_score\n1,0.001,0.9,0.2\n2,0.0005,0.7,0.3\n",
    "stage2": "epoch,learning_rate,loss,holdout_score\n1,0.001,0.6,0.31\n2,0.0005,0.5,0.37\n3,0.0002,0.45,0.35\n",
}
OBJECTS = "source,object,J.mean,J.recall,F.mean\nembedded,val-000_1,0.5,0.25,0.75\nembedded,12_1,0.4,0.125,0.6\n"
TRIALS = (
    "trial,status,epochs,score,seconds,train.stage1.learning_rate,loss.weight\n"
    "0,finished,2,0.3,4.0,0.001,0.9\n1,failed,0,,1.0,0.009,4.0\n2,stopped,1,0.1,2.5,0.0004,2.0\n"
)
CURVES = "trial,epoch,loss,holdout_score\n0,1,0.9,0.2\n0,2,0.8,0.3\n2,1,1.1,0.1\n"
BEST = """search:
  {{data: tiny, data_digest: {digest}, variant: ours, trials: 3, finished: 1, stopped: 1, failed: 1, metric: J,
   digest: abcdefabcdef}}
best: {{trial: 0, score: 0.3}}
before: {{trial: 0, score: 0.3}}
params: {{train: {{stage1: {{learning_rate: 0.001}}}}, loss: {{weight: 0.9}}}}
"""
SCORES = {"protocol": "davis2017", "global": {"J&F-Mean": 0.55, "J-Mean": 0.45}, "visibility": {"num_present": 9}}
BASELINE = {"embedded": {**SCORES, "sequences": {"val-000": {"J": 0.4, "F": 0.6}}}}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@pytest.fixture(scope="module")
def project(tiny_data, tmp_path_factory) -> Path:
    """A project's folder with the outputs of every stage, and its MLflow runs."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
            patch.delenv(name, raising=False)
        patch.setattr(tracking, "_stage_start_ms", None)
        patch.setattr(sys, "argv", ["records"])
        shutil.copy(Path(__file__).parents[1] / "support" / "tiny_params.yaml", "params.yaml")
        layout = Layout("tiny")
        make_data(layout, tiny_data)
        make_outputs(layout)
        make_search(layout)
        run_records.main()
        yield folder


def make_data(layout: Layout, tiny_data) -> None:
    shutil.copytree(tiny_data.roots["embedded"], layout.frames / "embedded")
    shutil.copy(tiny_data.index, layout.index)
    layout.scribbles.mkdir(parents=True)
    shutil.copy(tiny_data.scribbles, layout.scribbles / "scribbles.parquet")
    (layout.scribbles / "summary.json").write_text(json.dumps({"embedded/train": {"num_frames": 12}}))


def make_outputs(layout: Layout) -> None:
    for stage, history in HISTORY.items():
        run = layout.run("ours", stage)
        about = {"stage": stage, "height": 48, "width": 64, "epoch": 2, "chosen_by": "J", "holdout_score": 0.37}
        save_checkpoint(run / "checkpoint.pt", make_network(int(stage[-1])).state_dict(), TINY_MODEL, about)
        (run / "history.csv").write_text(history)
    checkpoint = sha(layout.run("ours", "stage2") / "checkpoint.pt")
    results = layout.results("ours")
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps({"variant": "ours", "checkpoint": checkpoint, "scores": {"embedded": SCORES}}))
    layout.objects("ours").write_text(OBJECTS)
    videos = [{"sequence": "val-000", "num_frames": 6, "seconds": 0.5}]
    speed = {"checkpoint": checkpoint, "frames": 6, "frames_per_worker_second": 12.0, "videos": videos}
    layout.speed("ours").write_text(json.dumps(speed))
    layout.baselines.write_text(json.dumps({"empty": BASELINE, "copied": {}}))
    layout.page.parent.mkdir()
    layout.page.write_text("<p>a page</p>")
    for frame in evaluation_video(layout).frames:  # a variant whose masks equal the true ones
        truth = read_labels(layout.frames / "embedded" / frame.mask_path)
        write_labels(layout.predictions("ours") / "val-000" / f"{frame.name}.png", truth)


def make_search(layout: Layout) -> None:
    Path("tune").mkdir()
    Path("tune/trials.csv").write_text(TRIALS)
    Path("tune/curves.csv").write_text(CURVES)
    Path("tune/best.yaml").write_text(BEST.format(digest=data_digest(read_index(layout.index))))


def evaluation_video(layout: Layout):
    return next(video for video in videos_of(read_index(layout.index)) if video.split == "val")


def client():
    from mlflow import MlflowClient

    return MlflowClient(tracking.tracking_uri())


def all_runs() -> list:
    return client().search_runs([one.experiment_id for one in client().search_experiments()])


def the_run(stage: str):
    (found,) = [run for run in all_runs() if run.data.tags["stage"] == stage]
    return found


def artifacts(run, folder: str = "") -> list[str]:
    return sorted(one.path for one in client().list_artifacts(run.info.run_id, folder))


def artifact(run, name: str) -> Path:
    return Path(client().download_artifacts(run.info.run_id, name))


def curve(run, key: str) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in client().get_metric_history(run.info.run_id, key)]


def content() -> list[tuple]:
    """Return the store's content of every run, without ids, times and the user."""
    names = {run.info.run_id: run.info.run_name for run in all_runs()}
    runs = []
    for run in all_runs():
        tags = {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.") and k != "model.id"}
        parent = names.get(run.data.tags.get("mlflow.parentRunId"), "")
        curves = {key: curve(run, key) for key in run.data.metrics}
        inputs = [(one.dataset.name, one.dataset.digest, one.tags[0].value) for one in run.inputs.dataset_inputs]
        files = [name.split("+")[0] for name in artifacts(run) + artifacts(run, "images")]
        runs.append((run.info.run_name, parent, tags, run.data.params, curves, inputs, Counter(files)))
    return sorted(runs, key=lambda run: run[:2])


CONTEXTS = {
    "prepare": ("index", "data/tiny/frames/index.parquet"),
    "scribbles": ("scribbles", "data/tiny/scribbles/scribbles.parquet"),
    "train_stage1": ("training", "runs/tiny/ours/stage1/checkpoint.pt"),
    "train_stage2": ("training", "runs/tiny/ours/stage2/checkpoint.pt"),
    "predict": ("evaluation", "results/tiny/ours/speed.json"),
    "evaluate": ("evaluation", "results/tiny/ours/val.json"),
    "baselines": ("evaluation", "results/tiny/baselines.json"),
    "tune": ("training", "tune/trials.csv"),
    "report": ("evaluation", "reports/tiny.html"),
}


@pytest.mark.parametrize("stage", CONTEXTS)
def test_a_stage_has_one_finished_run_with_the_digests_of_its_data_and_output(project, stage):
    context, output = CONTEXTS[stage]
    run = the_run(stage)
    assert run.info.status == "FINISHED"
    assert run.data.tags["output.digest"] == sha(project / output)
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.tags[0].value) == ("tiny", context)
    assert used.dataset.digest == run.data.tags["data.digest"]
    profile = json.loads(used.dataset.profile)
    assert profile == {"frames": 24, "train": 2, "holdout": 1, "val": 1}
    is_of_a_variant = stage in ("train_stage1", "train_stage2", "predict", "evaluate", "tune")
    assert run.data.tags.get("variant") == ("ours" if is_of_a_variant else None)


def test_training_prediction_and_evaluation_have_the_digest_of_the_same_checkpoint(project):
    digest = sha(project / "runs/tiny/ours/stage2/checkpoint.pt")
    for stage in ("train_stage2", "predict", "evaluate"):
        assert the_run(stage).data.tags["checkpoint.digest"] == digest, stage


def test_a_run_shows_only_the_parameters_that_decide_its_output(project):
    params = {stage: the_run(stage).data.params for stage in CONTEXTS}
    assert params["train_stage2"]["train.stage2.learning_rate"] == "0.001"
    assert params["train_stage2"]["model.attention.kind"] == "scribble"
    assert "train.stage2.learning_rate" not in params["train_stage1"]
    assert params["scribbles"]["scribbles.width"] == "2" and "loss.weight" not in params["scribbles"]
    assert params["tune"]["tune.space.loss.weight.high"] == "5.0"
    assert not [key for key in params["train_stage2"] | params["predict"] if key.startswith("tune.")]
    assert {"predict.height", "predict.foreground_bias", "predict.crf_refinement.iterations"} <= set(params["evaluate"])
    assert all(key.startswith("predict.") for key in params["evaluate"])


def test_an_epoch_is_a_step_and_not_a_metric(project):
    run = the_run("train_stage2")
    assert curve(run, "loss") == [(1, 0.6), (2, 0.5), (3, 0.45)]
    assert curve(run, "holdout_score") == [(1, 0.31), (2, 0.37), (3, 0.35)]
    assert "epoch" not in run.data.metrics
    assert run.data.metrics["best_holdout_score"] == 0.37 and run.data.metrics["best_epoch"] == 2


def test_epochs_that_were_written_during_training_are_not_written_again(project, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'live.db'}")
    layout = Layout("tiny")
    record = Records.read(read_params(), layout).training("ours", "stage1")
    run_id = tracking.open_run(record)
    try_log_history(run_id, [{"epoch": 1.0, "loss": 0.9, "clips_per_second": 5.0}])
    for _ in range(2):
        assert tracking.write(record, run_id) == run_id
    run = the_run("train_stage1")
    assert curve(run, "loss") == [(1, 0.9), (2, 0.7)]
    assert curve(run, "clips_per_second") == [(1, 5.0)]


def test_a_database_is_usable_after_a_process_was_killed_in_a_transaction(monkeypatch, tmp_path):
    path = tmp_path / "killed.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    tracking.require_store()
    code = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA cache_size = 1")
database.execute("CREATE TABLE half (content)")
database.executemany("INSERT INTO half VALUES (?)", [("x" * 5000,)] * 50)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.with_name("killed.db-journal").stat().st_size, "no transaction to roll back"
    tracking.require_store()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM half").fetchall() == [(0,)]


def test_tables_have_the_rows_of_the_files_and_column_names_without_dots(project):
    table = json.loads(artifact(the_run("evaluate"), "objects.json").read_text())
    assert table["columns"] == ["object", "J/mean", "J/recall", "F/mean", "source"]
    assert table["data"] == [["val-000_1", 0.5, 0.25, 0.75, "embedded"], ["12_1", 0.4, 0.125, 0.6, "embedded"]]
    scores = json.loads(artifact(the_run("evaluate"), "scores.json").read_text())
    assert dict(zip(scores["columns"], scores["data"][0], strict=True))["J&F-Mean"] == 0.55
    trials = json.loads(artifact(the_run("tune"), "trials.json").read_text())
    assert "train/stage1/learning_rate" in trials["columns"] and len(trials["data"]) == 3


def test_baselines_have_their_scores_as_metrics_and_their_videos_in_a_table(project):
    run = the_run("baselines")
    assert run.data.metrics["empty.global.J_and_F-Mean"] == 0.55
    assert not [key for key in run.data.metrics if "val-000" in key]
    table = json.loads(artifact(run, "videos.json").read_text())
    assert dict(zip(table["columns"], table["data"][0], strict=True)) == {
        "baseline": "empty", "sequence": "val-000", "J": 0.4, "F": 0.6, "source": "embedded",
    }  # fmt: skip


def test_files_are_artifacts_of_their_run_and_the_last_checkpoint_only_of_the_model(project):
    assert artifacts(the_run("train_stage1")) == ["checkpoint.pt", "history.csv"]
    assert artifacts(the_run("train_stage2")) == ["history.csv"]
    assert artifacts(the_run("scribbles")) == ["summary.json"]
    assert artifacts(the_run("report")) == ["tiny.html"]
    assert "val.json" in artifacts(the_run("evaluate"))


def test_a_correct_prediction_looks_like_the_true_mask_next_to_it(project):
    (path,) = [name for name in artifacts(the_run("evaluate"), "images") if name.endswith(".png")]
    picture = artifact(the_run("evaluate"), path)
    assert Path(path).name.startswith("masks~val-000+") and picture.stat().st_size < 200_000
    image = Image.open(picture).convert("RGB")
    cells = np.asarray(image).reshape(4, image.height // 4, 2, image.width // 2, 3).swapaxes(1, 2)
    below_caption = cells[:, :, 18:]
    for prediction, truth in below_caption[1:]:
        assert np.array_equal(prediction, truth)
    assert not np.array_equal(*below_caption[0]), "the first row shows the scribble"


def test_an_evaluation_without_masks_has_no_picture(project, tmp_path, monkeypatch):
    predictions = Layout("tiny").predictions("ours")
    shutil.move(predictions, tmp_path / "away")
    try:
        record = Records.read(read_params(), Layout("tiny")).evaluation("ours")
    finally:
        shutil.move(tmp_path / "away", predictions)
    assert not record.pictures and record.metrics["test.global.J_and_F-Mean"] == 0.55


def test_writing_again_adds_nothing_and_a_new_database_gets_the_same_runs(project, tmp_path, monkeypatch):
    before = content()
    run_records.main()
    assert content() == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'new.db'}")
    assert not (tmp_path / "new.db").exists()
    run_records.main()
    assert content() == before and len(before) == len(CONTEXTS) + 2


def test_test_scores_are_on_the_training_run_and_its_model_with_their_data(project):
    run = the_run("train_stage2")
    assert run.data.metrics["test.global.J_and_F-Mean"] == 0.55
    model = client().get_logged_model(run.data.tags["model.id"])
    (score,) = [one for one in model.metrics if one.key == "test.global.J_and_F-Mean"]
    assert (score.value, score.dataset_name, score.dataset_digest) == (0.55, "tiny", run.data.tags["data.digest"])
    assert model.name == "ours" and model.source_run_id == run.info.run_id


def test_the_logged_model_segments_a_folder_of_frames(project, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setattr(sys, "path", list(sys.path))  # loading the model adds its code
    layout = Layout("tiny")
    video = evaluation_video(layout)
    frames = layout.frames / "embedded" / Path(video.frames[0].image_path).parent
    scribble = read_store(layout.scribbles)[(video.dataset, video.sequence, video.frames[0].name)]
    write_labels(tmp_path / "scribble.png", scribble)
    mlflow.set_tracking_uri(tracking.tracking_uri())
    model = mlflow.pyfunc.load_model(f"models:/{the_run('train_stage2').data.tags['model.id']}")
    job = {"video": str(frames), "scribble": str(tmp_path / "scribble.png"), "out": str(tmp_path / "masks")}
    assert model.predict([job]) == [job["out"]]
    checkpoint = layout.run("ours", "stage2") / "checkpoint.pt"
    expected, scribble_path = tmp_path / "expected", tmp_path / "scribble.png"
    segment_video(frames, scribble_path, checkpoint, expected, "cpu", False, False, DEFAULT_PREDICT, untracked)
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert len(masks) == 6
    assert all(mask.read_bytes() == (expected / mask.name).read_bytes() for mask in masks)


def test_a_logged_model_has_its_code_as_text_and_no_pickle(project):
    model = client().get_logged_model(the_run("train_stage2").data.tags["model.id"])
    folder = Path(model.artifact_location.removeprefix("file://"))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"pyfunc_model.py", "artifacts/checkpoint.pt", "code/ssvos/inference/segment_video.py"} <= files
    assert not [name for name in files if Path(name).suffix in {".pkl", ".pickle", ".joblib", ".cloudpickle"}]
    assert "python_model:" not in (folder / "MLmodel").read_text(), "MLflow names a pickled model here"


def test_trials_are_child_runs_of_their_search_with_their_own_values(project):
    search = the_run("tune")
    trials = {run.data.tags["trial"]: run for run in all_runs() if run.data.tags["stage"] == "trial"}
    assert set(trials) == {"0", "2"}, "a failed trial has no run"
    for run in trials.values():
        assert run.data.tags["mlflow.parentRunId"] == search.info.run_id
        assert run.info.experiment_id == search.info.experiment_id
        assert run.data.tags["search"] == search.data.tags["search"] == "abcdefabcdef"
        assert run.data.params["train.stage1.clips_per_epoch"] == "2", "a trial has the overrides of tune.trial"
    assert trials["2"].data.params["loss.weight"] == "2.0"
    assert curve(trials["0"], "holdout_score") == [(1, 0.2), (2, 0.3)]
    assert trials["0"].data.metrics["best_holdout_score"] == search.data.metrics["best_score"] == 0.3
