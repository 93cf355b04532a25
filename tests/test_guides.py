"""The commands of the data guides run as written, on tiny data with tiny presets. The links between pages work."""

import json
import re
import shutil
from pathlib import Path

import pytest
from sandbox import PROJECT, make_project, run

DATA_GUIDES = ("own-scribbles", "davis", "youtube-vos")
GUIDES = (*DATA_GUIDES, "tuning", "comparing", "cluster", "submitting")
_BLOCK = re.compile(r"^```(sh|python)( no-run)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
TINY_PRESET = """# @package _global_
defaults:
  - /data: {data}
  - _self_
scribbles: {{seed: 0, width: 2}}
model:
  backbone: {{name: resnet18, width: 8, norm: group}}
  appearance: {{channels: 8}}
  propagation_channels: 8
  fusion_channels: 8
  encoding_channels: 8
loss: {{sigma_xy: 10.0}}
train:
  seed: 0
  augment: {{flip: 0.5}}
  stage1: &stage
    {{epochs: 1, clips_per_epoch: 2, batch_clips: 2, clip_frames: 2, height: 48, width: 64, learning_rate: 0.001}}
  stage2: *stage
predict: {{height: 0}}
tune:
  trials: 1
  trial: {{}}
  space: {{loss.weight: {{low: 0.1, high: 5.0}}}}
variants:
  ours: {{}}
"""
PRESET_DATA = {"davis": "davis", "cpu-small": "davis", "youtube_vos": "youtube_vos", "paper": "youtube_davis"}


def commands(guide: str) -> list[tuple[str, str]]:
    """Return (language, text) of each block to run, in order."""
    text = (PROJECT / "docs" / "guides" / f"{guide}.md").read_text()
    return [(language, body) for language, skipped, body in _BLOCK.findall(text) if not skipped]


def script(guide: str, places: dict[str, str]) -> str:
    """Return one shell script of all blocks, so that they share variables. It stops at the first failure."""
    lines = ["set -euo pipefail"]
    for language, body in commands(guide):
        for written, there in places.items():
            body = body.replace(written, there)
        lines.append(body if language == "sh" else f"python - <<'PYTHON'\n{body}PYTHON")
    return "\n".join(lines)


def tiny_presets(folder: Path) -> Path:
    """Replace the presets' sizes with the smallest. Each preset keeps its data sets."""
    for name, data in PRESET_DATA.items():
        (folder / "conf" / "preset" / f"{name}.yaml").write_text(TINY_PRESET.format(data=data))
    return folder


@pytest.fixture(scope="module")
def davis(tiny_data, tmp_path_factory) -> Path:
    """A folder in DAVIS layout."""
    folder = tmp_path_factory.mktemp("data") / "DAVIS"
    shutil.copytree(tiny_data.roots["embedded"], folder)
    return folder


@pytest.fixture(scope="module")
def youtube_vos(davis) -> Path:
    """The same videos in YouTube-VOS layout."""
    folder = davis.parent / "YouTube-VOS"
    for split, prefix in (("train", "train"), ("valid", "val")):
        videos = {}
        for source in sorted((davis / "JPEGImages/480p").glob(f"{prefix}-*")):
            shutil.copytree(source, folder / split / "JPEGImages" / source.name)
            masks = folder / split / "Annotations" / source.name
            shutil.copytree(davis / "Annotations/480p" / source.name, masks)
            frames = [path.stem for path in sorted(masks.glob("*.png"))]
            objects = {str(k): {"category": "shape", "frames": frames} for k in (1, 2)}
            videos[source.name] = {"objects": objects}
        (folder / split / "meta.json").write_text(json.dumps({"videos": videos}))
    return folder


@pytest.fixture(scope="module")
def clips(davis) -> Path:
    """A folder with drawn scribbles and no mask."""
    folder = davis.parent / "clips"
    shutil.copytree(davis / "JPEGImages/480p", folder / "JPEGImages")
    shutil.copytree(davis / "ImageSets/2017", folder / "ImageSets")
    run(["ssvos", "scribble", str(davis / "Annotations/480p"), str(folder / "Scribbles"), "--width", "2"], PROJECT)
    return folder


@pytest.fixture(scope="module")
def places(davis, youtube_vos, clips) -> dict[str, str]:
    """Folder that the guides name, /data/... -> folder of these tests."""
    return {"/data/DAVIS": str(davis), "/data/YouTube-VOS": str(youtube_vos), "/data/clips": str(clips)}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("guide", DATA_GUIDES)
def test_commands_of_a_data_guide_run(guide, places, tmp_path):
    folder = tiny_presets(make_project(tmp_path / "project"))
    run(["git", "commit", "-qam", "tiny presets"], folder)
    done = run(["bash", "-c", script(guide, places)], folder, timeout=850, SSVOS_WORKERS="0")
    if guide == "own-scribbles":
        assert list((folder / "masks").glob("*.png")) and (folder / "masks/overlay.mp4").is_file()
        assert "held-out loss" in (folder / "reports/index.html").read_text()
    else:
        assert "not run" not in done.stdout.split("(percent)")[1].splitlines()[2]
        assert json.loads((folder / "scores.json").read_text())["global"]


def test_every_guide_is_there_and_linked_from_the_readme():
    readme = (PROJECT / "README.md").read_text()
    for guide in GUIDES:
        assert (PROJECT / f"docs/guides/{guide}.md").is_file()
        assert f"docs/guides/{guide}.md" in readme, guide


PAGES = [*sorted((PROJECT / "docs").rglob("*.md")), PROJECT / "README.md"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name}: {target}"
