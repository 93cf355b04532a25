"""A study's page, as Markdown and as one HTML file: the runs, the tables, and notes on how to read them."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from pipelines.evaluation_set import METHODS
from pipelines.reporting.rendering import template_environment
from pipelines.studies.study import SCORES, Study
from pipelines.studies.study_table import StudyTable, TableRow
from ssvos.config import Config, StageConfig
from ssvos.data.index import IndexedVideo
from ssvos.files import write_text
from ssvos.metrics.comparison import FEWEST
from ssvos.metrics.tables import PaperTable

_MEDIA = {".svg": "svg+xml", ".jpg": "jpeg"}


@dataclass(frozen=True)
class PageTable:
    """A table of text cells.

    num_leading:  number of columns at the start that hold words
    num_trailing: number of columns at the end that hold words; the columns between hold numbers
    """

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    num_leading: int = 1
    num_trailing: int = 0

    @property
    def is_text(self) -> list[bool]:
        """By column: whether it holds words."""
        return [k < self.num_leading or k >= len(self.head) - self.num_trailing for k in range(len(self.head))]


@dataclass(frozen=True)
class Page:
    """The content of a study's page.

    about:   notes on the runs, above the tables
    notes:   notes on how to read the tables, below them
    figures: (file in the page's folder, caption); missing files are left out
    """

    title: str
    lead: str
    about: Sequence[str]
    tables: Sequence[PageTable]
    notes: Sequence[str]
    figures: Sequence[tuple[Path, str]]


def write_page(page: Page, markdown: Path, html: Path) -> None:
    """Write the page as Markdown and as HTML. The HTML file embeds its figures."""
    figures = [(path, caption) for path, caption in page.figures if path.is_file()]
    write_text(markdown, render("page.md.j2", {"page": page, "figures": figures}))
    write_text(html, render("page.html.j2", {"page": page, "figures": figures}))


def render(template: str, values: Mapping[str, object]) -> str:
    """Render a template of the folder above, which all studies share. It may include the report's templates."""
    environment = template_environment("..")
    environment.filters |= {"code": _code, "data_uri": _data_uri}
    return environment.get_template(template).render(values)


def _code(text: str) -> Markup:
    """Escaped text, with backticks turned into <code>."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _data_uri(path: Path) -> str:
    return f"data:image/{_MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def score_page_table(table: StudyTable, baseline: str, about: Sequence[str]) -> PageTable:
    """The study's table. about: the columns that describe a row."""
    head = ("row", *(key.replace("_", " ") for key in about), "paper: G", "ours: J&F ± sd", "J ± sd", "F ± sd")
    head += ("mean over videos, 95 % interval", "J&F by seed", "steps", "best epochs", f"paper: G - {baseline}")
    head += (f"ours: J&F - {baseline}, 95 % interval", "p (Holm)", "effect size", "verdict")
    return PageTable(head, [_cells(row, about) for row in table.rows], num_leading=1 + len(about), num_trailing=1)


def _cells(row: TableRow, about: Sequence[str]) -> tuple[str, ...]:
    description = (row["row"], *(row[key] for key in about), f"{row['paper_G']:.1f}")
    scores = (*(_mean_and_sd(row, key) for key in SCORES), _with_interval(row, "videos_mean", "videos", "{:.1f}"))
    training = (row["JF_by_seed"], row["steps"], row["best_epochs"])
    difference = (_text(row["paper_difference"], "{:+.1f}"), _with_interval(row, "difference", "difference", "{:+.1f}"))
    test = (_text(row["p_holm"], "{:.3f}"), _text(row["effect_size"], "{:+.2f}"), row["verdict"])
    return *description, *scores, *training, *difference, *test


def _mean_and_sd(row: TableRow, key: str) -> str:
    mean, sd = row[f"{key}_mean"], row[f"{key}_sd"]
    if isinstance(mean, str):
        return mean
    return f"{mean:.1f} ({sd})" if isinstance(sd, str) else f"{mean:.1f} ± {sd:.1f}"


def _with_interval(row: TableRow, mean_key: str, key: str, number_format: str) -> str:
    mean, low, high = row[mean_key], row[f"{key}_low"], row[f"{key}_high"]
    if isinstance(mean, str):
        return mean
    interval = low if isinstance(low, str) else f"{number_format.format(low)} to {number_format.format(high)}"
    return f"{number_format.format(mean)} ({interval})"


def _text(value: object, number_format: str) -> str:
    return value if isinstance(value, str) else number_format.format(value)


def baseline_page_table(baselines: Mapping[str, Mapping[str, float]]) -> PageTable:
    """The baselines without training, to compare every row with."""
    rows = [
        (f"{METHODS[name].title}: {METHODS[name].about}", *(f"{scores[key]:.1f}" for key in ("JF", "J", "F")))
        for name, scores in baselines.items()
    ]
    return PageTable(("baseline without training", "J&F", "J", "F"), rows)


def about_runs(config: Config, paper: PaperTable, study: Study, videos: Sequence[IndexedVideo]) -> list[str]:
    """Notes on the paper's runs and ours: data, training, seeds."""
    first, backbone = videos[0].frames[0], config.model.backbone
    layouts = ", ".join(source.layout for source in config.data.sources)
    stages = f"stage 1: {_stage(config.train.stage1)}; stage 2: {_stage(config.train.stage2)}"
    weights = "published weights" if backbone.weights else "random weights"
    return [
        f"The paper: {paper.data}, G (the mean of J and F over seen and unseen categories).",
        f"Ours: data set `{config.data.name}` ({layouts}), frames of {first.height}x{first.width}; trained on "
        f"{_trained_on(config, videos)}, the epoch chosen on {_count(videos, 'holdout')}, evaluated on "
        f"{_count(videos, 'val')}; J&F of DAVIS-2017.",
        f"Training: {backbone.name} with {backbone.width} channels at its stem, from {weights}; {stages}.",
        f"Seeds: {', '.join(map(str, study.seeds))}. All scores are percent.",
        "Videos, network size and score differ from the paper's: only signs and order are compared, not values.",
    ]


def about_statistics(paper: PaperTable, study: Study, baseline: str, main: str, num_compared: int) -> list[str]:
    """Notes on the numbers and the verdicts.

    baseline:     the row that all others are compared with
    main:         the row that must score above GrabCut + flow before any row gets a verdict
    num_compared: number of rows compared with the baseline
    """
    few = f" This study has {_counted(len(study.seeds), 'seed')}." if len(study.seeds) < FEWEST else ""
    return [
        "J&F, J, F: the benchmark's scores, in which every object has the same weight; sd: sample standard deviation "
        "over seeds. Steps: sum of both stages. Best epochs: the saved epochs, stage 1+stage 2, by seed.",
        "Mean over videos, difference, intervals, p and effect size have the video as their unit: its score is the "
        "mean of (J + F) / 2 over its objects, and every video has the same weight. These numbers therefore do not "
        "follow from the benchmark's scores.",
        f"J&F - {baseline}: over the seeds and videos that both rows have. Seeds and videos are crossed: all seeds are "
        "evaluated on the same videos, and runs with the same seed are paired. The 95 % intervals are for new seeds "
        "and new videos. Effect size: the mean difference divided by the standard deviation of one difference, that "
        "of one new training of each row on one new video. `none`: undefined with one seed or one video.",
        f"p (Holm): adjusted for the {_counted(num_compared, 'comparison')} with `{baseline}`, which are one family. "
        "The order of all rows compares all pairs of rows in the same way; these pairs are another family.",
        "`agrees`: the difference has the paper's sign and p (Holm) is at most 0.05; `differs`: it has the other sign "
        "and p (Holm) is at most 0.05; `undecided`: p (Holm) is above 0.05. A verdict needs at least "
        f"{FEWEST} seeds.{few} No row has a verdict unless the mean of `{main}` is above GrabCut + flow.",
        "Seeds differ in initial weights and sampled clips; all are evaluated on the same videos.",
        *(f"A slip in the paper: {slip}." for slip in paper.slips),
    ]


def _trained_on(config: Config, videos: Sequence[IndexedVideo]) -> str:
    unlimited = {source.name for source in config.data.sources if source.unlimited}
    stored = [video for video in videos if video.dataset not in unlimited]
    parts = [_count(stored, "train")] if any(video.split == "train" for video in stored) else []
    return " and ".join(parts + ["clips rendered during training"] * bool(unlimited))


def _stage(one: StageConfig) -> str:
    epochs = f"{_counted(one.epochs, 'epoch')} of {one.clips_per_epoch} clips of {one.clip_frames} frames"
    return f"{epochs}, {one.height}x{one.width}, {one.batch_clips} clips a batch"


def _count(videos: Sequence[IndexedVideo], split: str) -> str:
    own = [video for video in videos if video.split == split]
    return f"{_counted(len(own), 'video')} ({_counted(sum(len(video.objects) for video in own), 'object')})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
