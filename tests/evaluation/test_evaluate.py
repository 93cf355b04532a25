"""`ssvos evaluate`: every case of the oracle through the command, its table, CSV and notes."""

import csv
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ssvos import cli
from ssvos.evaluation.mask_folders import table
from ssvos.labels import write_labels

COMMAND = [sys.executable, "-m", "ssvos.cli", "evaluate"]
ORACLE = Path(__file__).parents[1] / "oracle/metrics"
FOLDERS = (ORACLE / "davis/Annotations/480p", ORACLE / "davis/results")
YOUTUBE = (ORACLE / "ytvos/valid/Annotations", ORACLE / "ytvos/results/Annotations")
METAS = ("--meta", ORACLE / "ytvos/valid/meta.json", "--train-meta", ORACLE / "ytvos/train/meta.json")
DERIVATION = json.loads((ORACLE / "ytvos/derivation.json").read_text(encoding="utf-8"))


def expected(name: str) -> dict:
    return json.loads((ORACLE / f"expected/{name}.json").read_text(encoding="utf-8"))


CASES = sorted(json.loads((ORACLE / "manifest.json").read_text(encoding="utf-8"))["cases"])
CONVENTIONS = list(expected("_ytvos")["conventions"])


def close(values) -> object:
    return pytest.approx(values, abs=1e-9, rel=0)


@dataclass(frozen=True)
class Result:
    """The exit status and output of the command, the scores that it wrote, and its CSV rows."""

    status: int
    out: str
    error: str
    scores: dict | None
    rows: list[dict[str, str]]


@pytest.fixture
def evaluate(monkeypatch, capfd, tmp_path):
    """Runs the command in this process."""

    def run(*arguments) -> Result:
        outputs = ("--json", tmp_path / "scores.json", "--frames", tmp_path / "frames.csv")
        monkeypatch.setattr(sys, "argv", ["ssvos", "evaluate", *map(str, (*arguments, *outputs))])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        printed = capfd.readouterr()
        if exit_info.value.code:
            return Result(exit_info.value.code, printed.out, printed.err, None, [])
        with open(tmp_path / "frames.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return Result(0, printed.out, printed.err, json.loads((tmp_path / "scores.json").read_text()), rows)

    return run


@pytest.mark.parametrize("protocol", ["davis2017", "davis2017-unsupervised"])
def test_every_case_has_the_official_scores(protocol, evaluate):
    done = evaluate(*FOLDERS, "--protocol", protocol)
    assert (done.status, done.error) == (0, "")
    key = {"davis2017": "davis2017_semi_supervised"}.get(protocol, "davis2017_unsupervised")
    assert done.scores["global"] == close(expected("_global")["all_cases"][key])
    for case in CASES:
        for name, official in expected(case)[key]["objects"].items():
            for measure in ("J", "F"):
                figures = {k: official[measure][k] for k in ("mean", "recall", "decay")}
                assert done.scores["objects"][name][measure] == close(figures), name


def test_the_frames_have_the_official_scores(evaluate):
    rows = evaluate(*FOLDERS).rows
    scores_of = by_object(rows)
    assert list(rows[0]) == ["sequence", "object", "frame", "J", "F"]
    assert sum(map(len, scores_of.values())) == len(rows)
    for case in CASES:
        official = expected(case)["davis2017_semi_supervised"]
        for name, one in official["objects"].items():
            values = scores_of.pop(name)
            assert list(values) == official["frames_scored"]
            assert [J for J, _ in values.values()] == close(one["J_per_frame"])
            assert [F for _, F in values.values()] == close(one["F_per_frame"])
    assert not scores_of


def by_object(rows: list[dict]) -> dict[str, dict[str, list[float]]]:
    """<sequence>_<object> -> frame -> J and F."""
    scores_of: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        frames = scores_of.setdefault(f"{row['sequence']}_{row['object']}", {})
        frames[row["frame"]] = [float(row["J"]), float(row["F"])]
    return scores_of


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_of_youtube_vos_has_the_derived_scores(convention, evaluate):
    derived = expected("_ytvos")["results"][convention]
    done = evaluate(*YOUTUBE, "--protocol", "youtube-vos", *METAS, "--convention", convention)
    assert (done.status, done.error) == (0, "")
    assert done.scores["global"] == close(derived["scores"])
    scores_of = by_object(done.rows)
    assert set(scores_of) == set(done.scores["objects"]) == set(derived["objects"])
    for name, values in scores_of.items():
        video, _, object_id = name.rpartition("_")
        exact = {one["frame"]: one for one in DERIVATION["videos"][video][object_id]["per_frame"]}
        assert list(values) == derived["objects"][name]["frames_scored"]
        for frame, pair in values.items():
            assert pair == close([float(Fraction(exact[frame][measure])) for measure in ("J", "F")])


def test_the_default_convention_of_youtube_vos_counts_the_frames_after_the_first(evaluate):
    done = evaluate(*YOUTUBE, "--protocol", "youtube-vos", *METAS)
    assert done.scores["global"] == close(expected("_ytvos")["results"]["after_entry"]["scores"])
    meta = json.loads((ORACLE / "ytvos/valid/meta.json").read_text())["videos"]
    for row in done.rows:
        assert row["frame"] > min(meta[row["sequence"]]["objects"][row["object"]]["frames"])


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Annotations and identical predictions of sequences `a` and `b`: 4 frames of 20 x 30, ids 1 and 2."""
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[3:9, 3:12], mask[12:18, 10:25] = 1, 2
    for name in ("gt/a", "gt/b", "pred/a", "pred/b"):
        for t in range(4):
            write_labels(tmp_path / name / f"{t:05d}.png", mask)
    return tmp_path / "gt", tmp_path / "pred"


def test_the_table_has_a_row_for_each_object_and_one_for_all_in_percent(evaluate):
    done = evaluate(*FOLDERS)
    head, *rows = done.out.splitlines()
    scores = done.scores
    assert head.split() == ["percent", *scores["global"]]
    assert len(rows) == len(scores["objects"]) + 1
    for (name, one), line in zip(scores["objects"].items(), rows, strict=False):
        values = [one[m][k] for m in ("J", "F") for k in ("mean", "recall", "decay")]
        both = (one["J"]["mean"] + one["F"]["mean"]) / 2
        assert line.split() == [name, *(f"{100 * value:.1f}" for value in (both, *values))]
    assert rows[-1].split()[3:] == [f"{100 * value:.1f}" for value in scores["global"].values()]
    assert rows[-1].startswith(f"all {len(scores['objects'])} objects ")
    # the columns are aligned
    assert len({len(line) for line in (head, *rows)}) == 1


def test_the_table_of_youtube_vos_has_a_dash_for_an_empty_split():
    lines = table(
        {
            "global": {"G": None, "J_seen": 0.5, "J_unseen": None, "F_seen": 0.25, "F_unseen": None},
            "objects": {"v_1": {"J": 0.5, "F": 0.25, "seen": True}},
        }
    ).splitlines()
    assert lines[0].split() == ["percent", "J", "F"]
    assert lines[1].split() == ["v_1", "50.0", "25.0", "seen"]
    assert lines[3].split() == ["G", "J_seen", "J_unseen", "F_seen", "F_unseen"]
    assert lines[4] == "the one object" + "".join(f"{cell:>10}" for cell in ("-", "50.0", "-", "25.0", "-"))


def test_without_output_files_only_the_table_is_printed(folders, monkeypatch, capfd):
    before = sorted(folders[0].parent.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["ssvos", "evaluate", *map(str, folders)])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert not exit_info.value.code and "100.0" in capfd.readouterr().out
    assert sorted(folders[0].parent.rglob("*")) == before


def test_notes_name_files_and_folders_that_are_not_scored(folders, evaluate):
    pred_dir = folders[1]
    (pred_dir / "a/overlay.mp4").touch()
    (pred_dir / "a/.hidden").touch()
    (pred_dir / "b/00009.png").write_bytes(b"not a mask; no frame of this name is scored")
    done = evaluate(*folders)
    assert done.status == 0 and done.scores["global"]["J&F-Mean"] == 1
    assert done.error == f"note: {pred_dir}/a/overlay.mp4: no mask of a sequence, not scored\n"
    shutil.copytree(pred_dir / "a", pred_dir / "c")
    shutil.copytree(pred_dir / "a", pred_dir / "d")
    (pred_dir / "b/notes.txt").touch()
    assert evaluate(*folders).error.splitlines() == [
        f"note: {pred_dir}/a/overlay.mp4: no mask of a sequence, not scored (one of 2)",
        f"note: {pred_dir}/c: a sequence without annotations, not scored (one of 2)",
    ]


def test_no_note_on_unlisted_sequences_and_on_output_files(folders, evaluate, tmp_path):
    gt_dir, pred_dir = folders
    (tmp_path / "list.txt").write_text("b\n")
    done = evaluate(gt_dir, pred_dir, "--split", tmp_path / "list.txt")
    assert done.error == "" and set(done.scores["objects"]) == {"b_1", "b_2"}
    for name in ("scores.json", "frames.csv"):
        (tmp_path / name).rename(pred_dir / name)
    done = subprocess.run(
        [*COMMAND, gt_dir, pred_dir, "--json", pred_dir / "scores.json", "--frames", pred_dir / "frames.csv"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def test_a_fault_during_scoring_is_the_only_line_and_keeps_earlier_outputs(folders, evaluate, tmp_path):
    assert evaluate(*folders).status == 0
    before = [(tmp_path / name).read_bytes() for name in ("scores.json", "frames.csv")]
    (folders[1] / "a/overlay.mp4").touch()
    broken = folders[1] / "b/00002.png"
    broken.write_bytes(broken.read_bytes()[:60])
    done = evaluate(*folders)
    assert (done.status, done.out, done.error.count("\n")) == (1, "", 1) and str(broken) in done.error
    assert [(tmp_path / name).read_bytes() for name in ("scores.json", "frames.csv")] == before


def test_a_palette_png_without_a_palette_is_read_by_its_ids(folders, evaluate):
    for path in folders[1].rglob("*.png"):
        data = path.read_bytes()
        start = data.index(b"PLTE") - 4
        path.write_bytes(data[:start] + data[start + 12 + int.from_bytes(data[start : start + 4]) :])
    assert evaluate(*folders).scores["global"]["J&F-Mean"] == 1


def test_a_progress_bar_on_a_terminal_runs_to_the_last_frame(folders):
    """The bar is printed on standard error if that is a terminal."""
    terminal, process_end = pty.openpty()
    with subprocess.Popen([*COMMAND, *folders], stdout=subprocess.PIPE, stderr=process_end, text=True) as process:
        os.close(process_end)
        printed = b""
        while chunk := _read(terminal):
            printed += chunk
        out = process.stdout.read()
    os.close(terminal)
    assert process.returncode == 0 and "all 4 objects" in out
    assert b"scoring frames" in printed and re.search(rb"\d+%", printed), "the bar has a total"
    assert b"100%" in printed


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the process has closed its end
        return b""
