"""Published methods on clips of DAVIS-2016 next to a run's variants and baselines, clip by clip."""

from collections.abc import Mapping, Sequence
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
_BASELINE_INPUTS = {"empty": "nothing", "copied": _MASK}


@dataclass(frozen=True)
class ClipRow:
    """One method.

    test_input: what the method gets of the first frame at test time
    cells:      the mean over the clips, then each clip: J / F in percent
    is_ours:    whether the method is a variant of this run
    """

    name: str
    test_input: str
    cells: tuple[str, ...]
    is_ours: bool = False


@dataclass(frozen=True)
class ClipTable:
    """The clips of one source.

    clips:    the evaluation videos that have published results, with one object each
    left_out: the other evaluation videos of DAVIS-2016, each with the reason
    """

    source: str
    clips: tuple[str, ...]
    rows: tuple[ClipRow, ...]
    left_out: tuple[str, ...]


def clip_tables(params: Params, layout: Layout, videos: Sequence[IndexedVideo]) -> list[ClipTable]:
    """One table for each source of DAVIS layout that has published clips. videos: the evaluation videos."""
    published = read_published_clips()
    known = next(iter(published.values()))
    tables = []
    sources = [source for source in params.base.data.sources if source.val]
    for source, scores in zip(sources, score_tables(params, layout), strict=True):
        own = [v for v in videos if source.layout == "davis" and v.dataset == source.name and v.sequence in known]
        clips = tuple(video.sequence for video in own if len(video.objects) == 1)
        left_out = tuple(f"{v.sequence}: {len(v.objects)} objects here" for v in own if len(v.objects) != 1)
        if not clips:
            continue
        rows = [_row(name, _MASK, values, clips) for name, values in published.items()]
        for row in scores.rows:
            name = f"this run: {row.name}" if row.is_trained else f"without training: {row.name}"
            test_input = _BASELINE_INPUTS.get(row.name, _SCRIBBLE)
            rows.append(_row(name, test_input, row.videos, clips, row.is_trained))
        tables.append(ClipTable(source.name, clips, tuple(rows), left_out))
    return tables


def _row(
    name: str,
    test_input: str,
    scores: Mapping[str, tuple[float, float]],
    clips: Sequence[str],
    is_ours: bool = False,
) -> ClipRow:
    """scores: clip -> J and F in percent; without one of the clips there is no mean."""
    available = [scores[clip] for clip in clips if clip in scores]
    average = _cell(*map(mean, zip(*available, strict=True))) if len(available) == len(clips) else NOT_RUN
    cells = (_cell(*scores[clip]) if clip in scores else NOT_RUN for clip in clips)
    return ClipRow(name, test_input, (average, *cells), is_ours)


def _cell(J: float, F: float) -> str:
    return f"{J:.1f} / {F:.1f}"
