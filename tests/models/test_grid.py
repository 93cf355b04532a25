"""The grid of feature cells: labels of cells, and up-sampling to pixels."""

import pytest
import torch

from ssvos.models.grid import Move, cell_shares, cells_with_stroke, move_cells, outside_strokes, upsample_coarse


def unlabelled(height: int, width: int) -> torch.Tensor:
    return torch.full((1, height, width), 255, dtype=torch.uint8)


def test_cell_shares_count_only_labelled_pixels():
    scribble = unlabelled(32, 32)
    scribble[0, 0, :3], scribble[0, 1, 0] = 1, 0  # three to one
    scribble[0, 20, 20] = 0
    shares = cell_shares(scribble)[0]
    expected = torch.zeros(2, 2, 2)
    expected[:, 0, 0] = torch.tensor([0.25, 0.75])
    expected[0, 1, 1] = 1.0
    torch.testing.assert_close(shares, expected)


def test_a_stroke_of_two_pixels_survives_to_stride_16_and_background_does_not_count():
    scribble = unlabelled(32, 48)
    scribble[0, 15:17, 40] = 1  # one pixel above and one below the border between two cells
    scribble[0, 5, :10] = 0
    assert cells_with_stroke(scribble)[0].tolist() == [[False, False, True], [False, False, True]]
    assert not cells_with_stroke(unlabelled(32, 48)).any()


def test_coarse_logits_are_upsampled_to_full_size_without_their_padding():
    coarse = torch.zeros(1, 2, 3, 4)
    coarse[:, 1] = 2.0
    full = upsample_coarse(coarse, 45, 59)
    assert upsample_coarse(torch.zeros(1, 2, 6, 8), 45, 59).shape == full.shape == (1, 2, 45, 59)
    assert torch.equal(full[:, 1], torch.full((1, 45, 59), 2.0)) and not full[:, 0].any()


def test_cells_beyond_background_strokes_around_the_object_are_outside():
    scribble = unlabelled(64, 64)
    scribble[0, 20, 10:40] = scribble[0, 50, 10:40] = scribble[0, 20:50, 10] = scribble[0, 20:50, 40] = 0
    scribble[0, 30:40, 20:30] = 1
    expected = torch.ones(1, 8, 8, dtype=torch.bool)
    expected[0, 2:7, 1:6] = False  # rows 20 to 50, columns 10 to 40
    assert torch.equal(outside_strokes(scribble, 8), expected)


def test_on_a_side_without_background_strokes_nothing_is_outside():
    scribble = unlabelled(64, 64)
    scribble[0, 30:34, 20:40] = 1
    scribble[0, 50, :] = 0  # below alone
    expected = torch.zeros(1, 8, 8, dtype=torch.bool)
    expected[0, 7:] = True
    assert torch.equal(outside_strokes(scribble, 8), expected)


def test_a_short_background_stroke_beside_the_object_is_no_border():
    scribble = unlabelled(64, 64)
    scribble[0, 30:34, 10:50] = 1
    scribble[0, 20, 12:18] = 0
    assert not outside_strokes(scribble, 8).any()


@pytest.mark.parametrize("label", [0, 1, 255])
def test_without_strokes_of_both_classes_no_cell_is_outside(label):
    scribble = unlabelled(64, 64)
    scribble[0, 40, 20:30] = label
    assert not outside_strokes(scribble, 16).any()


def test_cells_stay_where_they_are_if_the_view_does_not_change():
    maps = torch.rand(2, 3, 5, 7)
    still = Move((1.0, 1.0), (0.0, 0.0))
    torch.testing.assert_close(move_cells(maps, (36, 50), 8, still), maps)


def test_a_view_one_cell_lower_and_two_cells_to_the_right_shifts_the_cells_and_is_0_outside():
    maps = torch.rand(1, 2, 4, 6)
    moved = move_cells(maps, (32, 48), 8, Move((1.0, 1.0), (8 / 32, 16 / 48)))
    torch.testing.assert_close(moved[..., :3, :4], maps[..., 1:, 2:])
    assert not moved[..., 3:, :].any() and not moved[..., 4:].any()


def test_a_view_of_the_lower_right_quarter_is_enlarged_there():
    """A plane that rises by 1 from cell to cell rises by half of that in a view of half the size."""
    rows = torch.arange(8.0)[:, None].expand(8, 8)
    moved = move_cells(rows[None, None], (64, 64), 8, Move((0.5, 0.5), (0.5, 0.5)))[0, 0]
    # the center of new row i is at (i + 0.5) / 2 + 4 cells, that of old row j at j + 0.5
    expected = (torch.arange(8.0) + 0.5) / 2 + 4 - 0.5
    torch.testing.assert_close(moved[:7, 3], expected[:7])
