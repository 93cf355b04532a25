"""The report's failure gallery: which frames it shows, the means and curves, and the pictures."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image
from report_run import LAYOUT, MARKUP_NAME, Page, render_page

from pipelines import report
from pipelines.reporting.failure_crop import PREDICTED_COLOR, TRUE_COLOR, failure_picture
from pipelines.reporting.failure_gallery import failure_gallery
from pipelines.reporting.frame_scores import FrameScore, is_small, over_time, read_frames
from ssvos.data.index import IndexedFrame, IndexedVideo

pytest_plugins = ["report_fixtures"]

HEAD = "source,sequence,object,frame,J,F,area,width"
# object -> (area, width): tiny, thin, neither
SHAPES = {(MARKUP_NAME, "1"): (0.004, 0.1), ("val-001", "1"): (0.05, 0.015), ("val-001", "2"): (0.05, 0.2)}
# object -> J of frames 00001 and 00002 in the main variant
MAIN_J = {(MARKUP_NAME, "1"): (0.5, 0.1), ("val-001", "1"): (0.3, 0.3), ("val-001", "2"): (0.9, 0.2)}


def csv_rows(offset: float = 0.0) -> list[str]:
    """Rows of a frames.csv in which J is higher than in the main variant by `offset`, and F is half of J."""
    rows = []
    for (sequence, object_id), values in MAIN_J.items():
        area, width = SHAPES[sequence, object_id]
        for t, J in enumerate(values, start=1):
            rows.append(f"own,{sequence},{object_id},{t:05d},{J + offset},{(J + offset) / 2},{area},{width}")
    return rows


@pytest.fixture
def scored_params(report_params):
    """The report's run with scores of single frames; pce is better than ours by 0.1 everywhere."""
    for name, offset in (("ours", 0.0), ("pce", 0.1)):
        # a wrongly predicted object in a frame that does not show it: in no mean and no picture
        absent = f"own,{MARKUP_NAME},2,00001,0,0,0,0"
        LAYOUT.frame_scores(name).write_text("\n".join([HEAD, *csv_rows(offset), absent]) + "\n")
    rows = [f"{baseline},{row}" for baseline in ("empty", "grabcut_flow") for row in csv_rows(-0.1)]
    LAYOUT.baseline_frames.write_text("\n".join([f"baseline,{HEAD}", *rows]) + "\n")
    return report_params


def test_gallery_shows_the_worst_frame_of_each_object_small_objects_apart(scored_params):
    gallery = failure_gallery(scored_params, LAYOUT)
    assert (gallery.methods, gallery.main_method) == (("ours", "pce", "grabcut + flow"), "ours")
    small, other = gallery.groups
    assert [(one.score.sequence, one.score.object, one.score.frame, one.score.J) for one in small.failures] == [
        (MARKUP_NAME, "1", "00002", 0.1),
        ("val-001", "1", "00001", 0.3),  # the first of two equally bad frames
    ]
    assert [(one.score.object, one.score.frame, one.score.J) for one in other.failures] == [("2", "00002", 0.2)]


def test_means_are_over_frames_then_over_objects(scored_params):
    small, other = failure_gallery(scored_params, LAYOUT).groups
    assert (small.num_objects, other.num_objects) == (2, 1)
    assert small.means["ours"] == pytest.approx((30.0, 15.0)) and other.means["ours"] == pytest.approx((55.0, 27.5))
    assert small.means["pce"] == pytest.approx((40.0, 20.0))
    assert other.means["grabcut + flow"] == pytest.approx((45.0, 22.5))


def frame_score(frame: int, J: float, object_id: str = "1", **fields) -> FrameScore:
    values = {"area": 0.1, "width": 0.1, "F": J / 2} | fields
    return FrameScore("s", "v", object_id, f"{frame:05d}", J, **values)


def test_object_is_small_by_its_median_frame():
    assert is_small([frame_score(1, 1, area=0.004), frame_score(2, 1, area=0.004), frame_score(3, 1)])
    assert not is_small([frame_score(1, 1, area=0.004), frame_score(2, 1), frame_score(3, 1)])
    assert is_small([frame_score(1, 1, width=0.019)]) and not is_small([frame_score(1, 1, width=0.02)])


def make_video(*objects: tuple[int, ...]) -> IndexedVideo:
    """objects: the objects of each frame."""
    frames = [IndexedFrame(f"{k:05d}", "", "", None, 48, 64, ids, "") for k, ids in enumerate(objects)]
    return IndexedVideo("s", "val", "v", tuple(frames), {})


def test_time_runs_from_an_objects_first_frame_to_the_videos_last():
    # object 2 enters at frame 10 of 0..20: its frame 15 is at half the time, as is frame 10 of object 1
    frames = [(1,)] * 10 + [(1, 2)] * 11
    scores = [frame_score(1, 0.9), frame_score(10, 0.8), frame_score(20, 0.1), frame_score(15, 0.4, "2")]
    curve = over_time(scores, {("s", "v"): make_video(*frames)})
    assert {time: J for time, (J, _) in curve.items()} == pytest.approx({5.0: 90.0, 55.0: 60.0, 95.0: 10.0})


def test_objects_have_equal_weight_in_a_part_of_the_time():
    frames = [(1,)] * 10 + [(1, 2)] * 11
    scores = [frame_score(10, 0.8), frame_score(11, 0.6), frame_score(15, 0.4, "2")]
    curve = over_time(scores, {("s", "v"): make_video(*frames)})
    assert curve[55.0][0] == pytest.approx((70 + 40) / 2)


def test_picture_shows_both_outlines_in_place_with_the_frames_aspect_ratio():
    frame = np.full((90, 160, 3), 128, np.uint8)
    true, predicted = np.zeros((2, 90, 160), dtype=bool)
    true[30:50, 40:70], predicted[30:50, 60:90] = True, True
    picture = failure_picture(frame, true, predicted)
    assert picture.shape[1] == 440 and picture.shape[0] / picture.shape[1] == pytest.approx(90 / 160, abs=0.01)

    def columns(color: tuple) -> np.ndarray:
        return np.flatnonzero((picture == color).all(axis=2).any(axis=0))

    # both sides of the true box are to the left of the predicted box's sides
    assert columns(TRUE_COLOR).min() < columns(PREDICTED_COLOR).min()
    assert columns(TRUE_COLOR).max() < columns(PREDICTED_COLOR).max()
    assert (picture == 128).all(axis=2).mean() > 0.5 and (frame == 128).all()


@pytest.mark.parametrize("corner", [(0, 0), (80, 150)])
def test_small_object_in_a_corner_is_enlarged(corner):
    frame = np.zeros((90, 160, 3), np.uint8)
    true = np.zeros((90, 160), dtype=bool)
    true[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = True
    picture = failure_picture(frame, true, np.zeros_like(true))
    ys, xs = np.nonzero((picture == TRUE_COLOR).all(axis=2))
    # the crop is a quarter of the frame: 10 of its 40 pixels become 110 of 440
    assert max(np.ptp(ys), np.ptp(xs)) == pytest.approx(110, abs=4)


@pytest.mark.parametrize("fill", [False, True], ids=["empty masks", "full masks"])
def test_empty_and_full_masks_have_a_picture(fill):
    frame, mask = np.zeros((90, 160, 3), np.uint8), np.full((90, 160), fill)
    assert failure_picture(frame, mask, mask).shape[1] == 440


def failure_section(params) -> str:
    html = render_page(params).html
    return html[html.index('<section id="failures"') : html.index('<section id="training"')]


def test_page_shows_the_failures_with_picture_and_scores(scored_params):
    section = Page(failure_section(scored_params))
    images = [image for image in section.all("img") if "outline" in image.get("alt", "")]
    assert [image["alt"].partition(":")[0] for image in images] == [
        f"{MARKUP_NAME}, object 1, frame 00002",
        "val-001, object 1, frame 00001",
        "val-001, object 2, frame 00002",
    ]
    for image in images:
        kind, _, data = image["src"].partition(";base64,")
        assert kind == "data:image/jpeg"
        with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
            assert opened.size == (int(image["width"]), int(image["height"])) == (440, 330)
    assert "J 10.0, F 5.0" in section.text and "area 0.4 %, width 10 %" in section.text


def test_page_has_the_means_of_small_objects_and_the_curves(scored_params):
    html = failure_section(scored_params)
    section = Page(html)
    table = next(table for table in section.tables if table[0][0] == "J, F, percent")
    assert table[0][1:] == ["2 thin or tiny", "1 other"]
    assert ["ours", "30.0, 15.0", "55.0, 27.5"] in table
    # a video of four frames has three steps; frames 1 and 2 come after one and two of them
    times = next(table for table in section.tables if table[0][0].startswith("J, F in the middle"))
    assert times[0][1:] == ["35 %", "65 %"]
    assert times[1] == ["ours", f"{100 * (0.5 + 0.3 + 0.9) / 3:.1f}, {50 * 1.7 / 3:.1f}", "20.0, 10.0"]
    titles = [part.partition("<")[0] for part in html.split("<title>")[1:]]
    assert "ours, 65 %: J 20.0" in titles and len(titles) == 2 * 3 * 2


def test_page_with_a_gallery_is_deterministic_and_contains_no_local_path(scored_params, tmp_path):
    html = report.render(scored_params, LAYOUT)
    assert html == report.render(scored_params, LAYOUT)
    assert str(tmp_path) not in html and 'src="data:' in html


def test_run_without_frame_scores_has_no_gallery_and_the_page_names_the_command(report_params):
    assert failure_gallery(report_params, LAYOUT) is None
    text = render_page(report_params).text
    assert "No scores of single frames" in text and "dvc repro evaluate" in text


def test_gallery_shows_the_next_method_where_one_has_no_frame_scores(scored_params):
    LAYOUT.frame_scores("ours").write_text(HEAD + "\n")
    assert read_frames(LAYOUT.frame_scores("ours")) == []
    assert read_frames(LAYOUT.baseline_frames, "copied") == []
    assert failure_gallery(scored_params, LAYOUT).main_method == "pce"
    shutil.rmtree(LAYOUT.results("pce").parent)
    assert failure_gallery(scored_params, LAYOUT).main_method == "grabcut + flow"
