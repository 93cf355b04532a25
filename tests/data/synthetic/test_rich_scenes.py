"""Rich clips: reproducible bytes, exact masks, visible objects, and the effect of every parameter."""

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from ssvos.config import RichConfig, SyntheticConfig, parse
from ssvos.data.synthetic.clips import Clip, render_clip
from ssvos.data.synthetic.rich_scenes import rendering
from ssvos.data.synthetic.rich_scenes.imaging import apply_imaging, draw_imaging
from ssvos.data.synthetic.rich_scenes.materials import draw_material, match_statistics
from ssvos.data.synthetic.rich_scenes.motion import draw_camera, draw_path
from ssvos.data.synthetic.rich_scenes.painting import NEUTRAL, blur_along, compose, paint, write_label
from ssvos.data.synthetic.rich_scenes.patterns import FAMILIES, tile
from ssvos.data.synthetic.rich_scenes.scene import min_visible_pixels
from ssvos.data.synthetic.rich_scenes.sketch import Part, Sketch
from ssvos.data.synthetic.rich_scenes.sprites import KINDS, draw_sketch, make_sprite, measure
from ssvos.data.synthetic.textures import PHOTOS

OFF = {name: 0 for name in RichConfig.model_fields if name != "smallest_share"}
STRONG = {name: 1.0 for name in OFF} | {"distractors": 4, "occluders": 4, "clutter": 20, "shake": 4.0, "grain": 12.0}
FRAMES_ONLY = (
    "lighting",
    "exposure",
    "haze",
    "shadow",
    "grain",
    "jpeg_share",
    "clutter",
    "ripple_share",
    "smoke_share",
)


def small(num_frames: int = 4, height: int = 96, width: int = 160, **rich: float) -> SyntheticConfig:
    values = {"num_frames": num_frames, "height": height, "width": width, "max_objects": 4, "object_share": 0.35}
    return parse(SyntheticConfig, values | {"rich": rich}, "test")


def digest(clip: Clip) -> str:
    return hashlib.sha256(clip.frames.tobytes() + clip.masks.tobytes()).hexdigest()


def test_a_clip_has_the_same_bytes_in_another_process_with_other_threads_and_earlier_clips():
    config = small()
    program = (
        "import cv2, hashlib; cv2.setNumThreads(0)\n"
        "from ssvos.config import SyntheticConfig\nfrom ssvos.data.synthetic.clips import render_clip\n"
        f"clip = render_clip(SyntheticConfig.model_validate_json('''{config.model_dump_json()}'''), 'train', 5)\n"
        "print(hashlib.sha256(clip.frames.tobytes() + clip.masks.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    render_clip(config, "train", 4)
    clip = render_clip(config, "train", 5)
    assert clip.frames.shape == (4, 96, 160, 3) and clip.masks.shape == (4, 96, 160)
    assert clip.frames.dtype == clip.masks.dtype == np.uint8
    assert other.stdout.strip() == digest(clip)


@pytest.mark.parametrize(("seed", "split", "index"), [(1, "train", 5), (0, "val", 5), (0, "train", 6)])
def test_seed_split_and_index_each_change_the_clip(seed, split, index):
    config = small()
    changed = render_clip(config.model_copy(update={"seed": seed}), split, index)
    first = render_clip(config, "train", 5)
    assert not np.array_equal(first.frames, changed.frames) and not np.array_equal(first.masks, changed.masks)


@pytest.mark.parametrize("shape", [(32, 32), (128, 224), (480, 854)])
def test_every_object_is_visible_in_the_first_frame_and_ids_have_no_gaps(shape):
    config = small(3, *shape)
    counts = []
    for index in range(24 if shape[0] == 128 else 3):
        first = render_clip(config, "train", index).masks[0]
        visible = np.bincount(first.ravel())[1:]
        counts.append(len(visible))
        assert 1 <= len(visible) <= 4 and visible.min() >= max(60, 0.003 * first.size) == min_visible_pixels(config)
    assert shape[0] != 128 or set(counts) == {1, 2, 3, 4}


def test_object_sizes_range_from_the_smallest_to_the_largest_share():
    config = small(3, 128, 224, growth=0.0, deformation=0.0, occluders=0, distractors=0)
    shares = [render_clip(config, "train", index).masks[0] > 0 for index in range(40)]
    shares = np.array([mask.mean() for mask in shares])
    assert shares.min() < 0.05 and shares.max() > 0.2
    assert shares.max() < 2 * 0.35, "together the objects of a clip cover at most twice the largest share"


def test_the_mask_contains_pixels_that_are_at_least_half_covered_and_matches_the_outlines():
    angle = np.linspace(0, 2 * np.pi, 65)[:-1]
    oval = np.stack([np.cos(angle), 0.6 * np.sin(angle)], axis=-1)[None]
    bar = np.array([[[-0.2, -1.0], [0.2, -1.0], [0.2, 1.0], [-0.2, 1.0]]])
    tints = ((1.0, 0.5, 0.25), (1.0, 1.0, 1.5))
    sketch = Sketch.of([Part((outline,), tint) for outline, tint in zip((oval, bar), tints, strict=True)])
    texture = np.full((20, 20, 3), 100, np.uint8)
    for softness, motion in ((0.0, 0.0), (1.2, 0.0), (0.0, 7.0)):
        centre = np.array([[30.3, 20.6], [30.3 + motion, 20.6]])
        sprite = make_sprite(
            3,
            Sketch(sketch.points.repeat(2, axis=0), sketch.spans, sketch.tints),
            centre,
            15.0 * np.eye(2)[None].repeat(2, axis=0),
            texture,
            softness=softness,
            shutter=1.0,
        )
        image, mask = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
        patch = paint(sprite, 0, mask.shape)
        compose(image, patch)
        write_label(mask, patch, sprite.label)
        drawn = image[..., 0] / 100.0  # both parts are as red as the texture
        assert (mask[drawn > 0.51] == 3).all() and (mask[drawn < 0.49] == 0).all()
    assert ((drawn > 0.05) & (drawn < 0.95)).sum() / (mask > 0).sum() > 0.3, "motion blur makes soft edges"
    patch = paint(make_sprite(3, sketch, centre[:1], 15.0 * np.eye(2)[None], texture), 0, mask.shape)
    compose(image := np.zeros_like(image), patch)
    np.testing.assert_allclose(image[20, 30], [100, 100, 150], atol=2)
    np.testing.assert_allclose(image[20, 42], [100, 50, 25], atol=2)
    write_label(mask := np.zeros_like(mask), patch, 3)
    fine = np.zeros((640, 960), np.uint8)
    for outline in (oval[0], bar[0]):
        cv2.fillPoly(fine, [np.rint(((outline * 15 + [30.3, 20.6]) + 0.5) * 16 - 0.5).astype(np.int32)], 255)
    coverage = cv2.resize(fine, (60, 40), interpolation=cv2.INTER_AREA) / 255.0
    assert (mask[coverage >= 0.5] == 3).all()
    near = cv2.dilate((coverage >= 0.5).astype(np.uint8), np.ones((3, 3), np.uint8))
    assert (mask[near == 0] == 0).all(), "OpenCV's polygons include their border pixels"


def test_masks_match_the_pixels_that_objects_change(monkeypatch):
    config = small(**OFF)
    with_objects = render_clip(config, "train", 3)
    monkeypatch.setattr(rendering, "min_visible_pixels", lambda _: 0)
    monkeypatch.setattr(rendering, "draw_sprites", lambda *_: [])
    monkeypatch.setattr(rendering.np, "bincount", lambda _: np.ones(2))
    without = render_clip(config, "train", 3)
    is_changed = (with_objects.frames != without.frames).any(axis=-1)
    is_object = with_objects.masks > 0
    grown = np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) for mask in is_object])
    assert not (is_changed & (grown == 0)).any(), "an object changes no pixel further than one pixel from its edge"
    assert is_changed[is_object].mean() > 0.95


@pytest.mark.parametrize("name", sorted(OFF))
def test_every_parameter_changes_clips(name):
    plain, changed = small(**OFF), small(**OFF | {name: STRONG[name]})
    if name in ("turn_share", "follow_share", "leaving_share", "parallax", "motion_blur"):  # needs motion
        plain, changed = (small(8, **config.rich.model_dump() | {"speed_spread": 1.0}) for config in (plain, changed))
    if name == "parallax":  # needs a moving camera
        plain, changed = (small(**config.rich.model_dump() | {"follow_share": 1.0}) for config in (plain, changed))
    are_different = False
    for index in range(6):
        before, after = render_clip(plain, "train", index), render_clip(changed, "train", index)
        are_different |= not np.array_equal(before.frames, after.frames)
        if name in FRAMES_ONLY:
            np.testing.assert_array_equal(before.masks, after.masks)
    assert are_different


def test_without_degradations_imaging_is_the_identity():
    rng = np.random.default_rng(0)
    config = small(**OFF)
    image = rng.integers(256, size=(96, 160, 3), dtype=np.uint8)
    np.testing.assert_array_equal(apply_imaging(image, draw_imaging(config, rng), 1), image)


def test_grain_has_a_strength_up_to_its_parameter_and_no_bias():
    config = small(3, 200, 300, **OFF | {"grain": 12.0})
    image = np.full((200, 300, 3), 128, np.uint8)
    deviations = []
    for seed in range(30):
        out = apply_imaging(image, draw_imaging(config, np.random.default_rng(seed)), 0).astype(float)
        deviations.append(out.std())
        assert abs(out.mean() - 128) < 1
    assert 6 < max(deviations) < 16 and min(deviations) < 1


def test_motion_blur_keeps_the_sum_and_blurs_only_along_the_motion():
    image = np.zeros((21, 21), np.uint8)
    image[10, 10] = 250
    np.testing.assert_array_equal(blur_along(image, np.array([0.4, 0.3])), image)
    out = blur_along(image, np.array([6.0, 0.0])).astype(int)
    assert abs(out.sum() - 250) <= 8 and out[10].sum() > 0.9 * out.sum()
    assert 5 <= (out[10] > 10).sum() <= 9 and abs((out[10] * np.arange(21)).sum() / out[10].sum() - 10) < 0.1


def test_a_following_camera_pans_and_keeps_the_object_near_the_middle():
    config = small(10, **OFF | {"follow_share": 1.0, "speed_spread": 0.5})
    pans, offsets = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        camera = draw_camera(config, rng)
        assert camera.follows
        pans.append(np.abs(camera.pan[-1] - camera.pan[0]).max())
        path = draw_path(config, 10.0, True, rng)
        offsets.append(np.abs(path - [80, 48]).max(axis=0) / [160, 96])
    assert np.median(pans) > 8 and np.mean(np.max(offsets, axis=1) < 0.3) > 0.7


def test_leaving_objects_leave_the_frame_and_come_back():
    config = small(10, **OFF | {"leaving_share": 1.0})
    for seed in range(20):
        path = draw_path(config, 12.0, False, np.random.default_rng(seed))[:, 0]
        outside = np.maximum(-path, path - 160)
        assert outside[0] < 12 and outside.max() > 12 and outside[-1] < 12


def test_without_camera_motion_the_frame_is_the_view():
    camera = draw_camera(small(**OFF), np.random.default_rng(2))
    np.testing.assert_allclose(camera.to_frame, np.tile(np.eye(3)[:2], (4, 1, 1)), atol=1e-9)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_an_area_and_rigid_kinds_do_not_deform(kind):
    config = small(6, **OFF)
    for seed in range(10):
        sketch = draw_sketch(kind, config, np.random.default_rng(seed), variety=1.0)
        area, half = measure(sketch)
        assert sketch.points.shape[0] == 6 and np.isfinite(sketch.points).all()
        assert 0.01 < area < 4 * half.prod() + 0.1
        if kind in ("rigid", "post", "bar"):
            np.testing.assert_allclose(sketch.points, sketch.points[:1].repeat(6, axis=0))
        plain = draw_sketch(kind, config, np.random.default_rng(seed), variety=0.0)
        assert set(plain.tints) == {(1.0, 1.0, 1.0)}, "without variety all parts have the colors of the texture"


@pytest.mark.parametrize("split", ["train", "val"])
def test_materials_have_contrast_and_can_match_the_statistics_of_others(split):
    rng = np.random.default_rng(0)
    deviations = [draw_material(split, (60, 90), rng).std() for _ in range(40)]
    assert np.median(deviations) > 15
    reference = draw_material(split, (50, 40), rng) // 2 + 60
    matched = match_statistics(draw_material(split, (60, 90), rng) // 2 + 64, reference)
    assert np.abs(matched.mean(axis=(0, 1)) - reference.mean(axis=(0, 1))).max() < 6


def test_train_and_val_share_no_pattern():
    assert not set(FAMILIES["train"]) & set(FAMILIES["val"]) and not set(PHOTOS["train"]) & set(PHOTOS["val"])
    tiles = [tile(split, k, 0) for split in FAMILIES for k in range(len(FAMILIES[split]))]
    for grey in tiles:
        assert grey.dtype == np.uint8 and grey.std() > 10
        assert sum(np.array_equal(grey, other) for other in tiles) == 1


def test_neutral_tints_keep_the_colors_of_the_texture():
    square = np.array([[[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]])
    texture = np.random.default_rng(0).integers(256, size=(41, 41, 3), dtype=np.uint8)
    sprite = make_sprite(
        1, Sketch.of([Part((square,), (1.0, 1.0, 1.0))]), np.full((1, 2), 20.0), 20.0 * np.eye(2)[None], texture
    )
    _, _, layer = paint(sprite, 0, (41, 41))
    np.testing.assert_array_equal(layer[1:-1, 1:-1, :3], texture[1:-1, 1:-1])
    assert NEUTRAL == 128 and (layer[1:-1, 1:-1, 3] == 255).all()


def test_an_empty_table_enables_rich_clips_and_unknown_keys_are_named():
    assert parse(SyntheticConfig, {"rich": {}}, "x").rich == RichConfig()
    assert parse(SyntheticConfig, {}, "x").rich is None
    with pytest.raises(ValueError, match=r"rich\.grian: unknown key"):
        parse(SyntheticConfig, {"rich": {"grian": 1.0}}, "x")
