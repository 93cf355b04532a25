"""Stage `tables`: the paper's Tables IV to VII with a run's results, which are written by hand: no training."""

import json
import sys
from pathlib import Path

import pytest
from tables_run import (
    LAYOUT,
    comparisons,
    is_published,
    make_params,
    make_run,
    make_videos,
    require_published,
    scores,
    write_and_read,
    write_result,
)

from pipelines import tables as paper_tables
from pipelines.tracking import mlflow_client as tracking
from ssvos.metrics.tables import read_benchmark, read_table


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


EMBEDDED = {"name": "own", "layout": "embedded"}


def test_embedded_run_is_shown_in_table_vi_without_differences():
    videos = make_videos({"val-000": 2, "val-001": 1})
    runs = {"pce": {"own": scores("davis2017", 0.30)}, "ours": {"own": scores("davis2017", 0.40)}}
    make_run(videos, runs, {"own": scores("davis2017", 0.2)})
    tables = write_and_read(make_params(EMBEDDED))
    require_published(tables)
    head = tables["table6"][0]
    assert head[2:9] == ["this run: ours", "this run: pce", *(f"without training: {name}" for name in BASELINE_NAMES)]
    assert [line[2] for line in tables["table6"][2:]] == [f"{40 + k}.0" for k in range(7)]
    assert [line[7] for line in tables["table6"][2:]] == [f"{20 + k}.0" for k in range(7)]
    for line in comparisons(tables, "VI").values():
        assert line["evaluated on"] == "set (embedded)" and line["difference"] == "other data" and line["seeds"] == "1"
        assert line["verdict"] == "not run on DAVIS-2017 val: this run's data is embedded"
    for table, title in (("IV", "YouTube-VOS valid"), ("V", "YouTube-VOS valid"), ("VII", "DAVIS-2017 test-dev")):
        for line in comparisons(tables, table, "pce").values():
            assert line["this run"] == line["difference"] == line["sd"] == "not run"
            reason = f"not run on {title}: this run's data is embedded; scores come from the benchmark's server"
            assert line["verdict"] == reason
    last = ["without training: label propagation", "the first frame's scribbles", "no"]
    assert tables["table4"][-1] == last + 5 * ["not run"]
    assert "clips" not in tables and "evaluates none of the clips" in LAYOUT.tables_page.read_text()
    numbers = json.loads((LAYOUT.tables / "numbers.json").read_text())
    assert list(numbers) == ["VI"] and list(numbers["VI"]) == ["ours", "pce"]
    assert numbers["VI"]["ours"]["J&F-Mean"] == {"paper": 55.7, "this_run": 40.0}, "there is no difference"
    assert ["this run: ours (other videos)", "40.0"] in tables["bars6"] and ["FEELVOS [10]", "71.5"] in tables["bars6"]


BASELINE_NAMES = ("untrained", "empty", "copied", "grabcut + flow", "label propagation")
VALID = {"name": "own", "layout": "youtube-vos", "root": "yt", "val": "valid"}


def test_youtube_vos_valid_compares_with_tables_iv_and_v_over_three_seeds():
    videos = make_videos({f"{k:05d}": 1 for k in range(474)})
    runs = {"ours": 0.50, "ours-seed1": 0.51, "ours-seed2": 0.52, "pce": 0.40, "pce-seed1": 0.41}
    results = {name: {"own": scores("youtube-vos", first)} for name, first in runs.items()}
    make_run(videos, results, {"own": scores("youtube-vos", 0.2)})
    tables = write_and_read(make_params(VALID))
    require_published(tables)
    for table in ("IV", "V"):
        lines = comparisons(tables, table)
        # 51 percent on average for the first measure, 1 more for each further one
        expected = {"J_seen": "-2.1", "J_unseen": "+4.7", "F_seen": "+1.2", "F_unseen": "+2.0", "G": "+3.9"}
        assert {measure: line["difference"] for measure, line in lines.items()} == expected
        assert lines["G"]["this run"] == "55.0" and lines["G"]["sd"] == "1.0" and lines["G"]["seeds"] == "3"
        assert lines["G"]["verdict"] == "agrees: within 55.0 ± 5.0"
        (verdict,) = {line["verdict"] for line in comparisons(tables, table, "pce").values()}
        assert verdict == "no verdict: fewer than three seeds"
        assert comparisons(tables, table, "pce")["G"]["difference"] == "-6.6"
    assert tables["table4"][13][:3] == ["this run: ours, seeds 0, 1, 2", "scribble-supervised", "no"]
    assert tables["table4"][13][3] == "51.0 ± 1.0"
    (verdict,) = {line["verdict"] for line in comparisons(tables, "VI").values()}
    assert verdict == "not run on DAVIS-2017 val: this run's data has the layout youtube-vos"


def test_value_far_from_all_seeds_differs():
    videos = make_videos({f"{k:05d}": 1 for k in range(474)})
    runs = {"ours": 0.300, "ours-seed1": 0.301, "ours-seed2": 0.302}
    make_run(videos, {name: {"own": scores("youtube-vos", first)} for name, first in runs.items()}, {})
    lines = comparisons(write_and_read(make_params(VALID)), "IV")
    assert {line["verdict"].split(":")[0] for line in lines.values()} == {"differs"}


OTHER_YOUTUBE_VOS = [
    (VALID, 12, "a subset: 12 videos, the benchmark has 474"),
    (VALID, 507, "these are the 507 videos of its 2019 release, the paper's the 474 of 2018"),
    (VALID | {"val": "held"}, 474, "this run evaluates the list held"),
]


@pytest.mark.parametrize(("source", "count", "reason"), OTHER_YOUTUBE_VOS)
def test_other_youtube_vos_videos_are_shown_without_difference(source, count, reason):
    videos = make_videos({f"{k:05d}": 1 for k in range(count)})
    make_run(videos, {"ours": {"own": scores("youtube-vos", 0.5)}}, {})
    tables = write_and_read(make_params(source))
    line = comparisons(tables, "IV")["G"]
    assert line["this run"] == "54.0" and line["difference"] == "other data"
    assert line["verdict"] == f"not run on YouTube-VOS valid: {reason}"
    assert (
        comparisons(tables, "IV", "pce")["G"]["verdict"] == "not run: no result yet; `dvc repro evaluate@pce` makes it"
    )


SERVER_VERDICT = (
    "not run: scores come from the benchmark's server; `ssvos submit predictions/set/ours/val` makes its zip"
)


def test_youtube_vos_valid_without_masks_names_the_server():
    videos = make_videos({f"{k:05d}": 1 for k in range(474)})
    make_run(videos, {"ours": {}, "pce": {}}, {})
    line = comparisons(write_and_read(make_params(VALID)), "IV")["G"]
    assert line["verdict"] == SERVER_VERDICT and line["this run"] == "not run"


def test_other_videos_without_masks_do_not_name_the_server():
    make_run(make_videos({"00000": 1}), {"ours": {}, "pce": {}}, {})
    line = comparisons(write_and_read(make_params(VALID)), "IV")["G"]
    assert line["verdict"] == "not run: the evaluation videos have no masks"


def test_measure_to_which_no_object_counts_is_undefined():
    result = scores("youtube-vos", 0.5)
    result["global"] |= {"J_unseen": None, "F_unseen": None, "G": None}
    make_run(make_videos({"00000": 1}), {"ours": {"own": result}}, {"own": result})
    tables = write_and_read(make_params(VALID))
    lines = comparisons(tables, "IV")
    assert lines["G"]["this run"] == lines["J_unseen"]["difference"] == "undefined"
    assert lines["G"]["verdict"].startswith("no verdict: ") and lines["J_seen"]["this run"] == "50.0"
    bars = [row[0] for row in tables["bars4"][1:]]
    assert bars == [row[0] for row in tables["table4"][1:] if is_published(row[0])], (
        "a method without a score has no bar"
    )


DAVIS_SOURCE = {"name": "own", "layout": "davis", "root": "davis"}
# number of objects of the DAVIS-2017 val videos that have more than one
SEVERAL = {"bike-packing": 2, "bmx-trees": 2, "dogs-jump": 3, "gold-fish": 5, "horsejump-high": 2, "india": 3}
SEVERAL |= {"judo": 2, "kite-surf": 3, "lab-coat": 5, "loading": 3, "mbike-trick": 2, "motocross-jump": 2}
SEVERAL |= {"paragliding-launch": 3, "pigs": 3, "scooter-black": 2, "shooting": 3, "soapbox": 3}


def davis_videos() -> dict[str, int]:
    return {name: SEVERAL.get(name, 1) for name in read_benchmark(read_table("VI")).sequences}


def test_davis_2017_val_compares_with_table_vi():
    runs = {"ours": 0.55, "ours-seed1": 0.56, "ours-seed2": 0.57, "pce": 0.3, "pce-seed1": 0.3, "pce-seed7": 0.3}
    results = {name: {"own": scores("davis2017", first)} for name, first in runs.items()}
    make_run(make_videos(davis_videos()), results, {"own": scores("davis2017", 0.2)})
    tables = write_and_read(make_params(DAVIS_SOURCE))
    require_published(tables)
    line = comparisons(tables, "VI")["J&F-Mean"]
    assert line["this run"] == "56.0" and line["difference"] == "+0.3"
    assert line["verdict"] == "agrees: within 56.0 ± 5.0"
    line = comparisons(tables, "VI", "pce")["J&F-Mean"]
    assert line["difference"] == "-25.7" and line["verdict"] == "differs: outside 30.0 ± 0.1"
    for line in comparisons(tables, "VII").values():
        assert line["verdict"].startswith("not run on DAVIS-2017 test-dev: this run evaluates none of its 30 videos;")
        assert line["this run"] == "not run"


def test_test_dev_names_the_server():
    names = read_benchmark(read_table("VII")).sequences
    videos = make_videos({name: 4 if k < 1 else 3 if k < 29 else 1 for k, name in enumerate(names)})
    make_run(videos, {"ours": {}, "pce": {}}, {})
    tables = write_and_read(make_params(DAVIS_SOURCE))
    (verdict,) = {line["verdict"] for line in comparisons(tables, "VII").values()}
    assert verdict == SERVER_VERDICT
    (verdict,) = {line["verdict"] for line in comparisons(tables, "VI").values()}
    assert verdict == "not run: the evaluation videos have no masks"


DAVIS_2016 = ("blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows", "dance-twirl")
DAVIS_2016 += ("dog", "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf", "libby")
DAVIS_2016 += ("motocross-jump", "paragliding-launch", "parkour", "scooter-black", "soapbox")
OTHER_DAVIS = [
    (dict.fromkeys(DAVIS_2016, 1), "this run evaluates 20 of its 30 videos"),
    (davis_videos() | {"bear": 1}, "this run evaluates 30 of its 30 videos, and 1 more"),
    (dict.fromkeys(davis_videos(), 1), "this run's masks of its videos have 30 objects, the benchmark's 61"),
    ({"my-own": 1}, "this run evaluates none of its 30 videos"),
]


@pytest.mark.parametrize(("videos", "reason"), OTHER_DAVIS)
def test_other_videos_of_davis_layout_do_not_compare_with_davis_2017_val(videos, reason):
    make_run(make_videos(videos), {"ours": {"own": scores("davis2017", 0.5)}}, {})
    line = comparisons(write_and_read(make_params(DAVIS_SOURCE)), "VI")["J&F-Mean"]
    assert line["difference"] == "other data" and line["verdict"] == f"not run on DAVIS-2017 val: {reason}"


def test_clips_of_davis_2016_are_next_to_the_published_ones():
    clips = {"blackswan": (0.9, 0.8), "camel": (0.7, 0.6)}
    sequences = {name: {"J": J / 2, "F": F / 2} for name, (J, F) in clips.items()}
    videos = make_videos({"blackswan": 1, "camel": 1, "bmx-trees": 2, "my-own": 1})
    baseline = {"own": scores("davis2017", 0.2, sequences=sequences)}
    make_run(videos, {"ours": {"own": scores("davis2017", 0.5)}}, baseline)
    objects = "".join(f"own,{name}_1,{J},{F}\n" for name, (J, F) in clips.items())
    write_result("ours", {"own": scores("davis2017", 0.5)}, objects)
    head, *lines = write_and_read(make_params(DAVIS_SOURCE))["clips"]
    assert head == ["source", "method", "given at test time", "clip", "J / F"]
    cells = {(line[1], line[3]): line[4] for line in lines}
    assert len(cells) == 3 * (13 + 2 + 5), "the mean and two clips of every method"
    assert cells["STM", "blackswan"] == "96.1 / 99.8" and cells["STM", "camel"] == "96.3 / 98.5"
    assert cells["this run: ours", "mean"] == "80.0 / 70.0" and cells["this run: ours", "camel"] == "70.0 / 60.0"
    assert cells["without training: grabcut + flow", "blackswan"] == "45.0 / 40.0"
    assert cells["this run: pce", "mean"] == cells["this run: pce", "camel"] == "not run"
    assert "bmx-trees: 2 objects here" in LAYOUT.tables_page.read_text()


def test_mean_over_clips_needs_all_clips():
    make_run(make_videos({"blackswan": 1, "camel": 1}), {}, {"own": scores("davis2017", 0.2)})
    write_result("ours", {"own": scores("davis2017", 0.5)}, "own,camel_1,0.7,0.6\n")
    _, *lines = write_and_read(make_params(DAVIS_SOURCE))["clips"]
    assert [line[4] for line in lines if line[1] == "this run: ours"] == ["not run", "not run", "70.0 / 60.0"]


def test_each_source_is_in_the_tables_of_its_protocol():
    sources = ({"name": "yt", "layout": "youtube-vos", "root": "yt", "val": "valid"}, DAVIS_SOURCE)
    rows = make_videos({"00000": 1}, "yt") + make_videos(davis_videos())
    result = {"yt": scores("youtube-vos", 0.4), "own": scores("davis2017", 0.6)}
    make_run(rows, {"ours": result, "pce": result}, result)
    tables = write_and_read(make_params(*sources))
    line = comparisons(tables, "IV")["J_seen"]
    assert (
        line["evaluated on"] == "set: yt (youtube-vos)" and line["this run"] == "40.0" and "a subset" in line["verdict"]
    )
    line = comparisons(tables, "VI")["J-Mean"]
    assert line["evaluated on"] == "set: own (davis)" and line["this run"] == "61.0" and line["difference"] == "+7.6"


NOT_RESULTS = ["{", "[]", "{}", '{"scores": {"own": {}}}', '{"scores": {"own": {"global": {"G": 1}}}}']


def test_only_the_source_with_the_benchmarks_videos_is_in_its_table():
    sources = ({"name": "mine", "layout": "davis", "root": "mine"}, DAVIS_SOURCE)
    result = {"mine": scores("davis2017", 0.4), "own": scores("davis2017", 0.6)}
    rows = make_videos({"my-own": 1}, "mine") + make_videos(davis_videos())
    make_run(rows, {"ours": result, "pce": result}, result)
    tables = write_and_read(make_params(*sources))
    assert {line["evaluated on"] for line in comparisons(tables, "VI").values()} == {"set: own (davis)"}
    assert tables["table6"][0][2:4] == ["this run: ours", "this run: pce"]


def test_two_sources_with_other_videos_are_both_in_the_table():
    sources = ({"name": "mine", "layout": "davis", "root": "mine"}, {"name": "own", "layout": "folder", "root": "own"})
    result = {"mine": scores("davis2017", 0.4), "own": scores("davis2017", 0.6)}
    make_run(make_videos({"a": 1}, "mine") + make_videos({"b": 1}), {"ours": result, "pce": result}, result)
    tables = write_and_read(make_params(*sources))
    head = tables["table6"][0]
    ours = [head.index(f"this run: ours, on set: {name}") for name in ("mine (davis)", "own (folder)")]
    assert [tables["table6"][2][k] for k in ours] == ["40.0", "60.0"]
    numbers = json.loads((LAYOUT.tables / "numbers.json").read_text())
    assert numbers["VI"]["ours on own"]["J&F-Mean"]["this_run"] == 60.0


@pytest.mark.parametrize("text", NOT_RESULTS)
def test_file_that_is_not_a_result_is_an_error_of_one_line(text):
    make_run(make_videos({"val-000": 1}), {"ours": {"own": scores("davis2017", 0.5)}}, {})
    LAYOUT.results("ours").write_text(text)
    with pytest.raises(ValueError, match=r"results/set/ours/val.json: .*dvc repro") as caught:
        paper_tables.write_tables(make_params(EMBEDDED), LAYOUT)
    assert "\n" not in str(caught.value)


def test_stage_records_files_numbers_and_tables_in_mlflow(monkeypatch):
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
    assert not [name for name in run.data.metrics if name.startswith("IV.")], (
        "a table without scores of this run has no metrics"
    )
    names = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert {"set-tables.html", "table4.md", "table7.md", "table6.json", "beside.json"} <= names
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "table6.json")).read_text())
    assert "this run: ours" in table["columns"] and len(table["data"]) == 8
