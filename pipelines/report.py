"""Stage `report`: a run's results as one self-contained page, and its score table on the terminal."""

import argparse
import csv
import json
import platform
from importlib.metadata import version
from pathlib import Path

from pipelines.params import Layout, flatten, read_params
from pipelines.reporting.charts import History, training_charts
from pipelines.reporting.clip_players import clip_players
from pipelines.reporting.failure_gallery import failure_gallery
from pipelines.reporting.rendering import template_environment
from pipelines.reporting.score_table import score_tables, text_table
from pipelines.reporting.search_table import read_search
from pipelines.stage import run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.record import data_digest
from pipelines.tracking.stage_records import Records
from ssvos.config.variants import Params
from ssvos.data.index import IndexedVideo, read_index, videos_of
from ssvos.files import write_text
from ssvos.hardware import this_machine

_PACKAGES = ("torch", "ray", "dvc", "mlflow", "opencv-python-headless", "scikit-image", "numpy")
_ROLES = {"train": "training", "holdout": "choosing the checkpoint", "val": "evaluation"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", action="store_true", help="print the table and the page's path; write nothing")
    args = parser.parse_args()
    params = read_params()
    layout = Layout(params.base.data.name)
    if not args.summary:
        tracking.connect()
        html = render(params, layout)
        write_text(layout.page, html)
        write_text(Path("reports") / "index.html", html)
        tracking.write(Records.read(params, layout).report())
    for table in score_tables(params, layout):
        print(text_table(table) + "\n")
    print(Path("reports/index.html").absolute())


def render(params: Params, layout: Layout) -> str:
    """Return the page's HTML. It needs no other file, and the same run gives the same page."""
    index = read_index(layout.index)
    digest = data_digest(index)
    tables = score_tables(params, layout)
    histories = _histories(params, layout)
    environment = template_environment()
    return environment.get_template("report.html.j2").render(
        name=layout.name,
        tables=tables,
        clip_players=clip_players(params, layout, tables),
        failure_gallery=failure_gallery(params, layout),
        training_charts=training_charts(histories),
        histories=histories,
        scribbles=_scribbles(json.loads((layout.scribbles / "summary.json").read_text())),
        search=read_search(params),
        splits=_splits(videos_of(index)),
        sources=params.base.data.sources,
        digest=digest,
        parameters=_parameters(params),
        variants=list(params.variants),
        tuned_from=params.base.tuned_from,
        environment=_environment(),
    )


def _histories(params: Params, layout: Layout) -> dict[tuple[str, str], History]:
    """Read history.csv by (variant, stage), the main variant first; only trained stages have an entry."""
    histories = {}
    for name in reversed(list(params.variants)):
        for stage in ("stage1", "stage2"):
            path = layout.run(name, stage) / "history.csv"
            if path.is_file():
                with open(path, newline="") as file:
                    rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
                histories[name, stage] = rows
    return histories


def _splits(videos: list[IndexedVideo]) -> list[dict]:
    rows = []
    for split, role in _ROLES.items():
        members = [video for video in videos if video.split == split]
        frames = [frame for video in members for frame in video.frames]
        rows.append(
            {
                "role": role,
                "videos": len(members),
                "frames": len(frames),
                "objects": sum(len(video.objects) for video in members),
                "labelled": sum(frame.objects is not None for frame in frames),
            }
        )
    return rows


def _scribbles(summary: dict[str, dict]) -> dict[str, dict]:
    """Return the scribbles' summary with each split's role as key, in the order of the roles."""
    order = [key for role in _ROLES for key in summary if key.rpartition("/")[2] == role]
    several = len({key.rpartition("/")[0] for key in order}) > 1
    prefix = {key: f"{key.rpartition('/')[0]}: " if several else "" for key in order}
    return {prefix[key] + _ROLES[key.rpartition("/")[2]]: summary[key] for key in order}


def _parameters(params: Params) -> list[tuple[str, list[str], bool]]:
    """Return (key, value by variant, whether variants differ) of every parameter; those that differ come first."""
    values = {name: flatten(config) for name, config in params.variants.items()}
    keys = dict.fromkeys(key for flat in values.values() for key in flat)
    rows = []
    for key in keys:
        row = [_format(flat[key]) if key in flat else "–" for flat in values.values()]
        rows.append((key, row, len(set(row)) > 1))
    return sorted(rows, key=lambda row: not row[2])


def _format(value: object) -> str:
    """Format a parameter's value; of an absolute path only the name, because others read the page."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_format(inner)}" for key, inner in value.items() if inner != "")
    if isinstance(value, list):
        return "; ".join(map(_format, value))
    if isinstance(value, str) and value.startswith(("/", "~")):
        return f"…/{Path(value).name}"
    return str(value)


def _environment() -> dict[str, str]:
    machine = f"{platform.system()} {platform.machine()}, {this_machine()}"
    packages = {name: version(name) for name in _PACKAGES}
    return {"machine that wrote this page": machine, "Python": platform.python_version()} | packages


if __name__ == "__main__":
    run_stage(main)
