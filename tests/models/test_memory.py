"""The memory against a slow computation from its definition, its limits, and its size."""

import math

import pytest
import torch

from ssvos.config import MemoryConfig
from ssvos.models.memory import Memory, StoredCells, nearest_cosines

OBJECTS, CHANNELS, HEIGHT, WIDTH = 2, 6, 3, 4


def make_memory(**config) -> Memory:
    torch.manual_seed(0)
    return Memory(CHANNELS, MemoryConfig(**{"channels": 5, "confident": 0.7} | config)).double()


def features(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(OBJECTS, CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


def some_shares(seed: int = 0) -> torch.Tensor:
    """Shares of background and foreground; about half of the cells, a different number per object, have no label."""
    generator = torch.Generator().manual_seed(seed)
    foreground = torch.rand(OBJECTS, 1, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    labelled = torch.rand(OBJECTS, 1, HEIGHT, WIDTH, generator=generator) < 0.5
    return torch.cat([1 - foreground, foreground], dim=1) * labelled


def some_probs(seed: int) -> torch.Tensor:
    foreground = torch.rand(OBJECTS, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)).double()
    return torch.cat([1 - foreground, foreground], dim=1)


def cells_of(memory: Memory, maps: torch.Tensor, labels: torch.Tensor, n: int) -> list[tuple[list, list]]:
    """(key of length 1, labels) of the labelled cells of one object."""
    cells = []
    for y in range(HEIGHT):
        for x in range(WIDTH):
            key = (memory.project.weight[:, :, 0, 0] @ maps[n, :, y, x] + memory.project.bias).tolist()
            length = math.sqrt(sum(k * k for k in key) + 1e-6)
            if labels[n, :, y, x].sum() > 0:
                cells.append(([k / length for k in key], labels[n, :, y, x].tolist()))
    return cells


def slow_readout(memory: Memory, query: list, cells: list[tuple[list, list]]) -> list[float]:
    if not cells:
        return [0.0] * 4
    cosines = [sum(q * k for q, k in zip(query, key, strict=True)) for key, _ in cells]
    weights = [math.exp(float(memory.sharpness.exp()) * c) for c in cosines]
    expected = [sum(w * label[k] for w, (_, label) in zip(weights, cells, strict=True)) / sum(weights) for k in (0, 1)]
    background = [c for c, (_, label) in zip(cosines, cells, strict=True) if label[0] > label[1]]
    foreground = [c for c, (_, label) in zip(cosines, cells, strict=True) if label[0] <= label[1]]
    return [*expected, max(background, default=0.0), max(foreground, default=0.0)]


@torch.no_grad()
@pytest.mark.parametrize("pairs", [2**20, 1])
def test_readouts_equal_a_slow_computation_from_the_definition(pairs, monkeypatch):
    """For the first frame's labelled cells, and for all confident cells of the last two of three frames."""
    monkeypatch.setattr("ssvos.models.memory._PAIRS_AT_ONCE", pairs)
    memory = make_memory(frames=2)
    shares, frames, probs = some_shares(), [features(k) for k in range(5)], [some_probs(k) for k in range(3)]
    state = memory.start(memory.embed(frames[0]), shares)
    for k in range(3):
        state = memory.update(state, memory.embed(frames[k + 1]), probs[k])
    keys = memory.embed(frames[4])
    readouts = memory.read(keys, state)
    assert readouts.shape == (OBJECTS, 8, HEIGHT, WIDTH) and memory.num_readouts == 8
    for n in range(OBJECTS):
        confident = [p * (p >= 0.7).any(dim=1, keepdim=True) for p in probs]
        first = cells_of(memory, frames[0], shares, n)
        recent = [cell for k in (1, 2) for cell in cells_of(memory, frames[k + 1], confident[k], n)]
        assert 0 < len(first) < HEIGHT * WIDTH and 0 < len(recent) < 2 * HEIGHT * WIDTH
        for y in range(HEIGHT):
            for x in range(WIDTH):
                query = keys[n, :, y, x].tolist()
                expected = slow_readout(memory, query, first) + slow_readout(memory, query, recent)
                assert readouts[n, :, y, x].tolist() == pytest.approx(expected, abs=1e-9)


def test_gradients_equal_finite_differences():
    memory, shares, probs = make_memory(frames=1), some_shares(), some_probs(1)

    def read(first, second, third, probs):
        state = memory.update(memory.start(memory.embed(first), shares), memory.embed(second), probs)
        return memory.read(memory.embed(third), state)

    maps = [features(k).requires_grad_() for k in range(3)]
    # no cell may cross the threshold within a finite difference
    probs = torch.where((probs.amax(dim=1, keepdim=True) - 0.7).abs() < 0.01, 0.5, probs).requires_grad_()
    assert torch.autograd.gradcheck(read, (*maps, probs))


@torch.no_grad()
def test_cells_without_a_label_and_uncertain_cells_have_no_influence():
    memory, shares, probs = make_memory(), some_shares(), some_probs(1)
    first, second, query = features(0), features(1), memory.embed(features(2))
    labelled, confident = shares.sum(dim=1, keepdim=True) > 0, probs.amax(dim=1, keepdim=True) >= 0.7

    def read(first, second):
        return memory.read(query, memory.update(memory.start(memory.embed(first), shares), memory.embed(second), probs))

    expected = read(first, second)
    other = read(torch.where(labelled, first, features(5)), torch.where(confident, second, features(6)))
    assert torch.equal(other, expected)
    for k, (one, two) in enumerate([(features(5), second), (first, features(6))]):
        changed = (read(one, two) - expected).abs().amax(dim=(0, 2, 3)) > 1e-3
        assert changed.tolist() == [k == 0] * 4 + [k == 1] * 4


@torch.no_grad()
@pytest.mark.parametrize(("foreground", "counts"), [(0.7, True), (0.69, False), (0.3, True), (0.31, False)])
def test_a_recent_cell_counts_if_foreground_or_background_is_confident(foreground, counts):
    memory, keys = make_memory(), make_memory().embed(features(0))
    probs = torch.empty(OBJECTS, 2, HEIGHT, WIDTH, dtype=torch.float64)
    probs[:, 0], probs[:, 1] = 1 - foreground, foreground
    state = memory.update(memory.start(keys, some_shares()), keys, probs)
    expected = memory.read(keys, state)[:, 4:6]
    torch.testing.assert_close(expected, probs if counts else torch.zeros_like(probs))


def test_an_empty_memory_reads_as_zero_and_has_finite_gradients():
    memory = make_memory()
    maps = features(0).requires_grad_()
    keys = memory.embed(maps)
    uncertain = torch.full((OBJECTS, 2, HEIGHT, WIDTH), 0.5, dtype=torch.float64, requires_grad=True)
    state = memory.update(memory.start(keys, torch.zeros_like(uncertain)), keys, uncertain)
    readouts = memory.read(keys, state)
    assert not readouts.any()
    readouts.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in (*memory.parameters(), maps, uncertain))


@torch.no_grad()
def test_a_memory_of_only_one_class_reads_as_zero_for_the_other():
    memory, shares = make_memory(frames=0), some_shares()
    shares = torch.stack([torch.zeros_like(shares[:, 0]), shares.sum(dim=1)], dim=1)
    keys = memory.embed(features(0))
    readouts = memory.read(keys, memory.start(keys, shares))
    assert not readouts[:, [0, 2]].any()
    torch.testing.assert_close(readouts[:, 1], torch.ones_like(readouts[:, 1]))
    labelled = shares[:, 1] > 0
    assert (readouts[:, 3][labelled] > 1 - 1e-5).all() and (readouts[:, 3][~labelled] < 1 - 1e-5).all()


def test_cells_without_features_have_finite_gradients():
    memory = make_memory()
    torch.nn.init.zeros_(memory.project.bias)
    maps = torch.zeros(OBJECTS, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    keys = memory.embed(maps)
    memory.read(keys, memory.start(keys, some_shares())).square().sum().backward()
    assert torch.isfinite(maps.grad).all() and maps.grad.abs().max() < 1e6


@torch.no_grad()
def test_permuting_the_objects_permutes_the_readouts():
    memory, order = make_memory(), [1, 0]
    shares, probs, maps = some_shares(), some_probs(1), [memory.embed(features(k)) for k in range(3)]

    def read(chosen):
        state = memory.start(maps[0][chosen], shares[chosen])
        return memory.read(maps[2][chosen], memory.update(state, maps[1][chosen], probs[chosen]))

    torch.testing.assert_close(read(order), read([0, 1])[order])


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [0, 1, 3])
def test_the_latest_frames_are_stored_and_the_memory_does_not_grow(num_frames):
    memory = make_memory(frames=num_frames, confident=0.5)
    state = memory.start(memory.embed(features(0)), some_shares())
    size = HEIGHT * WIDTH
    for t in range(1, 6):
        before = state.recent
        state = memory.update(state, memory.embed(features(t)), some_probs(t))
        if not num_frames:
            assert state.recent is None and memory.num_readouts == 4
            continue
        assert state.recent.keys.shape == before.keys.shape == (OBJECTS, num_frames * size, 5)
        for age in range(num_frames):
            cells = slice(age * size, (age + 1) * size)
            labels, keys = state.recent.labels[:, cells], state.recent.keys[:, cells]
            if t - age < 1:
                assert not labels.any()
            else:
                assert torch.equal(labels, some_probs(t - age).flatten(2).transpose(1, 2))
                assert torch.equal(keys, memory.embed(features(t - age)).flatten(2).transpose(1, 2))


def test_the_nearest_cell_of_each_class_is_found_by_cosine():
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]]])
    labels = torch.tensor([[[1.0, 0.0], [0.2, 0.8], [0.0, 0.0], [0.5, 0.5]]])
    queries = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [-0.6, -0.8]]])
    expected = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [-0.6, 0.6]]])
    torch.testing.assert_close(nearest_cosines(queries, StoredCells(keys, labels)), expected)


@torch.no_grad()
def test_keys_in_bfloat16_are_compared_in_single_precision():
    memory = make_memory().float()
    maps, shares = features(0).float(), some_shares().float()
    exact = memory.embed(maps)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = memory.embed(maps)
        readouts = memory.read(exact, memory.start(exact, shares))
    assert rounded.dtype == readouts.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert torch.equal(readouts, memory.read(exact, memory.start(exact, shares)))


def squares(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clips of two frames with four squares in random colors: features (2, 4, 3, 4, 4), masks (2, 4, 4, 4), and the
    first frame's shares (4, 2, 4, 4).

    Two squares are the object. All squares change places between the frames, so only the first frame's labels identify
    the object.
    """
    generator = torch.Generator().manual_seed(seed)
    frames, masks = torch.empty(2, 4, 3, 4, 4), torch.empty(2, 4, 4, 4, dtype=torch.int64)
    for n in range(4):
        colors = torch.rand(4, 3, generator=generator)
        for t in range(2):
            for k, place in enumerate(torch.randperm(4, generator=generator).tolist()):
                row, column = 2 * (place // 2), 2 * (place % 2)
                frames[t, n, :, row : row + 2, column : column + 2] = colors[k, :, None, None]
                masks[t, n, row : row + 2, column : column + 2] = k < 2
    return frames, masks, torch.stack([1 - masks[0], masks[0]], dim=1).float()


def test_matching_is_learnt_and_generalises_to_new_colors():
    torch.manual_seed(0)
    memory, head = Memory(3, MemoryConfig(channels=8, frames=0)), torch.nn.Conv2d(4, 2, 1)
    optimizer = torch.optim.Adam([*memory.parameters(), *head.parameters()], lr=0.02)

    def predict(seed: int, known: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        frames, masks, shares = squares(seed)
        state = memory.start(memory.embed(frames[0]), shares * known)
        return head(memory.read(memory.embed(frames[1]), state)), masks[1]

    for seed in range(100):
        logits, mask = predict(seed)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, mask).backward()
        optimizer.step()
    with torch.no_grad():
        accuracies = {known: [] for known in (1.0, 0.0)}
        for seed in range(1000, 1010):
            for known, accuracy in accuracies.items():
                logits, mask = predict(seed, known)
                accuracy.append((logits.argmax(dim=1) == mask).float().mean())
    assert sum(accuracies[1.0]) / 10 > 0.9 and sum(accuracies[0.0]) / 10 < 0.6
