"""Study `table3`: its table and pictures from made results, and the study's own pipeline cut down."""

import csv
import json
import math
import re
import shutil
import statistics
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML
from sandbox import PROJECT, make_project, run
from scipy.stats import t as student

from pipelines.params import Layout, flatten
from pipelines.studies import figure6, table3
from pipelines.studies.study import band, mean_and_sd, read_study, video_scores
from pipelines.studies.study_page import about_runs
from ssvos.config import read_yaml
from ssvos.config.variants import params_from, read_params
from ssvos.data.index import read_index, videos_of
from ssvos.labels import write_labels
from ssvos.metrics.tables import read_table

STUDY = PROJECT / "studies" / "table3"
ROWS = ["pce", "pce_sa", "pce_psa", "pce_nl", "pce_cca", "pce_ss", "pce_dcrf", "full"]
# J seen, J unseen, F seen, F unseen, G as printed
PRINTED = """49.5 42.6 46.4 46.2 46.2
52.4 44.0 48.6 46.2 47.8
51.7 42.7 47.5 44.2 46.5
51.0 43.0 47.4 44.9 46.6
51.3 43.2 47.4 45.8 46.9
53.4 45.4 50.8 48.6 49.5
52.9 44.1 50.6 47.3 48.7
53.1 47.3 51.8 52.0 51.1"""


def test_mean_and_sample_deviation():
    assert mean_and_sd([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(14 / 2)))
    assert mean_and_sd([4.0]) == (4.0, None)


def test_a_band_is_the_mean_and_the_extremes_of_the_curves_where_all_have_a_point():
    assert band([[1.0, 4.0, 5.0], [3.0, 2.0]]) == [(2.0, 1.0, 3.0), (3.0, 2.0, 4.0)]


def test_a_videos_score_is_the_mean_over_its_objects(tmp_path):
    path = tmp_path / "objects.csv"
    path.write_text("source,object,J.mean,F.mean\ne,two_men_1,0.5,0.3\ne,two_men_2,0.7,0.5\ne,cow_1,0.2,0.4\n")
    assert video_scores(path) == pytest.approx({"two_men": 50.0, "cow": 30.0})


@pytest.mark.parametrize("text", ["source,object,J,F\ne,cow_1,0.2,0.4\n", "source,object,J.mean,F.mean\ne,cow_1,,\n"])
def test_objects_of_another_kind_are_one_line(tmp_path, text):
    path = tmp_path / "objects.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"objects.csv: no J.mean and F.mean of an object in each row; `dvc repro`"):
        video_scores(path)


def test_table_iii_is_as_printed():
    paper = read_table("III")
    assert list(paper.rows) == ROWS and paper.columns == ("J_seen", "J_unseen", "F_seen", "F_unseen", "G")
    for row, line in zip(paper.rows.values(), PRINTED.splitlines(), strict=True):
        assert list(row.values.values()) == [float(value) for value in line.split()]
    ideas = {" ".join(row.ideas[1:]) for row in paper.rows.values()}
    assert ideas == {"", "SA", "PSA", "NL", "CCA", "SS", "DCRF", "SA SS"}


def test_g_is_the_mean_of_the_four_scores_beside_it():
    for name, row in read_table("III").rows.items():
        *four, G = row.values.values()
        assert abs(sum(four) / 4 - G) <= 0.05 + 1e-9, name


def test_faults_of_the_tables_file_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="no table XI; choose one of II, III"):
        read_table("XI")
    path = tmp_path / "tables.yaml"
    path.write_text("tables: {I: {title: t, data: d, columns: [J, F], rows: {a: {ideas: [x], values: {J: 1.0}}}}}")
    with pytest.raises(ValueError, match=r"tables.yaml: tables.I: row a has values for J; give J, F"):
        read_table("I", path)


@pytest.fixture(scope="module")
def study_params():
    return read_params(STUDY / "params.yaml")


def test_a_seed_in_the_name_is_the_variant_with_that_seed_and_nothing_else(study_params):
    plain, seeded = flatten(study_params.variant("pce_ss")), flatten(study_params.variant("pce_ss-seed11"))
    assert {key: (plain[key], seeded[key]) for key in plain if plain[key] != seeded[key]} == {"train.seed": (0, 11)}
    assert study_params.variant("full-seed0") == study_params.variant("full")
    assert "full-seed0" not in study_params.variants


@pytest.mark.parametrize("name", ["half-seed1", "full-seed01", "full-seed", "full-seed-1", "seed1", "full-seed1-seed2"])
def test_other_names_are_no_variant(study_params, name):
    with pytest.raises(ValueError, match=f"no variant '{name}'; choose one of pce"):
        study_params.variant(name)


def test_a_variant_may_not_be_named_like_a_seed_of_another():
    values = {"data": {"name": "x", "sources": [{"name": "e", "layout": "embedded"}]}}
    with pytest.raises(
        ValueError, match=r"^p.yaml: variants.full-seed1: this name denotes full with seed 1; rename it$"
    ):
        params_from(values | {"variants": {"full": {}, "full-seed1": {}}}, "p.yaml")


def test_the_rows_differ_in_attention_and_regularizer_alone(study_params):
    full, found = flatten(study_params.variant("full")), {}
    for row in ROWS:
        changed = {key for key, value in flatten(study_params.variant(row)).items() if value != full[key]}
        assert changed <= {"model.attention.kind", "loss.regularizer"}
        config = study_params.variant(row)
        found[row] = (config.model.attention.kind, config.loss.regularizer)
    assert found == {
        "pce": ("none", "none"),
        "pce_sa": ("scribble", "none"),
        "pce_psa": ("point_wise", "none"),
        "pce_nl": ("non_local", "none"),
        "pce_cca": ("criss_cross", "none"),
        "pce_ss": ("none", "scribble_supervised"),
        "pce_dcrf": ("none", "dense_crf"),
        "full": ("scribble", "scribble_supervised"),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rows: [pce]", "study.yaml: pce_sa: name it once, in rows, or in not_run with the reason"),
        (f"rows: {[*ROWS, 'extra']}", "study.yaml: extra: no row of the table; choose of pce, pce_sa"),
        (f"rows: {ROWS}\nnot_run: {{full: slow}}", "study.yaml: full: name it once"),
        (f"rows: {[*ROWS, 'pce']}", "study.yaml: pce: name it once"),
        (f"rows: {ROWS}\nseed: [1]", "study.yaml: seed: unknown key, did you mean seeds?"),
    ],
)
def test_a_faulty_study_is_one_line(tmp_path, line, message):
    path = tmp_path / "study.yaml"
    path.write_text(f"seeds: [0]\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_study(path, read_table("III"))


# J&F in percent by row and seed, the mean over three videos; J is 5 above and F 5 below
MADE = {
    "pce": (30.0, 32.0, 31.0),
    "pce_sa": (40.0, 41.0, 42.0),  # 10, 9, 11 above pce
    "pce_psa": (29.0, 31.0, 30.0),  # 1 below each
    "pce_cca": (31.0, 31.0, 34.0),  # 1, -1, 3
    "pce_ss": (40.0, 41.0),  # its third seed has not run
    "full": (50.0, 51.0, 53.0),
}
VIDEOS = {"bus": -6.0, "two_men": 0.0, "cow": 6.0}  # how far each lies from the mean, in every row alike
LAYOUT = Layout("table3")
HELD_OUT = {"stage1": (0.1, 0.3, 0.3), "stage2": (0.4, 0.2)}  # seed 0; a hundredth more for each further seed


def davis(score: float) -> dict:
    scores = {"J&F-Mean": score / 100, "J-Mean": (score + 5) / 100, "F-Mean": (score - 5) / 100}
    return {"embedded": {"protocol": "davis2017", "global": scores}}


def write_run(row: str, seed: int, score: float) -> None:
    name = f"{row}-seed{seed}"
    LAYOUT.results(name).parent.mkdir(parents=True, exist_ok=True)
    LAYOUT.results(name).write_text(json.dumps({"scores": davis(score)}))
    lines = [
        f"embedded,{video}_1,{(score + more + 5) / 100},{(score + more - 5) / 100}" for video, more in VIDEOS.items()
    ]
    LAYOUT.objects(name).write_text("\n".join(["source,object,J.mean,F.mean", *lines]) + "\n")
    for stage, scores in HELD_OUT.items():
        path = LAYOUT.run(name, stage) / "history.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{k + 1},{score + seed / 100}" for k, score in enumerate(scores)]
        path.write_text("\n".join(["epoch,holdout_score", *lines]) + "\n")


@pytest.fixture
def made(tiny_data, tmp_path, monkeypatch) -> Path:
    """A study's folder with results: one row is left out with a reason, one has no result, one lacks a seed."""
    folder = tmp_path / "studies" / "table3"
    folder.mkdir(parents=True)
    for template in STUDY.parent.glob("*.j2"):
        shutil.copy(template, folder.parent)
    monkeypatch.chdir(folder)
    rows = [row for row in ROWS if row != "pce_dcrf"]
    Path("study.yaml").write_text(f"seeds: [0, 1, 2]\nrows: {rows}\nnot_run: {{pce_dcrf: takes a week}}\n")
    for row, scores in MADE.items():
        for seed, score in enumerate(scores):
            write_run(row, seed, score)
    answers = {"untrained": 5.0, "empty": 1.7, "copied": 29.3, "grabcut_flow": 47.0}
    LAYOUT.baselines.write_text(json.dumps({name: davis(score) for name, score in answers.items()}))
    LAYOUT.index.parent.mkdir(parents=True)
    shutil.copy(tiny_data.index, LAYOUT.index)
    (LAYOUT.frames / "embedded").symlink_to(tiny_data.roots["embedded"])
    return folder


def csv_rows() -> dict[str, dict[str, str]]:
    with open("table3.csv", newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def page_rows(head: str) -> list[list[str]]:
    """The cells of a table of the page, by the first cell of its head."""
    lines = Path("table3.md").read_text().splitlines()
    table = lines[next(k for k, line in enumerate(lines) if line.startswith(f"| {head} |")) :]
    table = table[: next(k for k, line in enumerate(table) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def by_hand(*differences: float) -> tuple[float, float]:
    """Of the differences of three seeds that are the same on every video: Student's t with two degrees of freedom ->
    p, and how far the 95 % interval reaches."""
    deviation = statistics.stdev(differences) / math.sqrt(3)
    return 2 * student.sf(abs(statistics.mean(differences)) / deviation, 2), student.isf(0.025, 2) * deviation


def test_the_table_has_the_numbers_of_the_results(made, study_params):
    table = table3.write_table(study_params, LAYOUT)
    assert table.order == "no verdict: fewer than three seeds", "pce_ss has two"
    rows = csv_rows()
    assert list(rows) == ROWS
    one = rows["pce_sa"]
    keys = ("paper_G", "JF_mean", "JF_sd", "J_mean", "F_mean", "videos_mean", "paper_difference", "difference")
    assert [float(one[key]) for key in keys] == pytest.approx([47.8, 41.0, 1.0, 46.0, 36.0, 41.0, 1.6, 10.0])
    p, reach = by_hand(10, 9, 11)
    assert float(one["p"]) == pytest.approx(p)
    assert [float(one["difference_low"]), float(one["difference_high"])] == pytest.approx([10 - reach, 10 + reach])
    # of four tests, Holm takes the steady one first, then full's and this one
    assert by_hand(20, 19, 22)[0] < p and float(one["p_holm"]) == pytest.approx(2 * p)
    assert float(rows["full"]["p_holm"]) == pytest.approx(max(3 * by_hand(20, 19, 22)[0], 0))
    assert float(one["effect_size"]) == pytest.approx(10.0), "one difference has the deviation of the seeds, 1"
    # three epochs of 126 // 2 steps and two of 90 // 2; the first of equal held-out scores is kept
    assert (one["steps"], one["best_epochs"], one["JF_by_seed"]) == ("279", "2+1", "40.0 / 41.0 / 42.0")
    assert {row: rows[row]["verdict"] for row in ROWS} == {
        "pce": "baseline",
        "pce_sa": "agrees",
        "pce_psa": "differs",
        "pce_nl": "not run (no result yet; `dvc repro` makes it)",
        "pce_cca": "undecided",
        "pce_ss": "no verdict: fewer than three seeds",
        "pce_dcrf": "not run (takes a week)",
        "full": "agrees",
    }
    assert (rows["pce_ss"]["JF_by_seed"], rows["pce_ss"]["p_holm"]) == ("40.0 / 41.0 / not run", "none")
    assert rows["pce_nl"]["JF_mean"] == rows["pce_dcrf"]["difference"] == "not run"
    numbers = json.loads(Path("table3.json").read_text())
    assert numbers["rows"]["pce_sa"]["JF_mean"] == pytest.approx(41.0)
    assert numbers["answers_without_training"]["grabcut_flow"]["J"] == pytest.approx(52.0)
    with open("seeds.csv", newline="") as file:
        seeds = [(line["run"], float(line["JF"])) for line in csv.DictReader(file)]
    assert len(seeds) == 17 and seeds[3] == ("pce_sa-seed0", pytest.approx(40.0))


def test_no_cell_is_blank_and_the_page_says_what_the_csv_says(made, study_params):
    table3.write_table(study_params, LAYOUT)
    rows = csv_rows()
    assert all(value.strip() for row in rows.values() for value in row.values())
    head, _, *lines = page_rows("row")
    assert [line[0] for line in lines] == ROWS
    for line in lines:
        assert len(line) == len(head) and all(line), line
        assert line[-1] == rows[line[0]]["verdict"]
    by_name = {line[0]: line for line in lines}
    low, high = (float(rows["pce_sa"][f"videos_{end}"]) for end in ("low", "high"))
    assert by_name["pce_sa"][1:] == [
        *("pCE + SA", "47.8", "41.0 ± 1.0", "46.0 ± 1.0", "36.0 ± 1.0", f"41.0 ({low:.1f} to {high:.1f})"),
        *("40.0 / 41.0 / 42.0", "279", "2+1", "+1.6", "+10.0 (+7.5 to +12.5)", "0.007", "+10.00", "agrees"),
    ]
    assert by_name["pce_nl"][3:10] == ["not run"] * 7
    answers = {line[0].split(":")[0]: line[1:] for line in page_rows("without training")[2:]}
    assert answers["grabcut + flow"] == ["47.0", "52.0", "42.0"]
    page = Path("table3.md").read_text()
    assert "data set `table3` (embedded), frames of 48x64" in page and "judged on 1 video (" in page
    assert "; trained on clips rendered as they are drawn, the epoch chosen on" in page
    assert "adjusted for the 5 comparisons with `pce`" in page and "Seeds: 0, 1, 2." in page


def test_the_page_counts_the_videos_on_disk_where_these_are_trained_on(made, study_params):
    data = study_params.base.data
    sources = tuple(source.model_copy(update={"unlimited": False}) for source in data.sources)
    config = study_params.base.model_copy(update={"data": data.model_copy(update={"sources": sources})})
    paper, videos = read_table("III"), videos_of(read_index(LAYOUT.index))
    said = " ".join(about_runs(config, paper, read_study(Path("study.yaml"), paper), videos))
    (number,) = re.findall(r"; trained on (\d+) videos? \(\d+ objects?\), the epoch chosen on", said)
    assert int(number) == sum(video.split == "train" for video in videos) > 0


class Cells(HTMLParser):
    """The rows of a page's tables as text, and what its tags refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.references, self._inside = [], [], False

    def handle_starttag(self, tag, attrs):
        self.references += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self._inside = tag in ("td", "th") or (tag == "code" and self._inside)

    def handle_endtag(self, tag):
        self._inside = self._inside and tag == "code"

    def handle_data(self, data):
        if self._inside:
            self.rows[-1][-1] += data


def test_the_html_page_has_the_same_cells_and_needs_no_other_file(made, study_params):
    figure6.write_figure(study_params, LAYOUT)
    table3.write_table(study_params, LAYOUT)
    found = Cells()
    found.feed(Path("table3.html").read_text())
    expected = [row for head in ("row", "without training") for k, row in enumerate(page_rows(head)) if k != 1]
    assert found.rows == [[cell.replace("`", "") for cell in row] for row in expected]
    kinds = [reference.partition(";")[0] for reference in found.references]
    assert kinds == ["data:image/svg+xml", "data:image/jpeg"], "the curves and Figure 6's grid, both in the page"
    assert "![Figure 6's grid: the same frames under six rows](figure6.jpg)" in Path("table3.md").read_text()


@pytest.mark.parametrize(
    ("full", "words"),
    [
        ((46.0, 47.0, 47.7), "no verdict: the full model is below GrabCut + flow (46.90 < 47.00)"),
        ((46.0, 47.0, 48.0), "no verdict: the full model is level with GrabCut + flow (47.00 = 47.00)"),
        ((50.0, 51.0, 53.0), "differs: of 10 pairs of rows"),
    ],
)
def test_the_order_has_a_verdict_where_the_full_model_is_above_grabcut_and_flow(made, study_params, full, words):
    for seed, score in enumerate(full):
        write_run("full", seed, score)
        shutil.rmtree(LAYOUT.results(f"pce_cca-seed{seed}").parent)
    write_run("pce_ss", 2, 42.5)
    assert words in table3.write_table(study_params, LAYOUT).order
    assert words in Path("table3.md").read_text().splitlines()[2]
    judged = {row["verdict"].partition(":")[0] for name, row in csv_rows().items() if name in MADE and name != "pce"}
    assert ("no verdict" in judged) == ("no verdict" in words), "a set that bears no verdict has none in any row"


def test_without_the_baseline_no_row_is_compared(made, study_params):
    for seed in range(3):
        shutil.rmtree(LAYOUT.results(f"pce-seed{seed}").parent)
    table3.write_table(study_params, LAYOUT)
    one = csv_rows()["full"]
    assert (one["difference"], one["verdict"]) == ("no pce", "no verdict: pce was not run")


def test_without_a_common_seed_a_row_is_not_compared(made, study_params):
    for seed in (0, 1):
        shutil.rmtree(LAYOUT.results(f"pce-seed{seed}").parent)
    table3.write_table(study_params, LAYOUT)
    one = csv_rows()["pce_ss"]
    assert (one["difference"], one["verdict"]) == ("no pce of these seeds", "no verdict: fewer than three seeds")


def predict(row: str, seed: int, fill: int) -> None:
    """A run's masks: every pixel of every frame has this id."""
    for video in videos_of(read_index(LAYOUT.index)):
        for frame in video.frames:
            path = LAYOUT.predictions(f"{row}-seed{seed}") / video.sequence / f"{frame.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_labels(path, np.full((frame.height, frame.width), fill, np.uint8))


def test_figure_6_shows_the_masks_of_one_seed_and_says_what_has_not_run(made, study_params):
    """Seed 1 is the first with masks; those of seed 2 are of another run and stay out."""
    predict("pce", 1, fill=0)
    predict("pce_ss", 2, fill=1)
    predict("full", 1, fill=1)
    figure6.write_figure(study_params, LAYOUT)
    picture = np.asarray(Image.open("figure6.jpg")).astype(int)
    columns = np.split(picture[30:, :], 6, axis=1)
    grey = [abs(column[10:40, 10:40] - 205).mean() < 3 for column in columns]
    assert grey == [False, True, True, True, True, False]
    plain, masked = columns[0], columns[5]
    # id 1 is dark red in the palette: half of it lowers green and blue, and raises red where it was low
    assert (plain[..., 1:].mean() - masked[..., 1:].mean()) > 20
    shown = plain[:, :, 0].mean() - masked[:, :, 0].mean()
    assert shown < plain[:, :, 1].mean() - masked[:, :, 1].mean(), "red is kept best"
    assert picture[:20].min() < 100, "the columns are named"


def test_the_figure_has_a_panel_a_row_with_mean_and_band(made, study_params):
    table3.write_table(study_params, LAYOUT)
    space = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse("curves.svg").getroot()
    panels = root.findall(f"{space}g")
    assert [panel.find(f"{space}text").text for panel in panels] == ROWS
    for row, panel in zip(ROWS, panels, strict=True):
        bands = panel.findall(f"{space}polygon[@class='band']")
        assert len(bands) == (2 if row in MADE else 0), "a band for each stage"
        assert ("not run" in [text.text for text in panel.iter(f"{space}text")]) == (row not in MADE)
        titles = [title.text for title in panel.iter(f"{space}title")]
        if len(MADE.get(row, ())) == 3:
            # stage 2 begins after three epochs of 63 steps; its first is 40, 41 and 42 percent
            assert titles[3] == f"{row}, step 234: 41.0 (40.0 to 42.0)"
    places = [point.split(",") for point in panels[0].find(f"{space}polyline[@class='mean']").get("points").split()]
    assert all(float(a[0]) < float(b[0]) for a, b in pairwise(places)), "steps go right"
    assert float(places[0][1]) > float(places[1][1]), "a better score is higher"


@pytest.mark.parametrize("text", ["{}", '{"scores": {}}', '{"scores": {"a": {"global": {"G": 1}}}}', "{"])
def test_a_result_of_another_kind_is_one_line(made, study_params, text):
    LAYOUT.results("full-seed1").write_text(text)
    with pytest.raises(ValueError, match=r"results/table3/full-seed1/val.json: .*dvc repro") as caught:
        table3.write_table(study_params, LAYOUT)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project in which nothing has run."""
    return make_project(tmp_path_factory.mktemp("study") / "project")


def test_the_study_covers_every_row_and_seed(project):
    names = run(["dvc", "stage", "list", "--name-only"], project / "studies/table3").stdout.split()
    runs = {f"{row}-{seed}" for row in ROWS for seed in (0, 1, 2)}
    for stage in ("train_stage1", "train_stage2", "predict", "evaluate"):
        assert {name.partition("@")[2] for name in names if name.startswith(f"{stage}@")} == runs
    assert {name for name in names if "@" not in name} == {"prepare", "scribbles", "baselines", "figure6", "table"}


def test_the_project_itself_does_not_know_of_the_study(project):
    """An output that is not there would fail `dvc checkout`, and `dvc status` would list a hundred stages."""
    assert "studies" not in run(["dvc", "stage", "list", "--all"], project).stdout
    assert "studies" not in run(["dvc", "status"], project).stdout


def test_the_studys_stages_depend_on_the_code_of_the_projects_stages(project):
    """Files in place of folders: a new file in one of these folders belongs in dvc.yaml."""
    ours, theirs = (read_yaml(folder / "dvc.yaml")["stages"] for folder in (project / "studies/table3", project))
    for name, stage in ours.items():
        if name in ("figure6", "table"):
            continue
        found = {dep.removeprefix("../../") for dep in stage["deps"] if dep.startswith("../../")}
        expected = set()
        for dep in theirs[name]["deps"]:
            folder = project / dep
            files = [path.relative_to(project).as_posix() for path in folder.glob("*.py")] if folder.is_dir() else [dep]
            expected |= {path for path in files if path.startswith(("ssvos/", "pipelines/"))}
        assert found == {path for path in expected if not path.endswith("__init__.py")}, name


# every stage as `python -m` runs it, in one process: starting eight would take most of a test's minute
IN_ONE_PROCESS = """
import runpy, sys
for command in sys.argv[1:]:
    module, *sys.argv[1:] = command.removeprefix("python -m ").split()
    runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.timeout(300)
def test_a_cut_down_study_runs_through_to_its_table(project):
    """One row and one seed: the commands of its dvc.yaml leave just what dvc.yaml says, from what it says."""
    folder = project / "studies" / "table3"
    params = read_yaml(PROJECT / "tests" / "support" / "tiny_params.yaml")
    params["data"]["name"], params["variants"] = "table3", {"full": {}}
    with open(folder / "params.yaml", "w") as file:
        YAML().dump(params, file)
    others = "".join(f"  {row}: one row is enough here\n" for row in ROWS if row != "full")
    (folder / "study.yaml").write_text(f"seeds: [4]\nrows: [full]\nnot_run:\n{others}")
    commands = [stage["cmd"] for stage in read_yaml(folder / "dvc.yaml")["stages"].values()]
    commands = [one.replace("${item.variant}", "full").replace("${item.seed}", "4") for one in commands]
    # the environment has the project's own folder installed, this is a copy; DVC sets the root
    places = {"PYTHONPATH": str(project), "DVC_ROOT": str(project / "studies")}
    run([sys.executable, "-c", IN_ONE_PROCESS, *commands], folder, timeout=280, SSVOS_WORKERS="0", **places)
    run(["dvc", "commit", "-f", "dvc.yaml"], folder)  # fails where an output is missing
    assert "up to date" in run(["dvc", "repro"], folder).stdout
    table = [line for line in (folder / "table3.md").read_text().splitlines() if line.startswith("|")]
    lines = {line.split("|")[1].strip(): line for line in table}
    assert "not run (one row is enough here)" in lines["pce"]
    # a model of a few steps on one seed: far below the answer that needs no training, which is the first thing to say
    assert "(one seed)" in lines["full"] and "no verdict: the full model is below GrabCut + flow" in lines["full"]
    score = json.loads((folder / "results/table3/full-seed4/val.json").read_text())["scores"]["embedded"]["global"]
    assert f"| {100 * score['J&F-Mean']:.1f} |" in lines["full"]
    assert "JF_mean" in run(["dvc", "metrics", "show"], folder).stdout
    untracked = run(["git", "status", "--short", "--untracked-files=all"], folder).stdout
    assert "history.csv" in untracked and not re.search(r"checkpoint\.pt|/data/|/predictions/|\.db", untracked)
    require_runs(project / "studies" / "mlflow.db")
    assert not (project / "mlflow.db").exists()


def require_runs(database: Path) -> None:
    """Every stage has its run, and a training run the seed of its name."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    found = client.search_runs([client.get_experiment_by_name("ssvos").experiment_id])
    assert len(found) == 9 and {one.data.tags["data"] for one in found} == {"table3"}
    trained = next(one for one in found if one.data.tags["stage"] == "train_stage1")
    assert trained.data.tags["variant"] == "full-seed4" and trained.data.params["train.seed"] == "4"
