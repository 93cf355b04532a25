"""The project ran on a cluster that does not see its folder (see conftest); here it runs on Ray of its own."""

import sys

import pytest
from cluster_head import OPEN, can_hide, free_port
from sandbox import run
from test_guides import script

pytestmark = pytest.mark.xdist_group("pipeline")


def test_the_cluster_saw_nothing_of_the_project(project, address):
    """What the other tests of the pipeline stand on."""
    if not can_hide():
        pytest.skip("no mount namespaces here: the folder could not be hidden")
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


@pytest.mark.timeout(200)
def test_ray_started_here_gives_the_same_bytes_as_the_cluster(project, project_copy):
    made = ["data/tiny/scribbles/scribbles.parquet", "runs/tiny/ours/stage1/checkpoint.pt"]
    for name in made:
        (project_copy / name).unlink()
    run([sys.executable, "-m", "pipelines.scribbles"], project_copy)
    run([sys.executable, "-m", "pipelines.train", "--variant", "ours", "--stage", "stage1"], project_copy)
    for name in made:
        assert (project_copy / name).read_bytes() == (project / name).read_bytes(), name


@pytest.mark.timeout(200)
def test_commands_of_the_cluster_guide_run(address, project_copy):
    done = run(["bash", "-c", script("cluster", {"127.0.0.1:6379": address})], project_copy, timeout=190, **OPEN)
    assert "Running stage 'train_stage1@ours'" in done.stdout


def test_an_address_where_nobody_listens_is_one_line(project_copy):
    nobody = f"127.0.0.1:{free_port()}"
    done = run([sys.executable, "-m", "pipelines.scribbles"], project_copy, check=False, RAY_ADDRESS=nobody)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and f"RAY_ADDRESS {nobody}: no cluster answers there" in done.stderr
