"""A small run with hand-written masks and scores, and a parser of its report. Neither trains or starts Ray."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
from conftest import untracked

from pipelines import report
from pipelines.evaluation_set import METHODS
from pipelines.params import Layout
from ssvos.config import Config, ScribbleConfig
from ssvos.config.variants import Params, params_from
from ssvos.data.index import labelled_frames, write_index
from ssvos.data.preparation import prepare, source_roots
from ssvos.labels import read_labels, write_labels
from ssvos.scribbles.quality import summarise_store
from ssvos.scribbles.store import STORE_SCHEMA, scribble_row, write_store

LAYOUT = Layout("tiny")
MARKUP_NAME = "a<b>&'c"  # a sequence name with HTML markup
COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
# the scores of COLUMNS, then `present_JF` and `absent_empty_share`, as fractions
SCORES = {
    "ours": (0.404251, 0.5136, 0.5042, 0.1367, 0.2949, 0.1597, 0.1006, 0.4112, None),
    "pce": (0.3630, 0.4751, 0.4874, 0.1142, 0.2518, 0.0630, 0.0602, 0.3702, 0.25),
    "untrained": (0.0507, 0.0064, 0.0, -0.0013, 0.0950, 0.0, 0.0125, 0.0516, 0.0),
    "empty": (0.0168, 0.0168, 0.0168, -0.0588, 0.0168, 0.0168, -0.0588, 0.0, 1.0),
    "copied": (0.2934, 0.3733, 0.3235, 0.4722, 0.2136, 0.0840, 0.2757, 0.2978, 0.0),
    "grabcut + flow": (0.6172, 0.6389, 0.6975, 0.2744, 0.5956, 0.6849, 0.2404, 0.6284, 0.0),
    "label propagation": (0.3866, 0.4012, 0.4109, 0.1203, 0.3720, 0.3517, 0.1008, 0.3901, 0.0),
}
# (J, F) of each object of each evaluation video, as fractions
OBJECTS = {MARKUP_NAME: [(0.9, 0.7)], "val-001": [(0.1, 0.3), (0.3, 0.1)], "val-002": [(0.5, 0.5)]}


@dataclass
class Page(HTMLParser):
    """The text, the tables and the elements of a page."""

    html: str
    words: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _hidden: int = 0
    _in_cell: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._hidden += tag in ("style", "script")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "script")
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._hidden:
            return
        self.words += data.split()
        if self._in_cell:
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element with this tag."""
        return [attributes for name, attributes in self.elements if name == tag]


def render_page(params: Params) -> Page:
    return Page(report.render(params, LAYOUT))


def make_params(root: Path, **changes) -> Params:
    """Parameters of a run on the data set in `root`."""
    values = {
        "data": {
            "name": "tiny",
            "sources": [{"name": "own", "layout": "davis", "root": str(root)}],
            "holdout_fraction": 0.5,
        },
        "variants": {"pce": {"model": {"attention": {"kind": "none"}}, "loss": {"regularizer": "none"}}, "ours": {}},
    }
    return params_from(values | changes, "params.yaml")


def write_run(config: Config, true_masks: Path) -> None:
    """Write the outputs of all stages before `report` to the working directory."""
    roots = source_roots(config, Path())
    index = prepare(config, roots, untracked)
    write_index(index, LAYOUT.index)
    rows = [
        scribble_row(row, roots[row["dataset"]], ScribbleConfig(width=2)) for row in labelled_frames(index).to_pylist()
    ]
    store = pa.Table.from_pylist(rows, schema=STORE_SCHEMA)
    write_store(store, LAYOUT.scribbles / "scribbles.parquet")
    (LAYOUT.scribbles / "summary.json").write_text(json.dumps(summarise_store(store)))
    videos = {sequence: [f"{k:05d}" for k in range(4)] for sequence in OBJECTS}
    for name in ("pce", "ours"):
        write_variant(name, videos, true_masks)
    for name in ("grabcut_flow", "label_propagation"):
        write_shifted_masks(videos, true_masks, Path("predictions/tiny/baselines") / name)
    keys = {method.title: key for key, method in METHODS.items()}
    sequences = {sequence: {"J": 0.25, "F": 0.75} for sequence in OBJECTS}
    baselines = {keys[name]: {"own": source_scores(name) | {"sequences": sequences}} for name in list(SCORES)[2:]}
    LAYOUT.baselines.write_text(json.dumps(baselines))


def write_variant(name: str, videos: dict[str, list[str]], true_masks: Path) -> None:
    """Write histories, scores and masks of a variant. videos: sequence -> frames."""
    write_history(LAYOUT.run(name, "stage1") / "history.csv", [0.2, 0.4, 0.3])
    write_history(LAYOUT.run(name, "stage2") / "history.csv", [0.35, 0.45])
    scores = {"own": source_scores(name)}
    LAYOUT.results(name).parent.mkdir(parents=True)
    LAYOUT.results(name).write_text(json.dumps({"variant": name, "chosen_by": "J", "scores": scores}))
    rows = ["source,object,J.mean,J.recall,F.mean,F.recall"]
    for sequence, objects in OBJECTS.items():
        rows += [f"own,{sequence}_{k + 1},{J},0.5,{F},0.5" for k, (J, F) in enumerate(objects)]
    LAYOUT.objects(name).write_text("\n".join(rows) + "\n")
    write_shifted_masks(videos, true_masks, LAYOUT.predictions(name))


def write_history(path: Path, scores: list[float]) -> None:
    path.parent.mkdir(parents=True)
    head = "epoch,learning_rate,loss,partial_cross_entropy,auxiliary,regularizer,holdout_score"
    rows = [f"{k + 1},0.001,{1 / (k + 1)},0.5,0.25,0.0,{score}" for k, score in enumerate(scores)]
    path.write_text("\n".join([head, *rows]) + "\n")


def source_scores(name: str) -> dict:
    """Scores of a variant or baseline on the source, as `evaluate` writes them."""
    values = SCORES[name]
    return {
        "protocol": "davis2017",
        "global": dict(zip(COLUMNS, values, strict=False)),
        "visibility": {"present_JF": values[7], "absent_empty_share": values[8], "num_present": 9, "num_absent": 1},
    }


def write_shifted_masks(videos: dict[str, list[str]], true_masks: Path, folder: Path) -> None:
    """Write predictions: the true masks shifted by five pixels."""
    for sequence, frames in videos.items():
        for frame in frames:
            labels = read_labels(true_masks / sequence / f"{frame}.png")
            write_labels(folder / sequence / f"{frame}.png", np.roll(labels, 5, 1))
