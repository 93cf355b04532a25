"""Published methods on clips of DAVIS-2016 beside a run's answers, clip by clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from pipelines.params import Layout
from pipelines.reporting.run_results import NOT_RUN
from pipelines.reporting.score_table import score_tables
from ssvos.config.variants import Params
from ssvos.data.index import IndexedVideo
from ssvos.metrics.tables import read_published_clips

HEADS = ("method", "given at test time", "mean")
_MASK, _SCRIBBLE = "true mask of the first frame", "scribbles of the first frame"
_GIVEN = {"empty": "nothing", "copied": _MASK}


@dataclass(frozen=True)
class ClipLine:
    """One method. cells: J / F of each clip in percent, and their mean before them; is_ours: a variant of this run."""

    name: str
    given: str
    cells: tuple[str, ...]
    is_ours: bool = False


@dataclass(frozen=True)
class ClipTable:
    """clips: those judged that are published, with one object as there; left_out: the others' names and why."""

    source: str
    clips: tuple[str, ...]
    lines: tuple[ClipLine, ...]
    left_out: tuple[str, ...]


def clip_tables(params: Params, layout: Layout, videos: Sequence[IndexedVideo]) -> list[ClipTable]:
    """A table for each source of DAVIS layout that judges published clips. videos: the judged ones."""
    published = read_published_clips()
    known = next(iter(published.values()))
    tables = []
    judging = [source for source in params.base.data.sources if source.val]
    for source, scored in zip(judging, score_tables(params, layout), strict=True):
        own = [v for v in videos if source.layout == "davis" and v.dataset == source.name and v.sequence in known]
        clips = tuple(video.sequence for video in own if len(video.objects) == 1)
        left_out = tuple(f"{v.sequence}: {len(v.objects)} objects here" for v in own if len(v.objects) != 1)
        if not clips:
            continue
        lines = [_line(name, _MASK, values, clips) for name, values in published.items()]
        for row in scored.rows:
            name = f"this run: {row.name}" if row.is_trained else f"without training: {row.name}"
            lines.append(_line(name, _GIVEN.get(row.name, _SCRIBBLE), row.videos, clips, row.is_trained))
        tables.append(ClipTable(source.name, clips, tuple(lines), left_out))
    return tables


def _line(name: str, given: str, values: dict, clips: Sequence[str], is_ours: bool = False) -> ClipLine:
    found = [values[clip] for clip in clips if clip in values]
    whole = _both(*map(mean, zip(*found, strict=True))) if len(found) == len(clips) else NOT_RUN
    each = (_both(*values[clip]) if clip in values else NOT_RUN for clip in clips)
    return ClipLine(name, given, (whole, *each), is_ours)


def _both(J: float, F: float) -> str:
    return f"{J:.1f} / {F:.1f}"
