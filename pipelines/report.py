"""Stage `report`: one self-contained page of a run, and the same table on the terminal."""

import argparse
import csv
import json
import platform
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from pipelines import tracking
from pipelines.params import Layout, flatten, read_params
from pipelines.pictures import curves, filmstrips
from pipelines.stage import run_stage
from pipelines.yardsticks import METHODS
from ssvos.data.index import read_index
from ssvos.data.preparation import sequences_by_split
from ssvos.files import write_text
from ssvos.variants import Params

_PACKAGES = ("torch", "ray", "dvc", "mlflow", "opencv-python-headless", "scikit-image", "numpy")
_SCORES = {
    "davis2017": ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"),
    "youtube-vos": ("G", "J_seen", "J_unseen", "F_seen", "F_unseen"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", action="store_true", help="print the table and the page's path, write nothing")
    args = parser.parse_args()
    params = read_params()
    layout = Layout(params.base.data.name)
    if not args.summary:
        html = render(params, layout)
        write_text(Path("reports") / f"{layout.name}.html", html)
        write_text(Path("reports") / "index.html", html)
    for table in tables(params, layout):
        print(text_table(table) + "\n")
    print(Path("reports/index.html").absolute())


def tables(params: Params, layout: Layout) -> list[dict]:
    """A table for each judged source: title, columns, rows of (name, what it is, values in percent or None), notes."""
    yardsticks = json.loads(layout.yardsticks.read_text())
    results = {name: json.loads(layout.results(name).read_text()) for name in params.variants}
    return [_table(source.name, layout, params, results, yardsticks) for source in params.base.data.sources]


def _table(source: str, layout: Layout, params: Params, results: dict, yardsticks: dict) -> dict:
    scored = {name: result["scores"].get(source) for name, result in results.items()}
    rows = [(name, _about(params, name), scored[name]) for name in reversed(list(params.variants))]
    rows += [(name.replace("_", " + "), about, yardsticks[name].get(source)) for name, about in METHODS.items()]
    known = next((one for _, _, one in rows if one), None)
    columns = _SCORES[known["protocol"]] if known else ()
    visible = bool(known and "visibility" in known)
    body = [
        (name, about, [_percent(one["global"][c]) for c in columns] + _visibility(one) if one else None)
        for name, about, one in rows
    ]
    title = f"{layout.name}: {source}" if len(params.base.data.sources) > 1 else layout.name
    return {
        "title": title,
        "columns": [*columns, *(("visible", "absent, left empty") if visible else ())],
        "rows": body,
        "notes": _notes(rows, columns, results),
    }


def _about(params: Params, name: str) -> str:
    loss, attention = params.variants[name].loss, params.variants[name].model.attention.kind
    terms = ["partial cross-entropy"]
    if loss.regularizer != "none":
        terms.append(loss.regularizer.replace("_", "-") + " loss")
    if attention != "none":
        terms.append(f"{attention} attention")
    return "trained on scribbles: " + ", ".join(terms)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _visibility(one: dict) -> list[float | None]:
    seen = one.get("visibility")
    return [_percent(seen["present_JF"]), _percent(seen["absent_empty_share"])] if seen else []


def _notes(rows: list, columns: tuple, results: dict) -> list[str]:
    """What a reader must not overlook: rows not run, a variant below the training-free answer, how it was chosen."""
    notes = []
    if not columns:
        return ["Not scored: the judged videos have no masks. The pictures below are all there is to judge by."]
    main_score = columns[0]
    floor = next((one["global"][main_score] for name, _, one in rows if one and name.startswith("grabcut")), None)
    for name, _, one in rows:
        if one is None:
            notes.append(f"{name}: not run, it needs masks of the judged videos.")
        elif name in results and floor is not None and one["global"][main_score] < floor:
            notes.append(f"{name} is below GrabCut + optical flow, which needs no training.")
    for name, result in results.items():
        if result["chosen_by"] != "J":
            notes.append(f"{name}: no masks of held-out videos, so its checkpoint was chosen by held-out loss.")
    return notes


def text_table(table: dict) -> str:
    """The table as a terminal shows it, percent with one decimal."""
    names = [name for name, _, _ in table["rows"]]
    width = max(len(name) for name in names)
    heads = [column.replace("-Mean", "").replace("absent, left empty", "absent ok") for column in table["columns"]]
    lines = [f"{table['title']} (percent)", " " * width + "".join(f"{head:>11}" for head in heads)]
    for name, _, values in table["rows"]:
        cells = ["    not run"] if values is None else [f"{'-' if v is None else format(v, '.1f'):>11}" for v in values]
        lines.append(f"{name:<{width}}" + "".join(cells))
    return "\n".join([*lines, *table["notes"]])


def render(params: Params, layout: Layout) -> str:
    """The page: no file beside it is needed."""
    index = read_index(layout.index)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return environment.get_template("report.html.j2").render(
        name=layout.name,
        tables=tables(params, layout),
        curves=curves(_histories(params, layout)),
        films=filmstrips(params, layout),
        scribbles=json.loads((layout.scribbles / "summary.json").read_text()),
        counts=sequences_by_split(index),
        frames=len(index),
        digest=tracking.data_digest(index),
        parameters={name: flatten(config) for name, config in params.variants.items()},
        environment={"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    )


def _histories(params: Params, layout: Layout) -> dict[tuple[str, str], list[dict[str, float]]]:
    found = {}
    for name in params.variants:
        for stage in ("stage1", "stage2"):
            with open(layout.run(name, stage) / "history.csv", newline="") as file:
                found[name, stage] = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return found


if __name__ == "__main__":
    run_stage(main)
