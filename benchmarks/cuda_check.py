"""Everything that needs a GPU, in two minutes: the tests of tests/test_cuda.py, and the times in docs/speed.md.

    python benchmarks/cuda_check.py --out results_of_the_gpu

Every part runs in a separate process with a time limit, which is proportional to `--seconds`. If a part fails or
exceeds its limit, its last lines of output are saved and the next part runs. The tests and the count of compiled graphs
measure no times, so they run first and in parallel. `--out` receives one JSON file for each script, from which
cuda_tables.py makes the tables of docs/speed.md, and check_cuda.json with the status of each part.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
LAST_LINES = 60
ALL_SECONDS = 118.0
TRAIN_STEP = "train_step_cuda.json"


class Part(NamedTuple):
    """Arguments of python, time limit in seconds, and file of the result; "" for the tests."""

    command: str
    seconds: float
    file: str = ""


PARALLEL = {
    "tests": Part("-m pytest -q -p no:cacheprovider --no-header -rfEs --tb=short tests/test_cuda.py", 60),
    "compile": Part("bench_compile.py --budget 35", 55, "compile_cuda.json"),
}
SEQUENTIAL = {
    "train_step, 1 clip": Part("bench_train_step.py --repeats 10 --dtypes float32 tf32 bfloat16", 40, TRAIN_STEP),
    "crf": Part("bench_crf.py --sizes 240x480 480x854 --exact-up-to 120000 --repeats 5", 30, "crf_cuda.json"),
    "inference": Part(
        "bench_inference.py --repeats 10 --dtypes float32 tf32 bfloat16 --video-frames 300", 40, "inference_cuda.json"
    ),
    "attention": Part("bench_attention.py --repeats 20", 30, "attention_cuda.json"),
    "train_step, 4 clips": Part(
        "bench_train_step.py --repeats 10 --dtypes float32 tf32 bfloat16 --batch 4", 40, TRAIN_STEP
    ),
    # part `compile` leaves this graph in the compiler's cache
    "train_step, compiled ResNet-18": Part(
        "bench_train_step.py --repeats 10 --backbone resnet18 --compile", 60, TRAIN_STEP
    ),
}
# run only if named with --parts: compilation takes minutes
ON_REQUEST = {
    "train_step, compiled": Part(
        "bench_train_step.py --repeats 10 --compile --dtypes float32 bfloat16", 400, TRAIN_STEP
    )
}


class Run:
    """A running part, in its own process group, because compilers start workers."""

    def __init__(self, name: str, part: Part, args: argparse.Namespace, seconds: float):
        self.name, self.part, self.started = name, part, time.perf_counter()
        self.limit = min(part.seconds * args.seconds / ALL_SECONDS, seconds)
        self.log, self.json = (args.out / f".{name}.{end}" for end in ("log", "json"))
        self.json.unlink(missing_ok=True)  # the result of an earlier check
        command = [sys.executable, *part.command.split()]
        if part.file:
            command[1] = str(HERE / command[1])
            command += ["--device", args.device, "--json", str(self.json), *(["--smallest"] if args.smallest else [])]
        path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # required by deterministic algorithms
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment, cwd=HERE.parent
            )

    def finish(self) -> dict:
        """Wait for the process -> its status, seconds, command and last lines of output."""
        try:
            code = self.process.wait(max(0.0, self.started + self.limit - time.perf_counter()))
            status = "passed" if code == 0 else f"failed with {code}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {self.limit:.0f} s"
        finally:
            _end(self.process)
        seconds = round(time.perf_counter() - self.started, 1)
        print(f"{self.name}: {status}, {seconds} s", flush=True)
        lines = self.log.read_text(errors="replace").splitlines()
        self.log.unlink()
        last_lines = lines[-LAST_LINES:] if not self.part.file or status != "passed" else []
        return {"status": status, "seconds": seconds, "command": self.part.command, "last_lines": last_lines}

    def result(self) -> dict | None:
        """Read and remove the script's result; None without one. Runs of training steps include their settings."""
        if not self.part.file or not self.json.is_file():
            return None
        result = json.loads(self.json.read_text())
        self.json.unlink()
        if self.part.file == TRAIN_STEP:
            settings = {name: result.pop(name) for name in ("backbone", "batch", "compiled")}
            result["runs"] = [settings | run for run in result["runs"]]
        return result


def _end(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def save_result(run: Run, folder: Path) -> None:
    """Save a part's result in its file. Parts that share a file append their runs."""
    result, path = run.result(), folder / run.part.file
    if result is None:
        return
    if path.is_file() and run.part.file == TRAIN_STEP:
        previous = json.loads(path.read_text())
        result = previous | {"runs": previous["runs"] + result["runs"]}
    path.write_text(json.dumps(result, indent=2) + "\n")


def surroundings() -> dict:
    """Versions and the GPU, read in a separate process, because a broken driver must not end the check."""
    code = (
        "import json, torch, triton; print(json.dumps({'torch': torch.__version__, 'cuda': torch.version.cuda, "
        "'triton': triton.__version__, 'cudnn': torch.backends.cudnn.version(), "
        "'card': torch.cuda.get_device_name(), 'memory_gib': torch.cuda.get_device_properties(0).total_memory / 2**30, "
        "'tf32_by_default': [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-2000:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--seconds",
        type=float,
        default=ALL_SECONDS,
        help="time limit of the whole check",
    )
    parts = {**PARALLEL, **SEQUENTIAL, **ON_REQUEST}
    parser.add_argument("--parts", nargs="+", choices=parts, help="run only these parts")
    parser.add_argument("--device", default="cuda", help="cpu with --smallest checks the script itself")
    parser.add_argument("--smallest", action="store_true")
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    chosen = args.parts or [*PARALLEL, *SEQUENTIAL]
    summary = {"surroundings": surroundings(), "parts": {}}
    print(summary["surroundings"], flush=True)
    together = [name for name in chosen if name in PARALLEL]
    for names in [together, *([name] for name in chosen if name not in PARALLEL)]:
        remaining = args.seconds - (time.perf_counter() - started)
        if remaining < 1:
            summary["parts"] |= {name: {"status": f"not run: {args.seconds:g} s were spent"} for name in names}
            continue
        for run in [Run(name, parts[name], args, remaining) for name in names]:
            summary["parts"][run.name] = run.finish()
            save_result(run, args.out)
        (args.out / "check_cuda.json").write_text(json.dumps(summary, indent=2) + "\n")
    for name, part in summary["parts"].items():
        print(f"{name}: {part['status']}", *part.get("last_lines", [])[-25:], sep="\n    ")
    print(f"{time.perf_counter() - started:.0f} s; results in {args.out}")


if __name__ == "__main__":
    main()
