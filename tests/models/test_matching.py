"""Matching of cells against a slow loop over all pairs."""

import itertools

import pytest
import torch

from ssvos.models import matching
from ssvos.models.backbone import Trunk
from ssvos.models.matching import Matches, cell_keys, key_statistics, match_everywhere, match_window, read_labels

DIM, CLASSES = 5, 3


def random_keys(num: int, height: int, width: int, seed: int) -> torch.Tensor:
    keys = torch.randn(num, DIM, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(keys, dim=1)


def random_labels(num: int, height: int, width: int, seed: int) -> torch.Tensor:
    labels = torch.rand(num, CLASSES, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return labels / labels.sum(dim=1, keepdim=True)


def slow_matches(queries, keys, labels, radius: int | None, k: int):
    """Best matches of every cell of one frame: lists of (cosine, labels), best first."""
    _, height, width = queries.shape
    cells = list(itertools.product(range(height), range(width)))
    result = []
    for y, x in cells:
        near = [(r, c) for r, c in cells if radius is None or (abs(r - y) <= radius and abs(c - x) <= radius)]
        pairs = [(float(queries[:, y, x] @ keys[:, r, c]), labels[:, r, c].tolist()) for r, c in near]
        result.append(sorted(pairs, key=lambda pair: -pair[0])[:k])
    return result


def assert_matches(found: Matches, expected: list, n: int) -> None:
    for cell, best in enumerate(expected):
        count = len(best)
        assert found.affinity[n, cell, :count].tolist() == pytest.approx([a for a, _ in best])
        for match, (_, label) in enumerate(best):
            assert found.labels[n, cell, match].tolist() == pytest.approx(label)
        assert torch.isinf(found.affinity[n, cell, count:]).all()


@pytest.mark.parametrize(("height", "width"), [(3, 4), (8, 8), (9, 17)])
@pytest.mark.parametrize("radius", [1, 2, 5])
def test_a_window_has_the_best_matches_of_a_slow_loop(height, width, radius):
    queries, keys = random_keys(2, height, width, 0), random_keys(2, height, width, 1)
    labels = random_labels(2, height, width, 2)
    found = match_window(queries, keys, labels, radius, k=6)
    for n in range(2):
        assert_matches(found, slow_matches(queries[n], keys[n], labels[n], radius, 6), n)


@pytest.mark.parametrize("pairs_at_once", [1, 50, 2**22])
def test_everywhere_has_the_best_matches_of_a_slow_loop(monkeypatch, pairs_at_once):
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", pairs_at_once)
    queries, keys, labels = random_keys(2, 5, 7, 0), random_keys(2, 5, 7, 1), random_labels(2, 5, 7, 2)
    found = match_everywhere(queries, keys, labels, k=4)
    for n in range(2):
        assert_matches(found, slow_matches(queries[n], keys[n], labels[n], None, 4), n)


def test_more_matches_than_cells_are_all_cells():
    keys, labels = random_keys(1, 2, 2, 0), random_labels(1, 2, 2, 0)
    assert match_everywhere(keys, keys, labels, k=10).affinity.shape == (1, 4, 4)


def test_read_labels_is_the_softmax_over_the_best_matches_of_all_frames():
    generator = torch.Generator().manual_seed(0)
    frames = []
    for _ in range(2):
        affinity = torch.rand(1, 1, 3, generator=generator, dtype=torch.float64)
        frames.append(Matches(affinity, torch.rand(1, 1, 3, CLASSES, generator=generator, dtype=torch.float64)))
    pairs = [(float(f.affinity[0, 0, i]), f.labels[0, 0, i]) for f in frames for i in range(3)]
    best = sorted(pairs, key=lambda pair: -pair[0])[:4]
    weights = torch.tensor([a / 0.1 for a, _ in best]).softmax(dim=0)
    expected = sum(w * label for w, (_, label) in zip(weights, best, strict=True))
    torch.testing.assert_close(read_labels(frames, 0.1, 4)[0, 0], expected, atol=1e-6, rtol=0)


def test_a_missing_candidate_has_no_weight():
    match = Matches(torch.tensor([[[0.5, -torch.inf]]]), torch.tensor([[[[1.0], [9.0]]]]))
    assert read_labels([match], 0.1, 2).item() == 1.0


def test_keys_are_unit_vectors_that_ignore_the_scale_and_the_mean_of_each_layer():
    generator = torch.Generator().manual_seed(0)
    s8, deep = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 6, 8, 8, generator=generator)
    trunk = Trunk(torch.zeros(1, 2, 16, 16), s8, deep, torch.zeros(1, 3, 16, 16))
    keys = cell_keys(trunk, key_statistics(trunk))
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(1, 8, 8))
    shift = torch.randn(1, 6, 1, 1, generator=generator)
    other = trunk._replace(s8=3 * s8, deep=0.1 * deep + shift)
    torch.testing.assert_close(cell_keys(other, key_statistics(other)), keys, atol=1e-5, rtol=0)


def test_keys_of_a_network_at_stride_16_average_layer2():
    trunk = Trunk(
        torch.zeros(1, 2, 16, 16), torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4), torch.zeros(1, 3, 16, 16)
    )
    assert cell_keys(trunk, key_statistics(trunk)).shape == (1, 10, 4, 4)
