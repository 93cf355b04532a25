"""The stages of a sandbox run in children of a warm process and behave as separate processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sandbox import environment, make_project

STAGES = {
    "told": "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), os.environ['WORD'], os.getpid()]))",
    "failing": "import sys; print('wrong', file=sys.stderr); sys.exit(3)",
    "raising": "raise ValueError('a fault')",
    "leaving": "import atexit; atexit.register(lambda: open('left', 'w').close())",
    "waiting": "import time; open('waits', 'w').close(); time.sleep(60)",
    "imported": "import sys, pipelines, ssvos; print(pipelines.__file__, ssvos.__file__, __name__)",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = make_project(tmp_path_factory.mktemp("warm") / "project")
    for name, program in STAGES.items():
        (made / "pipelines" / f"{name}.py").write_text(program)
    return made


def stage(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = ["python", "-m", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(folder, WORD="said"), capture_output=True, text=True, timeout=60
    )


def test_arguments_folder_and_environment_arrive_and_each_run_is_a_process(folder):
    runs = [json.loads(stage(folder, "pipelines.told", "--flag", "a b").stdout) for _ in range(2)]
    assert [run[:3] for run in runs] == [[["--flag", "a b"], str(folder), "said"]] * 2
    assert len({run[3] for run in runs} | {os.getpid()}) == 3


def test_the_sandbox_own_copy_is_imported(folder):
    code, method, name = stage(folder, "pipelines.imported").stdout.split()
    assert Path(code).is_relative_to(folder) and Path(method).is_relative_to(folder) and name == "__main__"


def test_exit_status_error_and_traceback_come_back(folder):
    failed, raised = stage(folder, "pipelines.failing"), stage(folder, "pipelines.raising")
    assert (failed.returncode, failed.stderr) == (3, "wrong\n")
    assert raised.returncode == 1 and raised.stderr.endswith("ValueError: a fault\n")


def test_functions_registered_for_the_exit_run(folder):
    assert stage(folder, "pipelines.leaving").returncode == 0 and (folder / "left").exists()


def test_a_signal_ends_the_child_and_is_the_end_of_the_command(folder):
    command = subprocess.Popen(["python", "-m", "pipelines.waiting"], cwd=folder, env=environment(folder))
    while not (folder / "waits").exists():
        time.sleep(0.05)
    command.send_signal(signal.SIGTERM)
    assert command.wait(timeout=30) == -signal.SIGTERM


def test_other_programs_run_in_the_real_interpreter(folder):
    done = subprocess.run(
        ["python", "-c", "import sys; print(sys.prefix)"], env=environment(folder), capture_output=True, text=True
    )
    assert done.stdout.strip() == str(folder / ".venv") and sys.prefix != done.stdout
