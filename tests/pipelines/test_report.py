"""The report page of a small run whose masks and scores are written by hand."""

import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
from report_run import COLUMNS, LAYOUT, MARKUP_NAME, SCORES, make_params, render_page

from pipelines import report
from pipelines.evaluation_set import METHODS
from pipelines.reporting.clip_players import chosen_videos
from pipelines.reporting.score_table import score_tables, text_table
from ssvos.config import SourceConfig
from ssvos.config.variants import Params
from ssvos.data.index import IndexedVideo, read_index, write_index

pytest_plugins = ["report_fixtures"]


def percent(value: float | None, missing: str) -> str:
    return missing if value is None else f"{100 * value:.1f}"


def test_page_loads_nothing_from_outside_and_contains_no_local_path(report_params, rendered_set, tmp_path):
    page = render_page(report_params)
    for tag, attributes in page.elements:
        for key in ("src", "href", "srcset", "poster", "data", "xlink:href"):
            if key in attributes:
                is_tables_page = tag == "a" and attributes[key] == "tiny-tables.html"
                assert is_tables_page or attributes[key].startswith(("data:", "#")), (tag, attributes[key][:80])
    assert "http:" not in page.html and "https:" not in page.html and "@import" not in page.html
    addresses = [part[:5] for part in page.html.split("url(")[1:]]
    assert addresses and set(addresses) == {"data:"}
    for folder in (rendered_set, tmp_path, Path(report.__file__).parent.parent):
        assert str(folder) not in page.html


def test_every_link_within_the_page_has_a_target(report_params):
    page = render_page(report_params)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")}
    assert targets and targets <= ids


def test_rendering_is_deterministic(report_params):
    assert report.render(report_params, LAYOUT) == report.render(report_params, LAYOUT)


def test_table_has_a_row_with_the_scores_of_every_variant_and_baseline(report_params):
    page = render_page(report_params)
    head, *rows = page.tables[0]
    assert head == ["method", *COLUMNS, "visible", "absent, left empty"]
    assert len(rows) == len(SCORES)
    for (name, values), row in zip(SCORES.items(), rows, strict=True):
        assert row[0].startswith(name)
        assert row[1:] == [percent(value, "–") for value in values], name


def test_text_table_has_the_numbers_of_the_page(report_params):
    (table,) = score_tables(report_params, LAYOUT)
    lines = text_table(table).splitlines()
    assert lines[0] == "tiny (percent)"
    for (name, values), line in zip(SCORES.items(), lines[2:], strict=False):
        assert line.startswith(name)
        assert line.removeprefix(name).split() == [percent(value, "-") for value in values]


def test_headline_compares_the_main_variant_with_all_others(report_params):
    sentence = (
        "ours reaches J&F 40.4 percent (pce 36.3): above the untrained network (5.1), empty masks (1.7), the first "
        "true mask copied (29.3) and label propagation (38.7), but below GrabCut + optical flow (61.7)."
    )
    page = render_page(report_params)
    assert sentence in page.text
    assert "ours is below GrabCut + optical flow, without any training on video." in page.text
    assert "pce is below GrabCut + optical flow and label propagation, without any" in page.text


def test_headline_of_the_best_method_has_no_below(report_params):
    result = json.loads(LAYOUT.results("ours").read_text())
    result["scores"]["own"]["global"]["J&F-Mean"] = 0.7
    LAYOUT.results("ours").write_text(json.dumps(result))
    (table,) = score_tables(report_params, LAYOUT)
    assert table.headline.startswith("ours reaches J&F 70.0 percent") and "below" not in table.headline
    assert not [note for note in table.notes if note.startswith("ours is below")]


def test_variant_without_result_is_not_run_and_page_names_the_commands(report_params):
    shutil.rmtree(LAYOUT.results("pce").parent)
    shutil.rmtree(LAYOUT.run("pce", "stage1").parent)
    page = render_page(report_params)
    row = next(row for row in page.tables[0] if row[0].startswith("pce"))
    assert row[1:] == ["not run"]
    assert "dvc repro evaluate@pce" in page.text and "dvc repro train_stage2@pce" in page.text
    assert len(page.tables[0]) == 1 + len(SCORES)


def test_evaluation_videos_without_masks_are_not_scored(report_params):
    index = read_index(LAYOUT.index)
    mask_paths = [
        None if split == "val" else path
        for split, path in zip(index["split"].to_pylist(), index["mask_path"].to_pylist(), strict=True)
    ]
    column = index.schema.get_field_index("mask_path")
    write_index(index.set_column(column, "mask_path", pa.array(mask_paths, pa.string())), LAYOUT.index)
    LAYOUT.baselines.write_text(json.dumps({name: {} for name in METHODS}))
    for name in ("ours", "pce"):
        LAYOUT.results(name).write_text(json.dumps({"chosen_by": "loss", "scores": {}}))
        LAYOUT.objects(name).write_text("source,object\n")
    page = render_page(report_params)
    assert "Not scored: the evaluation videos have no masks." in page.text
    assert "ours: no masks of held-out videos, so its checkpoint was chosen by held-out loss." in page.text
    assert page.text.count("no true mask") == 3 * 4, "three videos of four frames"


def test_missing_mask_is_labelled_in_its_frame(report_params):
    (LAYOUT.predictions("ours") / "val-001" / "00002.png").unlink()
    spans = render_page(report_params).all("span")
    labels = [span["aria-label"] for span in spans if "no mask" in span.get("aria-label", "")]
    assert labels == ["val-001, frame 00002: not run: no mask"]


def test_every_image_has_its_own_alternative_text(report_params):
    images = render_page(report_params).all("img")
    # three videos: a scribble on the first frame; masks of two variants, two baselines and the truth on four frames
    assert len(images) == 3 * (1 + 5 * 4)
    assert len({image["alt"] for image in images}) == len(images)
    assert {"val-002, frame 00003: truth", f"{MARKUP_NAME}, frame 00000: scribble"} <= {i["alt"] for i in images}


def test_markup_in_a_sequence_name_is_escaped(report_params):
    page = render_page(report_params)
    assert MARKUP_NAME in page.text
    assert "<b>&" not in page.html and "a<b>" not in page.html


def test_clip_players_are_ordered_from_worst_with_rank_and_scores(report_params):
    page = render_page(report_params)
    order = [article["aria-label"] for article in page.all("article")]
    assert order == ["val-001", "val-002", MARKUP_NAME]
    for words in ("val-001 worst of 3", "val-002 median of 3", f"{MARKUP_NAME} best of 3"):
        assert words in page.text
    # the mean over the two objects of val-001; GrabCut + flow from baselines.json
    assert "ours J 20.0, F 20.0" in page.text and "grabcut + flow J 25.0, F 75.0" in page.text


def test_chosen_videos_include_the_worst_median_and_best_of_many():
    videos = [IndexedVideo("own", "val", f"v{k:02d}", (), {}) for k in range(31)]
    scores = {f"v{k:02d}": (float(k), float(k)) for k in range(30)}
    chosen = [(video.sequence, rank) for video, rank in chosen_videos(videos, scores)]
    assert chosen[0] == ("v00", "worst of 30") and ("v29", "best of 30") in chosen
    assert ("v14", "median of 30") in chosen
    assert chosen[-1] == ("v30", "not scored") and len(chosen) == 10


def test_every_table_header_has_a_scope(report_params):
    heads = render_page(report_params).all("th")
    assert heads and all(head.get("scope") in ("row", "col") for head in heads)


def test_parameter_table_lists_differing_parameters_first_and_shortens_roots(report_params):
    page = render_page(report_params)
    table = next(table for table in page.tables if table[0] == ["parameter", "pce", "ours"] and len(table) > 10)
    assert [row[0] for row in table[1:3]] == ["model.attention.kind", "loss.regularizer"]
    assert table[1][1:] == ["none", "scribble"]
    sources = next(row for row in table if row[0] == "data.sources")
    assert "root: …/set" in sources[1]


def test_page_names_the_search_that_the_values_come_from(rendered_set, report_params):
    sentence = "The values come from a search: search abc: trial 3 of 6"
    assert "The values come from a search" not in render_page(report_params).text
    params = make_params(rendered_set / "set", tuned_from="search abc: trial 3 of 6")
    assert sentence in render_page(params).text


def test_scribble_table_has_the_counts_and_coverage_of_the_summary(report_params):
    page = render_page(report_params)
    summary = json.loads((LAYOUT.scribbles / "summary.json").read_text())
    table = next(table for table in page.tables if table[0][:2] == ["videos for", "training"])
    rows = {row[0]: row[1:] for row in table[1:]}
    means = [summary[f"own/{split}"]["coverage_mean"] for split in ("train", "holdout", "val")]
    assert rows["pixels with a stroke, mean percent"] == [f"{100 * mean:.2f}" for mean in means]
    assert rows["frames with a scribble"] == ["4", "4", "12"]
    assert f"On average {100 * means[0]:.1f} percent of the pixels" in page.text


def test_summary_option_writes_nothing_and_prints_the_page_path_last(report_params, capsys, monkeypatch):
    monkeypatch.setattr(report, "read_params", lambda: report_params)
    monkeypatch.setattr(sys, "argv", ["report", "--summary"])
    report.main()
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == str(Path("reports/index.html").absolute())
    assert "grabcut + flow          61.7" in output
    assert not Path("reports").exists()


def test_each_source_has_its_own_table(rendered_set, report_params):
    sources = [SourceConfig(name=name, layout="davis", root=str(rendered_set / "set")) for name in ("own", "other")]
    data = report_params.base.data.model_copy(update={"sources": tuple(sources)})
    params = Params(report_params.base.model_copy(update={"data": data}), report_params.variants)
    tables = score_tables(params, LAYOUT)
    assert [table.title for table in tables] == ["tiny: own", "tiny: other"]
    assert tables[0].rows[0].values is not None and tables[1].rows[0].values is None
    assert "Not scored" in tables[1].notes[0] and "Not scored" not in " ".join(tables[0].notes)
