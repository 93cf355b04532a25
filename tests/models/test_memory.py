"""The memory: what it stores, what it reads, and that objects of one image share the comparison."""

import pytest
import torch

from ssvos.config import MemoryConfig
from ssvos.models.backbone import Trunk
from ssvos.models.grid import cell_shares, outside_strokes
from ssvos.models.kernel_ridge import fit_ridge, ridge_scores
from ssvos.models.matching import cell_keys, key_statistics, match_everywhere, match_window, read_labels
from ssvos.models.memory import NUM_READOUTS, Memory, MemoryState

HEIGHT, WIDTH, STRIDE = 6, 9, 8
CONFIG = MemoryConfig(frames=3, interval=2, radius=2, matches=4, temperature=0.1)


def trunk_of(seed: int, images: int = 1) -> Trunk:
    generator = torch.Generator().manual_seed(seed)
    s8, deep = (torch.randn(images, c, HEIGHT, WIDTH, generator=generator) for c in (4, 6))
    return Trunk(torch.zeros(images, 2, 12, 18), s8, deep, torch.zeros(images, 3, 12, 18))


def keys_of(trunk: Trunk) -> torch.Tensor:
    """Keys by the statistics of the first frame, as the memory of `run` compares them."""
    return cell_keys(trunk, key_statistics(trunk_of(0, len(trunk.deep))))


def some_scribble(shift: int = 0) -> torch.Tensor:
    scribble = torch.full((1, HEIGHT * STRIDE, WIDTH * STRIDE), 255, dtype=torch.uint8)
    scribble[0, 20:23, 20 + shift : 40 + shift] = 1
    scribble[0, 12:14, 8:60] = 0
    return scribble


def some_probs(seed: int, objects: int = 1) -> torch.Tensor:
    foreground = torch.rand(objects, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    return torch.cat([1 - foreground, foreground], dim=1)


def run(memory: Memory, steps: int, image_idx: torch.Tensor | None = None, objects: int = 1) -> MemoryState:
    scribbles = torch.cat([some_scribble(4 * k) for k in range(objects)])
    state = memory.start(trunk_of(0), scribbles, STRIDE, image_idx)
    for t in range(steps):
        state = memory.update(state, keys_of(trunk_of(t)), some_probs(t, objects))
    return state


def test_before_the_first_prediction_only_the_classifier_is_read():
    keys = keys_of(trunk_of(0))
    readouts = Memory(CONFIG).read(keys, run(Memory(CONFIG), 0), None)
    scribble = some_scribble()
    ridge = fit_ridge(keys, cell_shares(scribble, STRIDE), outside_strokes(scribble, STRIDE))
    outside = outside_strokes(scribble, STRIDE)
    assert 0 < outside.sum() < outside.numel()
    torch.testing.assert_close(readouts[:, 0][~outside], ridge_scores(ridge, keys)[:, 0][~outside])
    assert (readouts[:, 0][outside] == -2.0).all()
    assert readouts.shape == (1, NUM_READOUTS, HEIGHT, WIDTH) and (readouts[:, 1:] == 0).all()


def test_the_initial_frame_keeps_the_labels_of_its_strokes():
    state = run(Memory(CONFIG), 1)
    shares = cell_shares(some_scribble(), STRIDE)
    labelled = shares.sum(dim=1, keepdim=True) > 0
    expected = torch.where(labelled, shares[:, 1:], some_probs(0)[:, 1:])
    assert state.first is not None and torch.equal(state.first.labels, expected) and not state.recent


@pytest.mark.parametrize(
    ("steps", "numbers"), [(2, [1]), (3, [2]), (4, [3, 2]), (5, [4, 2]), (6, [5, 4, 2]), (8, [7, 6, 4]), (9, [8, 6, 4])]
)
def test_the_latest_frame_and_every_second_before_it_are_stored(steps, numbers):
    state = run(Memory(CONFIG), steps)
    assert [frame.number for frame in state.recent] == numbers
    for frame in state.recent:
        assert torch.equal(frame.labels, some_probs(frame.number)[:, 1:])
        assert torch.equal(frame.keys, keys_of(trunk_of(frame.number)))


def test_readouts_are_the_labels_of_the_best_matches():
    memory, query = Memory(CONFIG), keys_of(trunk_of(99))
    state = run(memory, 6)
    first = match_everywhere(query, state.first.keys, state.first.labels, 4)
    recent = [match_window(query, frame.keys, frame.labels, 2, 4) for frame in state.recent]
    readouts = memory.read(query, state, None)[0].flatten(1)
    for channel, matches in ((1, [first, *recent]), (2, [first]), (3, recent)):
        torch.testing.assert_close(readouts[channel], 2 * read_labels(matches, 0.1, 4)[0, :, 0] - 1)
    best = torch.stack([match.affinity[0, :, 0] for match in [first, *recent]]).amax(dim=0)
    torch.testing.assert_close(readouts[4], best)


def test_the_same_frame_again_has_the_same_labels():
    """With a sharp softmax every cell finds itself."""
    memory = Memory(CONFIG.model_copy(update={"temperature": 1e-4}))
    state = run(memory, 1)
    readouts = memory.read(keys_of(trunk_of(0)), state, None)
    torch.testing.assert_close(readouts[:, 1:2], 2 * state.first.labels - 1)
    torch.testing.assert_close(readouts[:, 4], torch.ones(1, HEIGHT, WIDTH))


def test_objects_of_one_image_read_what_they_would_read_alone():
    memory, owner = Memory(CONFIG), torch.tensor([0, 0])
    together = memory.read(keys_of(trunk_of(99)), run(memory, 4, owner, objects=2), owner)
    for n in range(2):
        state = memory.start(trunk_of(0), some_scribble(4 * n), STRIDE, None)
        for t in range(4):
            state = memory.update(state, keys_of(trunk_of(t)), some_probs(t, 2)[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], memory.read(keys_of(trunk_of(99)), state, None))


def test_objects_of_several_images_read_their_own_image():
    memory, owner = Memory(CONFIG), torch.tensor([1, 0, 1])
    scribbles = torch.cat([some_scribble(4 * k) for k in range(3)])
    state = memory.start(trunk_of(0, images=2), scribbles, STRIDE, owner)
    for t in range(4):
        state = memory.update(state, keys_of(trunk_of(t, images=2)), some_probs(t, 3))
    query = keys_of(trunk_of(99, images=2))
    together = memory.read(query, state, owner)
    for n, image in enumerate(owner.tolist()):
        trunk = Trunk(*(x[image : image + 1] for x in trunk_of(0, images=2)))
        alone = memory.start(trunk, scribbles[n : n + 1], STRIDE, None)
        for t in range(4):
            alone = memory.update(alone, keys_of(trunk_of(t, images=2))[image : image + 1], some_probs(t, 3)[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], memory.read(query[image : image + 1], alone, None))
