"""Break the method one line at a time, and check that a test fails each time.

    python tests/mutations.py                   every mutation; exit status 1 if one survives
    python tests/mutations.py attention         mutations whose name contains one of the words

Each mutation changes a temporary copy of the package and its tests. The working tree does not change.
A mutation counts as caught only if pytest runs and an assertion fails. An import error does not count.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it once, on import

# imported here once, and not in each forked process that runs tests
import cv2  # noqa: F401
import pyarrow  # noqa: F401
import pydantic  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch._dynamo  # noqa: F401
from torch.autograd.gradcheck import GradcheckError

PROJECT = Path(__file__).parent.parent
WORKERS = 2
SECONDS = 300  # timeout for a run's result
ASSERTIONS = (AssertionError, GradcheckError, pytest.fail.Exception)


class Mutation(NamedTuple):
    """A change that breaks the method.

    name:  the fault
    file:  file to change
    old:   text that occurs once in `file`
    new:   text that replaces it
    tests: test files to run
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "variance (4) from deviations that are not squared",
        "ssvos/models/appearance.py",
        "spread = square - 2 * shifted * first + mass * shifted**2",
        "spread = first - mass * shifted",
        ("tests/models/test_appearance.py",),
    ),
    Mutation(
        "partial cross-entropy (11) on foreground strokes only",
        "ssvos/losses/partial_cross_entropy.py",
        "    target = target.long()\n",
        "    target = target.long().masked_fill(target == 0, UNLABELLED)\n",
        ("tests/losses/test_partial_cross_entropy.py", "tests/losses/test_loss_equations.py"),
    ),
    # The filters' backward pass uses K instead of its transpose, which is correct because K is symmetric. The mutation
    # filters in one direction of y only, so K is not symmetric.
    Mutation(
        "K instead of its transpose in the backward pass of the lattice",
        "ssvos/losses/permutohedral.py",
        ".reshape(-1, height) @ along_y",
        ".reshape(-1, height) @ along_y.triu()",
        ("tests/losses/test_loss_equations.py",),
    ),
    # K with its rows divided by their sums is not symmetric. The mutation keeps the energy's value. Its gradient is
    # that of K with its columns divided by their sums.
    Mutation(
        "K instead of its transpose in the gradient of the row-normalised energy",
        "ssvos/losses/dense_crf.py",
        "disagreement = (probs * (1.0 - filtered / row_sums)).sum(dim=1)",
        "by_column = kernel.apply(probs / row_sums)[0]\n"
        "        agreement = by_column + (filtered / row_sums - by_column).detach()\n"
        "        disagreement = (probs * (1.0 - agreement)).sum(dim=1)",
        ("tests/losses/test_loss_equations.py",),
    ),
    # w is a step function, whose slope is 0 wherever it is defined: no gradient flows even without `detach`. The
    # mutation keeps the step's value and uses the gradient of the score, as a straight-through estimator does.
    Mutation(
        "gradient through the region weight w (18)",
        "ssvos/losses/dense_crf.py",
        "    foreground = foreground.detach()\n"
        "    unreliable = (foreground >= above) & (foreground <= below)\n"
        "    return 1.0 + beta * unreliable.to(foreground.dtype)\n",
        "    unreliable = (foreground >= above) & (foreground <= below)\n"
        "    return 1.0 + beta * (unreliable.to(foreground.dtype) + (foreground - foreground.detach()))\n",
        ("tests/losses/test_loss_equations.py",),
    ),
    Mutation(
        "strokes downsampled to stride 16 by nearest neighbour",
        "ssvos/models/grid.py",
        "adaptive_max_pool2d((scribble == 1).float()[:, None], (height, width))",
        "interpolate((scribble == 1).float()[:, None], (height, width), mode='nearest')",
        ("tests/models/test_equations.py",),
    ),
    Mutation(
        "strokes resized to another frame size by nearest neighbour",
        "ssvos/data/augment.py",
        "cv2.resize(plane, shrunk, interpolation=cv2.INTER_AREA)",
        "cv2.resize(plane, shrunk, interpolation=cv2.INTER_NEAREST)",
        ("tests/data/test_augment.py",),
    ),
    Mutation(
        "residual weights in unlabelled cells too",
        "ssvos/models/appearance.py",
        "return relu(labelled * posterior - labels)",
        "return relu(posterior - labels)",
        ("tests/models/test_appearance.py",),
    ),
    Mutation(
        "attention (8) to every position instead of the strokes only",
        "ssvos/models/attention.py",
        "flat = has_stroke.flatten(1)",
        "flat = torch.ones_like(has_stroke).flatten(1)",
        ("tests/models/test_attention.py",),
    ),
    Mutation(
        "soft aggregation of a single object",
        "ssvos/inference/segmenter.py",
        "if len(foreground) == 1:",
        "if len(foreground) == 0:",
        ("tests/inference/test_segmenter.py",),
    ),
    # The network receives the labels of a clip's first frame only. In the state after that frame, the mutation replaces
    # the prediction with the labels in all labelled cells. In the first frame's state, these cells' shares sum to one.
    Mutation(
        "state updated with the frame's labels instead of its prediction",
        "ssvos/models/network.py",
        "        gaussians = self.appearance.update(",
        "        known = state.mask.sum(dim=1, keepdim=True) > 0.5\n"
        "        probs = torch.where(known & ~known.all(), state.mask, probs)\n"
        "        gaussians = self.appearance.update(",
        ("tests/models/test_equations.py",),
    ),
    Mutation(
        "gamma in (10) multiplies X instead of O",
        "ssvos/models/attention.py",
        "return x + scale * rearrange(",
        "return scale * x + rearrange(",
        ("tests/models/test_attention.py",),
    ),
    Mutation(
        "the memory's initial frame without the labels of its strokes",
        "ssvos/models/memory.py",
        "torch.where(labelled, state.strokes[:, 1:], labels)",
        "labels",
        ("tests/models/test_memory.py",),
    ),
    Mutation(
        "matches outside the window",
        "ssvos/models/matching.py",
        "    affinity.masked_fill_(~_in_window(radius, queries.device), -torch.inf)\n",
        "",
        ("tests/models/test_matching.py",),
    ),
    Mutation(
        "kernel ridge regression without balance of the classes",
        "ssvos/models/kernel_ridge.py",
        "weights[members] = total / members.sum().clamp(min=1)",
        "weights[members] = 1 / len(target)",
        ("tests/models/test_kernel_ridge.py",),
    ),
    Mutation(
        "the teacher's labels in place of strokes",
        "ssvos/losses/teacher.py",
        "labels = torch.where((strokes != UNLABELLED) | ~has_object, strokes, labels)",
        "labels = torch.where(~has_object, strokes, labels)",
        ("tests/losses/test_teacher.py",),
    ),
)


class Run(NamedTuple):
    """Tests to run in a copy of `project`. changed: file -> its new text."""

    project: Path
    tests: tuple[str, ...]
    changed: dict[str, str]


class Outcome(NamedTuple):
    """Result of a run.

    code:   pytest's exit status
    fallen: tests with a failed assertion
    output: pytest's output
    """

    code: int
    fallen: list[str]
    output: str

    @property
    def is_caught(self) -> bool:
        """Whether an assertion failed. pytest exits with 1 if tests fail, and with 2 to 5 if it cannot run them."""
        return self.code == 1 and bool(self.fallen)


class Recorder:
    """A pytest plugin that records the tests with a failed assertion."""

    def __init__(self):
        self.fallen = []

    def pytest_exception_interact(self, node, call):
        if call.when == "call" and call.excinfo.errisinstance(ASSERTIONS):
            self.fallen.append(node.nodeid)


def copy_project(source: Path, folder: Path) -> None:
    """Copy the files that the tests of the method need."""
    for part in ("ssvos", "tests"):
        shutil.copytree(source / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "oracle"))
    shutil.copy(source / "pyproject.toml", folder)


def broken_text(project: Path, mutation: Mutation) -> str:
    """Return the file's text with the line broken. ValueError if the line does not occur exactly once."""
    text = (project / mutation.file).read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.file}: the text to replace occurs {text.count(mutation.old)} times, not once "
            f"({mutation.name}); update tests/mutations.py"
        )
    return text.replace(mutation.old, mutation.new)


def perform(run: Run) -> Outcome:
    """Run the tests in this process, which must not have imported the package yet."""
    assert "ssvos" not in sys.modules
    with tempfile.TemporaryDirectory(dir=run.project.parent) as name:
        folder = Path(name)
        copy_project(run.project, folder)
        for file, text in run.changed.items():
            (folder / file).write_text(text, encoding="utf-8")
        os.chdir(folder)
        sys.path[0] = str(folder)
        recorder, output = Recorder(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = pytest.main(["-q", "-p", "no:cacheprovider", "--tb=short", *run.tests], [recorder])
        os.chdir(run.project)
    return Outcome(int(code), recorder.fallen, output.getvalue())


def report(mutation: Mutation, outcome: Outcome) -> bool:
    """Print the mutation and the tests that failed. Return whether it was caught."""
    print(f"{'caught    ' if outcome.is_caught else 'NOT CAUGHT'}  {mutation.name}")
    for test, cases in Counter(name.partition("[")[0] for name in outcome.fallen).items():
        print(f"            {test}{f', {cases} cases' if cases > 1 else ''}")
    if not outcome.is_caught:
        print(outcome.output[-2000:])
    return outcome.is_caught


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "words", nargs="*", help="run only mutations whose name contains one of these words; default: all"
    )
    words = parser.parse_args().words
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ssvos-mutations-") as name:
        # all runs use this copy, so edits to the working tree during the runs have no effect
        project = Path(name).resolve() / "project"
        copy_project(PROJECT, project)
        files = sorted({file for mutation in chosen for file in mutation.tests})
        runs = [Run(project, (file,), {}) for file in files]
        runs += [Run(project, m.tests, {m.file: broken_text(project, m)}) for m in chosen]
        with multiprocessing.get_context("fork").Pool(WORKERS, maxtasksperchild=1) as pool:
            outcomes = pool.imap(perform, runs, chunksize=1)
            for file in files:
                if (unbroken := outcomes.next(SECONDS)).code != 0:
                    print(f"{unbroken.output}\n{file}: fails without a mutation; fix it first")
                    return 1
            caught = [report(mutation, outcomes.next(SECONDS)) for mutation in chosen]
    print(f"{sum(caught)} of {len(chosen)} mutations caught, {time.perf_counter() - started:.0f} s")
    return 0 if all(caught) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(str(error))
