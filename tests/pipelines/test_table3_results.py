"""Study `table3`: its table, page and figures from results written by hand."""

import csv
import json
import math
import re
import shutil
import statistics
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from printed_tables import TABLE_III
from sandbox import PROJECT
from scipy.stats import t as student

from pipelines.params import Layout
from pipelines.studies import figure6, table3
from pipelines.studies.study import band, mean_and_sd, read_study, video_scores
from pipelines.studies.study_page import about_runs
from ssvos.config.variants import read_params
from ssvos.data.index import read_index, videos_of
from ssvos.labels import write_labels
from ssvos.metrics.tables import read_table

STUDY = PROJECT / "studies" / "table3"
ROWS = list(TABLE_III)


@pytest.fixture(scope="module")
def study_params():
    return read_params(STUDY / "params.yaml")


def test_mean_and_sample_deviation_student_test():
    assert mean_and_sd([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(14 / 2)))
    assert mean_and_sd([4.0]) == (4.0, None)


def test_band_is_mean_and_extremes_up_to_the_end_of_the_shortest_curve():
    assert band([[1.0, 4.0, 5.0], [3.0, 2.0]]) == [(2.0, 1.0, 3.0), (3.0, 2.0, 4.0)]


def test_score_of_a_video_is_the_mean_over_its_objects(tmp_path):
    path = tmp_path / "objects.csv"
    path.write_text("source,object,J.mean,F.mean\ne,two_men_1,0.5,0.3\ne,two_men_2,0.7,0.5\ne,cow_1,0.2,0.4\n")
    assert video_scores(path) == pytest.approx({"two_men": 50.0, "cow": 30.0})


@pytest.mark.parametrize("text", ["source,object,J,F\ne,cow_1,0.2,0.4\n", "source,object,J.mean,F.mean\ne,cow_1,,\n"])
def test_objects_csv_without_scores_is_an_error_of_one_line(tmp_path, text):
    path = tmp_path / "objects.csv"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"objects.csv: a row has no number in J.mean or F.mean; delete the file and run `dvc repro`"
    ):
        video_scores(path)


# J&F in percent by row and seed, the mean over three videos; J is 5 points above it and F 5 points below
SCORES = {
    "pce": (30.0, 32.0, 31.0),
    "pce_sa": (40.0, 41.0, 42.0),  # 10, 9, 11 above pce
    "pce_psa": (29.0, 31.0, 30.0),  # 1 below each
    "pce_cca": (31.0, 31.0, 34.0),  # 1, -1, 3
    "pce_ss": (40.0, 41.0),  # the third seed did not run
    "full": (50.0, 51.0, 53.0),
}
VIDEOS = {"bus": -6.0, "two_men": 0.0, "cow": 6.0}  # difference of each video's score from the mean, in every row
LAYOUT = Layout("table3")
HELD_OUT = {"stage1": (0.1, 0.3, 0.3), "stage2": (0.4, 0.2)}  # J of seed 0; 0.01 more for each further seed


def davis_scores(score: float) -> dict:
    """Scores by source for a J&F in percent."""
    scores = {"J&F-Mean": score / 100, "J-Mean": (score + 5) / 100, "F-Mean": (score - 5) / 100}
    return {"embedded": {"protocol": "davis2017", "global": scores}}


def write_run(row: str, seed: int, score: float) -> None:
    """Write result, object scores and histories of a run. score: J&F in percent."""
    name = f"{row}-seed{seed}"
    LAYOUT.results(name).parent.mkdir(parents=True, exist_ok=True)
    LAYOUT.results(name).write_text(json.dumps({"scores": davis_scores(score)}))
    lines = [
        f"embedded,{video}_1,{(score + offset + 5) / 100},{(score + offset - 5) / 100}"
        for video, offset in VIDEOS.items()
    ]
    LAYOUT.objects(name).write_text("\n".join(["source,object,J.mean,F.mean", *lines]) + "\n")
    for stage, scores in HELD_OUT.items():
        path = LAYOUT.run(name, stage) / "history.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{k + 1},{score + seed / 100}" for k, score in enumerate(scores)]
        path.write_text("\n".join(["epoch,holdout_score", *lines]) + "\n")


@pytest.fixture
def study_folder(tiny_data, tmp_path, monkeypatch) -> Path:
    """The working directory: a study with results. `pce_dcrf` is in not_run, `pce_nl` has no result."""
    folder = tmp_path / "studies" / "table3"
    folder.mkdir(parents=True)
    for template in STUDY.parent.glob("*.j2"):
        shutil.copy(template, folder.parent)
    monkeypatch.chdir(folder)
    rows = [row for row in ROWS if row != "pce_dcrf"]
    Path("study.yaml").write_text(f"seeds: [0, 1, 2]\nrows: {rows}\nnot_run: {{pce_dcrf: takes a week}}\n")
    for row, scores in SCORES.items():
        for seed, score in enumerate(scores):
            write_run(row, seed, score)
    baselines = {"untrained": 5.0, "empty": 1.7, "copied": 29.3, "grabcut_flow": 47.0}
    LAYOUT.baselines.write_text(json.dumps({name: davis_scores(score) for name, score in baselines.items()}))
    LAYOUT.index.parent.mkdir(parents=True)
    shutil.copy(tiny_data.index, LAYOUT.index)
    (LAYOUT.frames / "embedded").symlink_to(tiny_data.roots["embedded"])
    return folder


def csv_rows() -> dict[str, dict[str, str]]:
    with open("table3.csv", newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def page_rows(head: str) -> list[list[str]]:
    """The cells of a table of the page. head: the first cell of the table's head."""
    lines = Path("table3.md").read_text().splitlines()
    table = lines[next(k for k, line in enumerate(lines) if line.startswith(f"| {head} |")) :]
    table = table[: next(k for k, line in enumerate(table) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def student_test(*differences: float) -> tuple[float, float]:
    """p and the half-width of the 95 % interval by Student's t with two degrees of freedom.

    differences: of three seeds, equal on every video
    """
    deviation = statistics.stdev(differences) / math.sqrt(3)
    return 2 * student.sf(abs(statistics.mean(differences)) / deviation, 2), student.isf(0.025, 2) * deviation


def test_table_has_the_numbers_of_the_results(study_folder, study_params):
    table = table3.write_table(study_params, LAYOUT)
    assert table.order == "no verdict: fewer than three seeds", "pce_ss has only two"
    rows = csv_rows()
    assert list(rows) == ROWS
    one = rows["pce_sa"]
    keys = ("paper_G", "JF_mean", "JF_sd", "J_mean", "F_mean", "videos_mean", "paper_difference", "difference")
    assert [float(one[key]) for key in keys] == pytest.approx([47.8, 41.0, 1.0, 46.0, 36.0, 41.0, 1.6, 10.0])
    p, half_width = student_test(10, 9, 11)
    assert float(one["p"]) == pytest.approx(p)
    assert [float(one["difference_low"]), float(one["difference_high"])] == pytest.approx(
        [10 - half_width, 10 + half_width]
    )
    # Holm orders four tests by p: first pce_psa, then full, then this one
    assert student_test(20, 19, 22)[0] < p and float(one["p_holm"]) == pytest.approx(2 * p)
    assert float(rows["full"]["p_holm"]) == pytest.approx(max(3 * student_test(20, 19, 22)[0], 0))
    assert float(one["effect_size"]) == pytest.approx(10.0), (
        "the standard deviation of one difference is that over seeds, 1"
    )
    # three epochs of 126 // 2 steps and two of 90 // 2; the first of equally good epochs is saved
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
    assert numbers["baselines"]["grabcut_flow"]["J"] == pytest.approx(52.0)
    with open("seeds.csv", newline="") as file:
        seeds = [(line["run"], float(line["JF"])) for line in csv.DictReader(file)]
    assert len(seeds) == 17 and seeds[3] == ("pce_sa-seed0", pytest.approx(40.0))


def test_no_cell_is_blank_and_page_and_csv_agree(study_folder, study_params):
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
    baselines = {line[0].split(":")[0]: line[1:] for line in page_rows("baseline without training")[2:]}
    assert baselines["grabcut + flow"] == ["47.0", "52.0", "42.0"]
    page = Path("table3.md").read_text()
    assert "data set `table3` (embedded), frames of 48x64" in page and "evaluated on 1 video (" in page
    assert "; trained on clips rendered during training, the epoch chosen on" in page
    assert "adjusted for the 5 comparisons with `pce`" in page and "Seeds: 0, 1, 2." in page


def test_page_counts_the_training_videos_on_disk(study_folder, study_params):
    data = study_params.base.data
    sources = tuple(source.model_copy(update={"unlimited": False}) for source in data.sources)
    config = study_params.base.model_copy(update={"data": data.model_copy(update={"sources": sources})})
    paper, videos = read_table("III"), videos_of(read_index(LAYOUT.index))
    text = " ".join(about_runs(config, paper, read_study(Path("study.yaml"), paper), videos))
    (number,) = re.findall(r"; trained on (\d+) videos? \(\d+ objects?\), the epoch chosen on", text)
    assert int(number) == sum(video.split == "train" for video in videos) > 0


class Cells(HTMLParser):
    """The rows of a page's tables as text, and all its references."""

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


def test_html_page_has_the_same_cells_and_embeds_its_figures(study_folder, study_params):
    figure6.write_figure(study_params, LAYOUT)
    table3.write_table(study_params, LAYOUT)
    page = Cells()
    page.feed(Path("table3.html").read_text())
    expected = [row for head in ("row", "baseline without training") for k, row in enumerate(page_rows(head)) if k != 1]
    assert page.rows == [[cell.replace("`", "") for cell in row] for row in expected]
    kinds = [reference.partition(";")[0] for reference in page.references]
    assert kinds == ["data:image/svg+xml", "data:image/jpeg"], "the curves and Figure 6"
    assert "![Figure 6's grid: the same frames under six rows](figure6.jpg)" in Path("table3.md").read_text()


@pytest.mark.parametrize(
    ("full", "words"),
    [
        ((46.0, 47.0, 47.7), "no verdict: the full model is below GrabCut + flow (46.90 < 47.00)"),
        ((46.0, 47.0, 48.0), "no verdict: the full model is level with GrabCut + flow (47.00 = 47.00)"),
        ((50.0, 51.0, 53.0), "differs: of 10 pairs of rows"),
    ],
)
def test_order_has_a_verdict_only_if_the_full_model_is_above_grabcut_and_flow(study_folder, study_params, full, words):
    for seed, score in enumerate(full):
        write_run("full", seed, score)
        shutil.rmtree(LAYOUT.results(f"pce_cca-seed{seed}").parent)
    write_run("pce_ss", 2, 42.5)
    assert words in table3.write_table(study_params, LAYOUT).order
    assert words in Path("table3.md").read_text().splitlines()[2]
    verdicts = {
        row["verdict"].partition(":")[0] for name, row in csv_rows().items() if name in SCORES and name != "pce"
    }
    assert ("no verdict" in verdicts) == ("no verdict" in words), "without a verdict on the order no row has one"


def test_no_row_is_compared_without_the_baseline(study_folder, study_params):
    for seed in range(3):
        shutil.rmtree(LAYOUT.results(f"pce-seed{seed}").parent)
    table3.write_table(study_params, LAYOUT)
    one = csv_rows()["full"]
    assert (one["difference"], one["verdict"]) == ("no pce", "no verdict: pce was not run")


def test_row_without_a_common_seed_is_not_compared(study_folder, study_params):
    for seed in (0, 1):
        shutil.rmtree(LAYOUT.results(f"pce-seed{seed}").parent)
    table3.write_table(study_params, LAYOUT)
    one = csv_rows()["pce_ss"]
    assert (one["difference"], one["verdict"]) == ("no pce of these seeds", "no verdict: fewer than three seeds")


def write_masks(row: str, seed: int, fill: int) -> None:
    """Write masks of a run in which every pixel has the id `fill`."""
    for video in videos_of(read_index(LAYOUT.index)):
        for frame in video.frames:
            path = LAYOUT.predictions(f"{row}-seed{seed}") / video.sequence / f"{frame.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_labels(path, np.full((frame.height, frame.width), fill, np.uint8))


def test_figure_6_shows_the_masks_of_one_seed_and_grey_tiles_without_masks(study_folder, study_params):
    """Seed 1 is the first with masks; the masks of seed 2 are not shown."""
    write_masks("pce", 1, fill=0)
    write_masks("pce_ss", 2, fill=1)
    write_masks("full", 1, fill=1)
    figure6.write_figure(study_params, LAYOUT)
    picture = np.asarray(Image.open("figure6.jpg")).astype(int)
    columns = np.split(picture[30:, :], 6, axis=1)
    grey = [abs(column[10:40, 10:40] - 205).mean() < 3 for column in columns]
    assert grey == [False, True, True, True, True, False]
    plain, masked = columns[0], columns[5]
    # id 1 is dark red in the palette: blending it lowers green and blue most
    assert (plain[..., 1:].mean() - masked[..., 1:].mean()) > 20
    red, green = (plain[:, :, k].mean() - masked[:, :, k].mean() for k in (0, 1))
    assert red < green, "red changes less than green"
    assert picture[:20].min() < 100, "the columns have captions"


def test_curves_have_a_panel_a_row_with_mean_and_band(study_folder, study_params):
    table3.write_table(study_params, LAYOUT)
    namespace = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse("curves.svg").getroot()
    panels = root.findall(f"{namespace}g")
    assert [panel.find(f"{namespace}text").text for panel in panels] == ROWS
    for row, panel in zip(ROWS, panels, strict=True):
        bands = panel.findall(f"{namespace}polygon[@class='band']")
        assert len(bands) == (2 if row in SCORES else 0), "each stage has a band"
        assert ("not run" in [text.text for text in panel.iter(f"{namespace}text")]) == (row not in SCORES)
        titles = [title.text for title in panel.iter(f"{namespace}title")]
        if len(SCORES.get(row, ())) == 3:
            # stage 2 starts after three epochs of 63 steps; its first epoch has 40, 41 and 42 percent
            assert titles[3] == f"{row}, step 234: 41.0 (40.0 to 42.0)"
    points = [point.split(",") for point in panels[0].find(f"{namespace}polyline[@class='mean']").get("points").split()]
    assert all(float(a[0]) < float(b[0]) for a, b in pairwise(points)), "steps increase to the right"
    assert float(points[0][1]) > float(points[1][1]), "a better score is higher in the picture"


@pytest.mark.parametrize("text", ["{}", '{"scores": {}}', '{"scores": {"a": {"global": {"G": 1}}}}', "{"])
def test_file_that_is_not_a_result_is_an_error_of_one_line(study_folder, study_params, text):
    LAYOUT.results("full-seed1").write_text(text)
    with pytest.raises(ValueError, match=r"results/table3/full-seed1/val.json: .*dvc repro") as caught:
        table3.write_table(study_params, LAYOUT)
    assert "\n" not in str(caught.value)
