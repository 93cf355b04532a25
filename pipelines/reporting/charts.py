"""Charts of the report: training by epoch, scores over time."""

from collections.abc import Mapping

from pipelines.reporting.chart_elements import Axis, Chart, Point, Series, linear_axis, round_step

History = list[dict[str, float]]  # rows of history.csv


def training_charts(histories: Mapping[tuple[str, str], History]) -> list[Chart]:
    """Charts of the training loss and of the held-out score by epoch, one series a variant, stage 2 after stage 1.

    histories: (variant, stage) -> rows of history.csv; a variant without both stages has no series
    """
    names = [name for name, stage in histories if stage == "stage1" and (name, "stage2") in histories]
    if not names:
        return []
    lengths = [max(len(histories[name, stage]) for name in names) for stage in ("stage1", "stage2")]
    in_percent = all(row["holdout_score"] >= 0 for name in names for row in histories[name, "stage2"])
    held_out = ("held-out J, percent", 100) if in_percent else ("held-out score (minus the loss)", 1)
    charts = []
    for key, (label, factor) in {"loss": ("training loss", 1), "holdout_score": held_out}.items():
        series = tuple(
            _training_series(name, [histories[name, f"stage{i}"] for i in (1, 2)], lengths[0], key, factor)
            for name in names
        )
        values = [point.y for one in series for segment in one.segments for point in segment]
        sections = ((0.5 + lengths[0] / 2, "stage 1"), (0.5 + lengths[0] + lengths[1] / 2, "stage 2"))
        charts.append(
            Chart(
                f"{label} by epoch",
                _epoch_axis(*lengths),
                linear_axis(values),
                "epoch of the stage",
                label,
                series,
                lengths[0] + 0.5,
                sections,
            )
        )
    return charts


def _training_series(name: str, stages: list[History], offset: int, key: str, factor: float) -> Series:
    """One column of a variant's histories. offset: the epochs of stage 1, which come before stage 2 on the x axis."""
    segments = []
    for i, rows in enumerate(stages):
        # training saves the first of equally good epochs
        best = max(range(len(rows)), key=lambda k: rows[k]["holdout_score"])
        segments.append(
            tuple(
                Point(
                    row["epoch"] + i * offset,
                    factor * row[key],
                    f"{name}, stage {i + 1}, epoch {row['epoch']:g}: {factor * row[key]:.3g}"
                    + (", saved" if k == best else ""),
                    "best" if k == best else "dot",
                )
                for k, row in enumerate(rows)
            )
        )
    return Series(name, tuple(segments))


def _epoch_axis(first: int, second: int) -> Axis:
    """first, second: the number of epochs of each stage."""
    step = max(1, round_step((first + second) / 10))
    epochs = [(e + offset, str(e)) for offset, n in ((0, first), (first, second)) for e in range(1, n + 1)]
    ticks = tuple((value, label) for value, label in epochs if label == "1" or int(label) % step == 0)
    return Axis(0.5, first + second + 0.5, ticks)


def time_charts(curves: Mapping[str, Mapping[float, tuple[float, float]]]) -> list[Chart]:
    """Charts of J and of F over time, one series a method.

    curves: method -> percent of the way to the video's end -> J and F in percent
    """
    x = Axis(0, 100, tuple((tick, str(tick)) for tick in range(0, 101, 20)))
    x_label = "from an object's first frame to the video's last, percent"
    charts = []
    for k, measure in enumerate(("J", "F")):
        points = {
            name: tuple(Point(t, JF[k], f"{name}, {t:g} %: {measure} {JF[k]:.1f}") for t, JF in curve.items())
            for name, curve in curves.items()
        }
        y = linear_axis(point.y for own in points.values() for point in own)
        series = tuple(Series(name, (own,)) for name, own in points.items())
        charts.append(Chart(f"{measure} over time", x, y, x_label, f"mean {measure}, percent", series))
    return charts
