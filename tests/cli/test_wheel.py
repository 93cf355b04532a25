"""The wheel of the package segments a video in an environment that holds only its requirements."""

import os
import re
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from sandbox import PROJECT

from ssvos.labels import read_labels, write_labels

PIPELINE = ("ray", "dvc", "mlflow", "optuna", "hydra-core")


def required(names: list[str]) -> dict[str, Distribution]:
    """Return the packages that `names` require without extras, directly and indirectly."""
    found: dict[str, Distribution] = {}
    wanted = [Requirement(name) for name in names]
    while wanted:
        need = wanted.pop()
        key = re.sub(r"[-_.]+", "-", need.name).lower()
        if key in found or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        found[key] = distribution(need.name)
        wanted += [Requirement(line) for line in found[key].requires or ()]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(source)], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*build, str(source)], check=True, stdout=subprocess.DEVNULL)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """The programs of a new environment that holds only the wheel and its requirements.

    pip installs the wheel without an index. The requirements are links to this environment's packages: no download.
    """
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=True)
    site = next(folder.glob("lib/python*/site-packages"))
    text = subprocess.run(["unzip", "-p", wheel, "*/METADATA"], check=True, capture_output=True, text=True).stdout
    names = re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE)
    for one in required(names).values():
        for top in {Path(file).parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(one.locate_file(top))
    program = folder / "bin" / "python"
    subprocess.run(
        [program, "-m", "pip", "install", "--quiet", "--no-index", wheel], check=True, env=clean(folder / "bin")
    )
    return folder / "bin"


def clean(programs: Path) -> dict[str, str]:
    """Return an environment without this process's variables, in particular without PYTHONPATH."""
    return {"PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(programs.parent)}


def run(bare: Path, *arguments: object, folder: Path) -> subprocess.CompletedProcess:
    command = [str(bare / "ssvos"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=clean(bare), capture_output=True, text=True, timeout=120)


def test_the_environment_has_no_package_of_the_pipeline(bare):
    command = [bare / "python", "-m", "pip", "list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, env=clean(bare)).stdout
    names = {line.split()[0].lower() for line in listed.splitlines()[2:]}
    assert "ssvos" in names and "torch" in names and not names & set(PIPELINE)


def test_it_segments_a_video_with_the_bundled_checkpoint(bare, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "frames").mkdir()
    ground, thing = rng.integers(0, 90, (64, 96, 3), np.uint8), rng.integers(160, 255, (24, 24, 3), np.uint8)
    for t in range(3):
        frame = ground.copy()
        frame[20:44, 30 + 4 * t : 54 + 4 * t] = thing
        Image.fromarray(frame).save(tmp_path / "frames" / f"{t:05d}.png")
    scribble = np.full((64, 96), 255, np.uint8)
    scribble[31:33, 34:50], scribble[5:7, 5:90] = 1, 0
    write_labels(tmp_path / "scribble.png", scribble)
    done = run(bare, "segment", "frames", "--scribble", "scribble.png", "--out", "masks", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted((tmp_path / "masks").glob("*.png"))] == [f"{t:05d}.png" for t in range(3)]
    mask, true = read_labels(tmp_path / "masks" / "00002.png") == 1, np.zeros((64, 96), bool)
    true[20:44, 38:62] = True
    assert (mask & true).sum() / (mask | true).sum() > 0.5


def test_a_command_that_needs_the_pipeline_says_how_to_install_it(bare, tmp_path):
    done = run(bare, "plan", "--preset", "demo", folder=PROJECT)
    assert done.returncode == 1
    assert done.stderr == "ssvos: hydra: this package is missing; install the pipeline: pip install 'ssvos[pipeline]'\n"
