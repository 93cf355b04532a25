"""The report of a small run whose masks and scores are written by hand: no training, no Ray."""

import csv
import io
import json
import shutil
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines import report
from pipelines.params import Layout
from pipelines.reporting.charts import curves
from pipelines.reporting.players import chosen_videos
from pipelines.reporting.score_table import score_tables, text_table
from ssvos.config import Config, ScribbleConfig, SourceConfig, SyntheticConfig
from ssvos.config.variants import Params, params_from
from ssvos.data.index import IndexedVideo, labelled_frames, read_index, write_index
from ssvos.data.preparation import prepare, source_roots
from ssvos.data.synthetic.clips import make_dataset
from ssvos.labels import read_labels, write_labels
from ssvos.scribbles.quality import summarise_store
from ssvos.scribbles.store import STORE_SCHEMA, scribble_row, write_store
from ssvos.visualization import linear_axis, log_axis, mask_layer, overlay, stroke_layer
from tests.conftest import untracked

LAYOUT = Layout("tiny")
NASTY = "a<b>&'c"
COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
# J&F, J, recall, decay, F, recall, decay, visible, absent left empty; fractions
SCORES = {
    "ours": (0.404251, 0.5136, 0.5042, 0.1367, 0.2949, 0.1597, 0.1006, 0.4112, None),
    "pce": (0.3630, 0.4751, 0.4874, 0.1142, 0.2518, 0.0630, 0.0602, 0.3702, 0.25),
    "untrained": (0.0507, 0.0064, 0.0, -0.0013, 0.0950, 0.0, 0.0125, 0.0516, 0.0),
    "empty": (0.0168, 0.0168, 0.0168, -0.0588, 0.0168, 0.0168, -0.0588, 0.0, 1.0),
    "copied": (0.2934, 0.3733, 0.3235, 0.4722, 0.2136, 0.0840, 0.2757, 0.2978, 0.0),
    "grabcut + flow": (0.6172, 0.6389, 0.6975, 0.2744, 0.5956, 0.6849, 0.2404, 0.6284, 0.0),
}
# J and F of the objects of each judged video, fractions
OBJECTS = {NASTY: [(0.9, 0.7)], "val-001": [(0.1, 0.3), (0.3, 0.1)], "val-002": [(0.5, 0.5)]}


@dataclass
class Page(HTMLParser):
    """What the tests look for in a page: its text, its tables, its attributes."""

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
        return [attributes for name, attributes in self.elements if name == tag]


def global_scores(name: str) -> dict:
    values = SCORES[name]
    return {
        "protocol": "davis2017",
        "global": dict(zip(COLUMNS, values, strict=False)),
        "visibility": {"present_JF": values[7], "absent_empty_share": values[8], "num_present": 9, "num_absent": 1},
    }


def write_history(path: Path, scores: list[float]) -> None:
    path.parent.mkdir(parents=True)
    names = "epoch,learning_rate,loss,partial_cross_entropy,auxiliary,regularizer,holdout_score"
    rows = [f"{k + 1},0.001,{1 / (k + 1)},0.5,0.25,0.0,{score}" for k, score in enumerate(scores)]
    path.write_text("\n".join([names, *rows]) + "\n")


def write_variant(name: str, videos: dict[str, list[str]], masks: Path) -> None:
    write_history(LAYOUT.run(name, "stage1") / "history.csv", [0.2, 0.4, 0.3])
    write_history(LAYOUT.run(name, "stage2") / "history.csv", [0.35, 0.45])
    scores = {"own": global_scores(name)}
    LAYOUT.results(name).parent.mkdir(parents=True)
    LAYOUT.results(name).write_text(json.dumps({"variant": name, "chosen_by": "J", "scores": scores}))
    rows = ["source,object,J.mean,J.recall,F.mean,F.recall"]
    for sequence, objects in OBJECTS.items():
        rows += [f"own,{sequence}_{k + 1},{J},0.5,{F},0.5" for k, (J, F) in enumerate(objects)]
    LAYOUT.objects(name).write_text("\n".join(rows) + "\n")
    copy_masks(videos, masks, LAYOUT.predictions(name))


def copy_masks(videos: dict[str, list[str]], masks: Path, to: Path) -> None:
    for sequence, frames in videos.items():
        for frame in frames:
            write_labels(to / sequence / f"{frame}.png", np.roll(read_labels(masks / sequence / f"{frame}.png"), 5, 1))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A rendered set in DAVIS layout, one judged video renamed, with all that the stages before the report leave."""
    folder = tmp_path_factory.mktemp("built")
    made = SyntheticConfig(num_train=2, num_val=3, num_frames=4, height=48, width=64, max_objects=2)
    make_dataset(made, folder / "set", lambda _: None)
    for kind in ("JPEGImages", "Annotations"):
        (folder / "set" / kind / "480p" / "val-000").rename(folder / "set" / kind / "480p" / NASTY)
    lists = next((folder / "set" / "ImageSets").rglob("val.txt"))
    lists.write_text(lists.read_text().replace("val-000", NASTY))
    return folder


def parameters(root: Path, **changes) -> Params:
    values = {
        "data": {
            "name": "tiny",
            "sources": [{"name": "own", "layout": "davis", "root": str(root)}],
            "holdout_fraction": 0.5,
        },
        "variants": {"pce": {"model": {"attention": {"kind": "none"}}, "loss": {"regularizer": "none"}}, "ours": {}},
    }
    return params_from(values | changes, "params.yaml")


@pytest.fixture
def params(built, tmp_path, monkeypatch) -> Params:
    """The parameters of the run, in a folder that holds its files."""
    monkeypatch.chdir(tmp_path)
    params = parameters(built / "set")
    if not (built / "run").is_dir():
        build_run(params.base, built / "set" / "Annotations" / "480p")
        shutil.copytree(tmp_path, built / "run")
    else:
        shutil.copytree(built / "run", tmp_path, dirs_exist_ok=True)
    return params


def build_run(config: Config, masks: Path) -> None:
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
        write_variant(name, videos, masks)
    copy_masks(videos, masks, Path("predictions/tiny/baselines/grabcut_flow"))
    names = {"grabcut + flow": "grabcut_flow"}
    sequences = {sequence: {"J": 0.25, "F": 0.75} for sequence in OBJECTS}
    baselines = {
        names.get(name, name): {"own": global_scores(name) | {"sequences": sequences}} for name in list(SCORES)[2:]
    }
    LAYOUT.baselines.write_text(json.dumps(baselines))


def rendered(params: Params) -> Page:
    return Page(report.render(params, LAYOUT))


def percent(value: float | None, nothing: str) -> str:
    return nothing if value is None else f"{100 * value:.1f}"


def test_the_page_needs_nothing_outside_itself_and_names_no_folder_of_the_machine(params, built, tmp_path):
    page = rendered(params)
    for tag, attributes in page.elements:
        for key in ("src", "href", "srcset", "poster", "data", "xlink:href"):
            if key in attributes:
                beside = tag == "a" and attributes[key] == "tiny-tables.html"
                assert beside or attributes[key].startswith(("data:", "#")), (tag, attributes[key][:80])
    assert "http:" not in page.html and "https:" not in page.html and "@import" not in page.html
    addresses = [part[:5] for part in page.html.split("url(")[1:]]
    assert addresses and set(addresses) == {"data:"}
    for folder in (built, tmp_path, Path(report.__file__).parent.parent):
        assert str(folder) not in page.html


def test_the_same_run_gives_the_same_page(params):
    assert report.render(params, LAYOUT) == report.render(params, LAYOUT)


def test_every_answer_stands_in_the_table_with_the_numbers_of_its_file(params):
    page = rendered(params)
    head, *rows = page.tables[0]
    assert head == ["answer", *COLUMNS, "visible", "absent, left empty"]
    assert len(rows) == len(SCORES)
    for (name, values), row in zip(SCORES.items(), rows, strict=True):
        assert row[0].startswith(name)
        assert row[1:] == [percent(value, "–") for value in values], name


def test_the_terminal_shows_the_numbers_of_the_page(params):
    (table,) = score_tables(params, LAYOUT)
    lines = text_table(table).splitlines()
    assert lines[0] == "tiny (percent)"
    for (name, values), line in zip(SCORES.items(), lines[2:], strict=False):
        assert line.startswith(name)
        assert line.removeprefix(name).split() == [percent(value, "-") for value in values]


def test_the_headline_says_what_is_above_and_what_is_below(params):
    sentence = (
        "ours reaches J&F 40.4 percent (pce 36.3): above the untrained network (5.1), empty masks (1.7) and the first "
        "true mask copied (29.3), but below GrabCut + optical flow, which needs no training (61.7)."
    )
    page = rendered(params)
    assert sentence in page.text
    assert "ours is below GrabCut + optical flow, which needs no training." in page.text


def test_the_headline_of_a_winner_names_nothing_below(params):
    result = json.loads(LAYOUT.results("ours").read_text())
    result["scores"]["own"]["global"]["J&F-Mean"] = 0.7
    LAYOUT.results("ours").write_text(json.dumps(result))
    (table,) = score_tables(params, LAYOUT)
    assert table.headline.startswith("ours reaches J&F 70.0 percent") and "below" not in table.headline
    assert not [note for note in table.notes if note.startswith("ours is below")]


def test_a_variant_without_result_is_not_run_and_the_page_says_how_to_run_it(params):
    shutil.rmtree(LAYOUT.results("pce").parent)
    shutil.rmtree(LAYOUT.run("pce", "stage1").parent)
    page = rendered(params)
    row = next(row for row in page.tables[0] if row[0].startswith("pce"))
    assert row[1:] == ["not run"]
    assert "dvc repro evaluate@pce" in page.text and "dvc repro train_stage2@pce" in page.text
    assert len(page.tables[0]) == 1 + len(SCORES)


def test_judged_videos_without_masks_are_said_to_be_unscored(params):
    index = read_index(LAYOUT.index)
    held_back = [
        None if split == "val" else path
        for split, path in zip(index["split"].to_pylist(), index["mask_path"].to_pylist(), strict=True)
    ]
    place = index.schema.get_field_index("mask_path")
    write_index(index.set_column(place, "mask_path", pa.array(held_back, pa.string())), LAYOUT.index)
    LAYOUT.baselines.write_text(json.dumps({name: {} for name in ("untrained", "empty", "copied", "grabcut_flow")}))
    for name in ("ours", "pce"):
        LAYOUT.results(name).write_text(json.dumps({"chosen_by": "loss", "scores": {}}))
        LAYOUT.objects(name).write_text("source,object\n")
    page = rendered(params)
    assert "Not scored: the judged videos have no masks." in page.text
    assert "ours: no masks of held-out videos, so its checkpoint was chosen by held-out loss." in page.text
    assert page.text.count("no true mask") == 3 * 4, "three videos of four frames"


def test_a_missing_mask_is_said_where_it_belongs(params):
    (LAYOUT.predictions("ours") / "val-001" / "00002.png").unlink()
    said = [cell["aria-label"] for cell in rendered(params).all("span") if "no mask" in cell.get("aria-label", "")]
    assert said == ["val-001, frame 00002: not run: no mask"]


def test_every_picture_says_what_it_shows(params):
    pictures = rendered(params).all("img")
    # three videos: a scribble on the first frame; masks of two variants, GrabCut + flow and the truth on four frames
    assert len(pictures) == 3 * (1 + 4 * 4)
    assert len({picture["alt"] for picture in pictures}) == len(pictures)
    assert {"val-002, frame 00003: truth", f"{NASTY}, frame 00000: scribble"} <= {p["alt"] for p in pictures}


def test_a_sequence_name_with_markup_is_text(params):
    page = rendered(params)
    assert NASTY in page.text
    assert "<b>&" not in page.html and "a<b>" not in page.html


def test_videos_come_worst_first_with_their_place_and_scores(params):
    page = rendered(params)
    order = [article["aria-label"] for article in page.all("article")]
    assert order == ["val-001", "val-002", NASTY]
    for words in ("val-001 worst of 3", "val-002 median of 3", f"{NASTY} best of 3"):
        assert words in page.text
    # the mean over val-001's two objects; GrabCut + flow from baselines.json
    assert "ours J 20.0, F 20.0" in page.text and "grabcut + flow J 25.0, F 75.0" in page.text


def test_of_many_videos_worst_median_and_best_are_shown():
    videos = [IndexedVideo("own", "val", f"v{k:02d}", (), {}) for k in range(31)]
    scores = {f"v{k:02d}": (float(k), float(k)) for k in range(30)}
    chosen = [(video.sequence, place) for video, place in chosen_videos(videos, scores)]
    assert chosen[0] == ("v00", "worst of 30") and ("v29", "best of 30") in chosen
    assert ("v14", "median of 30") in chosen
    assert chosen[-1] == ("v30", "not scored") and len(chosen) == 10


def test_table_headers_say_what_they_head(params):
    heads = rendered(params).all("th")
    assert heads and all(head.get("scope") in ("row", "col") for head in heads)


def test_parameters_that_differ_come_first_and_roots_are_shortened(params):
    page = rendered(params)
    table = next(table for table in page.tables if table[0] == ["parameter", "pce", "ours"] and len(table) > 10)
    assert [row[0] for row in table[1:3]] == ["model.attention.kind", "loss.regularizer"]
    assert table[1][1:] == ["none", "scribble"]
    sources = next(row for row in table if row[0] == "data.sources")
    assert "root: …/set" in sources[1]


def test_where_adopted_values_come_from_is_said(built, params):
    said = "The values come from a search: search abc: trial 3 of 6"
    assert "The values come from a search" not in rendered(params).text
    assert said in rendered(parameters(built / "set", tuned_from="search abc: trial 3 of 6")).text


def test_counts_and_coverage_are_those_of_the_files(params):
    page = rendered(params)
    summary = json.loads((LAYOUT.scribbles / "summary.json").read_text())
    table = next(table for table in page.tables if table[0][:2] == ["videos for", "training"])
    rows = {row[0]: row[1:] for row in table[1:]}
    means = [summary[f"own/{split}"]["coverage_mean"] for split in ("train", "holdout", "val")]
    assert rows["pixels with a stroke, mean percent"] == [f"{100 * mean:.2f}" for mean in means]
    assert rows["frames with a scribble"] == ["4", "4", "12"]
    assert f"On average {100 * means[0]:.1f} percent of the pixels" in page.text


def write_search(data: str = "tiny", best: int = 2, before: str = "{trial: 0, score: 0.25}") -> None:
    Path("tune").mkdir(exist_ok=True)
    rows = [
        ("trial", "status", "epochs", "score", "seconds", "loss.beta", "train.stage1.learning_rate"),
        (0, "finished", 3, 0.25, 30.0, 0.1, 0.0001),
        (1, "stopped", 1, 0.125, 9.5, 2.5, 0.0003),
        (2, "finished", 3, 0.375, 31.0, 0.5, 0.002),
        (3, "failed", 0, "", 2.0, 0.7, 0.9),
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    Path("tune/trials.csv").write_text(text.getvalue())
    winner = rows[best + 1]
    Path("tune/best.yaml").write_text(
        f"search: {{data: {data}, data_digest: 0123, variant: ours, trials: 4, finished: 2, stopped: 1, failed: 1, "
        f"metric: J, digest: abc}}\nbest: {{trial: {best}, score: {winner[3]}}}\nbefore: {before}\n"
        f"params: {{loss: {{beta: {winner[5]}}}, train: {{stage1: {{learning_rate: {winner[6]}}}}}}}\n"
    )


def test_without_a_search_the_page_says_how_to_run_one(params):
    text = rendered(params).text
    assert "Not run for this data set. dvc repro tune" in text and "pipelines.tuning.apply_best" not in text


def test_a_search_of_other_data_is_not_shown(params):
    write_search(data="davis")
    text = rendered(params).text
    assert "Not run for this data set: the search on file is of “davis”" in text
    assert "dvc repro tune" in text and "pipelines.tuning.apply_best" not in text


def test_a_search_is_shown_with_its_trials_and_what_the_winner_changes(params):
    write_search()
    page = rendered(params)
    trials = next(table for table in page.tables if table[0][0] == "trial")
    assert trials[0][5:] == ["loss.beta", "train.stage1.learning_rate"]
    assert trials[3] == ["2, best", "finished", "3", "37.5", "31", "0.5", "0.002"]
    assert trials[4][:4] == ["3", "failed", "0", "–"]
    changes = next(table for table in page.tables if table[0][1:] == ["before the search", "winner", "this run"])
    assert ["loss.beta", "0.1", "0.5", "0.1"] in changes
    assert "The best is trial 2 with 37.5; the values before the search (trial 0) gave 25.0." in page.text
    assert "python -m pipelines.tuning.apply_best" in page.text
    assert "The data have changed since" in page.text, "its digest is another"
    # two parameters, a point each for the three trials that have a score
    titles = [title for title in page.html.split("<title>") if title.startswith("trial ")]
    assert len(titles) == 2 * 3


def test_a_search_won_by_the_present_values_changes_nothing(params):
    write_search(best=0)
    text = rendered(params).text
    assert "nothing to adopt" in text and "pipelines.tuning.apply_best" not in text


def test_a_run_with_the_winners_values_says_so(built, params):
    write_search()
    values = {"loss": {"beta": 0.5}, "train": {"stage1": {"learning_rate": 0.002}}}
    text = rendered(parameters(built / "set", **values)).text
    assert "This run has the winner's values." in text and "pipelines.tuning.apply_best" not in text


def test_a_search_whose_start_was_outside_its_ranges_is_shown(params):
    write_search(before="null")
    page = rendered(params)
    assert "lie outside its ranges" in page.text
    assert any(["loss.beta", "–", "0.5", "0.1"] in table for table in page.tables)


@pytest.mark.parametrize("name", ["trials.csv", "best.yaml"])
def test_a_broken_search_is_named_in_one_line(params, name):
    write_search()
    path = Path("tune") / name
    path.write_text(path.read_text().replace("trial", "trail"))
    with pytest.raises(ValueError, match=rf"tune/{name}.*dvc repro -f tune") as caught:
        report.render(params, LAYOUT)
    assert "\n" not in str(caught.value)


def test_the_curves_mark_the_first_of_equally_good_epochs():
    def rows(*scores):
        return [{"epoch": k + 1.0, "loss": 1.0 - k / 10, "holdout_score": score} for k, score in enumerate(scores)]

    loss, score = curves({("ours", "stage1"): rows(0.1, 0.4, 0.4), ("ours", "stage2"): rows(0.3, 0.2)})
    (line,) = score.lines
    kept = [(point.x, point.y) for part in line.parts for point in part if point.kind == "best"]
    assert kept == [(2, 40.0), (4, 30.0)], "percent, and stage 2 begins after stage 1's three epochs"
    assert [[point.x for point in part] for part in loss.lines[0].parts] == [[1, 2, 3], [4, 5]]
    assert score.split == 3.5
    (_, minus_loss) = curves({("ours", "stage1"): rows(-0.5), ("ours", "stage2"): rows(-0.4)})
    assert "minus the loss" in minus_loss.y_label and minus_loss.lines[0].parts[0][0].y == -0.5


def test_marks_of_axes_are_round_and_enclose_the_values():
    axis = linear_axis([0.21, 0.88])
    assert [text for _, text in axis.marks] == ["0.2", "0.4", "0.6", "0.8", "1"]
    assert axis.at(0.2) == 0 and axis.at(0.6) == pytest.approx(0.5) and axis.at(1.0) == 1
    assert linear_axis([3.0]).low <= 3 <= linear_axis([3.0]).high
    logarithmic = log_axis([1e-4, 1e-2])
    assert [text for _, text in logarithmic.marks] == ["0.0001", "0.0003", "0.001", "0.003", "0.01"]
    assert logarithmic.at(1e-3) == pytest.approx(0.5)
    assert log_axis([0.15]).marks


def on_top(frame: np.ndarray, png: bytes) -> np.ndarray:
    """A transparent PNG over a frame, by Pillow."""
    layer = Image.open(io.BytesIO(png)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.fromarray(frame).convert("RGBA"), layer).convert("RGB"))


def test_a_mask_layer_over_a_frame_looks_like_the_overlay():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    labels = np.zeros((20, 30), np.uint8)
    labels[3:12, 4:15], labels[6:18, 15:25], labels[0:2] = 1, 7, 255
    difference = on_top(frame, mask_layer(labels)).astype(int) - overlay(frame, labels)
    assert np.abs(difference).max() <= 1
    assert (overlay(frame, labels) != frame).any()


def test_a_stroke_layer_shows_strokes_in_their_colour_and_leaves_the_rest():
    frame = np.full((9, 9, 3), 100, np.uint8)
    scribble = np.full((9, 9), 255, np.uint8)
    scribble[4, 2:7] = 1
    shown = on_top(frame, stroke_layer(scribble))
    assert (shown[4, 2:7] == (128, 0, 0)).all(), "object 1 of the palette"
    assert (shown[3, 2:7] == 255).all() and (shown[5, 2:7] == 255).all()
    assert (shown[[0, 1, 7, 8]] == 100).all()


def test_the_summary_writes_nothing_and_ends_with_the_path_of_the_page(params, capsys, monkeypatch):
    monkeypatch.setattr(report, "read_params", lambda: params)
    monkeypatch.setattr(sys, "argv", ["report", "--summary"])
    report.main()
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == str(Path("reports/index.html").absolute())
    assert "grabcut + flow       61.7" in shown
    assert not Path("reports").exists()


def test_two_sources_have_a_table_each(built, params):
    sources = [SourceConfig(name=name, layout="davis", root=str(built / "set")) for name in ("own", "other")]
    data = params.base.data.model_copy(update={"sources": tuple(sources)})
    tables = score_tables(Params(params.base.model_copy(update={"data": data}), params.variants), LAYOUT)
    assert [table.title for table in tables] == ["tiny: own", "tiny: other"]
    assert tables[0].rows[0].values is not None and tables[1].rows[0].values is None
    assert "Not scored" in tables[1].notes[0] and "Not scored" not in " ".join(tables[0].notes)
