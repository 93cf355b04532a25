"""The embedded data set: deterministic, with exact masks and moving objects, and hard for baselines."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssvos.config import SyntheticConfig
from ssvos.data.synthetic.clips import make_dataset, render_clip
from ssvos.data.synthetic.moving_shapes import MAX_STEP, MovingShape, draw_shape
from ssvos.data.synthetic.textures import PATTERNS, PHOTOS, load_photo, match_colors, photo_texture
from ssvos.labels import read_labels

CONFIG = SyntheticConfig()
SMALL = SyntheticConfig(num_train=2, num_val=1, num_frames=3, height=64, width=96)


class _Square:
    """A square of side 8 around the origin."""

    reach = 6.0

    def polygons(self, t: float) -> list[np.ndarray]:
        return [np.array([[-4.0, -4.0], [4.0, -4.0], [4.0, 4.0], [-4.0, 4.0]])]


def _contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    names: list[str] = []
    make_dataset(SMALL, tmp_path / "a", names.append)
    render_clip(SMALL, "val", 7)  # an earlier rendering must not change the next
    make_dataset(SMALL, tmp_path / "b")
    assert names == ["train-000", "train-001", "val-000"]
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")


PLAIN = [  # split, index, digests of frames and masks, mean of each channel
    ("train", 0, "96b5d737daa2a116", "0010df718e8d008d", (160.516, 133.159, 121.783)),
    ("train", 6, "17f8c1c31ff498b5", "a932506fd32e53de", (122.014, 127.024, 96.382)),
    ("val", 0, "306c5ee58d9c262a", "0fc23f3ff276c64d", (110.655, 122.422, 116.992)),
    ("val", 5, "df6ba6fb48bc20c7", "87138b14b8a2fd73", (105.969, 124.203, 123.458)),
]


@pytest.mark.parametrize(("split", "index", "frames", "masks", "means"), PLAIN)
def test_the_clips_of_the_demo_keep_their_pinned_bytes(
    split: str, index: int, frames: str, masks: str, means: tuple[float, float, float]
) -> None:
    clip = render_clip(CONFIG, split, index)
    digests = [hashlib.sha256(array.tobytes()).hexdigest()[:16] for array in (clip.frames, clip.masks)]
    assert digests[1] == masks
    if digests[0] != frames:  # processors without AVX2 round a few values in a thousand differently
        np.testing.assert_allclose(clip.frames.mean(axis=(0, 1, 2)), means, atol=0.005)


def test_files_have_davis_layout_and_contain_the_rendered_masks(tmp_path: Path) -> None:
    make_dataset(SMALL, tmp_path)
    assert (tmp_path / "ImageSets/2017/train.txt").read_text() == "train-000\ntrain-001\n"
    assert (tmp_path / "ImageSets/2017/val.txt").read_text() == "val-000\n"
    clip = render_clip(SMALL, "train", 1)
    for t in range(3):
        mask = read_labels(tmp_path / f"Annotations/480p/train-001/{t:05d}.png")
        image = cv2.imread(str(tmp_path / f"JPEGImages/480p/train-001/{t:05d}.jpg"), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(mask, clip.masks[t])
        assert np.abs(image.astype(int) - clip.frames[t]).mean() < 8  # swapped channels differ by more
    assert len(list((tmp_path / "JPEGImages/480p").rglob("*.jpg"))) == 9


def test_writing_shorter_clips_removes_the_frames_of_longer_ones(tmp_path: Path) -> None:
    make_dataset(SMALL, tmp_path)
    make_dataset(SMALL.model_copy(update={"num_frames": 2}), tmp_path)
    assert len(list((tmp_path / "JPEGImages/480p/train-000").iterdir())) == 2
    assert len(list((tmp_path / "Annotations/480p/train-000").iterdir())) == 2


@pytest.mark.parametrize(("field", "value"), [("seed", 1), ("index", 1), ("split", "val")])
def test_seed_split_and_index_each_change_the_clip(field: str, value: int | str) -> None:
    choice = {"seed": 0, "split": "train", "index": 0}
    clips = []
    for c in (choice, choice | {field: value}):
        config = SMALL.model_copy(update={"seed": c["seed"]})
        clips.append(render_clip(config, c["split"], c["index"]))
    assert not np.array_equal(clips[0].frames, clips[1].frames)
    assert not np.array_equal(clips[0].masks, clips[1].masks)


@pytest.mark.slow
@pytest.mark.parametrize(("max_objects", "num_clips"), [(1, 12), (3, 12), (8, 12)])
def test_every_object_covers_a_hundredth_of_the_first_frame(max_objects: int, num_clips: int) -> None:
    config = CONFIG.model_copy(update={"max_objects": max_objects, "num_frames": 1})
    counts = set()
    for index in range(num_clips):
        first = render_clip(config, "train", index).masks[0]
        ids = np.unique(first)
        counts.add(len(ids) - 1)
        assert ids.tolist() == list(range(len(ids))), "ids are 0..K without gaps"
        assert np.bincount(first.ravel()).min() >= 0.01 * first.size
    assert max(counts) <= max_objects and (max_objects == 1 or len(counts) > 1)


def test_objects_vanish_and_overlap_in_some_clips() -> None:
    vanished = touched = 0
    for index in range(12):
        masks = render_clip(CONFIG, "train", index).masks
        for label in range(1, masks[0].max() + 1):
            vanished += not (masks == label).any(axis=(1, 2)).all()
        right, left = masks[:, :, 1:], masks[:, :, :-1]
        touched += bool(((right != left) & (right > 0) & (left > 0)).any())
    assert vanished >= 1 and touched >= 3


def test_train_and_val_share_no_texture() -> None:
    assert not set(PHOTOS["train"]) & set(PHOTOS["val"])
    assert not set(PATTERNS["train"]) & set(PATTERNS["val"])
    pictures = {s: [load_photo(name) for name in PHOTOS[s]] for s in PHOTOS}
    for a in pictures["train"]:
        assert not any(a.shape == b.shape and np.array_equal(a, b) for b in pictures["val"])


def test_color_transfer_matches_the_statistics_and_keeps_the_structure() -> None:
    rng = np.random.default_rng(0)
    texture = np.full((40, 40, 3), 120, np.float32) + rng.normal(0, 12, (40, 40, 1)).astype(np.float32)
    reference = np.float32([60, 120, 90]) + rng.normal(0, 10, (50, 30, 3)).astype(np.float32)
    matched = match_colors(texture, reference)
    to_lab = [cv2.cvtColor(image / 255, cv2.COLOR_RGB2LAB) for image in (matched, reference)]
    means = [lab.mean(axis=(0, 1)) for lab in to_lab]
    np.testing.assert_allclose(means[0], means[1], atol=1.0)
    np.testing.assert_allclose(to_lab[0][..., 0].std(), to_lab[1][..., 0].std(), rtol=0.1)
    assert np.corrcoef(matched.mean(axis=2).ravel(), texture.mean(axis=2).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("name", [name for names in PHOTOS.values() for name in names])
def test_photographs_give_textures_of_any_size_with_contrast(name: str) -> None:
    for shape in ((20, 30), (204, 358), (900, 1200)):
        texture = photo_texture(name, shape, np.random.default_rng(0))
        assert texture.shape == (*shape, 3) and texture.dtype == np.float32
        assert texture.min() >= 0 and texture.max() <= 255 and texture.std() > 10


def test_coverage_and_texture_agree_on_the_position_of_a_shape() -> None:
    still = MovingShape(_Square(), centre=np.array([[10.0, 7.0]]), angle=np.zeros(1), scale=np.ones(1))
    coverage = still.coverage(0, (16, 24))
    y, x = np.indices(coverage.shape)
    # corners at 6 and 14: pixels 7..13 are inside, 6 and 14 are half covered
    inside = (abs(x - 10) <= 3) & (abs(y - 7) <= 3)
    assert (coverage[inside] > 0.99).all()
    assert (coverage[(abs(x - 10) > 4) | (abs(y - 7) > 4)] < 0.2).all()
    assert abs((x * coverage).sum() / coverage.sum() - 10) < 0.2
    assert abs((y * coverage).sum() / coverage.sum() - 7) < 0.2
    matrix = still.texture_to_frame(0, side=9)
    np.testing.assert_allclose(matrix @ [4, 4, 1], [10, 7])


def test_no_shape_moves_faster_than_the_limit() -> None:
    rng = np.random.default_rng(3)
    steps = [np.hypot(*np.diff(draw_shape(CONFIG, 0.06, rng).centre, axis=0).T) for _ in range(50)]
    assert np.max(steps) <= MAX_STEP + 1e-6
    assert np.median(np.sum(steps, axis=1)) > 25, "over a clip, a shape travels further than its own radius"


def test_outlines_stay_within_their_reach() -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        outline = draw_shape(CONFIG, 0.06, rng).outline
        for t in range(0, 16, 3):
            assert max(np.hypot(*polygon.T).max() for polygon in outline.polygons(t)) <= outline.reach


@pytest.mark.parametrize(("split", "index"), [("test", 0), ("val", -1)])
def test_unknown_clips_raise_one_line(split: str, index: int) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]*(train|index)[^\n]*\Z"):
        render_clip(SMALL, split, index)  # type: ignore[arg-type]


def test_copying_the_first_mask_scores_below_one_half_on_the_val_clips() -> None:
    overlaps = []
    for index in range(CONFIG.num_val):
        masks = render_clip(CONFIG, "val", index).masks
        for label in range(1, masks[0].max() + 1):
            truth = masks[1:-1] == label
            copied = masks[0] == label
            union = (truth | copied).sum(axis=(1, 2))
            overlaps.append(((truth & copied).sum(axis=(1, 2)) / union).mean())
    assert 0.15 < np.mean(overlaps) < 0.45
