"""The real pipeline on a tiny data set: DVC runs the stages, Ray Data and two workers of Ray Train do the work."""

import json
import os
import shutil
import sys

import pytest
from cluster_head import OPEN, can_hide, free_port
from cluster_nodes import PORT, can_part, machines, wait_for_nodes
from object_store import KEYS, object_store
from ruamel.yaml import YAML
from sandbox import PROJECT, run
from test_guides import script

# the first test includes the minutes that the fixture needs to reproduce the project
pytestmark = pytest.mark.timeout(900)


def test_repro_writes_a_checkpoint_masks_scores_and_a_page_for_every_variant(project):
    for variant in ("pce", "ours"):
        for stage in ("stage1", "stage2"):
            assert (project / "runs/tiny" / variant / stage / "checkpoint.pt").is_file()
        masks = sorted((project / "predictions/tiny" / variant / "val/val-000").glob("*.png"))
        assert len(masks) == 6
        result = json.loads((project / f"results/tiny/{variant}/val.json").read_text())
        assert 0 <= result["scores"]["embedded"]["global"]["J&F-Mean"] <= 1
    page = (project / "reports/index.html").read_text()
    assert "grabcut + flow" in page and "data:image/jpeg" in page
    assert not list((project / "resume").glob("tiny-*")), "saved states are removed after success"


def test_a_second_repro_reports_that_everything_is_up_to_date(project):
    assert "Data and pipelines are up to date" in run(["dvc", "repro"], project).stdout


def test_a_stage_2_parameter_reruns_only_stage_2_and_later_stages(project):
    path = project / "params.yaml"
    before = path.read_text()
    yaml = YAML()
    params = yaml.load(before)
    params["train"]["stage2"] = {**params["train"]["stage2"], "learning_rate": 5e-4}
    with open(path, "w") as file:
        yaml.dump(params, file)
    try:
        status = json.loads(run(["dvc", "status", "--json"], project).stdout)
    finally:
        path.write_text(before)
    assert set(status) == {"train_stage2@pce", "train_stage2@ours", "report"}  # the page prints all parameters
    graph = run(["dvc", "dag", "--dot", "train_stage2@ours"], project).stdout
    assert "train_stage1@ours" in graph


def test_dvc_shows_the_stages_metrics_and_plots(project):
    shown = run(["dvc", "metrics", "show", "--json"], project).stdout
    assert "J&F-Mean" in shown
    run(["dvc", "plots", "show", "-o", "plots"], project)
    assert (project / "plots/index.html").is_file()


def test_mlflow_has_a_run_of_every_stage_and_the_test_score_on_the_training_run(project):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ssvos")
    assert experiment.artifact_location == (project / "mlartifacts").as_uri()
    runs = client.search_runs([experiment.experiment_id])
    stages = sorted((run.data.tags["stage"], run.data.tags.get("variant", "")) for run in runs)
    per_variant = ("evaluate", "predict", "train_stage1", "train_stage2")
    once = ("prepare", "report", "scribbles", "tables", "baselines")
    assert stages == sorted([*((s, "") for s in once), *((s, v) for s in per_variant for v in ("ours", "pce"))])
    assert all(run.info.status == "FINISHED" for run in runs)
    trained = next(r for r in runs if (r.data.tags["stage"], r.data.tags.get("variant")) == ("train_stage2", "ours"))
    result = json.loads((project / "results/tiny/ours/val.json").read_text())
    expected = result["scores"]["embedded"]["global"]["J&F-Mean"]
    assert trained.data.metrics["test.global.J_and_F-Mean"] == pytest.approx(expected)
    assert trained.data.tags["checkpoint.digest"] == result["checkpoint"]
    assert trained.data.params["loss.regularizer"] == "scribble_supervised"
    assert trained.inputs.dataset_inputs[0].dataset.name == "tiny"
    assert len(client.get_metric_history(trained.info.run_id, "loss")) == 1


def test_scribbles_do_not_depend_on_the_number_of_workers(project):
    from ssvos.config import ScribbleConfig
    from ssvos.data.index import labelled_frames, read_index
    from ssvos.scribbles.store import read_store_table, scribble_row

    table = read_store_table(project / "data/tiny/scribbles/scribbles.parquet")
    index = labelled_frames(read_index(project / "data/tiny/frames/index.parquet"))
    in_process = [
        scribble_row(row, project / "data/tiny/frames/embedded", ScribbleConfig(width=2)) for row in index.to_pylist()
    ]
    key = ("dataset", "split", "sequence", "frame")
    in_process.sort(key=lambda row: [row[k] for k in key])
    assert [row["png"] for row in in_process] == table["png"].to_pylist()


def test_two_workers_reach_the_same_loss_as_one_process(project):
    """Compare the pipeline's DDP run with the same training loop in this process."""
    from pipelines.params import Layout, read_params
    from ssvos.training.trainer import first_network, fit
    from ssvos.training.training_data import training_data

    config = read_params(project / "params.yaml").variant("ours")
    layout = Layout("tiny")
    roots = {"embedded": project / layout.frames / "embedded"}
    data = training_data(project / layout.index, project / layout.scribbles, roots, config)
    progress = fit(first_network(config), data, config, config.train.stage1, "cpu", lambda _: None)
    history = (project / "runs/tiny/ours/stage1/history.csv").read_text().splitlines()
    by_workers = dict(zip(history[0].split(","), map(float, history[1].split(",")), strict=True))
    for key, value in progress.history[0].items():
        assert by_workers[key] == pytest.approx(value, rel=2e-3, abs=2e-3), key


INVALID = [
    ("model: {bakbone: {}}", "model.bakbone: unknown key, did you mean backbone?"),
    ("train: {seed: zero}", "train.seed: input should be a valid integer"),
    ("variants: {}", "variants: no variant is defined"),
]


@pytest.mark.parametrize(("override", "message"), INVALID)
def test_invalid_parameters_end_with_one_line(project, tmp_path, override, message):
    shutil.copy(project / "params.yaml", tmp_path)
    yaml = YAML(typ="safe")
    params = yaml.load((tmp_path / "params.yaml").read_text())
    for key, value in yaml.load(override).items():
        params[key] = {**params[key], **value} if value else value
    with open(tmp_path / "params.yaml", "w") as file:
        YAML().dump(params, file)
    done = run(["python", "-m", "pipelines.prepare"], tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and message in done.stderr


def test_all_faults_of_a_data_set_are_listed_together(project, tmp_path):
    source = project / "data/tiny/frames/embedded"
    shutil.copytree(source, tmp_path / "set")
    masks = tmp_path / "set/Annotations/480p"
    (masks / "train-000/00002.png").unlink()
    (masks / "train-001/00003.png").write_bytes(b"no image")
    yaml = YAML(typ="safe")
    params = yaml.load((project / "params.yaml").read_text())
    params["data"] = {
        "name": "faulty",
        "sources": [{"name": "s", "layout": "davis", "root": str(tmp_path / "set")}],
    }
    with open(tmp_path / "params.yaml", "w") as file:
        YAML().dump(params, file)
    done = run(["python", "-m", "pipelines.prepare"], tmp_path, check=False)
    assert done.returncode == 1
    assert "train-000/00002" in done.stderr and "train-001/00003.png" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_search_writes_its_trials_the_best_values_and_a_run_of_each_trial(project):
    from mlflow import MlflowClient

    rows = [line.split(",") for line in (project / "tune/trials.csv").read_text().splitlines()]
    assert rows[0][:5] == ["trial", "status", "epochs", "score", "seconds"] and len(rows) == 4
    best = YAML(typ="safe").load((project / "tune/best.yaml").read_text())
    scores = {int(row[0]): float(row[3]) for row in rows[1:] if row[3]}
    assert best["best"]["score"] == max(scores.values()) == scores[best["best"]["trial"]]
    assert best["before"]["trial"] == 0 and scores[0] == best["before"]["score"]
    assert float(rows[1][5]) == pytest.approx(0.001), "the first trial has the current values"
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("ssvos-tune").experiment_id])
    parent = next(one for one in runs if one.data.tags["stage"] == "tune")
    children = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 3
    for child in children:
        row = rows[1 + int(child.data.tags["trial"])]
        assert float(child.data.params["train.stage1.learning_rate"]) == pytest.approx(float(row[5]))
        assert len(client.get_metric_history(child.info.run_id, "holdout_score")) == int(row[2])


def test_the_best_values_are_applied_with_their_provenance_and_not_searched_again(project_copy):
    best = YAML(typ="safe").load((project_copy / "tune/best.yaml").read_text())
    # the best values must differ from params.yaml, whichever trial is best
    text = (project_copy / "params.yaml").read_text().replace("0.001}", "0.0011}", 1)
    (project_copy / "params.yaml").write_text("# a comment\n" + text)
    shown = run(["python", "-m", "pipelines.tuning.apply_best"], project_copy).stdout
    new = best["params"]["train"]["stage1"]["learning_rate"]
    assert f"train.stage1.learning_rate: 0.0011 -> {new:g}" in shown
    assert "0.0011" in (project_copy / "params.yaml").read_text(), "nothing is written without a confirmation"
    run(["python", "-m", "pipelines.tuning.apply_best", "--yes"], project_copy)
    after = (project_copy / "params.yaml").read_text()
    params = YAML(typ="safe").load(after)
    assert params["train"]["stage1"]["learning_rate"] == new and params["train"]["stage2"]["learning_rate"] == 0.001
    assert after.startswith("# a comment") and best["search"]["digest"] in params["tuned_from"]
    status = json.loads(run(["dvc", "status", "--json"], project_copy).stdout)
    assert "tune" not in status and "train_stage1@ours" in status


def test_a_lost_database_is_restored_from_the_outputs_on_disk(project_copy):
    from mlflow import MlflowClient

    speed = ("clips_per_second", "data_wait_share", "peak_memory_gb")  # these are in no file

    def content() -> list[tuple]:
        client = MlflowClient(f"sqlite:///{project_copy / 'mlflow.db'}")
        runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
        return sorted(
            (r.info.run_name, {k: v for k, v in r.data.metrics.items() if k not in speed}, r.data.params) for r in runs
        )

    before = content()
    (project_copy / "mlflow.db").unlink()
    for _ in range(2):  # a second time adds nothing
        run(["python", "-m", "pipelines.tracking.run_records"], project_copy)
    after = content()
    assert [name for name, *_ in after] == [name for name, *_ in before]
    for (name, metrics, params), (_, old, old_params) in zip(after, before, strict=True):
        assert params == old_params, name
        assert metrics == pytest.approx(old), name


@pytest.mark.parametrize("guide", ["tuning", "comparing"])
def test_the_commands_of_guides_about_a_finished_run_work(guide, project_copy):
    params = project_copy / "params.yaml"  # the best values must differ from it, whichever trial is best
    params.write_text(params.read_text().replace("0.001}", "0.0011}", 1))
    run(["bash", "-c", script(guide, {"tune.trials=8": "tune.trials=4"})], project_copy, timeout=850, SSVOS_WORKERS="0")
    if guide == "tuning":
        text = (project_copy / "params.yaml").read_text()
        assert "trial" in text.split("tuned_from:")[1].splitlines()[0]


def test_the_cluster_does_not_see_the_projects_folder(project, address):
    """The other tests of the pipeline rely on this."""
    if not can_hide():
        pytest.skip("no mount namespaces here, so the folder could not be hidden")
    look = f"""
import ray
ray.init(address="{address}", log_to_driver=False, logging_level="ERROR")
@ray.remote
def seen():
    import os
    return os.listdir("{project.parent}")
print(ray.get(seen.remote()))
"""
    assert run([sys.executable, "-c", look], project, **OPEN).stdout.splitlines()[-1] == "[]"


def test_a_local_ray_and_the_cluster_write_identical_files(project, project_copy):
    outputs = ["data/tiny/scribbles/scribbles.parquet", "runs/tiny/ours/stage1/checkpoint.pt"]
    for name in outputs:
        (project_copy / name).unlink()
    run(["python", "-m", "pipelines.scribbles"], project_copy)
    run(["python", "-m", "pipelines.train", "--variant", "ours", "--stage", "stage1"], project_copy)
    for name in outputs:
        assert (project_copy / name).read_bytes() == (project / name).read_bytes(), name


@pytest.mark.skipif(not can_part(), reason="no network namespaces here, so no separate machines")
@pytest.mark.skipif(not os.environ.get("SSVOS_FAULTS"), reason="minutes, on idle cores: make faults")
def test_three_machines_that_share_only_an_object_store_write_identical_files(project, project_copy):
    """Machines 2 and 3 see neither the project's folder nor its code; machine 1 runs the pipeline."""
    outputs = ["data/tiny/scribbles/scribbles.parquet", "results/tiny/ours/val.json", "results/tiny/ours/objects.csv"]
    outputs += [
        f"runs/tiny/ours/{stage}/{name}" for stage in ("stage1", "stage2") for name in ("checkpoint.pt", "history.csv")
    ]
    for name in outputs:
        (project_copy / name).unlink()
    with machines(3) as cluster, object_store(cluster.address(0), 9000, cluster.within(0)) as bucket:
        for number in (1, 2, 3):
            hidden = [project_copy, project, PROJECT / "ssvos", PROJECT / "pipelines"] if number > 1 else []
            cluster.start(number, hidden=hidden, **KEYS)
        wait_for_nodes(cluster, 3, sys.executable)
        settings = {"RAY_ADDRESS": f"{cluster.address(1)}:{PORT}", "SSVOS_STORAGE": bucket, **KEYS, **OPEN}
        run([*cluster.within(1), "dvc", "repro", "--force", "evaluate@ours"], project_copy, **settings)
        look = [*cluster.within(1), sys.executable, "-c", LOOK]
        seen = json.loads(run(look, project_copy, **settings).stdout.splitlines()[-1])
    for name in outputs:
        assert (project_copy / name).read_bytes() == (project / name).read_bytes(), name
    assert sorted(map(len, seen["folders"].values())) == [0, 0, len(list(project_copy.iterdir()))]
    kinds = {name.rpartition("-")[2] for name in seen["inputs"]}
    assert {"index.parquet", "scribbles.parquet", "checkpoint.pt", "embedded.tar"} <= kinds
    assert not seen["resume"] and not list((project_copy / "resume").glob("tiny-*"))


# runs on the first machine: the contents of the project's folder on each node, and of the object store
LOOK = """
import json, os, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
from pipelines.cluster.storage import storage
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
seen = ray.remote(lambda folder: os.listdir(folder))
ids = [node["NodeID"] for node in ray.nodes()]
folders = {one: ray.get(seen.options(scheduling_strategy=On(one, soft=False)).remote(os.getcwd())) for one in ids}
stored = {kind: [str(path) for path in (storage() / kind).glob("*")] for kind in ("inputs", "resume")}
print(json.dumps({"folders": folders} | stored))
"""


def test_the_commands_of_the_cluster_guide_work(address, project_copy):
    done = run(["bash", "-c", script("cluster", {"127.0.0.1:6379": address})], project_copy, timeout=850, **OPEN)
    assert "Running stage 'train_stage1@ours'" in done.stdout


def test_an_address_without_a_cluster_ends_with_one_line(project_copy):
    address = f"127.0.0.1:{free_port()}"
    done = run(["python", "-m", "pipelines.scribbles"], project_copy, check=False, RAY_ADDRESS=address)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and f"RAY_ADDRESS {address}: no cluster answers at this" in done.stderr
