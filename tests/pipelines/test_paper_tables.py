"""The paper's tables as data, and the stage that sets a run beside them, from results written by hand: no training."""

import csv
import json
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines import tables as paper_tables
from pipelines.params import Layout
from pipelines.tracking import mlflow_client as tracking
from ssvos.config import read_yaml
from ssvos.config.variants import Params, params_from
from ssvos.data.index import INDEX_SCHEMA, write_index
from ssvos.metrics.tables import read_benchmark, read_published_clips, read_table, verdict_beside

# Tables II to VII as they are printed, line by line; ✓: online learning
BASE = {"lr1": 1e-4, "lr2": 1e-5, "gamma_d": 100, "gamma_r": 15, "lambda": 2e-15, "beta": 0.1}
II = """
A lr1 1e-3 47.4
A lr1 1e-5 48.7
B lr2 1e-4 50.3
B lr2 1e-6 50.8
C gamma_d 90 50.4
C gamma_d 110 50.8
D gamma_r 10 49.8
D gamma_r 20 50.6
E lambda 2e-14 48.1
E lambda 2e-16 49.9
F beta 0.08 50.7
F beta 0.12 50.6
"""
II_NAMES = ["lr1_1e-3", "lr1_1e-5", "lr2_1e-4", "lr2_1e-6", "sigma_xy_90", "sigma_xy_110", "sigma_rgb_10"]
II_NAMES += ["sigma_rgb_20", "lambda_x10", "lambda_x0.1", "beta_0.08", "beta_0.12"]
IV = """
MaskTrack [6] ✓ 59.9 45.0 59.5 47.9 53.1
OSVOS [7] ✓ 59.8 54.2 60.5 60.7 58.8
OnAVOS [20] ✓ 60.1 46.6 62.7 51.4 55.2
S2S(+OL) [54] ✓ 71.0 55.5 70.0 61.2 64.4
OSMN [63] 60.0 40.6 60.1 44.0 51.2
RGMP [64] 59.5 45.2 – – 53.8
RVOS [8] 63.6 45.5 67.2 51.0 56.8
S2S [54] 71.0 70.0 55.5 61.2 64.4
PreMVOS [65] 71.4 56.5 75.9 63.7 66.9
AGG-VOS [58] 71.3 65.5 75.2 73.1 71.3
A-GAME [9] 67.8 60.8 – – 66.1
Ours 53.1 47.3 51.8 52.0 51.1
"""
V = """
RVOS [8] 44.7 21.2 45.0 23.9 33.7
Ours 53.1 47.3 51.8 52.0 51.1
"""
VI = """
Ours RVOS PDB AGS OSMN MUG-W FAVOS OSVOS RVOS OnAVOS AGSS AGAME FEELVOS
- [8] [13] [37] [63] [15] [66] [7] [8] [20] [58] [9] [10]
J&F-Mean 55.7 41.2 55.1 57.5 54.8 56.0 58.2 60.3 60.6 65.4 67.4 71.0 71.5
J-Mean 53.4 36.8 53.2 55.5 55.2 54.1 54.6 56.6 57.5 61.6 64.9 68.5 69.1
J-Recall 62.4 40.2 58.9 61.6 60.9 60.5 61.1 63.8 65.2 67.4 – 78.4 79.1
J-Decay 20.0 0.5 4.9 7.0 21.5 32.5 14.1 26.1 24.9 27.9 – 14.0 17.5
F-Mean 57.9 45.7 57.0 59.5 57.1 58.0 61.8 63.9 63.6 69.1 69.9 73.6 74.0
F-Recall 66.7 46.4 60.2 62.8 66.1 62.2 72.3 73.8 73.2 75.4 – 83.4 83.8
F-Decay 18.8 1.7 68.8 9.0 24.3 37.4 18.0 27.0 28.2 26.6 – 15.8 20.1
"""
VII = """
Ours RVOS PDB MuG-W AGS OSMN SIAM FAVOS RVOS OSVOS AGAME OnAVOS FEELVOS
- [8] [13] [15] [37] [63] [67] [66] [8] [7] [9] [20] [10]
J&F-Mean 41.7 22.5 40.4 41.7 45.6 41.3 43.2 43.6 50.3 50.9 52.3 52.8 57.8
J-Mean 39.0 17.7 37.7 38.9 42.1 37.7 40.6 42.9 47.9 47.0 49.2 49.9 55.1
J-Recall 42.3 16.2 42.6 44.3 48.5 38.9 44.5 48.1 54.4 52.1 53.2 54.3 62.6
J-Decay 23.7 1.6 4.0 -2.7 2.6 19.0 21.9 18.1 35.7 19.2 28.9 23.0 29.8
F-Mean 44.4 27.3 43.0 44.5 49.0 44.9 45.8 44.2 52.6 54.8 55.3 55.7 60.4
F-Recall 45.1 24.8 44.6 46.6 51.5 47.4 45.3 51.1 61.7 59.7 61.1 60.3 68.5
F-Decay 23.9 1.8 3.7 -1.7 2.6 17.4 22.4 19.8 36.7 19.8 27.6 23.4 33.5
"""
UNSUPERVISED = {"VI": 3, "VII": 4}  # the columns after Ours that stand under this head
YOUTUBE_VOS = ("J_seen", "J_unseen", "F_seen", "F_unseen", "G")
DAVIS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
OURS = {"IV": (53.1, 47.3, 51.8, 52.0, 51.1), "V": (53.1, 47.3, 51.8, 52.0, 51.1)}
OURS |= {"VI": (55.7, 53.4, 62.4, 20.0, 57.9, 66.7, 18.8), "VII": (41.7, 39.0, 42.3, 23.7, 44.4, 45.1, 23.9)}


def number(text: str) -> float | None:
    return None if text == "–" else float(text)


def test_table_ii_is_as_printed():
    table = read_table("II")
    base, *rows = table.rows.values()
    assert list(table.rows) == ["base", *II_NAMES] and table.columns == ("G",)
    assert base.sets == BASE and base.values == {"G": 51.1} and base.group == ""
    for row, line in zip(rows, II.split("\n")[1:-1], strict=True):
        group, symbol, value, score = line.split()
        assert (row.group, row.sets, row.values) == (group, {symbol: float(value)}, {"G": float(score)})


@pytest.mark.parametrize(("number_", "printed"), [("IV", IV), ("V", V)])
def test_tables_iv_and_v_are_as_printed(number_, printed):
    table = read_table(number_)
    assert table.columns == YOUTUBE_VOS and not table.is_transposed
    for row, line in zip(table.rows.values(), printed.strip().splitlines(), strict=True):
        name, *rest = line.split()
        assert row.method == name and tuple(row.values.values()) == tuple(number(text) for text in rest[-5:])
        assert row.reference == (int(rest[0].strip("[]")) if rest[0].startswith("[") else None)
        assert row.online == ("✓" in rest if number_ == "IV" else None)
        zero_shot = "unsupervised" if number_ == "V" else "semi-supervised"
        assert row.kind == ("scribble-supervised" if name == "Ours" else zero_shot)


@pytest.mark.parametrize(("number_", "printed"), [("VI", VI), ("VII", VII)])
def test_tables_vi_and_vii_are_as_printed_measure_by_measure(number_, printed):
    table = read_table(number_)
    names, references, *measures = (line.split() for line in printed.strip().splitlines())
    rows = list(table.rows.values())
    assert table.is_transposed and [row.method for row in rows] == names
    assert [row.reference for row in rows[1:]] == [int(text.strip("[]")) for text in references[1:]]
    assert table.columns == tuple(line[0] for line in measures) == DAVIS
    for measure, *values in measures:
        assert list(table.column(measure).values()) == [number(text) for text in values], measure
    count = UNSUPERVISED[number_]
    assert [row.kind for row in rows[1:]] == ["unsupervised"] * count + ["semi-supervised"] * (12 - count)


def means() -> Iterator[tuple[str, str, float, float]]:
    """(table, row, printed overall score, the mean that it stands for)."""
    for table in ("III", "IV", "V", "VI", "VII"):
        for name, row in read_table(table).rows.items():
            overall, parts = ("G", YOUTUBE_VOS[:4]) if "G" in row.values else ("J&F-Mean", ("J-Mean", "F-Mean"))
            values = [row.values[part] for part in parts]
            if None not in values:
                yield table, name, row.values[overall], sum(values) / len(values)


def test_an_overall_score_is_the_mean_of_its_parts_but_for_one_slip():
    found = list(means())
    assert len(found) == 8 + 10 + 2 + 13 + 13
    wrong = {(table, name) for table, name, overall, mean in found if abs(mean - overall) > 0.05 + 1e-9}
    assert wrong == {("VI", "OSMN")}
    assert "J&F-Mean" in read_table("VI").rows["OSMN"].slip


def test_f_decay_is_near_j_decay_but_for_one_slip():
    rows = [(table, name, row) for table in ("VI", "VII") for name, row in read_table(table).rows.items()]
    known = [(table, name, row.values) for table, name, row in rows if row.values["J-Decay"] is not None]
    wrong = {(table, name) for table, name, one in known if abs(one["F-Decay"] - one["J-Decay"]) > 5}
    assert wrong == {("VI", "PDB")} and read_table("VI").rows["PDB"].slip == ("F-Decay",)


def test_a_slip_is_said_and_its_value_stays_as_printed():
    first, second = (read_table("IV").rows[name].values for name in ("S2S(+OL)", "S2S"))
    assert sorted(first.values()) == sorted(second.values()) and first != second
    assert (second["J_unseen"], second["F_seen"]) == (first["F_seen"], first["J_unseen"])
    assert read_table("IV").rows["S2S"].slip == ("J_unseen", "F_seen")
    words = {"III": "3.46", "IV": "S2S", "V": "zero-shot", "VI": "54.8", "VII": "MuG-W"}
    for table, word in words.items():
        assert word in " ".join(read_table(table).slips), table
    kinds = [read_table("VI").rows["MUG-W"].kind, read_table("VII").rows["MuG-W"].kind]
    assert kinds == ["semi-supervised", "unsupervised"] and "MUG-W" in " ".join(read_table("VI").slips)


def test_the_benchmarks_have_their_published_sizes():
    val, dev = (read_benchmark(read_table(table)) for table in ("VI", "VII"))
    assert (len(set(val.sequences)), val.num_objects) == (30, 61)
    assert (len(set(dev.sequences)), dev.num_objects) == (30, 89)
    assert not set(val.sequences) & set(dev.sequences)
    assert read_benchmark(read_table("IV")).releases == {"2018": 474, "2019": 507}


def test_published_clips_are_of_davis_2017s_validation_set_and_give_the_published_means():
    methods = read_published_clips()
    assert len(methods) == 13 and all(len(clips) == 14 for clips in methods.values())
    assert set(methods["STM"]) <= set(read_benchmark(read_table("VI")).sequences)
    means = {"STM": 88.4, "A-GAME": 81.4, "OSVOS": 79.1, "OSMN": 71.2, "OFL": 61.4, "TSP": 31.8}
    for name, expected in means.items():
        assert sum(J + F for J, F in methods[name].values()) / 28 == pytest.approx(expected, abs=0.05)


# (keys of a table, keys of its one row, message)
FAULTS = [
    ("columns: [J, F]", "ideas: [x]", "row a has values for J; give J, F"),
    ("columns: [J]", "", "a row has one of ideas, sets and method; give one"),
    ("columns: [J]", "ideas: [x], sets: {beta: 0.1}", "a row has one of ideas, sets and method; give one"),
    ("columns: [J]", "method: M", "a row has a method and its kind, or neither; give both"),
    ("columns: [J]", "ideas: [x], slip: [F]", "row a has a slip in F; choose of J"),
    ("columns: [J], benchmark: b", "ideas: [x]", "table I is of b; name it under benchmarks"),
]


@pytest.mark.parametrize(("table", "row", "message"), FAULTS)
def test_faults_of_the_tables_file_are_one_line(tmp_path, table, row, message):
    path = tmp_path / "tables.yaml"
    row = ", ".join(filter(None, [row, "values: {J: 1.0}"]))
    path.write_text(f"tables: {{I: {{title: t, data: d, {table}, rows: {{a: {{{row}}}}}}}}}")
    with pytest.raises(ValueError, match=r"tables\.yaml: ") as caught:
        read_table("I", path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no table XI; choose one of II, III, IV, V, VI, VII"):
        read_table("XI")


# Student's t at 0.975 with 2 degrees of freedom is 4.303; three seeds of deviation 1: 4.303 · sqrt(4/3) + 0.05 = 5.02
VERDICTS = [
    (50.0, [49.0, 50.0], "no verdict: fewer than three seeds"),
    (50.0, [49.0, 50.0, 51.0], "agrees: within 50.0 ± 5.0"),
    (55.01, [49.0, 50.0, 51.0], "agrees: within 50.0 ± 5.0"),
    (55.03, [49.0, 50.0, 51.0], "differs: outside 50.0 ± 5.0"),
    (44.97, [49.0, 50.0, 51.0], "differs: outside 50.0 ± 5.0"),
    (50.05, [50.0, 50.0, 50.0], "agrees: within 50.0 ± 0.1"),
    (50.1, [50.0, 50.0, 50.0], "differs: outside 50.0 ± 0.1"),
]


@pytest.mark.parametrize(("published", "scores", "words"), VERDICTS)
def test_a_printed_value_agrees_where_one_more_seed_would_lie(published, scores, words):
    assert verdict_beside(published, scores) == words


LAYOUT = Layout("set")
ANSWERS = ("untrained", "empty", "copied", "grabcut_flow")


def make_params(*sources: dict) -> Params:
    values = read_yaml(Path(__file__).parents[1] / "support" / "tiny_params.yaml")
    values["data"] = {"name": LAYOUT.name, "sources": list(sources)}
    return params_from(values, "params.yaml")


def make_videos(videos: dict[str, int], dataset: str = "own") -> list[dict]:
    """Rows of an index: two frames a judged video with so many objects."""
    rows = []
    for sequence, count in videos.items():
        for position in range(2):
            row = {"dataset": dataset, "split": "val", "sequence": sequence, "frame": f"{position:05d}"}
            row |= {"position": position, "image_path": "a.jpg", "mask_path": "a.png", "scribble_path": None}
            row |= {"height": 48, "width": 64, "objects": list(range(1, count + 1)), "categories": "{}"}
            rows.append(row | {"fingerprint": "0"})
    return rows


def scores(protocol: str, first: float, **more) -> dict:
    """first, first + 0.01 and so on for the measures."""
    measures = YOUTUBE_VOS if protocol == "youtube-vos" else DAVIS
    return {"protocol": protocol, "global": {name: first + k / 100 for k, name in enumerate(measures)}} | more


def write_result(name: str, found: dict, objects: str = "") -> None:
    path = LAYOUT.results(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"variant": name, "chosen_by": "J", "scores": found}))
    LAYOUT.objects(name).write_text("source,object,J.mean,F.mean\n" + objects)


def make_run(rows: list[dict], found: dict[str, dict], baseline: dict) -> None:
    """found: the scores of each run by its name, by source."""
    LAYOUT.frames.mkdir(parents=True)
    write_index(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), LAYOUT.index)
    for name, one in found.items():
        write_result(name, one)
    LAYOUT.baselines.parent.mkdir(parents=True, exist_ok=True)
    LAYOUT.baselines.write_text(json.dumps({name: baseline for name in ANSWERS}))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Cells(HTMLParser):
    """The text of every cell of a page's tables, and all addresses in it."""

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


def written(params: Params) -> dict[str, list[list[str]]]:
    """Write the tables and read them back, by the CSV files' names; no cell is blank, in any of the forms."""
    paper_tables.write_tables(params, LAYOUT)
    found = {}
    for path in LAYOUT.tables.glob("*.csv"):
        with open(path, newline="") as file:
            found[path.stem] = list(csv.reader(file))
        assert all(cell.strip() for line in found[path.stem] for cell in line), path
        assert len({len(line) for line in found[path.stem]}) == 1, path
    for path in LAYOUT.tables.glob("*.md"):
        lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert cells and all(cell for line in cells for cell in line), path
        shape = [[cell.replace("\\*", "") for cell in line] for line in cells if set(line) != {"---"}]
        assert shape[: len(found[path.stem])] == found[path.stem], "Markdown and CSV say the same"
    page = Cells(LAYOUT.tables_page.read_text())
    assert len(page.cells) > 200 and all(cell.strip() for cell in page.cells)
    assert all(link.startswith("#") or link == "set.html" for link in page.links)
    return found


def beside(found: dict[str, list[list[str]]], table: str, variant: str = "ours") -> dict[str, dict[str, str]]:
    """The lines of one table and variant by measure."""
    head, *lines = found["beside"]
    rows = [dict(zip(head, line, strict=True)) for line in lines]
    return {row["measure"]: row for row in rows if (row["table"], row["variant"]) == (table, variant)}


def is_published(name: str) -> bool:
    return not name.startswith(("this run", "without training"))


def require_published(found: dict[str, list[list[str]]]) -> None:
    """The published values stand in their own shape: a line a method in IV and V, a line a measure in VI and VII; this
    run stands next to the paper's own."""
    for name, printed in (("table4", IV), ("table5", V)):
        lines = [line for line in found[name][1:] if is_published(line[0])]
        for expected, line in zip(printed.strip().splitlines(), lines, strict=True):
            assert line[-5:] == expected.split()[-5:] and line[0].startswith(expected.split()[0])
        assert len(found[name]) == 1 + len(lines) + 2 + 4
        names = [line[0].split(",")[0] for line in found[name]]
        assert names[names.index("Ours (the paper)") + 1] == "this run: ours"
    for name, printed in (("table6", VI), ("table7", VII)):
        kept = [k for k, head in enumerate(found[name][0]) if is_published(head)]
        assert len(kept) == 14
        for expected, line in zip(printed.strip().splitlines()[2:], found[name][2:], strict=True):
            assert [line[k] for k in kept] == expected.split()
        assert found[name][0][1] == "Ours (the paper)" and found[name][0][2].startswith("this run: ours")
    for table, values in OURS.items():
        for variant in ("pce", "ours"):
            lines = beside(found, table, variant)
            assert [float(line["paper"]) for line in lines.values()] == list(values)


EMBEDDED = {"name": "own", "layout": "embedded"}


def test_a_run_on_the_embedded_set_stands_beside_table_vi_and_compares_with_none():
    videos = make_videos({"val-000": 2, "val-001": 1})
    runs = {"pce": {"own": scores("davis2017", 0.30)}, "ours": {"own": scores("davis2017", 0.40)}}
    make_run(videos, runs, {"own": scores("davis2017", 0.2)})
    found = written(make_params(EMBEDDED))
    require_published(found)
    head = found["table6"][0]
    assert head[2:8] == ["this run: ours", "this run: pce", *(f"without training: {name}" for name in SHOWN)]
    assert [line[2] for line in found["table6"][2:]] == [f"{40 + k}.0" for k in range(7)]
    assert [line[7] for line in found["table6"][2:]] == [f"{20 + k}.0" for k in range(7)]
    for line in beside(found, "VI").values():
        assert line["judged on"] == "set (embedded)" and line["difference"] == "other data" and line["seeds"] == "1"
        assert line["verdict"] == "not run on DAVIS-2017 val: this run's data is embedded"
    for table, title in (("IV", "YouTube-VOS valid"), ("V", "YouTube-VOS valid"), ("VII", "DAVIS-2017 test-dev")):
        for line in beside(found, table, "pce").values():
            assert line["this run"] == line["difference"] == line["sd"] == "not run"
            reason = f"not run on {title}: this run's data is embedded; scores come from the benchmark's server"
            assert line["verdict"] == reason
    grabcut = ["without training: grabcut + flow", "the first frame's scribbles", "no"]
    assert found["table4"][-1] == grabcut + 5 * ["not run"]
    assert "clips" not in found and "judges none of the clips" in LAYOUT.tables_page.read_text()
    numbers = json.loads((LAYOUT.tables / "numbers.json").read_text())
    assert list(numbers) == ["VI"] and list(numbers["VI"]) == ["ours", "pce"]
    assert numbers["VI"]["ours"]["J&F-Mean"] == {"paper": 55.7, "this_run": 40.0}, "no difference"
    assert ["this run: ours (other videos)", "40.0"] in found["bars6"] and ["FEELVOS [10]", "71.5"] in found["bars6"]


SHOWN = ("untrained", "empty", "copied", "grabcut + flow")
VALID = {"name": "own", "layout": "youtube-vos", "root": "yt", "val": "valid"}


def test_youtube_vos_valid_compares_with_tables_iv_and_v_over_three_seeds():
    videos = make_videos({f"{k:05d}": 1 for k in range(474)})
    runs = {"ours": 0.50, "ours-seed1": 0.51, "ours-seed2": 0.52, "pce": 0.40, "pce-seed1": 0.41}
    found = {name: {"own": scores("youtube-vos", first)} for name, first in runs.items()}
    make_run(videos, found, {"own": scores("youtube-vos", 0.2)})
    found = written(make_params(VALID))
    require_published(found)
    for table in ("IV", "V"):
        lines = beside(found, table)
        # 51 percent on average, the next measure one more, and so on
        expected = {"J_seen": "-2.1", "J_unseen": "+4.7", "F_seen": "+1.2", "F_unseen": "+2.0", "G": "+3.9"}
        assert {measure: line["difference"] for measure, line in lines.items()} == expected
        assert lines["G"]["this run"] == "55.0" and lines["G"]["sd"] == "1.0" and lines["G"]["seeds"] == "3"
        assert lines["G"]["verdict"] == "agrees: within 55.0 ± 5.0"
        (verdict,) = {line["verdict"] for line in beside(found, table, "pce").values()}
        assert verdict == "no verdict: fewer than three seeds"
        assert beside(found, table, "pce")["G"]["difference"] == "-6.6"
    assert found["table4"][13][:3] == ["this run: ours, seeds 0, 1, 2", "scribble-supervised", "no"]
    assert found["table4"][13][3] == "51.0 ± 1.0"
    (verdict,) = {line["verdict"] for line in beside(found, "VI").values()}
    assert verdict == "not run on DAVIS-2017 val: this run's data has the layout youtube-vos"


def test_a_value_that_no_seed_comes_near_differs():
    videos = make_videos({f"{k:05d}": 1 for k in range(474)})
    runs = {"ours": 0.300, "ours-seed1": 0.301, "ours-seed2": 0.302}
    make_run(videos, {name: {"own": scores("youtube-vos", first)} for name, first in runs.items()}, {})
    lines = beside(written(make_params(VALID)), "IV")
    assert {line["verdict"].split(":")[0] for line in lines.values()} == {"differs"}


PARTS = [
    (VALID, 12, "a subset: 12 videos, the benchmark has 474"),
    (VALID, 507, "these are the 507 videos of its 2019 release, the paper's the 474 of 2018"),
    (VALID | {"val": "held"}, 474, "this run evaluates the list held"),
]


@pytest.mark.parametrize(("source", "count", "reason"), PARTS)
def test_other_youtube_vos_videos_are_shown_and_not_compared(source, count, reason):
    videos = make_videos({f"{k:05d}": 1 for k in range(count)})
    make_run(videos, {"ours": {"own": scores("youtube-vos", 0.5)}}, {})
    found = written(make_params(source))
    line = beside(found, "IV")["G"]
    assert line["this run"] == "54.0" and line["difference"] == "other data"
    assert line["verdict"] == f"not run on YouTube-VOS valid: {reason}"
    assert beside(found, "IV", "pce")["G"]["verdict"] == "not run: no result yet; `dvc repro evaluate@pce` makes it"


WAITS = "not run: scores come from the benchmark's server; `ssvos submit predictions/set/ours/val` makes its zip"


def test_a_benchmark_that_its_server_scores_is_said_to_wait_for_it():
    videos = make_videos({f"{k:05d}": 1 for k in range(474)})
    make_run(videos, {"ours": {}, "pce": {}}, {})
    line = beside(written(make_params(VALID)), "IV")["G"]
    assert line["verdict"] == WAITS and line["this run"] == "not run"


def test_other_videos_without_masks_wait_for_no_server():
    make_run(make_videos({"00000": 1}), {"ours": {}, "pce": {}}, {})
    line = beside(written(make_params(VALID)), "IV")["G"]
    assert line["verdict"] == "not run: the judged videos have no masks"


def test_a_measure_towards_which_nothing_counts_is_undefined():
    result = scores("youtube-vos", 0.5)
    result["global"] |= {"J_unseen": None, "F_unseen": None, "G": None}
    make_run(make_videos({"00000": 1}), {"ours": {"own": result}}, {"own": result})
    found = written(make_params(VALID))
    lines = beside(found, "IV")
    assert lines["G"]["this run"] == lines["J_unseen"]["difference"] == "undefined"
    assert lines["G"]["verdict"].startswith("no verdict: ") and lines["J_seen"]["this run"] == "50.0"
    bars = [row[0] for row in found["bars4"][1:]]
    assert bars == [row[0] for row in found["table4"][1:] if is_published(row[0])], "no bar without a score"


DAVIS_SOURCE = {"name": "own", "layout": "davis", "root": "davis"}
# the objects of DAVIS-2017's validation set that are more than one a video
SEVERAL = {"bike-packing": 2, "bmx-trees": 2, "dogs-jump": 3, "gold-fish": 5, "horsejump-high": 2, "india": 3}
SEVERAL |= {"judo": 2, "kite-surf": 3, "lab-coat": 5, "loading": 3, "mbike-trick": 2, "motocross-jump": 2}
SEVERAL |= {"paragliding-launch": 3, "pigs": 3, "scooter-black": 2, "shooting": 3, "soapbox": 3}


def davis_videos() -> dict[str, int]:
    return {name: SEVERAL.get(name, 1) for name in read_benchmark(read_table("VI")).sequences}


def test_davis_2017_val_compares_with_table_vi():
    runs = {"ours": 0.55, "ours-seed1": 0.56, "ours-seed2": 0.57, "pce": 0.3, "pce-seed1": 0.3, "pce-seed7": 0.3}
    found = {name: {"own": scores("davis2017", first)} for name, first in runs.items()}
    make_run(make_videos(davis_videos()), found, {"own": scores("davis2017", 0.2)})
    found = written(make_params(DAVIS_SOURCE))
    require_published(found)
    line = beside(found, "VI")["J&F-Mean"]
    assert line["this run"] == "56.0" and line["difference"] == "+0.3"
    assert line["verdict"] == "agrees: within 56.0 ± 5.0"
    line = beside(found, "VI", "pce")["J&F-Mean"]
    assert line["difference"] == "-25.7" and line["verdict"] == "differs: outside 30.0 ± 0.1"
    for line in beside(found, "VII").values():
        assert line["verdict"].startswith("not run on DAVIS-2017 test-dev: this run evaluates none of its 30 videos;")
        assert line["this run"] == "not run"


def test_test_dev_waits_for_its_server():
    names = read_benchmark(read_table("VII")).sequences
    videos = make_videos({name: 4 if k < 1 else 3 if k < 29 else 1 for k, name in enumerate(names)})
    make_run(videos, {"ours": {}, "pce": {}}, {})
    found = written(make_params(DAVIS_SOURCE))
    (verdict,) = {line["verdict"] for line in beside(found, "VII").values()}
    assert verdict == WAITS
    (verdict,) = {line["verdict"] for line in beside(found, "VI").values()}
    assert verdict == "not run: the judged videos have no masks"


DAVIS_2016 = ("blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows", "dance-twirl")
DAVIS_2016 += ("dog", "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf", "libby")
DAVIS_2016 += ("motocross-jump", "paragliding-launch", "parkour", "scooter-black", "soapbox")
UNLIKE = [
    (dict.fromkeys(DAVIS_2016, 1), "this run evaluates 20 of its 30 videos"),
    (davis_videos() | {"bear": 1}, "this run evaluates 30 of its 30 videos, and 1 more"),
    (dict.fromkeys(davis_videos(), 1), "this run's masks of its videos have 30 objects, the benchmark's 61"),
    ({"my-own": 1}, "this run evaluates none of its 30 videos"),
]


@pytest.mark.parametrize(("videos", "reason"), UNLIKE)
def test_other_videos_of_davis_layout_are_not_davis_2017_val(videos, reason):
    make_run(make_videos(videos), {"ours": {"own": scores("davis2017", 0.5)}}, {})
    line = beside(written(make_params(DAVIS_SOURCE)), "VI")["J&F-Mean"]
    assert line["difference"] == "other data" and line["verdict"] == f"not run on DAVIS-2017 val: {reason}"


def test_clips_of_davis_2016_stand_beside_the_published_ones():
    clips = {"blackswan": (0.9, 0.8), "camel": (0.7, 0.6)}
    sequences = {name: {"J": J / 2, "F": F / 2} for name, (J, F) in clips.items()}
    videos = make_videos({"blackswan": 1, "camel": 1, "bmx-trees": 2, "my-own": 1})
    baseline = {"own": scores("davis2017", 0.2, sequences=sequences)}
    make_run(videos, {"ours": {"own": scores("davis2017", 0.5)}}, baseline)
    objects = "".join(f"own,{name}_1,{J},{F}\n" for name, (J, F) in clips.items())
    write_result("ours", {"own": scores("davis2017", 0.5)}, objects)
    head, *lines = written(make_params(DAVIS_SOURCE))["clips"]
    assert head == ["source", "method", "given at test time", "clip", "J / F"]
    cells = {(line[1], line[3]): line[4] for line in lines}
    assert len(cells) == 3 * (13 + 2 + 4), "the mean and two clips of every answer"
    assert cells["STM", "blackswan"] == "96.1 / 99.8" and cells["STM", "camel"] == "96.3 / 98.5"
    assert cells["this run: ours", "mean"] == "80.0 / 70.0" and cells["this run: ours", "camel"] == "70.0 / 60.0"
    assert cells["without training: grabcut + flow", "blackswan"] == "45.0 / 40.0"
    assert cells["this run: pce", "mean"] == cells["this run: pce", "camel"] == "not run"
    assert "bmx-trees: 2 objects here" in LAYOUT.tables_page.read_text()


def test_a_mean_over_clips_takes_all_of_them():
    make_run(make_videos({"blackswan": 1, "camel": 1}), {}, {"own": scores("davis2017", 0.2)})
    write_result("ours", {"own": scores("davis2017", 0.5)}, "own,camel_1,0.7,0.6\n")
    _, *lines = written(make_params(DAVIS_SOURCE))["clips"]
    assert [line[4] for line in lines if line[1] == "this run: ours"] == ["not run", "not run", "70.0 / 60.0"]


def test_two_sources_go_to_the_tables_of_their_protocols():
    sources = ({"name": "yt", "layout": "youtube-vos", "root": "yt", "val": "valid"}, DAVIS_SOURCE)
    rows = make_videos({"00000": 1}, "yt") + make_videos(davis_videos())
    result = {"yt": scores("youtube-vos", 0.4), "own": scores("davis2017", 0.6)}
    make_run(rows, {"ours": result, "pce": result}, result)
    found = written(make_params(*sources))
    line = beside(found, "IV")["J_seen"]
    assert line["judged on"] == "set: yt (youtube-vos)" and line["this run"] == "40.0" and "a subset" in line["verdict"]
    line = beside(found, "VI")["J-Mean"]
    assert line["judged on"] == "set: own (davis)" and line["this run"] == "61.0" and line["difference"] == "+7.6"


OF_ANOTHER_KIND = ["{", "[]", "{}", '{"scores": {"own": {}}}', '{"scores": {"own": {"global": {"G": 1}}}}']


def test_of_two_sources_the_one_with_the_tables_own_videos_stands_in_it_alone():
    sources = ({"name": "mine", "layout": "davis", "root": "mine"}, DAVIS_SOURCE)
    result = {"mine": scores("davis2017", 0.4), "own": scores("davis2017", 0.6)}
    rows = make_videos({"my-own": 1}, "mine") + make_videos(davis_videos())
    make_run(rows, {"ours": result, "pce": result}, result)
    found = written(make_params(*sources))
    assert {line["judged on"] for line in beside(found, "VI").values()} == {"set: own (davis)"}
    assert found["table6"][0][2:4] == ["this run: ours", "this run: pce"]


def test_of_two_sources_with_other_videos_both_stand_in_the_table():
    sources = ({"name": "mine", "layout": "davis", "root": "mine"}, {"name": "own", "layout": "folder", "root": "own"})
    result = {"mine": scores("davis2017", 0.4), "own": scores("davis2017", 0.6)}
    make_run(make_videos({"a": 1}, "mine") + make_videos({"b": 1}), {"ours": result, "pce": result}, result)
    found = written(make_params(*sources))
    head = found["table6"][0]
    ours = [head.index(f"this run: ours, on set: {name}") for name in ("mine (davis)", "own (folder)")]
    assert [found["table6"][2][k] for k in ours] == ["40.0", "60.0"]
    numbers = json.loads((LAYOUT.tables / "numbers.json").read_text())
    assert numbers["VI"]["ours on own"]["J&F-Mean"]["this_run"] == 60.0


@pytest.mark.parametrize("text", OF_ANOTHER_KIND)
def test_a_result_of_another_kind_is_one_line(text):
    make_run(make_videos({"val-000": 1}), {"ours": {"own": scores("davis2017", 0.5)}}, {})
    LAYOUT.results("ours").write_text(text)
    with pytest.raises(ValueError, match=r"results/set/ours/val.json: .*dvc repro") as caught:
        paper_tables.write_tables(make_params(EMBEDDED), LAYOUT)
    assert "\n" not in str(caught.value)


def test_the_stage_writes_its_run_with_files_numbers_and_tables(monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlflow.db').absolute()}")
    monkeypatch.setattr(sys, "argv", ["paper_tables"])
    make_run(make_videos(davis_videos()), {"ours": {"own": scores("davis2017", 0.5)}}, {})
    monkeypatch.setattr(paper_tables, "read_params", lambda: make_params(DAVIS_SOURCE))
    paper_tables.main()
    client = MlflowClient(tracking.tracking_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("ssvos").experiment_id])
    assert run.data.tags["stage"] == "tables" and run.info.status == "FINISHED"
    assert run.data.metrics["VI.ours.J_and_F-Mean.difference"] == -5.7
    assert not [name for name in run.data.metrics if name.startswith("IV.")], "no number without one of this run"
    names = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert {"set-tables.html", "table4.md", "table7.md", "table6.json", "beside.json"} <= names
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "table6.json")).read_text())
    assert "this run: ours" in table["columns"] and len(table["data"]) == 8
