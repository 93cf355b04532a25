"""The report's charts: the training by epoch, scores over time."""

from collections.abc import Mapping

from ssvos.visualization import Axis, Chart, Line, Point, linear_axis, round_step

History = list[dict[str, float]]


def curves(histories: Mapping[tuple[str, str], History]) -> list[Chart]:
    """Training loss and held-out score by epoch, a line a variant, stage 2 after stage 1.

    histories: (variant, stage) -> rows of history.csv; a variant without both stages is left out.
    """
    names = [name for name, stage in histories if stage == "stage1" and (name, "stage2") in histories]
    if not names:
        return []
    lengths = [max(len(histories[name, stage]) for name in names) for stage in ("stage1", "stage2")]
    in_percent = all(row["holdout_score"] >= 0 for name in names for row in histories[name, "stage2"])
    held_out = ("held-out J, percent", 100) if in_percent else ("held-out score (minus the loss)", 1)
    charts = []
    for key, (label, factor) in {"loss": ("training loss", 1), "holdout_score": held_out}.items():
        lines = tuple(
            _line(name, [histories[name, f"stage{i}"] for i in (1, 2)], lengths[0], key, factor) for name in names
        )
        values = [point.y for line in lines for part in line.parts for point in part]
        sections = ((0.5 + lengths[0] / 2, "stage 1"), (0.5 + lengths[0] + lengths[1] / 2, "stage 2"))
        x = _epoch_axis(*lengths)
        charts.append(
            Chart(
                f"{label} by epoch",
                x,
                linear_axis(values),
                "epoch of the stage",
                label,
                lines,
                lengths[0] + 0.5,
                sections,
            )
        )
    return charts


def _line(name: str, stages: list[History], offset: int, key: str, factor: float) -> Line:
    parts = []
    for i, rows in enumerate(stages):
        # the first of equal scores, as training keeps it
        best = max(range(len(rows)), key=lambda k: rows[k]["holdout_score"])
        parts.append(
            tuple(
                Point(
                    row["epoch"] + i * offset,
                    factor * row[key],
                    f"{name}, stage {i + 1}, epoch {row['epoch']:g}: {factor * row[key]:.3g}"
                    + (", kept" if k == best else ""),
                    "best" if k == best else "dot",
                )
                for k, row in enumerate(rows)
            )
        )
    return Line(name, tuple(parts))


def _epoch_axis(first: int, second: int) -> Axis:
    step = max(1, round_step((first + second) / 10))
    marks = [(e + offset, str(e)) for offset, n in ((0, first), (first, second)) for e in range(1, n + 1)]
    shown = tuple((value, text) for value, text in marks if text == "1" or int(text) % step == 0)
    return Axis(0.5, first + second + 0.5, shown)


def scores_over_time(parts: Mapping[str, Mapping[float, tuple[float, float]]]) -> list[Chart]:
    """J and F, a line an answer; parts: answer -> percent of the way to the video's end -> J and F in percent."""
    x = Axis(0, 100, tuple((mark, str(mark)) for mark in range(0, 101, 20)))
    x_label = "from an object's first frame to the video's last, percent"
    charts = []
    for k, measure in enumerate(("J", "F")):
        points = {
            name: tuple(Point(at, both[k], f"{name}, {at:g} %: {measure} {both[k]:.1f}") for at, both in own.items())
            for name, own in parts.items()
        }
        y = linear_axis(point.y for own in points.values() for point in own)
        lines = tuple(Line(name, (own,)) for name, own in points.items())
        charts.append(Chart(f"{measure} over time", x, y, x_label, f"mean {measure}, percent", lines))
    return charts
