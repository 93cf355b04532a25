"""Study `table3`: its parameters and its DVC pipeline, which also runs with one row and one seed."""

import json
import re
import sys
from pathlib import Path

import pytest
from printed_tables import TABLE_III
from ruamel.yaml import YAML
from sandbox import PROJECT, make_project, run

from pipelines.params import flatten
from pipelines.studies.study import read_study
from ssvos.config import read_yaml
from ssvos.config.variants import params_from, read_params
from ssvos.metrics.tables import read_table

STUDY = PROJECT / "studies" / "table3"
ROWS = list(TABLE_III)


@pytest.fixture(scope="module")
def study_params():
    return read_params(STUDY / "params.yaml")


def test_seed_in_a_name_changes_only_the_seed(study_params):
    plain, seeded = flatten(study_params.variant("pce_ss")), flatten(study_params.variant("pce_ss-seed11"))
    assert {key: (plain[key], seeded[key]) for key in plain if plain[key] != seeded[key]} == {"train.seed": (0, 11)}
    assert study_params.variant("full-seed0") == study_params.variant("full")
    assert "full-seed0" not in study_params.variants


@pytest.mark.parametrize("name", ["half-seed1", "full-seed01", "full-seed", "full-seed-1", "seed1", "full-seed1-seed2"])
def test_unknown_variant_names_are_errors(study_params, name):
    with pytest.raises(ValueError, match=f"no variant '{name}'; choose one of pce"):
        study_params.variant(name)


def test_variant_must_not_be_named_like_a_seed_of_another():
    values = {"data": {"name": "x", "sources": [{"name": "e", "layout": "embedded"}]}}
    with pytest.raises(
        ValueError, match=r"^p.yaml: variants.full-seed1: this name denotes full with seed 1; rename it$"
    ):
        params_from(values | {"variants": {"full": {}, "full-seed1": {}}}, "p.yaml")


def test_rows_differ_only_in_attention_and_regularizer(study_params):
    full, kinds = flatten(study_params.variant("full")), {}
    for row in ROWS:
        changed = {key for key, value in flatten(study_params.variant(row)).items() if value != full[key]}
        assert changed <= {"model.attention.kind", "loss.regularizer"}
        config = study_params.variant(row)
        kinds[row] = (config.model.attention.kind, config.loss.regularizer)
    assert kinds == {
        "pce": ("none", "none"),
        "pce_sa": ("scribble", "none"),
        "pce_psa": ("point_wise", "none"),
        "pce_nl": ("non_local", "none"),
        "pce_cca": ("criss_cross", "none"),
        "pce_ss": ("none", "scribble_supervised"),
        "pce_dcrf": ("none", "dense_crf"),
        "full": ("scribble", "scribble_supervised"),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "rows: [pce]",
            "study.yaml: pce_sa: missing or listed twice; list it once, in rows or, with a reason, in not_run",
        ),
        (f"rows: {[*ROWS, 'extra']}", "study.yaml: extra: not a row of the table; choose one of pce, pce_sa"),
        (f"rows: {ROWS}\nnot_run: {{full: slow}}", "study.yaml: full: missing or listed twice"),
        (f"rows: {[*ROWS, 'pce']}", "study.yaml: pce: missing or listed twice"),
        (f"rows: {ROWS}\nseed: [1]", "study.yaml: seed: unknown key, did you mean seeds?"),
    ],
)
def test_faulty_study_is_an_error_of_one_line(tmp_path, line, message):
    path = tmp_path / "study.yaml"
    path.write_text(f"seeds: [0]\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_study(path, read_table("III"))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project without any results."""
    return make_project(tmp_path_factory.mktemp("study") / "project")


def test_study_has_stages_for_every_row_and_seed(project):
    names = run(["dvc", "stage", "list", "--name-only"], project / "studies/table3").stdout.split()
    runs = {f"{row}-{seed}" for row in ROWS for seed in (0, 1, 2)}
    for stage in ("train_stage1", "train_stage2", "predict", "evaluate"):
        assert {name.partition("@")[2] for name in names if name.startswith(f"{stage}@")} == runs
    assert {name for name in names if "@" not in name} == {"prepare", "scribbles", "baselines", "figure6", "table"}


def test_projects_own_pipeline_does_not_include_the_study(project):
    """Missing outputs of the study would make `dvc checkout` fail, and `dvc status` would list a hundred stages."""
    assert "studies" not in run(["dvc", "stage", "list", "--all"], project).stdout
    assert "studies" not in run(["dvc", "status"], project).stdout


def test_stages_of_the_study_depend_on_the_same_code_as_the_projects_stages(project):
    """The study lists files instead of folders: a new file in one of the folders must be added to its dvc.yaml."""
    study, pipeline = (read_yaml(folder / "dvc.yaml")["stages"] for folder in (project / "studies/table3", project))
    for name, stage in study.items():
        if name in ("figure6", "table"):
            continue
        deps = {dep.removeprefix("../../") for dep in stage["deps"] if dep.startswith("../../")}
        expected = set()
        for dep in pipeline[name]["deps"]:
            folder = project / dep
            files = [path.relative_to(project).as_posix() for path in folder.glob("*.py")] if folder.is_dir() else [dep]
            expected |= {path for path in files if path.startswith(("ssvos/", "pipelines/"))}
        assert deps == {path for path in expected if not path.endswith("__init__.py")}, name


# runs every stage as `python -m` does, but in one process, which saves the start of eight
IN_ONE_PROCESS = """
import runpy, sys
for command in sys.argv[1:]:
    module, *sys.argv[1:] = command.removeprefix("python -m ").split()
    runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.timeout(300)
def test_study_of_one_row_and_seed_runs_to_its_table(project):
    """The commands of its dvc.yaml need only the listed dependencies and write exactly the listed outputs."""
    folder = project / "studies" / "table3"
    params = read_yaml(PROJECT / "tests" / "support" / "tiny_params.yaml")
    params["data"]["name"], params["variants"] = "table3", {"full": {}}
    with open(folder / "params.yaml", "w") as file:
        YAML().dump(params, file)
    others = "".join(f"  {row}: one row is enough here\n" for row in ROWS if row != "full")
    (folder / "study.yaml").write_text(f"seeds: [4]\nrows: [full]\nnot_run:\n{others}")
    commands = [stage["cmd"] for stage in read_yaml(folder / "dvc.yaml")["stages"].values()]
    commands = [one.replace("${item.variant}", "full").replace("${item.seed}", "4") for one in commands]
    # PYTHONPATH: the environment has the original project installed; DVC_ROOT: DVC sets it for its commands
    environment = {"PYTHONPATH": str(project), "DVC_ROOT": str(project / "studies")}
    run([sys.executable, "-c", IN_ONE_PROCESS, *commands], folder, timeout=280, SSVOS_WORKERS="0", **environment)
    run(["dvc", "commit", "-f", "dvc.yaml"], folder)  # fails if an output is missing
    assert "up to date" in run(["dvc", "repro"], folder).stdout
    table = [line for line in (folder / "table3.md").read_text().splitlines() if line.startswith("|")]
    lines = {line.split("|")[1].strip(): line for line in table}
    assert "not run (one row is enough here)" in lines["pce"]
    # a few training steps with one seed: the model is far below GrabCut + flow
    assert "(one seed)" in lines["full"] and "no verdict: the full model is below label propagation" in lines["full"]
    score = json.loads((folder / "results/table3/full-seed4/val.json").read_text())["scores"]["embedded"]["global"]
    assert f"| {100 * score['J&F-Mean']:.1f} |" in lines["full"]
    assert "JF_mean" in run(["dvc", "metrics", "show"], folder).stdout
    untracked = run(["git", "status", "--short", "--untracked-files=all"], folder).stdout
    assert "history.csv" in untracked and not re.search(r"checkpoint\.pt|/data/|/predictions/|\.db", untracked)
    require_runs(project / "studies" / "mlflow.db")
    assert not (project / "mlflow.db").exists()


def require_runs(database: Path) -> None:
    """Check that every stage has an MLflow run and that a training run has the seed of its name."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    runs = client.search_runs([client.get_experiment_by_name("ssvos").experiment_id])
    assert len(runs) == 9 and {one.data.tags["data"] for one in runs} == {"table3"}
    trained = next(one for one in runs if one.data.tags["stage"] == "train_stage1")
    assert trained.data.tags["variant"] == "full-seed4" and trained.data.params["train.seed"] == "4"
