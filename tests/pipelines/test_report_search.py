"""The report's section on the parameter search."""

import csv
import io
from pathlib import Path

import pytest
from report_run import LAYOUT, make_params, render_page

from pipelines import report

pytest_plugins = ["report_fixtures"]


def write_search(data: str = "tiny", best: int = 2, before: str = "{trial: 0, score: 0.25}") -> None:
    """Write tune/trials.csv and tune/best.yaml of a search with four trials."""
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
    best_row = rows[best + 1]
    Path("tune/best.yaml").write_text(
        f"search: {{data: {data}, data_digest: 0123, variant: ours, trials: 4, finished: 2, stopped: 1, failed: 1, "
        f"metric: J, digest: abc}}\nbest: {{trial: {best}, score: {best_row[3]}}}\nbefore: {before}\n"
        f"params: {{loss: {{beta: {best_row[5]}}}, train: {{stage1: {{learning_rate: {best_row[6]}}}}}}}\n"
    )


def test_page_without_a_search_names_the_command(report_params):
    text = render_page(report_params).text
    assert "Not run for this data set. dvc repro tune" in text and "pipelines.tuning.apply_best" not in text


def test_search_on_other_data_is_not_shown(report_params):
    write_search(data="davis")
    text = render_page(report_params).text
    assert "Not run for this data set: the last search used “davis”" in text
    assert "dvc repro tune" in text and "pipelines.tuning.apply_best" not in text


def test_search_is_shown_with_its_trials_and_the_best_values(report_params):
    write_search()
    page = render_page(report_params)
    trials = next(table for table in page.tables if table[0][0] == "trial")
    assert trials[0][5:] == ["loss.beta", "train.stage1.learning_rate"]
    assert trials[3] == ["2, best", "finished", "3", "37.5", "31", "0.5", "0.002"]
    assert trials[4][:4] == ["3", "failed", "0", "–"]
    changes = next(table for table in page.tables if table[0][1:] == ["before the search", "best trial", "this run"])
    assert ["loss.beta", "0.1", "0.5", "0.1"] in changes
    assert "The best is trial 2 with 37.5. The values before the search (trial 0) reached 25.0." in page.text
    assert "python -m pipelines.tuning.apply_best" in page.text
    assert "The data have changed since" in page.text, "the digest in best.yaml is another one"
    # two parameters; each chart has a point for each of the three trials with a score
    titles = [title for title in page.html.split("<title>") if title.startswith("trial ")]
    assert len(titles) == 2 * 3


def test_search_won_by_the_values_before_it_has_nothing_to_apply(report_params):
    write_search(best=0)
    text = render_page(report_params).text
    assert "nothing to apply" in text and "pipelines.tuning.apply_best" not in text


def test_page_of_a_run_with_the_best_values_offers_no_command(rendered_set, report_params):
    write_search()
    values = {"loss": {"beta": 0.5}, "train": {"stage1": {"learning_rate": 0.002}}}
    text = render_page(make_params(rendered_set / "set", **values)).text
    assert "This run uses the best trial's values." in text and "pipelines.tuning.apply_best" not in text


def test_search_that_did_not_try_the_values_before_it_is_shown(report_params):
    write_search(before="null")
    page = render_page(report_params)
    assert "outside its ranges" in page.text
    assert any(["loss.beta", "–", "0.5", "0.1"] in table for table in page.tables)


@pytest.mark.parametrize("name", ["trials.csv", "best.yaml"])
def test_broken_search_file_is_an_error_of_one_line(report_params, name):
    write_search()
    path = Path("tune") / name
    path.write_text(path.read_text().replace("trial", "trail"))
    with pytest.raises(ValueError, match=rf"tune/{name}.*dvc repro -f tune") as caught:
        report.render(report_params, LAYOUT)
    assert "\n" not in str(caught.value)
