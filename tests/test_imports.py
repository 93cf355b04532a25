"""Imports point one way, and the method stands without its plumbing."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUMBING = ("ray", "dvc", "mlflow")
STAGES = ("prepare", "scribbles", "tune", "train", "predict", "evaluate", "report")
LOWEST = ("labels", "config", "files", "device")
MIDDLE = ("models", "losses", "scribbles", "data")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, be it inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level(module: str) -> int | None:
    """0: labels, config; 1: models, losses, scribbles, data; 2: the rest of ssvos; 3: pipelines."""
    top, _, rest = module.partition(".")
    if top == "pipelines":
        return 3
    if top != "ssvos" or not rest:
        return None
    room = rest.split(".")[0]
    return 0 if room in LOWEST else 1 if room in MIDDLE else 2


@pytest.mark.parametrize("path", sources("ssvos") + sources("pipelines"), ids=module_name)
def test_imports_point_downwards(path):
    own = level(module_name(path))
    upwards = [name for name in imported(path) if own is not None and (level(name) or 0) > own]
    assert not upwards


def test_the_method_names_no_plumbing():
    guilty = {module_name(p): n for p in sources("ssvos") for n in imported(p) if n.split(".")[0] in PLUMBING}
    assert sources("ssvos") and not guilty


def test_mlflow_is_imported_by_tracking_and_the_logged_model_alone():
    importers = {module_name(p) for p in sources("pipelines") if any(n.split(".")[0] == "mlflow" for n in imported(p))}
    assert importers <= {"pipelines.tracking", "pipelines.logged_model"}


def test_no_stage_imports_another():
    for path in sources("pipelines"):
        if path.stem in STAGES:
            others = {f"pipelines.{stage}" for stage in STAGES if stage != path.stem}
            assert not imported(path) & others, path


def test_every_module_of_the_method_imports_where_the_plumbing_is_missing():
    # Triton comes with PyTorch for GPUs alone, and this file is imported there alone
    apart = set() if find_spec("triton") else {"ssvos.losses.fused_exact"}
    names = {module_name(path) for path in sources("ssvos")} - apart
    program = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {PLUMBING}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
import importlib
for name in {sorted(names)}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["ssvos", "ssvos.cli"])
def test_heavy_imports_wait_until_they_are_needed(module):
    program = f"import sys, {module}; print([m for m in ('torch', 'cv2', 'pyarrow', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
