"""A copy of the project in a folder of its own, with git and DVC, in which tests run its real commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_PARTS = ("conf", "pipelines", "ssvos", "dvc.yaml", "Makefile", "pyproject.toml", "requirements.lock")
_TORCH = "requirements-torch.lock"
# what running a study leaves in its folder, beside what it is made from
_OF_RUNS = ("tmp", "cache", "data", "predictions", "resume", "results", "runs", "mlflow.db*", "mlartifacts", "dvc.lock")
_TABLES = ("*.md", "*.csv", "*.json", "*.svg")


def make_project(folder: Path) -> Path:
    """Copy the project to `folder`; `make` finds this interpreter's environment there, set up already."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*_PARTS, _TORCH, ".gitignore"):
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    shutil.copytree(PROJECT / "studies", folder / "studies", ignore=shutil.ignore_patterns(*_OF_RUNS, *_TABLES))
    shutil.copy(PROJECT / "tests" / "support" / "tiny_params.yaml", folder / "params.yaml")
    (folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".ready":
            (folder / ".venv" / part.name).symlink_to(part)
    (folder / ".venv" / ".ready").touch()
    run(["git", "init", "-q", "."], folder)
    run(["git", "config", "user.email", "test@localhost"], folder)
    run(["git", "config", "user.name", "test"], folder)
    run(["dvc", "init", "-q"], folder)
    run(["git", "add", "-A"], folder)
    run(["git", "commit", "-qm", "start"], folder)
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    """This process's variables without those that steer DVC, MLflow, Ray or the stages."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "RAY_", "SSVOS_", "MAKE"))}
    kept["PATH"] = f"{folder / '.venv' / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"} | more


def run(
    command: list[str], folder: Path, check: bool = True, timeout: float = 850, **more: str
) -> subprocess.CompletedProcess:
    """Run a command in the project's copy with this environment's programs; `more` are environment variables."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, timeout=timeout
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done
