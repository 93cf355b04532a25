"""Imports point one way, every file belongs to a layer, and the method works without Ray, DVC and MLflow."""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIPELINE_PACKAGES = ("ray", "dvc", "mlflow")
STAGES = ("prepare", "scribbles", "tune", "train", "predict", "baselines", "evaluate", "tables", "report")

# from the lowest layer up; a package may import itself and the packages of lower layers
LAYERS = (
    ("ssvos.device", "ssvos.files", "ssvos.progress"),
    ("ssvos.config", "ssvos.hardware", "ssvos.labels"),
    ("ssvos.metrics", "ssvos.models", "ssvos.scribbles", "ssvos.visualization"),
    ("ssvos.data", "ssvos.losses"),
    ("ssvos.baselines",),
    ("ssvos.evaluation", "ssvos.inference"),
    ("ssvos.planning", "ssvos.training"),
    ("ssvos.cli",),
    ("pipelines.params", "pipelines.stage"),
    ("pipelines.cluster", "pipelines.evaluation_set"),
    ("pipelines.evaluation_scores", "pipelines.tracking"),
    ("pipelines.reporting", "pipelines.tuning"),
    tuple(f"pipelines.{stage}" for stage in STAGES),
    ("pipelines.studies",),
)
LAYER_OF = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def package_of(module: str) -> str | None:
    """The first two parts of a module's name; None for other packages and for `ssvos` and `pipelines` themselves."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] in ("ssvos", "pipelines") and len(parts) > 1 else None


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, also inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            if node.module in ("ssvos", "pipelines"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names if alias.name != "__version__"}
            else:
                names |= {node.module}
                names |= {f"{node.module}.{a.name}" for a in node.names if is_module(f"{node.module}.{a.name}")}
    return names


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


@pytest.mark.parametrize("path", sources("ssvos") + sources("pipelines"), ids=module_name)
def test_every_file_is_in_a_layer_and_imports_point_down(path):
    own = package_of(module_name(path))
    if own is None:
        assert path.name == "__init__.py"
        return
    assert own in LAYER_OF, f"{own} is in no layer: add it to LAYERS"
    packages = {package_of(name) for name in imported(path)} - {None, own}
    assert packages <= set(LAYER_OF)
    assert not {package for package in packages if LAYER_OF[package] >= LAYER_OF[own]}


def test_no_two_modules_import_each_other_in_a_circle():
    graph = {module_name(path): set() for package in ("ssvos", "pipelines") for path in sources(package)}
    for package in ("ssvos", "pipelines"):
        for path in sources(package):
            graph[module_name(path)] = {name for name in imported(path) if name in graph} - {module_name(path)}
    left = dict(graph)
    while leaves := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, f"in a circle, or above one: {sorted(left)}"


def test_the_method_imports_neither_ray_nor_dvc_nor_mlflow():
    guilty = {module_name(p): n for p in sources("ssvos") for n in imported(p) if n.split(".")[0] in PIPELINE_PACKAGES}
    assert sources("ssvos") and not guilty


def test_mlflow_is_imported_only_in_the_files_that_write_to_it():
    importers = {module_name(p) for p in sources("pipelines") if any(n.split(".")[0] == "mlflow" for n in imported(p))}
    names = ("mlflow_client", "mlflow_metrics", "mlflow_store", "pyfunc_model")
    assert importers == {f"pipelines.tracking.{name}" for name in names}


def test_every_module_of_the_method_imports_where_ray_dvc_and_mlflow_are_missing():
    # PyTorch's builds for GPUs bring Triton; this file is imported there alone
    apart = set() if find_spec("triton") else {"ssvos.losses.exact_filter_triton"}
    names = {module_name(path) for path in sources("ssvos")} - apart
    program = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {PIPELINE_PACKAGES}:
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


def test_the_architecture_page_names_every_package_and_no_file_that_is_gone():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in LAYER_OF:
        path = package.replace(".", "/")
        assert path in page or f"`{path.rpartition('/')[2]}.py`" in page, f"docs/architecture.md does not name {path}"
    named = set(re.findall(r"`((?:ssvos|pipelines)/[\w/]+(?:\.\w+)?)`", page))
    assert named and not [path for path in named if not (ROOT / path).exists()]


def test_the_architecture_page_names_what_each_file_defines():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = 0
    for path, names in re.findall(r"`(ssvos/[\w/]+\.py)`: ([^|;]*)", page):
        text = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)?)`", names):
            if name.split(".")[0] not in ("model", "loss", "train", "predict"):
                found += 1
                assert re.search(rf"\b{name.split('.')[-1]}\b", text), f"{path}: {name}"
    assert found > 30


CODE = [path for folder in ("ssvos", "pipelines", "benchmarks", "studies", "docs", "tests") for path in sources(folder)]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_over_400_lines_and_no_function_over_60(path):
    text = path.read_text(encoding="utf-8")
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    long = [node.name for node in functions if node.end_lineno - node.lineno + 1 > 60]
    assert len(text.splitlines()) <= 400 and not long
