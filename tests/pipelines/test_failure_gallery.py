"""The report's failures: what is chosen, what the figures mean, and what the pictures show."""

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.test_report import LAYOUT, NASTY, OBJECTS, Page, built, params  # noqa: F401

from pipelines import report
from pipelines.reporting.failure_crop import PREDICTED_COLOUR, TRUE_COLOUR, failure_picture
from pipelines.reporting.failure_gallery import gallery
from pipelines.reporting.frame_scores import FrameScore, is_small, over_time, read_frames
from ssvos.data.index import IndexedFrame, IndexedVideo

HEAD = "source,sequence,object,frame,J,F,area,width"
# object -> (area, width): tiny, thin, neither
SHAPES = {(NASTY, "1"): (0.004, 0.1), ("val-001", "1"): (0.05, 0.015), ("val-001", "2"): (0.05, 0.2)}
# J of frames 00001 and 00002 in the main variant
WORTH = {(NASTY, "1"): (0.5, 0.1), ("val-001", "1"): (0.3, 0.3), ("val-001", "2"): (0.9, 0.2)}


def rows(worth: dict, better: float = 0.0) -> list[str]:
    lines = []
    for (sequence, object_id), values in worth.items():
        area, width = SHAPES[sequence, object_id]
        for t, J in enumerate(values, start=1):
            lines.append(f"own,{sequence},{object_id},{t:05d},{J + better},{(J + better) / 2},{area},{width}")
    return lines


@pytest.fixture
def scored(params):  # noqa: F811
    """The run of the report's tests with scores of single frames: pce is better than ours by 0.1 everywhere."""
    for name, better in (("ours", 0.0), ("pce", 0.1)):
        # an absent object, wrongly predicted, is in no figure and no picture
        absent = f"own,{NASTY},2,00001,0,0,0,0"
        LAYOUT.frame_scores(name).write_text("\n".join([HEAD, *rows(WORTH, better), absent]) + "\n")
    lines = [f"{answer},{row}" for answer in ("empty", "grabcut_flow") for row in rows(WORTH, -0.1)]
    LAYOUT.baseline_frames.write_text("\n".join([f"answer,{HEAD}", *lines]) + "\n")
    return params


def test_the_worst_frame_of_each_object_is_shown_small_objects_apart(scored):
    found = gallery(scored, LAYOUT)
    assert (found.answers, found.pictures) == (("ours", "pce", "grabcut + flow"), "ours")
    small, other = found.groups
    assert [(one.score.sequence, one.score.object, one.score.frame, one.score.J) for one in small.failures] == [
        (NASTY, "1", "00002", 0.1),
        ("val-001", "1", "00001", 0.3),  # of two equal frames the first
    ]
    assert [(one.score.object, one.score.frame, one.score.J) for one in other.failures] == [("2", "00002", 0.2)]


def test_the_table_of_small_objects_averages_frames_then_objects(scored):
    small, other = gallery(scored, LAYOUT).groups
    assert (small.num_objects, other.num_objects) == (2, 1)
    assert small.means["ours"] == pytest.approx((30.0, 15.0)) and other.means["ours"] == pytest.approx((55.0, 27.5))
    assert small.means["pce"] == pytest.approx((40.0, 20.0))
    assert other.means["grabcut + flow"] == pytest.approx((45.0, 22.5))


def score(frame: int, J: float, object_id: str = "1", **more) -> FrameScore:
    values = {"area": 0.1, "width": 0.1, "F": J / 2} | more
    return FrameScore("s", "v", object_id, f"{frame:05d}", J, **values)


def test_an_object_is_small_by_its_median_frame():
    assert is_small([score(1, 1, area=0.004), score(2, 1, area=0.004), score(3, 1)])
    assert not is_small([score(1, 1, area=0.004), score(2, 1), score(3, 1)])
    assert is_small([score(1, 1, width=0.019)]) and not is_small([score(1, 1, width=0.02)])


def video(*objects: tuple[int, ...]) -> IndexedVideo:
    frames = [IndexedFrame(f"{k:05d}", "", "", None, 48, 64, ids, "") for k, ids in enumerate(objects)]
    return IndexedVideo("s", "val", "v", tuple(frames), {})


def test_time_runs_from_an_objects_first_frame_to_the_videos_last():
    # object 2 enters at frame 10 of 0..20: its frame 15 is half-way, as is object 1's frame 10
    frames = [(1,)] * 10 + [(1, 2)] * 11
    scores = [score(1, 0.9), score(10, 0.8), score(20, 0.1), score(15, 0.4, "2")]
    found = over_time(scores, {("s", "v"): video(*frames)})
    assert {at: J for at, (J, _) in found.items()} == pytest.approx({5.0: 90.0, 55.0: 60.0, 95.0: 10.0})
    # an object with more frames in a tenth counts no more than one with a single frame
    more = over_time([*scores, score(11, 0.6)], {("s", "v"): video(*frames)})
    assert more[55.0][0] == pytest.approx((70 + 40) / 2)


def test_a_picture_shows_both_outlines_where_they_are_and_keeps_the_frames_shape():
    frame = np.full((90, 160, 3), 128, np.uint8)
    true, predicted = np.zeros((2, 90, 160), dtype=bool)
    true[30:50, 40:70], predicted[30:50, 60:90] = True, True
    picture = failure_picture(frame, true, predicted)
    assert picture.shape[1] == 440 and picture.shape[0] / picture.shape[1] == pytest.approx(90 / 160, abs=0.01)

    def columns(colour: tuple) -> np.ndarray:
        return np.flatnonzero((picture == colour).all(axis=2).any(axis=0))

    # the true box's left side is left of the predicted one's, and so are their right sides
    assert columns(TRUE_COLOUR).min() < columns(PREDICTED_COLOUR).min()
    assert columns(TRUE_COLOUR).max() < columns(PREDICTED_COLOUR).max()
    assert (picture == 128).all(axis=2).mean() > 0.5 and (frame == 128).all()


@pytest.mark.parametrize("where", [(0, 0), (80, 150)])
def test_a_small_object_in_a_corner_is_enlarged(where):
    frame = np.zeros((90, 160, 3), np.uint8)
    true = np.zeros((90, 160), dtype=bool)
    true[where[0] : where[0] + 10, where[1] : where[1] + 10] = True
    picture = failure_picture(frame, true, np.zeros_like(true))
    ys, xs = np.nonzero((picture == TRUE_COLOUR).all(axis=2))
    # a quarter of the frame is shown: 10 pixels of 160 become 10 of 40 of 440
    assert max(np.ptp(ys), np.ptp(xs)) == pytest.approx(110, abs=4)


def test_a_lost_object_that_fills_nothing_and_a_whole_frame_have_a_picture():
    frame = np.zeros((90, 160, 3), np.uint8)
    for mask in (np.zeros((90, 160), dtype=bool), np.ones((90, 160), dtype=bool)):
        assert failure_picture(frame, mask, mask).shape[1] == 440


def test_the_page_shows_the_failures_with_their_figures(scored):
    page = Page(report.render(scored, LAYOUT))
    section = page.html[page.html.index('<section id="failures"') : page.html.index('<section id="training"')]
    own = Page(section)
    pictures = [image for image in own.all("img") if "outline" in image.get("alt", "")]
    assert [image["alt"].partition(":")[0] for image in pictures] == [
        f"{NASTY}, object 1, frame 00002",
        "val-001, object 1, frame 00001",
        "val-001, object 2, frame 00002",
    ]
    for image in pictures:
        kind, _, data = image["src"].partition(";base64,")
        assert kind == "data:image/jpeg"
        with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
            assert opened.size == (int(image["width"]), int(image["height"])) == (440, 330)
    assert "J 10.0, F 5.0" in own.text and "area 0.4 %, width 10 %" in own.text
    table = next(table for table in own.tables if table[0][0] == "J, F, percent")
    assert table[0][1:] == ["2 thin or tiny", "1 other"]
    assert ["ours", "30.0, 15.0", "55.0, 27.5"] in table
    # four frames: of three steps, frames 1 and 2 lie after one and two
    times = next(table for table in own.tables if table[0][0].startswith("J, F in the middle"))
    assert times[0][1:] == ["35 %", "65 %"]
    assert times[1] == ["ours", f"{100 * (0.5 + 0.3 + 0.9) / 3:.1f}, {50 * 1.7 / 3:.1f}", "20.0, 10.0"]
    titles = [part.partition("<")[0] for part in section.split("<title>")[1:]]
    assert "ours, 65 %: J 20.0" in titles and len(titles) == 2 * 3 * 2


def test_the_page_is_the_same_again_and_names_no_folder(scored, tmp_path):
    html = report.render(scored, LAYOUT)
    assert html == report.render(scored, LAYOUT)
    assert str(tmp_path) not in html and 'src="data:' in html


def test_a_run_that_is_not_scored_says_so(params):  # noqa: F811
    text = Page(report.render(params, LAYOUT)).text
    assert gallery(params, LAYOUT) is None
    assert "Nothing is scored frame by frame" in text and "dvc repro evaluate" in text


def test_a_file_without_rows_and_one_of_another_answer_give_nothing(scored):
    LAYOUT.frame_scores("ours").write_text(HEAD + "\n")
    assert read_frames(LAYOUT.frame_scores("ours")) == []
    assert read_frames(LAYOUT.baseline_frames, "copied") == []
    # the next answer's failures are shown, named as its own
    assert gallery(scored, LAYOUT).pictures == "pce"
    shutil.rmtree(LAYOUT.results("pce").parent)
    assert gallery(scored, LAYOUT).pictures == "grabcut + flow"
    assert Path("predictions/tiny/baselines/grabcut_flow").is_dir() and OBJECTS
