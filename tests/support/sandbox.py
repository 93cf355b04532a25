"""A copy of the project in its own folder with git and DVC, in which tests run the real commands."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import warm_python
from warm_python import CLIENT

PROJECT = Path(__file__).parents[2]
_PARTS = ("conf", "pipelines", "ssvos", "dvc.yaml", "Makefile", "pyproject.toml", "requirements.lock")
_TORCH = "requirements-torch.lock"
# outputs of a study, which are in the same folder as its inputs
_OF_RUNS = ("tmp", "cache", "data", "predictions", "resume", "results", "runs", "mlflow.db*", "mlartifacts", "dvc.lock")
_TABLES = ("*.md", "*.csv", "*.json", "*.svg")


def make_project(folder: Path) -> Path:
    """Copy the project to `folder`. `make` finds this interpreter's environment there, already set up."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*_PARTS, _TORCH, ".gitignore"):
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    shutil.copytree(PROJECT / "studies", folder / "studies", ignore=shutil.ignore_patterns(*_OF_RUNS, *_TABLES))
    shutil.copy(PROJECT / "tests" / "support" / "tiny_params.yaml", folder / "params.yaml")
    _make_environment(folder / ".venv")
    run(["git", "init", "-q", "."], folder)
    run(["git", "config", "user.email", "test@localhost"], folder)
    run(["git", "config", "user.name", "test"], folder)
    run(["dvc", "init", "-q"], folder)
    run(["git", "add", "-A"], folder)
    run(["git", "commit", "-qm", "start"], folder)
    return folder


def _make_environment(venv: Path) -> None:
    """Link this interpreter's environment as `venv`. Its `python` runs the stages in children of a warm process."""
    (venv / "bin").mkdir(parents=True)
    for part in Path(sys.prefix).iterdir():
        if part.name not in ("bin", ".ready"):
            (venv / part.name).symlink_to(part)
    for program in (Path(sys.prefix) / "bin").iterdir():
        if program.name != "python":
            (venv / "bin" / program.name).symlink_to(program)
    (venv / "bin" / "python.real").symlink_to(sys.executable)
    client = CLIENT.format(python=sys.executable, real=str(venv / "bin" / "python.real"), socket=_warm_socket())
    (venv / "bin" / "python").write_text(client)
    (venv / "bin" / "python").chmod(0o755)
    (venv / ".ready").touch()


@cache
def _warm_socket() -> str:
    """Start the warm process and return its socket's path. The process ends with the tests."""
    path = Path(tempfile.mkdtemp(prefix="warm")) / "socket"
    variables = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONDONTWRITEBYTECODE": "1"}
    server = subprocess.Popen(
        [sys.executable, str(Path(warm_python.__file__)), str(path)], stdin=subprocess.PIPE, env=os.environ | variables
    )

    def stop() -> None:
        server.stdin.close()
        server.wait(timeout=60)
        shutil.rmtree(path.parent)

    atexit.register(stop)
    while not path.exists():
        assert server.poll() is None, "the warm process ended"
        time.sleep(0.1)
    return str(path)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return this process's variables without those that configure DVC, MLflow, Ray, Make or the stages."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "RAY_", "SSVOS_", "MAKE"))}
    kept["PATH"] = f"{folder / '.venv' / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"} | more


def run(
    command: list[str], folder: Path, check: bool = True, timeout: float = 850, **more: str
) -> subprocess.CompletedProcess:
    """Run a command in the project's copy with the programs of its environment. more: environment variables."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, timeout=timeout
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done
