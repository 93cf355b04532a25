"""Clips that are rendered as they are drawn, beside videos of the index."""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from conftest import TINY_STAGE, changed, run

from ssvos.config import AugmentConfig, DataConfig, ScribbleConfig, SourceConfig, SyntheticConfig, parse
from ssvos.data import clip_sources as footage
from ssvos.data.clip_sources import RenderedClipSource, Renderer
from ssvos.data.clips import ClipDataset, ClipSampler, ClipSpec, Supervision
from ssvos.data.index import IndexedFrame, IndexedVideo
from ssvos.data.synthetic.clips import render_clip

MADE = SyntheticConfig(num_train=3, num_val=1, num_frames=6, height=48, width=64)
STILL = AugmentConfig(flip=0.0)


def stage(**changes):
    return TINY_STAGE.model_copy(update=changes)


def video(dataset: str, length: int = 8) -> IndexedVideo:
    frames = tuple(IndexedFrame(f"{t:05d}", f"{t}.png", None, None, 48, 64, (1,), "") for t in range(length))
    return IndexedVideo(dataset, "train", "clip", frames, {})


def source(uses: int = 1, weight: float = 1.0, supervision: Supervision | None = None) -> ClipSampler:
    made = MADE.model_copy(update={"uses": uses})
    return ClipSampler(
        [video("real"), video("made")],
        {},
        {"real": 1.0, "made": weight},
        {},
        {"made": supervision} if supervision else {},
        {"made": Renderer(made, ScribbleConfig(width=3))},
    )


def only_made(**changes):
    return stage(weights={"real": 0.0}, **changes)


def test_no_two_epochs_see_the_same_rendered_clip():
    drawn = [source().draw(stage(clips_per_epoch=20), 0, epoch) for epoch in range(3)]
    numbers = [spec.video for specs in drawn for spec in specs if spec.rendered]
    assert len(numbers) > 15 and len(set(numbers)) == len(numbers) and min(numbers) >= MADE.num_train


def test_a_rendered_clip_is_used_as_often_as_asked_one_use_after_the_other():
    specs = source(uses=3).draw(only_made(clips_per_epoch=10), 0, 1)
    numbers = [spec.video for spec in specs]
    assert numbers == sorted(numbers) and sorted(Counter(numbers).values()) == [1, 3, 3, 3]
    assert len({spec.seed for spec in specs}) == 10


def test_videos_of_an_unlimited_source_are_not_drawn_and_its_weight_counts():
    specs = source(weight=3.0).draw(stage(clips_per_epoch=2000), 0, 0)
    assert {spec.video for spec in specs if not spec.rendered} == {0}
    assert sum(bool(spec.rendered) for spec in specs) / 2000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(("weights", "rendered"), [({"made": 0.0}, False), ({"real": 0.0}, True)])
def test_a_stage_leaves_a_source_without_weight_out(weights, rendered):
    specs = source().draw(stage(clips_per_epoch=40, weights=weights), 0, 0)
    assert {bool(spec.rendered) for spec in specs} == {rendered}


def test_a_stage_without_any_source_is_refused():
    with pytest.raises(ValueError, match="leave no source to train on"):
        source().draw(stage(weights={"made": 0.0, "real": 0.0}), 0, 0)


def test_targets_are_strokes_inside_the_followed_object():
    specs = source().draw(only_made(clips_per_epoch=12), 0, 0)
    clips, seen = ClipDataset(source(), specs, stage(), STILL, 0.5), Counter()
    for k, spec in enumerate(specs):
        clip, truth = clips[k], render_clip(MADE, "train", spec.video)
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
    return ClipDataset(source(), [spec], stage(), augment, 0.5)[0]


def test_another_process_cuts_the_same_clip():
    specs = source().draw(only_made(clips_per_epoch=3), 5, 2)
    here = [item(spec) for spec in specs]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = list(pool.map(item, specs[::-1]))[::-1]
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_cache_gives_what_rendering_gives_and_is_read_by_others(tmp_path, monkeypatch):
    renderer, plain = Renderer(MADE, ScribbleConfig(width=3), tmp_path), Renderer(MADE, ScribbleConfig(width=3))
    size = (48, 64)
    first = renderer.footage(11)
    assert np.array_equal(first.frame(2, size), plain.footage(11).frame(2, size))
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(Renderer, "render", lambda self, number: pytest.fail("rendered again"))
    footage._rendering.cache_clear()
    for t in range(MADE.num_frames):
        assert np.array_equal(renderer.footage(11).mask(t, size), render_clip(MADE, "train", 11).masks[t])
    assert renderer.place(11) == file
    others = (
        Renderer(MADE, ScribbleConfig(width=5), tmp_path),
        Renderer(MADE.model_copy(update={"seed": 9}), ScribbleConfig(width=3), tmp_path),
    )
    assert len({r.place(11) for r in (renderer, *others)} | {renderer.place(12)}) == 4


def test_every_frame_may_lose_a_rectangle_of_its_own():
    (spec,) = source().draw(only_made(clips_per_epoch=1), 0, 0)
    dense = source(supervision=Supervision(1, 1))
    augment = AugmentConfig(flip=0.0, cutout=1.0)
    plain, cut = (ClipDataset(dense, [spec], stage(), a, 0.5)[0]["target"] for a in (STILL, augment))
    assert (plain != 255).all() and (cut == 255).flatten(1).any(dim=1).all()
    assert not torch.equal(cut[0] == 255, cut[1] == 255)


def test_masks_are_targets_where_they_are_asked_for():
    (spec,) = source().draw(only_made(clips_per_epoch=1), 0, 0)
    dense = source(supervision=Supervision(1, 1))
    clip = ClipDataset(dense, [spec], stage(), STILL, 0.5)[0]
    mask = render_clip(MADE, "train", spec.video).masks[spec.positions[0]]
    assert any(np.array_equal(clip["target"][0].numpy(), (mask == i).astype(np.uint8)) for i in np.unique(mask)[1:])
    assert (clip["scribble"] == 255).float().mean() > 0.5


def test_a_clip_begins_where_an_object_is_in_sight(monkeypatch):
    """Of a rendered clip this is known only once it has been rendered."""
    made = Renderer(MADE, ScribbleConfig()).footage(7)
    monkeypatch.setattr(RenderedClipSource, "objects", lambda self, t: (2,) if t == 0 else ())
    spec = ClipSpec(7, (2, 3, 4), 0, (0, 0, 0), "made")
    clip = ClipDataset(source(), [spec], stage(), STILL, 1.0)[0]
    for t, frame in enumerate(clip["frames"]):
        assert np.array_equal(frame.permute(1, 2, 0), made.frame(t, (48, 64)))


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
def test_strides_are_drawn_from_the_smallest_up_and_grow_with_the_epochs(changes, epoch, expected):
    long = replace(source(), videos=[video("real", 30)], renderers={})
    specs = long.draw(stage(clips_per_epoch=200, **changes), 0, epoch)
    assert {int(np.diff(spec.positions)[0]) for spec in specs} == expected


def test_what_is_not_made_here_has_an_end():
    source = {"name": "a", "layout": "davis", "unlimited": True}
    with pytest.raises(ValueError, match="unlimited"):
        parse(DataConfig, {"name": "x", "sources": [source]}, "params.yaml")


@pytest.fixture(scope="module")
def unlimited(tiny_data):
    """The tiny data set, its training clips without end."""
    sources = tuple(SourceConfig(**{**s.model_dump(), "unlimited": True}) for s in tiny_data.config.data.sources)
    data = tiny_data.config.data.model_copy(update={"sources": sources})
    return replace(tiny_data, config=tiny_data.config.model_copy(update={"data": data}))


def test_training_on_rendered_clips_goes_on_after_an_interruption_as_if_there_had_been_none(unlimited):
    config, kept = changed(unlimited.config, epochs=2, ema_decay=0.5), {}
    whole = run(config, unlimited.load())

    def stop_after_one(report) -> None:
        kept["progress"] = report.train_state
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, unlimited.load(), report=stop_after_one)
    again = run(config, unlimited.load(), resume=kept["progress"])
    assert again.history == whole.history
    assert all(torch.equal(value, again.weights[key]) for key, value in whole.weights.items())
    assert whole.history[0]["loss"] > 0 and whole.history[0]["holdout_score"] > 0


def test_held_out_videos_of_a_source_that_is_left_out_do_not_choose(tiny_data):
    """Of two data sets with the same videos under two names, each counts alone where the other has no weight."""
    from ssvos.training.holdout import holdout_score
    from ssvos.training.trainer import first_network

    data, config = tiny_data.load(), tiny_data.config
    name = config.data.sources[0].name
    blind = [replace(v, dataset="other", frames=v.frames[:1]) for v in data.holdout.videos]
    both = replace(data, holdout=replace(data.holdout, videos=[*data.holdout.videos, *blind]))
    network, train = first_network(config), config.train.stage1
    alone = holdout_score(network, data, config, train, "cpu")
    assert holdout_score(network, both, config, train.model_copy(update={"weights": {"other": 0.0}}), "cpu") == alone
    # a stage that leaves out all that are held out is judged by them all the same
    assert holdout_score(network, data, config, train.model_copy(update={"weights": {name: 0.0}}), "cpu") == alone
