"""Every command reports bad input in one line that names the file or key and the remedy. It changes no byte on disk.

A fault is a function that spoils a small working folder. The real command then runs in this process. docs/errors.md
must list every message, and the faults must produce every message that it lists.
"""

import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest
from bad_input_commands import SCORED, SCRIBBLE, SPLITTING, SUBMITTED
from bad_input_parameters import DATA, PARAMS
from bad_input_runs import CHECKPOINTS, LATER, SEGMENTED, STUDIES, SURROUNDINGS
from bad_place import (
    make_place,
    write,
)

from pipelines.cluster.worker_errors import bad_input
from pipelines.stage import run_stage
from pipelines.tracking import mlflow_client as tracking
from ssvos import cli

TABLE = Path(__file__).parent.parent / "docs" / "errors.md"
# error lines of all commands; the last test needs the lines of every fault, so one process must run all tests
SAID: list[str] = []


def quoted() -> dict[str, re.Pattern]:
    """Return a pattern for each message of docs/errors.md, in which … replaces the text that varies."""
    rows = re.findall(r"^\| .+? \| (`+)(.+?)\1 \| .+ \|$", TABLE.read_text(encoding="utf-8"), re.M)
    return {quote.strip(): re.compile(re.escape(quote.strip()).replace("…", ".+")) for _, quote in rows}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    make_place(place)
    return place


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """One tracking store for all tests: creating its tables takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        tracking.require_store()
    return uri


@pytest.fixture
def place(whole, database, tmp_path, monkeypatch) -> Path:
    shutil.copytree(whole, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    for name in ("RAY_ADDRESS", "SSVOS_LOADERS", "SSVOS_STORAGE", "SSVOS_WORKERS", "SSVOS_DEBUG", "DVC_ROOT"):
        monkeypatch.setenv(name, "")  # an empty variable counts as unset; monkeypatch restores it after a test
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    return tmp_path / "place"


def contents(place: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(place)): p.read_bytes() if p.is_file() else None for p in sorted(place.rglob("*"))}


def call(command: str, monkeypatch, capfd) -> tuple[int, str]:
    """Run the `main` of a stage (`pipelines.…`) or of `ssvos …`. Return its exit status and standard error."""
    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main() if name == "ssvos" else run_stage(importlib.import_module(name).main)
    return left.value.code, capfd.readouterr().err


ALL = [*DATA, *PARAMS, *STUDIES, *CHECKPOINTS, *SEGMENTED, *SURROUNDINGS, *LATER, *SCORED, *SUBMITTED, *SPLITTING]


@pytest.mark.parametrize(("command", "spoil", "words"), ALL)
def test_one_line_names_the_fault_and_nothing_changes(command, spoil, words, place, monkeypatch, capfd):
    spoil()
    before = contents(place)
    status, error = call(command, monkeypatch, capfd)
    assert (status, error.count("\n")) == (1, 1), error
    speaker, _, said = error.strip().partition(": ")
    assert speaker == ("ssvos" if command.startswith("ssvos") else "error")
    for part in words.split(" … "):
        assert part in said
    assert contents(place) == before
    SAID.append(said)
    assert any(pattern.fullmatch(said) for pattern in quoted().values()), "docs/errors.md lists it"


@pytest.mark.parametrize(
    "command",
    [
        "ssvos evalute gt pred",
        "ssvos scribble gt out --width 0",
        "ssvos evaluate gt pred --json scores.json --protocol davis2018",
        "ssvos evaluate gt pred --json new.json --frames new.json",
        "ssvos evaluate gt pred --json new.json --convention from_entry",
        "ssvos segment clip --out out",
        "pipelines.predict",
        "pipelines.train --variant ours --stage stage3",
    ],
)
def test_a_command_that_is_not_understood_ends_with_2(command, place, monkeypatch, capfd):
    before = contents(place)
    status, error = call(command, monkeypatch, capfd)
    assert status == 2 and "Traceback" not in error and contents(place) == before


def test_scribbles_join_what_lies_in_their_folder(place, monkeypatch, capfd):
    write("out/a/mine.png", "mine")
    write("out/a/00000.png", "from an earlier run")
    monkeypatch.setattr(sys, "argv", SCRIBBLE.split())
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code and Path("out/a/mine.png").read_text() == "mine"
    assert len(list(Path("out").glob("*/*.png"))) == 9 and Path("out/a/00000.png").read_bytes().startswith(b"\x89PNG")


def test_a_workers_error_about_its_input_is_extracted_from_rays_error():
    from ray.exceptions import RayTaskError, UserCodeException
    from ray.train.v2.api.exceptions import WorkerGroupError

    nan = FloatingPointError("loss is nan; lower learning_rate")
    lost = ConnectionResetError("connection closed by peer")
    assert bad_input(WorkerGroupError("rank 0 …", {0: RuntimeError("gloo"), 1: lost, 2: nan})) is nan
    trace = "Traceback …\n    raise ValueError(\nValueError: a.png: not a readable image; replace it\n\nThe above …"
    wrapped = RayTaskError("map", f"{trace}\nray.exceptions.UserCodeException: failed", UserCodeException("failed"))
    assert str(bad_input(wrapped.as_instanceof_cause())) == "a.png: not a readable image; replace it"
    assert bad_input(RayTaskError("map", "KeyError: 'a'", KeyError("a")).as_instanceof_cause()) is None


def test_all_that_the_table_of_errors_lists_is_said():
    if len(SAID) < len(ALL):
        pytest.skip("only where all of the above have run in one process")
    unsaid = [quote for quote, pattern in quoted().items() if not any(pattern.fullmatch(said) for said in SAID)]
    assert not unsaid
