"""Training clips of unlimited sources, which are rendered on demand, mixed with clips of indexed videos."""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from conftest import TINY_STAGE, changed, run

from ssvos.config import AugmentConfig, DataConfig, ScribbleConfig, SourceConfig, SyntheticConfig, parse
from ssvos.data import clip_sources
from ssvos.data.clip_sources import RenderedClipSource, Renderer
from ssvos.data.clips import ClipDataset, ClipSampler, ClipSpec, Supervision
from ssvos.data.index import IndexedFrame, IndexedVideo
from ssvos.data.synthetic.clips import render_clip

SYNTHETIC = SyntheticConfig(num_train=3, num_val=1, num_frames=6, height=48, width=64)
NO_AUGMENT = AugmentConfig(flip=0.0)


def stage(**changes):
    return TINY_STAGE.model_copy(update=changes)


def video(dataset: str, length: int = 8) -> IndexedVideo:
    frames = tuple(IndexedFrame(f"{t:05d}", f"{t}.png", None, None, 48, 64, (1,), "") for t in range(length))
    return IndexedVideo(dataset, "train", "clip", frames, {})


def make_sampler(uses: int = 1, weight: float = 1.0, supervision: Supervision | None = None) -> ClipSampler:
    synthetic = SYNTHETIC.model_copy(update={"uses": uses})
    return ClipSampler(
        [video("real"), video("rendered")],
        {},
        {"real": 1.0, "rendered": weight},
        {},
        {"rendered": supervision} if supervision else {},
        {"rendered": Renderer(synthetic, ScribbleConfig(width=3))},
    )


def only_rendered(**changes):
    return stage(weights={"real": 0.0}, **changes)


def test_no_two_epochs_use_the_same_rendered_clip():
    drawn = [make_sampler().draw(stage(clips_per_epoch=20), 0, epoch) for epoch in range(3)]
    numbers = [spec.video for specs in drawn for spec in specs if spec.rendered]
    assert len(numbers) > 15 and len(set(numbers)) == len(numbers) and min(numbers) >= SYNTHETIC.num_train


def test_a_rendered_clip_has_the_configured_number_of_consecutive_uses():
    specs = make_sampler(uses=3).draw(only_rendered(clips_per_epoch=10), 0, 1)
    numbers = [spec.video for spec in specs]
    assert numbers == sorted(numbers) and sorted(Counter(numbers).values()) == [1, 3, 3, 3]
    assert len({spec.seed for spec in specs}) == 10


def test_an_unlimited_source_is_drawn_by_its_weight_and_its_indexed_videos_are_not():
    specs = make_sampler(weight=3.0).draw(stage(clips_per_epoch=2000), 0, 0)
    assert {spec.video for spec in specs if not spec.rendered} == {0}
    assert sum(bool(spec.rendered) for spec in specs) / 2000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(("weights", "rendered"), [({"rendered": 0.0}, False), ({"real": 0.0}, True)])
def test_a_stage_excludes_a_source_with_weight_0(weights, rendered):
    specs = make_sampler().draw(stage(clips_per_epoch=40, weights=weights), 0, 0)
    assert {bool(spec.rendered) for spec in specs} == {rendered}


def test_a_stage_without_a_source_is_rejected():
    with pytest.raises(ValueError, match="no source that can be trained on has a weight above 0"):
        make_sampler().draw(stage(weights={"rendered": 0.0, "real": 0.0}), 0, 0)


def test_targets_are_strokes_inside_the_clips_object():
    specs = make_sampler().draw(only_rendered(clips_per_epoch=12), 0, 0)
    clips, seen = ClipDataset(make_sampler(), specs, stage(), NO_AUGMENT, 0.5), Counter()
    for k, spec in enumerate(specs):
        clip, truth = clips[k], render_clip(SYNTHETIC, "train", spec.video)
        assert clip["frames"].dtype == torch.uint8
        assert np.array_equal(clip["frames"][0].permute(1, 2, 0), truth.frames[spec.positions[0]])
        inside = set()
        for t, position in enumerate(spec.positions):
            labels, mask = clip["target"][t].numpy(), truth.masks[position]
            inside |= set(np.unique(mask[labels == 1]))
            assert 0 < (labels != 255).mean() < 0.5
            seen[len(np.unique(labels))] += 1
        assert len(inside) == 1 and 0 not in inside
        object_id = inside.pop()
        for t, position in enumerate(spec.positions):
            assert (truth.masks[position][clip["target"][t].numpy() == 0] != object_id).all()
    assert seen[3] > 20  # frames with strokes of the object, strokes of the background, and unlabelled pixels


def item(spec: ClipSpec) -> dict[str, torch.Tensor]:
    augment = AugmentConfig(flip=0.5, reverse=0.5, scale_max=1.5, rotation=20.0, shear=0.2, cutout=0.5, blur=1.0)
    return ClipDataset(make_sampler(), [spec], stage(), augment, 0.5)[0]


def test_another_process_makes_the_same_clip():
    specs = make_sampler().draw(only_rendered(clips_per_epoch=3), 5, 2)
    expected = [item(spec) for spec in specs]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        actual = list(pool.map(item, specs[::-1]))[::-1]
    for one, other in zip(expected, actual, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_cached_clip_equals_the_rendered_clip_and_needs_no_rendering(tmp_path, monkeypatch):
    renderer, plain = (
        Renderer(SYNTHETIC, ScribbleConfig(width=3), tmp_path),
        Renderer(SYNTHETIC, ScribbleConfig(width=3)),
    )
    size = (48, 64)
    first = renderer.clip_source(11)
    assert np.array_equal(first.frame(2, size), plain.clip_source(11).frame(2, size))
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(Renderer, "render", lambda self, number: pytest.fail("rendered again"))
    clip_sources._cached_rendering.cache_clear()
    for t in range(SYNTHETIC.num_frames):
        assert np.array_equal(renderer.clip_source(11).mask(t, size), render_clip(SYNTHETIC, "train", 11).masks[t])
    assert renderer.cache_path(11) == file
    others = (
        Renderer(SYNTHETIC, ScribbleConfig(width=5), tmp_path),
        Renderer(SYNTHETIC.model_copy(update={"seed": 9}), ScribbleConfig(width=3), tmp_path),
    )
    assert len({r.cache_path(11) for r in (renderer, *others)} | {renderer.cache_path(12)}) == 4


def test_each_frame_has_its_own_cutout():
    (spec,) = make_sampler().draw(only_rendered(clips_per_epoch=1), 0, 0)
    dense = make_sampler(supervision=Supervision(1, 1))
    augment = AugmentConfig(flip=0.0, cutout=1.0)
    plain, cut = (ClipDataset(dense, [spec], stage(), a, 0.5)[0]["target"] for a in (NO_AUGMENT, augment))
    assert (plain != 255).all() and (cut == 255).flatten(1).any(dim=1).all()
    assert not torch.equal(cut[0] == 255, cut[1] == 255)


def test_dense_supervision_has_masks_as_targets():
    (spec,) = make_sampler().draw(only_rendered(clips_per_epoch=1), 0, 0)
    dense = make_sampler(supervision=Supervision(1, 1))
    clip = ClipDataset(dense, [spec], stage(), NO_AUGMENT, 0.5)[0]
    mask = render_clip(SYNTHETIC, "train", spec.video).masks[spec.positions[0]]
    assert any(np.array_equal(clip["target"][0].numpy(), (mask == i).astype(np.uint8)) for i in np.unique(mask)[1:])
    assert (clip["scribble"] == 255).float().mean() > 0.5


def test_a_rendered_clip_starts_on_a_frame_with_a_visible_object(monkeypatch):
    """Which objects are visible is known only after rendering."""
    rendered = Renderer(SYNTHETIC, ScribbleConfig()).clip_source(7)
    monkeypatch.setattr(RenderedClipSource, "objects", lambda self, t: (2,) if t == 0 else ())
    spec = ClipSpec(7, (2, 3, 4), 0, (0, 0, 0), "rendered")
    clip = ClipDataset(make_sampler(), [spec], stage(), NO_AUGMENT, 1.0)[0]
    for t, frame in enumerate(clip["frames"]):
        assert np.array_equal(frame.permute(1, 2, 0), rendered.frame(t, (48, 64)))


@pytest.mark.parametrize(
    ("changes", "epoch", "expected"),
    [
        ({"frame_stride": 2}, 0, {2}),
        ({"frame_stride": 3, "smallest_stride": 1}, 0, {1, 2, 3}),
        ({"frame_stride": 3, "smallest_stride": 1, "stride_growth": 4}, 0, {1}),
        ({"frame_stride": 3, "smallest_stride": 1, "stride_growth": 4}, 2, {1, 2}),
        ({"frame_stride": 3, "smallest_stride": 1, "stride_growth": 4}, 9, {1, 2, 3}),
        ({"frame_stride": 3, "smallest_stride": 2}, 0, {2, 3}),
    ],
)
def test_strides_lie_between_smallest_and_largest_and_grow_with_the_epochs(changes, epoch, expected):
    long = replace(make_sampler(), videos=[video("real", 30)], renderers={})
    specs = long.draw(stage(clips_per_epoch=200, **changes), 0, epoch)
    assert {int(np.diff(spec.positions)[0]) for spec in specs} == expected


def test_only_an_embedded_source_can_be_unlimited():
    source = {"name": "a", "layout": "davis", "unlimited": True}
    with pytest.raises(ValueError, match="unlimited"):
        parse(DataConfig, {"name": "x", "sources": [source]}, "params.yaml")


@pytest.fixture(scope="module")
def unlimited(tiny_data):
    """The tiny data set as an unlimited source."""
    sources = tuple(SourceConfig(**{**s.model_dump(), "unlimited": True}) for s in tiny_data.config.data.sources)
    data = tiny_data.config.data.model_copy(update={"sources": sources})
    return replace(tiny_data, config=tiny_data.config.model_copy(update={"data": data}))


def test_resumed_training_on_rendered_clips_equals_uninterrupted_training(unlimited):
    config, saved = changed(unlimited.config, epochs=2, ema_decay=0.5), {}
    uninterrupted = run(config, unlimited.load())

    def stop_after_one(report) -> None:
        saved["progress"] = report.train_state
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, unlimited.load(), report=stop_after_one)
    resumed = run(config, unlimited.load(), resume=saved["progress"])
    assert resumed.history == uninterrupted.history
    assert all(torch.equal(value, resumed.weights[key]) for key, value in uninterrupted.weights.items())
    assert resumed.history[0]["loss"] > 0 and resumed.history[0]["holdout_score"] > 0


def test_held_out_videos_of_an_excluded_source_are_not_scored(tiny_data):
    """Two data sets have the same videos; one of them has weight 0."""
    from ssvos.training.holdout import holdout_score
    from ssvos.training.trainer import first_network

    data, config = tiny_data.load(), tiny_data.config
    name = config.data.sources[0].name
    excluded = [replace(v, dataset="other", frames=v.frames[:1]) for v in data.holdout.videos]
    both = replace(data, holdout=replace(data.holdout, videos=[*data.holdout.videos, *excluded]))
    network, train = first_network(config), config.train.stage1
    alone = holdout_score(network, data, config, train, "cpu")
    assert holdout_score(network, both, config, train.model_copy(update={"weights": {"other": 0.0}}), "cpu") == alone
    # if every held-out source is excluded, all of them are scored
    assert holdout_score(network, data, config, train.model_copy(update={"weights": {name: 0.0}}), "cpu") == alone
