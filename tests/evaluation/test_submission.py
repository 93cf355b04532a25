"""`ssvos submit`: the zip for a benchmark's server, and the faults that it would refuse."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ssvos.cli import app

SIZE = (40, 60)
# colors of 0, 1, 2, 3 in the palette of PASCAL VOC and DAVIS, and of 0, 1, 2 in that of YouTube-VOS
DAVIS_COLORS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
YOUTUBE_COLORS = [0, 0, 0, 236, 95, 103, 249, 145, 87]
DAVIS = {"bike": 3, "carousel": 4}


def labels(*ids: int, shift: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    for k, i in enumerate(ids):
        mask[5:15, 5 + 15 * k + shift : 15 + 15 * k + shift] = i
    return mask


def save(path: Path, mask: np.ndarray, colors: list[int] | None = None, **more) -> None:
    """Write a mask without the project's own code."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    image.putpalette(DAVIS_COLORS if colors is None else colors)
    image.save(path, format="PNG", **more)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], (90, 120, 60)).save(path, format="JPEG")


@pytest.fixture
def davis(tmp_path) -> Path:
    """The data set: two sequences on the test-dev list and one that is not; masks of the first frames only."""
    root = tmp_path / "DAVIS"
    for sequence, count in {**DAVIS, "unlisted": 2}.items():
        for t in range(count):
            photo(root / f"JPEGImages/480p/{sequence}/{t:05d}.jpg")
        save(root / f"Annotations/480p/{sequence}/00000.png", labels(1, 2))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/test-dev.txt").write_text("carousel\nbike\n")
    return root


@pytest.fixture
def masks(tmp_path) -> Path:
    """Predictions for it without a fault."""
    for sequence, count in DAVIS.items():
        for t in range(count):
            save(tmp_path / f"masks/{sequence}/{t:05d}.png", labels(1, 2, shift=t))
    return tmp_path / "masks"


@pytest.fixture
def youtube(tmp_path) -> Path:
    """A `valid` folder: object 5 enters on frame 10; frame 0 is before the first object."""
    valid = tmp_path / "YouTube-VOS/valid"
    for t in range(0, 25, 5):
        photo(valid / f"JPEGImages/0a49f/{t:05d}.jpg")
    save(valid / "Annotations/0a49f/00005.png", labels(2), YOUTUBE_COLORS)
    save(valid / "Annotations/0a49f/00010.png", labels(0, 5), [*YOUTUBE_COLORS, *[9] * 9])
    objects = {
        "2": {"category": "cat", "frames": ["00005", "00010", "00015"]},
        "5": {"category": "dog", "frames": ["00010", "00015", "00020"]},
    }
    (valid / "meta.json").write_text(json.dumps({"videos": {"0a49f": {"objects": objects}}}))
    return valid


def arguments(pred: Path, out: Path, data: Path, benchmark: str = "davis2017-testdev") -> list[str]:
    return ["submit", str(pred), str(out), "--benchmark", benchmark, "--data", str(data)]


def submit(pred: Path, data: Path, benchmark: str = "davis2017-testdev", out: str = "out.zip") -> Result:
    """The command, in this process."""
    return CliRunner().invoke(app, arguments(pred, data.parent / out, data, benchmark))


def faults(pred: Path, data: Path, benchmark: str = "davis2017-testdev") -> list[str]:
    """The faults of predictions; checks that nothing is written."""
    before = sorted(data.parent.rglob("*"))
    done = submit(pred, data, benchmark)
    assert done.exit_code == 1 and "Traceback" not in done.output
    assert sorted(data.parent.rglob("*")) == before
    lines = done.stderr.splitlines()
    assert all(line.startswith("ssvos: ") for line in lines)
    lines = [line.removeprefix("ssvos: ") for line in lines]
    if len(lines) > 1:
        assert lines.pop() == f"{len(lines)} faults; nothing was written"
    return lines


def contents(path: Path) -> dict[str, np.ndarray]:
    """Name -> mask of a zip, in order."""
    masks = {}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as image:
                assert (image.format, image.mode) == ("PNG", "P")
                assert image.getpalette()[:12] == DAVIS_COLORS
                masks[name] = np.asarray(image).copy()
    return masks


def test_a_davis_zip_has_the_sequences_at_its_root_and_the_same_masks(davis, masks):
    done = submit(masks, davis)
    assert done.exit_code == 0, done.output
    out = davis.parent / "out.zip"
    zipped = contents(out)
    assert list(zipped) == [f"{s}/{t:05d}.png" for s in ("bike", "carousel") for t in range(DAVIS[s])]
    for name, mask in zipped.items():
        assert (mask == np.asarray(Image.open(masks / name))).all()
    for text in (str(out), "2 sequences", "7 frames", f"{out.stat().st_size} bytes"):
        assert text in done.stdout
    assert hashlib.sha256(out.read_bytes()).hexdigest() in done.stdout


@pytest.mark.parametrize("folder", [".", ".."])
def test_a_youtube_vos_zip_has_one_top_folder_and_the_frames_of_meta_json(youtube, tmp_path, folder):
    for t in range(0, 25, 5):
        colors = YOUTUBE_COLORS if t < 10 else None  # the palette of the data set, or DAVIS's
        save(tmp_path / f"masks/0a49f/{t:05d}.png", labels(2, shift=t), colors)
    done = submit(tmp_path / "masks", youtube / folder, "youtube-vos")
    assert done.exit_code == 0, done.output
    zipped = contents((youtube / folder).parent / "out.zip")
    assert list(zipped) == [f"Annotations/0a49f/{t:05d}.png" for t in (5, 10, 15, 20)]
    for name, mask in zipped.items():
        assert (mask == labels(2, shift=int(name[-9:-4]))).all()
    assert "left out: 1 masks" in done.stdout


def test_the_same_masks_give_the_same_bytes(davis, masks):
    assert submit(masks, davis, out="a.zip").exit_code == 0
    again = masks.parent / "again"
    for path in sorted(masks.rglob("*.png"), reverse=True):  # other order, times, and compression
        copy = again / path.relative_to(masks)
        save(copy, np.asarray(Image.open(path)), compress_level=0)
        os.utime(copy, (1e9, 1e9))
        assert copy.read_bytes() != path.read_bytes()
    assert submit(again, davis, out="b.zip").exit_code == 0
    assert (davis.parent / "a.zip").read_bytes() == (davis.parent / "b.zip").read_bytes()
    with zipfile.ZipFile(davis.parent / "a.zip") as archive:
        assert {(entry.date_time[0], entry.compress_type) for entry in archive.infolist()} == {
            (1980, zipfile.ZIP_STORED)
        }
    save(again / "bike/00001.png", labels(1))
    assert submit(again, davis, out="c.zip").exit_code == 0
    assert (davis.parent / "a.zip").read_bytes() != (davis.parent / "c.zip").read_bytes()


def test_a_nested_folder_is_named_and_its_masks_are_checked(davis, masks):
    nested = masks.parent / "nested"
    (nested / "results").mkdir(parents=True)
    masks.rename(nested / "results/Annotations")
    (nested / "results/Annotations/bike/00002.png").unlink()
    first, second = faults(nested, davis)
    assert first.startswith(f"{nested}: the sequences are in {nested}/results/Annotations;")
    assert second.startswith(f"{nested}/results/Annotations/bike/00002.png: missing")


def test_a_folder_inside_a_sequence_is_named(davis, masks):
    (masks / "bike").rename(masks / "480p")
    (masks / "bike").mkdir()
    (masks / "480p").rename(masks / "bike/480p")
    assert faults(masks, davis) == [f"{masks}/bike/480p: is an extra folder; move its masks to {masks}/bike"]


def test_masks_at_the_root_are_named(davis, masks):
    shutil.copytree(masks / "bike", masks, dirs_exist_ok=True)
    shutil.rmtree(masks / "bike")
    lines = faults(masks, davis)
    assert [line.split(": ")[0] for line in lines[:3]] == [f"{masks}/{t:05d}.png" for t in range(3)]
    assert lines[3:] == [f"{masks}/bike: missing, the benchmark has this sequence; predict it"]


def as_rgb(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def as_grey(path: Path) -> None:
    Image.fromarray(np.asarray(Image.open(path))).save(path)


def half(path: Path) -> None:
    save(path, np.asarray(Image.open(path))[::2, ::2].copy())


def other_palette(path: Path) -> None:
    save(path, np.asarray(Image.open(path)), YOUTUBE_COLORS)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (as_rgb, "must be an 8-bit palette or grey PNG, this one is RGB"),
        (as_grey, "is a grey PNG"),
        (other_palette, "its palette is neither"),
        (half, "mask is 20x30, its frame 40x60"),
        (Path.unlink, "missing, the benchmark requires this frame"),
        (cut, "not a readable image"),
        (lambda path: save(path, labels(1, 3)), "unknown object 3, this sequence has 1, 2"),
        (lambda path: save(path, labels(1, 255), [*DAVIS_COLORS, *[0] * 753, 224, 224, 192]), "unknown object 255"),
        (lambda path: path.rename(path.with_name("3.png")), "missing, the benchmark requires this frame"),
    ],
)
def test_a_fault_of_the_last_mask_is_named(davis, masks, damage, words):
    path = masks / "carousel/00003.png"
    damage(path)
    (line,) = [line for line in faults(masks, davis) if line.startswith(f"{path}: ")]
    assert words in line


@pytest.mark.parametrize(
    "name", [".DS_Store", "bike/.DS_Store", "bike/Thumbs.db", "bike/._00000.png", "bike/00009.png"]
)
def test_a_file_that_does_not_belong_is_named(davis, masks, name):
    (masks / name).write_bytes(b"x")
    assert faults(masks, davis) == [f"{masks / name}: is not part of a submission; remove it"]


@pytest.mark.parametrize("name", ["unlisted", "__MACOSX", "bike/overlay"])
def test_a_folder_that_does_not_belong_is_named(davis, masks, name):
    save(masks / name / "notes.png", labels(1))
    assert faults(masks, davis) == [f"{masks / name}: is not part of a submission; remove it"]


def test_a_davis_palette_with_another_rounding_is_accepted(davis, masks):
    for folder, color in ((davis / "Annotations/480p", 192), (masks, 191)):
        colors = [*DAVIS_COLORS, *[0] * 15, color, 0, 0]
        for path in sorted((folder / "bike").iterdir()):
            save(path, labels(1, 9), colors)
    assert submit(masks, davis).exit_code == 0


def test_every_fault_is_named_at_once(davis, masks):
    half(masks / "bike/00000.png")
    as_rgb(masks / "bike/00000.png")  # two faults of one file
    half(masks / "bike/00001.png")
    (masks / "carousel/00003.png").unlink()
    (masks / "carousel/Thumbs.db").touch()
    save(masks / "carousel/00000.png", labels(7))
    named = sorted(line.split(": ")[0].removeprefix(f"{masks}/") for line in faults(masks, davis))
    assert named[:3] == ["bike/00000.png", "bike/00000.png", "bike/00001.png"]
    assert named[3:] == ["carousel/00000.png", "carousel/00003.png", "carousel/Thumbs.db"]


def test_many_faults_are_counted(davis, masks):
    for k in range(130):
        (masks / f"bike/x{k}").touch()
    done = submit(masks, davis)
    lines = done.stderr.splitlines()
    assert len(lines) == 102 and lines[-2:] == ["ssvos: and 30 more", "ssvos: 130 faults; nothing was written"]


def test_a_missing_and_an_empty_sequence_are_one_fault_each(davis, masks):
    shutil.rmtree(masks / "bike")
    for path in (masks / "carousel").iterdir():
        path.unlink()
    first, second = faults(masks, davis)
    assert first.startswith(f"{masks}/bike: missing") and second.startswith(f"{masks}/carousel: holds none of the 4")


def test_the_objects_and_frames_of_youtube_vos_are_those_of_meta_json(youtube, tmp_path):
    for t in (5, 10, 15):
        save(tmp_path / f"masks/0a49f/{t:05d}.png", labels(1 if t == 15 else 2))
    first, second = faults(tmp_path / "masks", youtube, "youtube-vos")
    assert "00015.png: unknown object 1, this sequence has 2, 5" in first and "00020.png: missing" in second


def test_an_earlier_zip_is_kept_if_masks_have_faults(davis, masks):
    out = davis.parent / "out.zip"
    out.write_text("earlier")
    (masks / "bike/00000.png").unlink()
    assert len(faults(masks, davis)) == 1 and out.read_text() == "earlier"


def test_nothing_is_left_if_the_disk_is_full(davis, masks, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = sorted(davis.parent.rglob("*"))
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    done = submit(masks, davis)
    assert isinstance(done.exception, OSError) and sorted(davis.parent.rglob("*")) == before


def test_the_command_prints_one_line_per_fault_and_no_traceback(davis, masks, tmp_path):
    def call(*more: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", "ssvos.cli", *more], capture_output=True, text=True, timeout=120)

    assert call(*arguments(masks, tmp_path / "out.zip", davis)).returncode == 0
    (tmp_path / "out.zip").unlink()
    cut(masks / "bike/00000.png")
    (masks / "Thumbs.db").touch()
    done = call(*arguments(masks, tmp_path / "out.zip", davis))
    assert done.returncode == 1 and done.stderr.count("\n") == 3 and not done.stdout
    inside = call(*arguments(masks, masks / "out.zip", davis))
    assert inside.returncode == 1 and f"out.zip: is in {masks}" in inside.stderr
    assert inside.stderr.count("\n") == 1 and not list(tmp_path.rglob("*.zip"))
    assert "Example: ssvos submit" in call("submit", "--help").stdout
