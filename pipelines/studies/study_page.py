"""A study's page, as Markdown and as one HTML file: what is compared, the table, and how to read it."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from pipelines.evaluation_set import METHODS
from pipelines.reporting.rendering import template_environment
from pipelines.studies.study import Study
from pipelines.studies.study_table import Line, StudyTable
from ssvos.config import Config, StageConfig
from ssvos.data.index import IndexedVideo
from ssvos.files import write_text
from ssvos.metrics.comparison import FEWEST
from ssvos.metrics.tables import PaperTable

_MEDIA = {".svg": "svg+xml", ".jpg": "jpeg"}


@dataclass(frozen=True)
class Grid:
    """Cells as text; the first `texts` columns and the last `ends` are words, the others numbers."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    texts: int = 1
    ends: int = 0

    @property
    def is_text(self) -> list[bool]:
        """By column."""
        return [k < self.texts or k >= len(self.head) - self.ends for k in range(len(self.head))]


@dataclass(frozen=True)
class Page:
    """figures: file beside the page, and what it shows; those that are not there are left out."""

    title: str
    lead: str
    about: Sequence[str]
    grids: Sequence[Grid]
    notes: Sequence[str]
    figures: Sequence[tuple[Path, str]]


def write_page(page: Page, markdown: Path, html: Path) -> None:
    """Both files; the HTML one needs no other."""
    figures = [(path, caption) for path, caption in page.figures if path.is_file()]
    write_text(markdown, rendered("page.md.j2", {"page": page, "figures": figures}))
    write_text(html, rendered("page.html.j2", {"page": page, "figures": figures}))


def rendered(template: str, values: Mapping[str, object]) -> str:
    """A template that all studies share, in the folder above; the style is the report's."""
    environment = template_environment("..")
    environment.filters |= {"code": _code, "data_uri": _data_uri}
    return environment.get_template(template).render(values)


def _code(text: str) -> Markup:
    """Backticks as HTML."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _data_uri(path: Path) -> str:
    return f"data:image/{_MEDIA[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def score_grid(table: StudyTable, baseline: str, about: Sequence[str]) -> Grid:
    """The table itself. about: the columns that say what a row is."""
    head = ("row", *(key.replace("_", " ") for key in about), "paper: G", "ours: J&F ± sd", "J ± sd", "F ± sd")
    head += ("mean over videos, 95 % interval", "J&F by seed", "steps", "best epochs", f"paper: G - {baseline}")
    head += (f"ours: J&F - {baseline}, 95 % interval", "p (Holm)", "effect size", "verdict")
    return Grid(head, [_cells(line, about) for line in table.lines], texts=1 + len(about), ends=1)


def _cells(line: Line, about: Sequence[str]) -> tuple[str, ...]:
    what = (line["row"], *(line[key] for key in about), f"{line['paper_G']:.1f}")
    ours = (_of(line, "JF"), _of(line, "J"), _of(line, "F"), _between(line, "videos_mean", "videos", "{:.1f}"))
    training = (line["JF_by_seed"], line["steps"], line["best_epochs"])
    differs = (_shown(line["paper_difference"], "{:+.1f}"), _between(line, "difference", "difference", "{:+.1f}"))
    tested = (_shown(line["p_holm"], "{:.3f}"), _shown(line["effect_size"], "{:+.2f}"), line["verdict"])
    return *what, *ours, *training, *differs, *tested


def _of(line: Line, key: str) -> str:
    mean, sd = line[f"{key}_mean"], line[f"{key}_sd"]
    if isinstance(mean, str):
        return mean
    return f"{mean:.1f} ({sd})" if isinstance(sd, str) else f"{mean:.1f} ± {sd:.1f}"


def _between(line: Line, middle: str, key: str, form: str) -> str:
    mean, low, high = line[middle], line[f"{key}_low"], line[f"{key}_high"]
    if isinstance(mean, str):
        return mean
    interval = low if isinstance(low, str) else f"{form.format(low)} to {form.format(high)}"
    return f"{form.format(mean)} ({interval})"


def _shown(value: object, form: str) -> str:
    return value if isinstance(value, str) else form.format(value)


def answer_grid(answers: Mapping[str, Mapping[str, float]]) -> Grid:
    """The answers without training, beside which every row has to stand."""
    rows = [
        (f"{name.replace('_', ' + ')}: {METHODS[name]}", *(f"{scores[key]:.1f}" for key in ("JF", "J", "F")))
        for name, scores in answers.items()
    ]
    return Grid(("without training", "J&F", "J", "F"), rows)


def about_runs(config: Config, paper: PaperTable, study: Study, videos: Sequence[IndexedVideo]) -> list[str]:
    """What the two columns of scores are of."""
    first, backbone = videos[0].frames[0], config.model.backbone
    layouts = ", ".join(source.layout for source in config.data.sources)
    stages = f"stage 1: {_stage(config.train.stage1)}; stage 2: {_stage(config.train.stage2)}"
    weights = "published weights" if backbone.weights else "random weights"
    return [
        f"The paper: {paper.data}, G (the mean of J and F over seen and unseen categories).",
        f"Ours: data set `{config.data.name}` ({layouts}), frames of {first.height}x{first.width}; trained on "
        f"{_trained_on(config, videos)}, the epoch chosen on {_count(videos, 'holdout')}, judged on "
        f"{_count(videos, 'val')}; J&F after DAVIS-2017.",
        f"Training: {backbone.name}, {backbone.width} channels at its stem, from {weights}; {stages}.",
        f"Seeds: {', '.join(map(str, study.seeds))}. All scores are percent.",
        "Other videos, a smaller network and another score than the paper's: only signs and order are compared, not "
        "values.",
    ]


def about_statistics(paper: PaperTable, study: Study, baseline: str, main: str, num_compared: int) -> list[str]:
    """How to read the numbers and the verdicts."""
    few = f" {_counted(len(study.seeds), 'seed')} here, too few for it." if len(study.seeds) < FEWEST else ""
    return [
        "J&F, J, F: the benchmark's score, in which every object counts the same; sd: sample standard deviation over "
        "seeds. Steps: of both stages. Best epochs: those kept, stage 1+stage 2, by seed.",
        "Mean over videos, difference, intervals, p and effect size have the video as their unit: its score is the "
        "mean of (J + F) / 2 over its objects, and every video counts the same. So they do not follow from the "
        "benchmark's score.",
        f"J&F - {baseline}: over the seeds and videos that both rows have. They are crossed: the same videos meet "
        "every seed, and runs of one seed are pairs. The 95 % intervals are for new seeds and new videos. Effect size: "
        "the difference in standard deviations of one difference, of one new training of each row on one new video. "
        "`none`: one seed, or one video, has none.",
        f"p (Holm): adjusted for the {_counted(num_compared, 'comparison')} with `{baseline}`, one family. The order "
        "of all rows compares every two of them in the same way; its pairs are a family of their own.",
        "`agrees`: the difference has the paper's sign and p (Holm) is at most 0.05; `differs`: the other sign, and p "
        f"as small; `undecided`: neither. A verdict takes {FEWEST} seeds.{few} No row has one while the mean of "
        f"`{main}` is not above GrabCut + flow.",
        "Seeds differ in initial weights and clips drawn; all are judged on the same videos.",
        *(f"A slip in the paper: {slip}." for slip in paper.slips),
    ]


def _trained_on(config: Config, videos: Sequence[IndexedVideo]) -> str:
    endless = {source.name for source in config.data.sources if source.unlimited}
    stored = [video for video in videos if video.dataset not in endless]
    parts = [_count(stored, "train")] if any(video.split == "train" for video in stored) else []
    return " and ".join(parts + ["clips rendered as they are drawn"] * bool(endless))


def _stage(one: StageConfig) -> str:
    epochs = f"{_counted(one.epochs, 'epoch')} of {one.clips_per_epoch} clips of {one.clip_frames} frames"
    return f"{epochs}, {one.height}x{one.width}, {one.batch_clips} a batch"


def _count(videos: Sequence[IndexedVideo], split: str) -> str:
    own = [video for video in videos if video.split == split]
    return f"{_counted(len(own), 'video')} ({_counted(sum(len(video.objects) for video in own), 'object')})"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
