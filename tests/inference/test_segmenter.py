"""Streaming inference: soft aggregation, exchanged and late objects, frame sizes, and the state."""

import numpy as np
import pytest
import torch
from conftest import make_network

from ssvos.baselines.grabcut_flow import GrabCutFlow
from ssvos.config import ColorModelConfig, CrfRefinementConfig, FlowConfig, MemoryConfig, PredictConfig, RoiConfig
from ssvos.data.index import IndexedFrame, IndexedVideo
from ssvos.inference.segmenter import VideoSegmenter, aggregate, segment, starting_scribbles
from ssvos.models.grid import Move

HEIGHT, WIDTH = 48, 64


def video(length: int = 4, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    rng = np.random.default_rng(height * width)
    return list(rng.integers(0, 256, (length, height, width, 3), dtype=np.uint8))


def scribble(ids=(1, 2), height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    labels = np.full((height, width), 255, np.uint8)
    labels[-4:-2] = 0
    for k, i in enumerate(ids):
        labels[4 + 12 * k : 7 + 12 * k, 4 + 14 * k : 30 + 14 * k] = i
    return labels


def scribble_of(ids) -> np.ndarray:
    """The strokes of these objects in the scribble of both."""
    both = scribble((1, 2))
    return np.where(np.isin(both, (0, *ids)), both, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def network():
    """A random network whose masks contain every object of `scribble()`."""
    return make_network(7)


def test_aggregation_of_two_objects_computed_by_hand():
    foreground = torch.tensor([0.6, 0.9], dtype=torch.float64).reshape(2, 1, 1)
    # background 0.1; the odds are 1/9, 3/2 and 9
    total = 1 / 9 + 1.5 + 9
    expected = torch.tensor([1 / 9 / total, 1.5 / total, 9 / total], dtype=torch.float64)
    torch.testing.assert_close(aggregate(foreground).flatten(), expected)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_aggregation_equals_a_slow_loop_on_random_probabilities(count):
    generator = torch.Generator().manual_seed(count)
    foreground = torch.rand(count, 3, 4, generator=generator, dtype=torch.float64)
    expected = torch.empty(count + 1, 3, 4, dtype=torch.float64)
    for y in range(3):
        for x in range(4):
            objects = foreground[:, y, x].tolist()
            odds = [p / (1 - p) for p in (min(1 - p for p in objects), *objects)]
            expected[:, y, x] = torch.tensor([o / sum(odds) for o in odds], dtype=torch.float64)
    torch.testing.assert_close(aggregate(foreground), expected)


def test_aggregation_does_not_change_a_single_object():
    foreground = torch.tensor([[[0.0, 0.7, 1.0]]])
    torch.testing.assert_close(aggregate(foreground), torch.tensor([[[1.0, 0.3, 0.0]], [[0.0, 0.7, 1.0]]]))


def test_probabilities_of_0_and_1_aggregate_to_finite_ones_that_sum_to_1():
    foreground = torch.tensor([[[0.0, 1.0, 1.0]], [[0.0, 0.0, 1.0]]])
    probs = aggregate(foreground)
    torch.testing.assert_close(probs.sum(dim=0), torch.ones(1, 3))
    assert probs.argmax(dim=0).tolist()[0][:2] == [0, 1]
    torch.testing.assert_close(probs[1, 0, 2], probs[2, 0, 2])


def test_the_masks_of_these_tests_contain_both_objects(network):
    masks = np.stack(list(segment(network, video(), {0: scribble((1, 2))})))
    assert masks.dtype == np.uint8 and masks.shape == (4, HEIGHT, WIDTH)
    assert set(np.unique(masks)) == {0, 1, 2}


WITH_COLORS = PredictConfig(crf_refinement=CrfRefinementConfig(iterations=2), color_model=ColorModelConfig(weight=0.5))
WITH_FLOW = PredictConfig(flow=FlowConfig(weight=50.0, agreement=0.01))


@pytest.mark.parametrize(
    "config", [PredictConfig(), WITH_COLORS, WITH_FLOW], ids=["network only", "color model", "flow"]
)
@pytest.mark.parametrize("begins", [{0: (1, 2)}, {0: (1,), 2: (1, 2)}, {0: (2,), 1: (1, 2)}])
def test_exchanging_object_ids_exchanges_them_in_the_masks(network, begins, config):
    def renamed(labels: np.ndarray) -> np.ndarray:
        return np.where(labels == 1, 9, np.where(labels == 2, 3, labels)).astype(np.uint8)

    scribbles = {t: scribble_of(ids) for t, ids in begins.items()}
    masks = np.stack(list(segment(network, video(), scribbles, config=config)))
    others = np.stack(list(segment(network, video(), {t: renamed(s) for t, s in scribbles.items()}, config=config)))
    assert {1, 2} <= set(np.unique(masks))
    np.testing.assert_array_equal(others, renamed(masks))


def test_an_object_begins_on_the_frame_of_its_scribble(network):
    early, both = scribble((1,)), scribble((1, 2))
    alone = list(segment(network, video(), {0: early}))
    masks = list(segment(network, video(), {0: early, 2: both}))
    for t in range(2):
        np.testing.assert_array_equal(masks[t], alone[t])
        assert 2 not in masks[t]
    assert 2 in masks[2] and 2 in masks[3]


def test_a_late_object_does_not_change_the_state_of_the_earlier_ones(network):
    """Aggregation changes the masks, but not the state."""
    alone, joined = VideoSegmenter(network), VideoSegmenter(network)
    for t, frame in enumerate(video()):
        alone(frame, scribble_of((1,)) if t == 0 else None)
        joined(frame, scribble_of((1,)) if t == 0 else scribble_of((1, 2)) if t == 2 else None)
        torch.testing.assert_close(joined._groups[0][1].mask, alone._groups[0][1].mask)
    late = VideoSegmenter(network)
    for t, frame in enumerate(video()[2:]):
        late(frame, np.where(scribble_of((1, 2)) == 1, 0, scribble_of((1, 2))) if t == 0 else None)
    torch.testing.assert_close(joined._groups[1][1].mask, late._groups[0][1].mask)


def test_masks_are_background_before_the_first_scribble(network):
    masks = list(segment(network, video(), {2: scribble()}))
    assert not masks[0].any() and not masks[1].any() and masks[2].any()
    shifted = list(segment(network, video()[2:], {0: scribble()}))
    np.testing.assert_array_equal(masks[2:], shifted)


def test_a_later_scribble_of_a_known_object_changes_nothing(network):
    other = np.roll(scribble(), 10, axis=1)
    once, again = (list(segment(network, video(), s)) for s in ({0: scribble()}, {0: scribble(), 1: other}))
    np.testing.assert_array_equal(once, again)


def test_a_video_may_be_segmented_in_two_parts(network):
    whole = list(segment(network, video(5), {0: scribble()}))
    segmenter = VideoSegmenter(network)
    first = [segmenter(frame, scribble() if t == 0 else None) for t, frame in enumerate(video(5)[:2])]
    second = [segmenter(frame) for frame in video(5)[2:]]
    np.testing.assert_array_equal(whole, first + second)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (50, 61), (64, 48)])
@pytest.mark.parametrize("inner", [None, (48, 64)])
def test_masks_have_the_size_of_the_frames(network, size, inner):
    masks = list(segment(network, video(2, *size), {0: scribble((5,), *size)}, inner))
    assert all(mask.shape == size for mask in masks)
    assert set(np.unique(masks)) <= {0, 5}


@pytest.mark.parametrize("size", [(33, 47), (45, 64), (48, 59)])
def test_a_frame_of_any_size_is_segmented_as_if_mirrored_to_a_multiple_of_16(network, size):
    bottom, right = -size[0] % 16, -size[1] % 16
    frames, first = video(3, *size), scribble((1, 2), *size)
    mirrored = [np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="reflect") for frame in frames]
    unknown = np.pad(first, ((0, bottom), (0, right)), constant_values=255)
    masks = np.stack(list(segment(network, frames, {0: first})))
    padded = np.stack(list(segment(network, mirrored, {0: unknown})))
    assert masks.any()
    np.testing.assert_array_equal(masks, padded[:, : size[0], : size[1]])


def test_a_frame_smaller_than_32_pixels_is_refused(network):
    with pytest.raises(ValueError, match="20x64"):
        VideoSegmenter(network)(video(1, 20, 64)[0], scribble((1,), 20, 64))


def num_elements(value) -> int:
    """The number of elements of all tensors in nested tuples and lists."""
    if isinstance(value, torch.Tensor):
        return value.numel()
    return sum(num_elements(part) for part in value) if isinstance(value, tuple | list) else 0


def test_the_state_does_not_grow_with_the_video(network):
    segmenter = VideoSegmenter(network)
    sizes = []
    for t, frame in enumerate(video(6)):
        segmenter(frame, scribble() if t == 0 else None)
        sizes.append(sum(num_elements(value) for value in vars(segmenter).values()))
    assert sizes[0] > 0 and len(set(sizes)) == 1


def test_inference_does_not_change_the_network(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    list(segment(network, video(), {0: scribble()}))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("objects", "late", "expected"),
    [
        ([(1, 2), (1, 2), (1,)], False, [0]),
        ([(1,), (1, 2), (2, 3), (1, 2, 3)], False, [0]),
        ([(1,), (1, 2), (2, 3), (1, 2, 3)], True, [0, 1, 2]),
        ([None, (), (2,), None, (1,), (2,)], False, [2]),
        ([None, (), (2,), None, (1,), (2,)], True, [2, 4]),
        ([None, ()], True, []),
    ],
)
def test_starting_scribbles_are_those_on_which_objects_begin(objects, late, expected):
    frames = tuple(IndexedFrame(str(t), "", None, None, 48, 64, ids, "") for t, ids in enumerate(objects))
    store = {("a", "v", str(t)): np.full((1, 1), t) for t, ids in enumerate(objects) if ids is not None}
    starting = starting_scribbles(IndexedVideo("a", "val", "v", frames, {}), store, late)
    assert {t: int(s[0, 0]) for t, s in starting.items()} == {t: t for t in expected}


def test_a_foreground_bias_shrinks_the_masks_and_does_not_change_the_state(network):
    frames, first = video(), {0: scribble(ids=(1,))}
    unbiased, biased = VideoSegmenter(network), VideoSegmenter(network, config=PredictConfig(foreground_bias=0.2))
    areas = []
    for t, frame in enumerate(frames):
        large, small = unbiased(frame, first.get(t)), biased(frame, first.get(t))
        assert (large[small == 1] == 1).all()
        areas.append((large.sum(), small.sum()))
        assert torch.equal(unbiased._groups[0][1].mask, biased._groups[0][1].mask)
    assert sum(small for _, small in areas) < sum(large for large, _ in areas)


def test_the_color_model_learns_on_the_frames_on_which_objects_begin(network):
    """It changes the masks, and a later scribble of a known object changes nothing."""
    frames, scribbles = video(), {0: scribble()}
    without, with_colors = (
        np.stack(
            list(segment(network, frames, scribbles, config=WITH_COLORS.model_copy(update={"color_model": color})))
        )
        for color in (ColorModelConfig(), WITH_COLORS.color_model)
    )
    assert (without != with_colors).any()
    again = np.stack(list(segment(network, frames, scribbles | {2: scribble((2, 1))}, config=WITH_COLORS)))
    np.testing.assert_array_equal(again, with_colors)


def test_flow_with_a_large_weight_decides_the_masks_and_does_not_change_the_state(network):
    """The network's bias makes every pixel foreground; the square moves."""
    frames, scribbles = [], {0: scribble((1,))}
    for t in range(3):
        frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        frame[2:14, 4 + t : 38 + t] = (210, 60, 60)
        frames.append(frame)
    everywhere = PredictConfig(foreground_bias=-30.0)
    weighted = everywhere.model_copy(update={"flow": FlowConfig(weight=100.0, agreement=0.01)})
    without, with_flow = VideoSegmenter(network, config=everywhere), VideoSegmenter(network, config=weighted)
    flow = GrabCutFlow()
    for t, frame in enumerate(frames):
        flow_mask = flow(frame, scribbles.get(t))
        assert 200 < flow_mask.sum() < 600 and without(frame, scribbles.get(t)).all()
        np.testing.assert_array_equal(with_flow(frame, scribbles.get(t)), flow_mask)
        assert torch.equal(without._groups[0][1].mask, with_flow._groups[0][1].mask)


def test_a_later_scribble_of_a_known_object_does_not_change_flow(network):
    once, again = (
        list(segment(network, video(), scribbles, config=WITH_FLOW))
        for scribbles in ({0: scribble()}, {0: scribble(), 1: scribble((2, 1))})
    )
    np.testing.assert_array_equal(once, again)


def test_a_frame_on_which_objects_begin_is_looked_at_twice_and_the_state_is_that_of_the_first_look():
    network = make_network(memory=MemoryConfig(frames=2, radius=2)).eval()
    frames = [np.random.default_rng(t).integers(0, 255, (48, 64, 3), np.uint8) for t in range(2)]
    scribble = np.full((48, 64), 255, np.uint8)
    scribble[20:24, 10:40], scribble[40:42] = 1, 0
    segmenter = VideoSegmenter(network)
    first, second = segmenter(frames[0], scribble), segmenter(frames[1])
    images = [torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255 for frame in frames]
    with torch.no_grad():
        trunk = network.encode(images[0])
        _, _, state = network.step(trunk, network.begin(trunk, torch.from_numpy(scribble)[None]))
        again, _, _ = network.step(trunk, state)
        later, _, _ = network.step(network.encode(images[1]), state)
    assert np.array_equal(first, (again[0, 1] > again[0, 0]).numpy().astype(np.uint8))
    assert np.array_equal(second, (later[0, 1] > later[0, 0]).numpy().astype(np.uint8))


def test_a_region_of_interest_that_is_the_whole_frame_changes_nothing(network):
    whole = PredictConfig(roi=RoiConfig(margin=0.1, smallest=1.0))
    expected = segment(network, video(), {0: scribble()})
    for mask, other in zip(expected, segment(network, video(), {0: scribble()}, config=whole), strict=True):
        assert np.array_equal(mask, other)


def test_outside_the_region_of_interest_masks_are_background(network):
    small = np.full((HEIGHT, WIDTH), 255, np.uint8)
    small[20:23, 30:33], small[17, 28:36] = 1, 0
    segmenter = VideoSegmenter(network, config=PredictConfig(roi=RoiConfig(margin=0.1, stroke_margin=1.0)))
    mask = segmenter(video()[0], small)
    # the stroke and 3 pixels around it would be 9x9; the smallest region has 0.3 of each side, about 14x19
    rows, columns = np.nonzero(mask)
    assert len(rows) and rows.min() >= 14 and rows.max() < 29 and columns.min() >= 21 and columns.max() < 42


def test_a_later_scribble_of_a_known_object_does_not_move_the_region_of_interest(network):
    config, frames = PredictConfig(roi=RoiConfig(margin=0.3)), video()
    expected = list(segment(network, frames, {0: scribble((1,))}, config=config))
    again = list(segment(network, frames, {0: scribble((1,)), 2: scribble((1,))}, config=config))
    assert all(np.array_equal(a, b) for a, b in zip(expected, again, strict=True))


@pytest.mark.parametrize("is_jump", [False, True])
def test_the_state_of_another_view_has_the_mask_where_the_scene_is(is_jump):
    network = make_network(7, memory=MemoryConfig(frames=2))
    frames = torch.rand(3, 1, 3, 64, 96)
    strokes = torch.from_numpy(np.where(scribble(height=64, width=96) == 2, 255, scribble(height=64, width=96)))[None]
    state = network.begin(network.encode(frames[0]), strokes)
    for frame in frames:
        _, _, state = network.step(network.encode(frame), state)
    moved = network.move(state, (64, 96), Move((1.0, 1.0), (network.stride / 64, 0.0)), is_jump)  # one cell lower
    torch.testing.assert_close(moved.mask[:, 1, :-1], state.mask[:, 1, 1:])
    torch.testing.assert_close(moved.mask.sum(dim=1), torch.ones_like(moved.mask[:, 0]))
    for old, new in zip(state.memory.recent, moved.memory.recent, strict=True):
        expected = old.labels[:, :, 1:] if is_jump else old.labels[:, :, :-1]
        torch.testing.assert_close(new.labels[:, :, :-1], expected)


def test_a_frame_of_another_size_than_the_previous_one_is_refused(network):
    segmenter = VideoSegmenter(network, (48, 64))
    segmenter(video()[0], scribble())
    with pytest.raises(ValueError, match="give all the same size"):
        segmenter(video(height=56)[1])
