"""The memory against a slow count from its definition, its limits, and what keeps it small."""

import math

import pytest
import torch

from ssvos.config import MemoryConfig
from ssvos.models.memory import Cells, Memory, nearest

OBJECTS, CHANNELS, HEIGHT, WIDTH = 2, 6, 3, 4


def made(**config) -> Memory:
    torch.manual_seed(0)
    return Memory(CHANNELS, MemoryConfig(**{"channels": 5, "confident": 0.7} | config)).double()


def features(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(OBJECTS, CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


def some_shares(seed: int = 0) -> torch.Tensor:
    """Shares of background and foreground; about half of the cells have none, another number in each object."""
    generator = torch.Generator().manual_seed(seed)
    foreground = torch.rand(OBJECTS, 1, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    labelled = torch.rand(OBJECTS, 1, HEIGHT, WIDTH, generator=generator) < 0.5
    return torch.cat([1 - foreground, foreground], dim=1) * labelled


def some_probs(seed: int) -> torch.Tensor:
    foreground = torch.rand(OBJECTS, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)).double()
    return torch.cat([1 - foreground, foreground], dim=1)


def cells_of(memory: Memory, maps: torch.Tensor, labels: torch.Tensor, n: int) -> list[tuple[list, list]]:
    """(key of length 1, labels) of the labelled cells of one object."""
    found = []
    for y in range(HEIGHT):
        for x in range(WIDTH):
            key = (memory.project.weight[:, :, 0, 0] @ maps[n, :, y, x] + memory.project.bias).tolist()
            length = math.sqrt(sum(k * k for k in key) + 1e-6)
            if labels[n, :, y, x].sum() > 0:
                found.append(([k / length for k in key], labels[n, :, y, x].tolist()))
    return found


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
def test_what_is_read_equals_a_slow_count_from_the_definition(pairs, monkeypatch):
    """Of the first frame's labelled cells, and of all cells of the last two of three frames that are sure."""
    monkeypatch.setattr("ssvos.models.memory._PAIRS", pairs)
    memory = made(frames=2)
    shares, frames, probs = some_shares(), [features(k) for k in range(5)], [some_probs(k) for k in range(3)]
    remembered = memory.start(memory.embed(frames[0]), shares)
    for k in range(3):
        remembered = memory.update(remembered, memory.embed(frames[k + 1]), probs[k])
    keys = memory.embed(frames[4])
    found = memory.read(keys, remembered)
    assert found.shape == (OBJECTS, 8, HEIGHT, WIDTH) and memory.num_readouts == 8
    for n in range(OBJECTS):
        sure = [p * (p >= 0.7).any(dim=1, keepdim=True) for p in probs]
        first = cells_of(memory, frames[0], shares, n)
        recent = [cell for k in (1, 2) for cell in cells_of(memory, frames[k + 1], sure[k], n)]
        assert 0 < len(first) < HEIGHT * WIDTH and 0 < len(recent) < 2 * HEIGHT * WIDTH
        for y in range(HEIGHT):
            for x in range(WIDTH):
                query = keys[n, :, y, x].tolist()
                expected = slow_readout(memory, query, first) + slow_readout(memory, query, recent)
                assert found[n, :, y, x].tolist() == pytest.approx(expected, abs=1e-9)


def test_gradients_are_those_of_finite_differences():
    memory, shares, probs = made(frames=1), some_shares(), some_probs(1)

    def read(first, second, third, given):
        remembered = memory.update(memory.start(memory.embed(first), shares), memory.embed(second), given)
        return memory.read(memory.embed(third), remembered)

    maps = [features(k).requires_grad_() for k in range(3)]
    # a cell may not come to the threshold on the way
    probs = torch.where((probs.amax(dim=1, keepdim=True) - 0.7).abs() < 0.01, 0.5, probs).requires_grad_()
    assert torch.autograd.gradcheck(read, (*maps, probs))


@torch.no_grad()
def test_cells_without_a_label_and_cells_in_doubt_change_nothing():
    memory, shares, probs = made(), some_shares(), some_probs(1)
    first, second, query = features(0), features(1), memory.embed(features(2))
    labelled, sure = shares.sum(dim=1, keepdim=True) > 0, probs.amax(dim=1, keepdim=True) >= 0.7

    def read(first, second):
        return memory.read(query, memory.update(memory.start(memory.embed(first), shares), memory.embed(second), probs))

    expected = read(first, second)
    other = read(torch.where(labelled, first, features(5)), torch.where(sure, second, features(6)))
    assert torch.equal(other, expected)
    for k, (one, two) in enumerate([(features(5), second), (first, features(6))]):
        changed = (read(one, two) - expected).abs().amax(dim=(0, 2, 3)) > 1e-3
        assert changed.tolist() == [k == 0] * 4 + [k == 1] * 4


@torch.no_grad()
@pytest.mark.parametrize(("foreground", "counts"), [(0.7, True), (0.69, False), (0.3, True), (0.31, False)])
def test_a_recent_cell_counts_where_foreground_or_background_is_sure(foreground, counts):
    memory, keys = made(), made().embed(features(0))
    probs = torch.empty(OBJECTS, 2, HEIGHT, WIDTH, dtype=torch.float64)
    probs[:, 0], probs[:, 1] = 1 - foreground, foreground
    remembered = memory.update(memory.start(keys, some_shares()), keys, probs)
    expected = memory.read(keys, remembered)[:, 4:6]
    torch.testing.assert_close(expected, probs if counts else torch.zeros_like(probs))


def test_an_empty_memory_reads_as_nothing_and_has_finite_gradients():
    memory = made()
    maps = features(0).requires_grad_()
    keys = memory.embed(maps)
    unsure = torch.full((OBJECTS, 2, HEIGHT, WIDTH), 0.5, dtype=torch.float64, requires_grad=True)
    remembered = memory.update(memory.start(keys, torch.zeros_like(unsure)), keys, unsure)
    found = memory.read(keys, remembered)
    assert not found.any()
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in (*memory.parameters(), maps, unsure))


@torch.no_grad()
def test_a_memory_of_one_class_alone_says_nothing_of_the_other():
    memory, shares = made(frames=0), some_shares()
    shares = torch.stack([torch.zeros_like(shares[:, 0]), shares.sum(dim=1)], dim=1)
    keys = memory.embed(features(0))
    found = memory.read(keys, memory.start(keys, shares))
    assert not found[:, [0, 2]].any()
    torch.testing.assert_close(found[:, 1], torch.ones_like(found[:, 1]))
    labelled = shares[:, 1] > 0
    assert (found[:, 3][labelled] > 1 - 1e-5).all() and (found[:, 3][~labelled] < 1 - 1e-5).all()


def test_cells_without_features_have_finite_gradients():
    memory = made()
    torch.nn.init.zeros_(memory.project.bias)
    maps = torch.zeros(OBJECTS, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    keys = memory.embed(maps)
    memory.read(keys, memory.start(keys, some_shares())).square().sum().backward()
    assert torch.isfinite(maps.grad).all() and maps.grad.abs().max() < 1e6


@torch.no_grad()
def test_permuting_the_objects_permutes_what_is_read():
    memory, order = made(), [1, 0]
    shares, probs, maps = some_shares(), some_probs(1), [memory.embed(features(k)) for k in range(3)]

    def read(chosen):
        remembered = memory.start(maps[0][chosen], shares[chosen])
        return memory.read(maps[2][chosen], memory.update(remembered, maps[1][chosen], probs[chosen]))

    torch.testing.assert_close(read(order), read([0, 1])[order])


@torch.no_grad()
@pytest.mark.parametrize("kept", [0, 1, 3])
def test_the_latest_frames_are_kept_and_the_memory_does_not_grow(kept):
    memory = made(frames=kept, confident=0.5)
    remembered = memory.start(memory.embed(features(0)), some_shares())
    size = HEIGHT * WIDTH
    for t in range(1, 6):
        before = remembered.recent
        remembered = memory.update(remembered, memory.embed(features(t)), some_probs(t))
        if not kept:
            assert remembered.recent is None and memory.num_readouts == 4
            continue
        assert remembered.recent.keys.shape == before.keys.shape == (OBJECTS, kept * size, 5)
        for age in range(kept):
            cells = slice(age * size, (age + 1) * size)
            labels, keys = remembered.recent.labels[:, cells], remembered.recent.keys[:, cells]
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
    torch.testing.assert_close(nearest(queries, Cells(keys, labels)), expected)


@torch.no_grad()
def test_keys_in_bfloat16_are_compared_in_single_precision():
    memory = made().float()
    maps, shares = features(0).float(), some_shares().float()
    exact = memory.embed(maps)
    with torch.autocast("cpu", torch.bfloat16):
        rough = memory.embed(maps)
        found = memory.read(exact, memory.start(exact, shares))
    assert rough.dtype == found.dtype == torch.float32 and not torch.equal(rough, exact)
    assert torch.equal(found, memory.read(exact, memory.start(exact, shares)))


def squares(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (4, 3, 4, 4) of two frames of four squares in colours drawn anew, and the second frame's masks. Two of
    the squares are the object; they change places, so that only a look at the first frame's labels tells which."""
    generator = torch.Generator().manual_seed(seed)
    frames, masks = torch.empty(2, 4, 3, 4, 4), torch.empty(2, 4, 4, 4, dtype=torch.int64)
    for n in range(4):
        colours = torch.rand(4, 3, generator=generator)
        for t in range(2):
            for k, place in enumerate(torch.randperm(4, generator=generator).tolist()):
                row, column = 2 * (place // 2), 2 * (place % 2)
                frames[t, n, :, row : row + 2, column : column + 2] = colours[k, :, None, None]
                masks[t, n, row : row + 2, column : column + 2] = k < 2
    return frames, masks, torch.stack([1 - masks[0], masks[0]], dim=1).float()


def test_matching_is_learnt_and_holds_for_colours_never_seen():
    torch.manual_seed(0)
    memory, head = Memory(3, MemoryConfig(channels=8, frames=0)), torch.nn.Conv2d(4, 2, 1)
    optimizer = torch.optim.Adam([*memory.parameters(), *head.parameters()], lr=0.02)

    def predicted(seed: int, known: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        frames, masks, shares = squares(seed)
        remembered = memory.start(memory.embed(frames[0]), shares * known)
        return head(memory.read(memory.embed(frames[1]), remembered)), masks[1]

    for seed in range(100):
        logits, mask = predicted(seed)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, mask).backward()
        optimizer.step()
    with torch.no_grad():
        rights = {known: [] for known in (1.0, 0.0)}
        for seed in range(1000, 1010):
            for known, right in rights.items():
                logits, mask = predicted(seed, known)
                right.append((logits.argmax(dim=1) == mask).float().mean())
    assert sum(rights[1.0]) / 10 > 0.9 and sum(rights[0.0]) / 10 < 0.6
