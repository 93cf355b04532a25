"""Axes and training charts of the report."""

import pytest

from pipelines.reporting.chart_elements import linear_axis, log_axis
from pipelines.reporting.charts import training_charts


def test_training_charts_mark_the_first_of_equally_good_epochs():
    def rows(*scores):
        return [{"epoch": k + 1.0, "loss": 1.0 - k / 10, "holdout_score": score} for k, score in enumerate(scores)]

    loss, score = training_charts({("ours", "stage1"): rows(0.1, 0.4, 0.4), ("ours", "stage2"): rows(0.3, 0.2)})
    (series,) = score.series
    best = [(point.x, point.y) for segment in series.segments for point in segment if point.kind == "best"]
    assert best == [(2, 40.0), (4, 30.0)], "in percent, and stage 2 begins after the three epochs of stage 1"
    assert [[point.x for point in segment] for segment in loss.series[0].segments] == [[1, 2, 3], [4, 5]]
    assert score.divider == 3.5
    (_, minus_loss) = training_charts({("ours", "stage1"): rows(-0.5), ("ours", "stage2"): rows(-0.4)})
    assert "minus the loss" in minus_loss.y_label and minus_loss.series[0].segments[0][0].y == -0.5


def test_axis_ticks_are_round_and_the_axis_encloses_the_values():
    axis = linear_axis([0.21, 0.88])
    assert [label for _, label in axis.ticks] == ["0.2", "0.4", "0.6", "0.8", "1"]
    assert axis.position(0.2) == 0 and axis.position(0.6) == pytest.approx(0.5) and axis.position(1.0) == 1
    assert linear_axis([3.0]).low <= 3 <= linear_axis([3.0]).high
    logarithmic = log_axis([1e-4, 1e-2])
    assert [label for _, label in logarithmic.ticks] == ["0.0001", "0.0003", "0.001", "0.003", "0.01"]
    assert logarithmic.position(1e-3) == pytest.approx(0.5)
    assert log_axis([0.15]).ticks
