"""Streaming inference: soft aggregation by hand, exchangeable and late objects, streams, sizes, state."""

import numpy as np
import pytest
import torch
from conftest import make_network

from ssvos.baselines.grabcut_flow import GrabCutFlow
from ssvos.config import ColorModelConfig, CrfRefinementConfig, FlowConfig, PredictConfig
from ssvos.data.index import IndexedFrame, IndexedVideo
from ssvos.inference.segmenter import VideoSegmenter, aggregate, segment, starting_scribbles

HEIGHT, WIDTH = 48, 64


def video(length: int = 4, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    rng = np.random.default_rng(height * width)
    return list(rng.integers(0, 256, (length, height, width, 3), dtype=np.uint8))


def scribble(ids=(1, 2), height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    made = np.full((height, width), 255, np.uint8)
    made[-4:-2] = 0
    for k, i in enumerate(ids):
        made[4 + 12 * k : 7 + 12 * k, 4 + 14 * k : 30 + 14 * k] = i
    return made


def scribble_of(ids) -> np.ndarray:
    """`scribble()` with the strokes of these objects alone, where they are among both."""
    both = scribble((1, 2))
    return np.where(np.isin(both, (0, *ids)), both, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def lively():
    """A random network whose masks hold every object of `scribble()`."""
    return make_network(7)


def test_aggregation_of_two_objects_worked_by_hand():
    foreground = torch.tensor([0.6, 0.9], dtype=torch.float64).reshape(2, 1, 1)
    # background 0.1: odds 1/9, 3/2 and 9
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


def test_one_object_is_left_as_it_is():
    foreground = torch.tensor([[[0.0, 0.7, 1.0]]])
    torch.testing.assert_close(aggregate(foreground), torch.tensor([[[1.0, 0.3, 0.0]], [[0.0, 0.7, 1.0]]]))


def test_certain_probabilities_aggregate_to_finite_ones_that_sum_to_one():
    foreground = torch.tensor([[[0.0, 1.0, 1.0]], [[0.0, 0.0, 1.0]]])
    probs = aggregate(foreground)
    torch.testing.assert_close(probs.sum(dim=0), torch.ones(1, 3))
    assert probs.argmax(dim=0).tolist()[0][:2] == [0, 1]
    torch.testing.assert_close(probs[1, 0, 2], probs[2, 0, 2])


def test_the_masks_of_these_tests_are_not_trivial(lively):
    masks = np.stack(list(segment(lively, video(), {0: scribble((1, 2))})))
    assert masks.dtype == np.uint8 and masks.shape == (4, HEIGHT, WIDTH)
    assert set(np.unique(masks)) == {0, 1, 2}


COLOURED = PredictConfig(crf_refinement=CrfRefinementConfig(iterations=2), color_model=ColorModelConfig(weight=0.5))
CARRIED = PredictConfig(flow=FlowConfig(weight=50.0, agreement=0.01))


@pytest.mark.parametrize("config", [PredictConfig(), COLOURED, CARRIED], ids=["plain", "coloured", "carried"])
@pytest.mark.parametrize("begins", [{0: (1, 2)}, {0: (1,), 2: (1, 2)}, {0: (2,), 1: (1, 2)}])
def test_exchanging_object_ids_exchanges_them_in_the_masks_and_nothing_else(lively, begins, config):
    def renamed(labels: np.ndarray) -> np.ndarray:
        return np.where(labels == 1, 9, np.where(labels == 2, 3, labels)).astype(np.uint8)

    given = {t: scribble_of(ids) for t, ids in begins.items()}
    plain = np.stack(list(segment(lively, video(), given, config=config)))
    masks = np.stack(list(segment(lively, video(), {t: renamed(s) for t, s in given.items()}, config=config)))
    assert {1, 2} <= set(np.unique(plain))
    np.testing.assert_array_equal(masks, renamed(plain))


def test_an_object_begins_on_the_frame_of_its_scribble(lively):
    early, both = scribble((1,)), scribble((1, 2))
    alone = list(segment(lively, video(), {0: early}))
    masks = list(segment(lively, video(), {0: early, 2: both}))
    for t in range(2):
        np.testing.assert_array_equal(masks[t], alone[t])
        assert 2 not in masks[t]
    assert 2 in masks[2] and 2 in masks[3]


def test_a_late_object_leaves_the_early_ones_own_prediction_as_it_was(lively):
    """Aggregation shares the pixels out anew; what each object carries on is its own affair."""
    alone, joined = VideoSegmenter(lively), VideoSegmenter(lively)
    for t, frame in enumerate(video()):
        alone(frame, scribble_of((1,)) if t == 0 else None)
        joined(frame, scribble_of((1,)) if t == 0 else scribble_of((1, 2)) if t == 2 else None)
        torch.testing.assert_close(joined._groups[0][1].mask, alone._groups[0][1].mask)
    late = VideoSegmenter(lively)
    for t, frame in enumerate(video()[2:]):
        late(frame, np.where(scribble_of((1, 2)) == 1, 0, scribble_of((1, 2))) if t == 0 else None)
    torch.testing.assert_close(joined._groups[1][1].mask, late._groups[0][1].mask)


def test_before_the_first_scribble_everything_is_background(lively):
    masks = list(segment(lively, video(), {2: scribble()}))
    assert not masks[0].any() and not masks[1].any() and masks[2].any()
    shifted = list(segment(lively, video()[2:], {0: scribble()}))
    np.testing.assert_array_equal(masks[2:], shifted)


def test_a_later_scribble_of_a_known_object_changes_nothing(lively):
    other = np.roll(scribble(), 10, axis=1)
    once, again = (list(segment(lively, video(), s)) for s in ({0: scribble()}, {0: scribble(), 1: other}))
    np.testing.assert_array_equal(once, again)


def test_a_video_may_come_in_two_parts(lively):
    whole = list(segment(lively, video(5), {0: scribble()}))
    segmenter = VideoSegmenter(lively)
    first = [segmenter(frame, scribble() if t == 0 else None) for t, frame in enumerate(video(5)[:2])]
    second = [segmenter(frame) for frame in video(5)[2:]]
    np.testing.assert_array_equal(whole, first + second)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (50, 61), (64, 48)])
@pytest.mark.parametrize("inner", [None, (48, 64)])
def test_masks_have_the_frames_own_size(lively, size, inner):
    masks = list(segment(lively, video(2, *size), {0: scribble((5,), *size)}, inner))
    assert all(mask.shape == size for mask in masks)
    assert set(np.unique(masks)) <= {0, 5}


@pytest.mark.parametrize("size", [(33, 47), (45, 64), (48, 59)])
def test_a_frame_of_any_size_is_the_corner_of_one_mirrored_to_the_next_multiple_of_16(lively, size):
    bottom, right = -size[0] % 16, -size[1] % 16
    frames, first = video(3, *size), scribble((1, 2), *size)
    mirrored = [np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="reflect") for frame in frames]
    unknown = np.pad(first, ((0, bottom), (0, right)), constant_values=255)
    masks = np.stack(list(segment(lively, frames, {0: first})))
    whole = np.stack(list(segment(lively, mirrored, {0: unknown})))
    assert masks.any()
    np.testing.assert_array_equal(masks, whole[:, : size[0], : size[1]])


def test_a_frame_that_is_too_small_is_refused(lively):
    with pytest.raises(ValueError, match="20x64"):
        VideoSegmenter(lively)(video(1, 20, 64)[0], scribble((1,), 20, 64))


def _tensors(value) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    return sum(_tensors(part) for part in value) if isinstance(value, tuple | list) else 0


def test_the_state_does_not_grow_with_the_video(lively):
    segmenter = VideoSegmenter(lively)
    sizes = []
    for t, frame in enumerate(video(6)):
        segmenter(frame, scribble() if t == 0 else None)
        sizes.append(sum(_tensors(value) for value in vars(segmenter).values()))
    assert sizes[0] > 0 and len(set(sizes)) == 1


def test_inference_leaves_the_network_as_it_was(lively):
    before = {key: value.clone() for key, value in lively.state_dict().items()}
    list(segment(lively, video(), {0: scribble()}))
    assert all(torch.equal(value, before[key]) for key, value in lively.state_dict().items())


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
def test_a_video_is_judged_with_the_scribbles_on_which_its_objects_begin(objects, late, expected):
    frames = tuple(IndexedFrame(str(t), "", None, None, 48, 64, ids, "") for t, ids in enumerate(objects))
    drawn = {("a", "v", str(t)): np.full((1, 1), t) for t, ids in enumerate(objects) if ids is not None}
    found = starting_scribbles(IndexedVideo("a", "val", "v", frames, {}), drawn, late)
    assert {t: int(s[0, 0]) for t, s in found.items()} == {t: t for t in expected}


def test_a_bias_tightens_the_masks_and_leaves_the_state_alone(lively):
    frames, first = video(), {0: scribble(ids=(1,))}
    plain, tight = VideoSegmenter(lively), VideoSegmenter(lively, config=PredictConfig(foreground_bias=0.2))
    areas = []
    for t, frame in enumerate(frames):
        wide, narrow = plain(frame, first.get(t)), tight(frame, first.get(t))
        assert (wide[narrow == 1] == 1).all()
        areas.append((wide.sum(), narrow.sum()))
        assert torch.equal(plain._groups[0][1].mask, tight._groups[0][1].mask)
    assert sum(narrow for _, narrow in areas) < sum(wide for wide, _ in areas)


def test_colours_are_learnt_on_the_frames_on_which_objects_begin(lively):
    """They change the masks, and a later scribble of a known object changes nothing."""
    frames, given = video(), {0: scribble()}
    plain, coloured = (
        np.stack(list(segment(lively, frames, given, config=COLOURED.model_copy(update={"color_model": colour}))))
        for colour in (ColorModelConfig(), COLOURED.color_model)
    )
    assert (plain != coloured).any()
    again = np.stack(list(segment(lively, frames, given | {2: scribble((2, 1))}, config=COLOURED)))
    np.testing.assert_array_equal(again, coloured)


def test_what_flow_carries_decides_where_it_is_given_the_weight_and_the_state_stays(lively):
    """Against a network that is told to find object everywhere; the square moves."""
    frames, given = [], {0: scribble((1,))}
    for t in range(3):
        frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        frame[2:14, 4 + t : 38 + t] = (210, 60, 60)
        frames.append(frame)
    everywhere = PredictConfig(foreground_bias=-30.0)
    heard = everywhere.model_copy(update={"flow": FlowConfig(weight=100.0, agreement=0.01)})
    plain, told, flow = VideoSegmenter(lively, config=everywhere), VideoSegmenter(lively, config=heard), GrabCutFlow()
    for t, frame in enumerate(frames):
        carried = flow(frame, given.get(t))
        assert 200 < carried.sum() < 600 and plain(frame, given.get(t)).all()
        np.testing.assert_array_equal(told(frame, given.get(t)), carried)
        assert torch.equal(plain._groups[0][1].mask, told._groups[0][1].mask)


def test_a_later_scribble_of_a_known_object_is_nothing_to_flow_either(lively):
    once, again = (
        list(segment(lively, video(), given, config=CARRIED))
        for given in ({0: scribble()}, {0: scribble(), 1: scribble((2, 1))})
    )
    np.testing.assert_array_equal(once, again)
