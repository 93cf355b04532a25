"""Hand-written results of a run, and the tables that stage `tables` writes from them."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
from printed_tables import DAVIS_COLUMNS, OURS, TABLE_IV, TABLE_V, TABLE_VI, TABLE_VII, YOUTUBE_VOS_COLUMNS

from pipelines import tables as paper_tables
from pipelines.params import Layout
from ssvos.config import read_yaml
from ssvos.config.variants import Params, params_from
from ssvos.data.index import INDEX_SCHEMA, write_index

LAYOUT = Layout("set")
BASELINES = ("untrained", "empty", "copied", "grabcut_flow", "label_propagation")


def make_params(*sources: dict) -> Params:
    values = read_yaml(Path(__file__).with_name("tiny_params.yaml"))
    values["data"] = {"name": LAYOUT.name, "sources": list(sources)}
    return params_from(values, "params.yaml")


def make_videos(videos: dict[str, int], dataset: str = "own") -> list[dict]:
    """Return rows of an index: two frames for each evaluation video. videos: sequence -> number of objects."""
    rows = []
    for sequence, count in videos.items():
        for position in range(2):
            row = {"dataset": dataset, "split": "val", "sequence": sequence, "frame": f"{position:05d}"}
            row |= {"position": position, "image_path": "a.jpg", "mask_path": "a.png", "scribble_path": None}
            row |= {"height": 48, "width": 64, "objects": list(range(1, count + 1)), "categories": "{}"}
            rows.append(row | {"fingerprint": "0"})
    return rows


def scores(protocol: str, first: float, **fields) -> dict:
    """Return scores of a source: `first` for the first measure, 0.01 more for each further one."""
    measures = YOUTUBE_VOS_COLUMNS if protocol == "youtube-vos" else DAVIS_COLUMNS
    return {"protocol": protocol, "global": {name: first + k / 100 for k, name in enumerate(measures)}} | fields


def write_result(name: str, by_source: dict, objects: str = "") -> None:
    """Write a variant's val.json and objects.csv. objects: rows of objects.csv."""
    path = LAYOUT.results(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"variant": name, "chosen_by": "J", "scores": by_source}))
    LAYOUT.objects(name).write_text("source,object,J.mean,F.mean\n" + objects)


def make_run(rows: list[dict], results: dict[str, dict], baseline: dict) -> None:
    """Write a run's index and results.

    rows:     rows of the index
    results:  run -> source -> scores
    baseline: source -> scores, for each baseline
    """
    LAYOUT.frames.mkdir(parents=True)
    write_index(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), LAYOUT.index)
    for name, one in results.items():
        write_result(name, one)
    LAYOUT.baselines.parent.mkdir(parents=True, exist_ok=True)
    LAYOUT.baselines.write_text(json.dumps({name: baseline for name in BASELINES}))


class Cells(HTMLParser):
    """The text of every table cell of a page, and all its links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.links: list[str] = []
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.links += [value for key, value in attrs if key in ("href", "src", "srcset", "data")]
        if tag in ("td", "th"):
            self.cells.append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._in_cell:
            self.cells[-1] += data


def write_and_read(params: Params) -> dict[str, list[list[str]]]:
    """Write the tables and read the CSV files back by name. Check that no cell is blank in any format."""
    paper_tables.write_tables(params, LAYOUT)
    tables = {}
    for path in LAYOUT.tables.glob("*.csv"):
        with open(path, newline="") as file:
            tables[path.stem] = list(csv.reader(file))
        assert all(cell.strip() for line in tables[path.stem] for cell in line), path
        assert len({len(line) for line in tables[path.stem]}) == 1, path
    for path in LAYOUT.tables.glob("*.md"):
        lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert cells and all(cell for line in cells for cell in line), path
        shape = [[cell.replace("\\*", "") for cell in line] for line in cells if set(line) != {"---"}]
        assert shape[: len(tables[path.stem])] == tables[path.stem], "Markdown and CSV have the same cells"
    page = Cells(LAYOUT.tables_page.read_text())
    assert len(page.cells) > 200 and all(cell.strip() for cell in page.cells)
    assert all(link.startswith("#") or link == "set.html" for link in page.links)
    return tables


def comparisons(tables: dict[str, list[list[str]]], table: str, variant: str = "ours") -> dict[str, dict[str, str]]:
    """Return the comparisons of a variant with the paper's own row in one table, by measure."""
    head, *rows = tables["beside"]
    rows = [dict(zip(head, row, strict=True)) for row in rows]
    return {row["measure"]: row for row in rows if (row["table"], row["variant"]) == (table, variant)}


def is_published(name: str) -> bool:
    return not name.startswith(("this run", "without training"))


def require_published(tables: dict[str, list[list[str]]]) -> None:
    """Check that the published values are as printed and that the run follows the paper's own row.

    Tables IV and V have one row per method, Tables VI and VII one row per measure.
    """
    for name, printed in (("table4", TABLE_IV), ("table5", TABLE_V)):
        rows = [row for row in tables[name][1:] if is_published(row[0])]
        for expected, row in zip(printed.strip().splitlines(), rows, strict=True):
            assert row[-5:] == expected.split()[-5:] and row[0].startswith(expected.split()[0])
        assert len(tables[name]) == 1 + len(rows) + 2 + len(BASELINES)
        names = [row[0].split(",")[0] for row in tables[name]]
        assert names[names.index("Ours (the paper)") + 1] == "this run: ours"
    for name, printed in (("table6", TABLE_VI), ("table7", TABLE_VII)):
        columns = [k for k, head in enumerate(tables[name][0]) if is_published(head)]
        assert len(columns) == 14
        for expected, row in zip(printed.strip().splitlines()[2:], tables[name][2:], strict=True):
            assert [row[k] for k in columns] == expected.split()
        assert tables[name][0][1] == "Ours (the paper)" and tables[name][0][2].startswith("this run: ours")
    for table, values in OURS.items():
        for variant in ("pce", "ours"):
            rows = comparisons(tables, table, variant)
            assert [float(row["paper"]) for row in rows.values()] == list(values)
