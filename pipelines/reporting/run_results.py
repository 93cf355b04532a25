"""A run's results for one of the paper's tables: which of its sources the table shows, and their scores by seed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.evaluation_set import METHODS
from pipelines.params import Layout
from ssvos.config.variants import Params, variant_of
from ssvos.data.index import IndexedVideo
from ssvos.metrics.tables import Benchmark

NOT_RUN = "not run"
_VARIANT_SUPERVISION, _BASELINE_SUPERVISION = "scribble-supervised", "the first frame's scribbles"
_OTHER_SUPERVISION = {"empty": "none", "copied": "the first frame's true mask"}
Scores = dict[str, float | None]  # percent by measure; None where no object of the videos counts towards the measure


@dataclass(frozen=True)
class EvaluatedSource:
    """A source of this run, compared with the benchmark of a table.

    source: the source whose scores the table shows; "" if it shows none
    name:   the data set, its source and layout, in words
    unlike: why its videos are not the benchmark's; "" if they are
    """

    source: str
    name: str
    unlike: str


@dataclass(frozen=True)
class RunResult:
    """Scores of one variant or baseline of this run.

    variant: "" for a baseline
    scores:  by seed
    missing: why there are none
    """

    evaluated: EvaluatedSource
    name: str
    variant: str
    supervision: str
    scores: tuple[Scores, ...]
    missing: str

    def values(self, measure: str) -> list[float] | None:
        """One value a seed, empty if not run; None if the measure is undefined for a seed."""
        values = [one[measure] for one in self.scores]
        return None if None in values else values


def evaluated_sources(
    benchmark: Benchmark, params: Params, layout: Layout, videos: Sequence[IndexedVideo]
) -> list[EvaluatedSource]:
    """The sources that a table shows.

    They are the source with the benchmark's own videos. Without one, all sources of the benchmark's protocol. Without
    those, one entry without scores that names all sources.

    videos: the evaluation videos
    """
    candidates, sources = [], [source for source in params.base.data.sources if source.val]
    for source in sources:
        own = [video for video in videos if video.dataset == source.name]
        num_objects = sum(len(video.objects) for video in own)
        unlike = benchmark.unlike(source.layout, source.val, {video.sequence for video in own}, num_objects)
        is_shown = (source.layout == "youtube-vos") == (benchmark.layout == "youtube-vos")
        is_shown &= benchmark.takes_other_videos or not unlike
        name = f"{layout.name}: {source.name}" if len(sources) > 1 else layout.name
        candidates.append(EvaluatedSource(source.name if is_shown else "", f"{name} ({source.layout})", unlike))
    exact, shown = [one for one in candidates if not one.unlike], [one for one in candidates if one.source]
    reasons = "; ".join(dict.fromkeys(one.unlike for one in candidates))
    return exact or shown or [EvaluatedSource("", ", ".join(one.name for one in candidates), reasons)]


def run_results(
    evaluated: EvaluatedSource, benchmark: Benchmark, measures: Sequence[str], params: Params, layout: Layout
) -> list[RunResult]:
    """Results of every variant, the main one first, then of every baseline.

    Raises ValueError for a result file that is cut off or of another kind.
    """
    results = []
    for variant in reversed(list(params.variants)):
        by_seed = _variant_results(variant, params, layout)
        scores = [_scores(path, one["scores"], evaluated.source, measures) for path, one in by_seed.values()]
        is_complete = bool(scores) and None not in scores
        name = f"{variant}, seeds {', '.join(map(str, by_seed))}" if is_complete and len(scores) > 1 else variant
        missing = "" if is_complete else _missing(evaluated, benchmark, layout, variant, has_result=bool(scores))
        results.append(
            RunResult(evaluated, name, variant, _VARIANT_SUPERVISION, tuple(scores) if is_complete else (), missing)
        )
    baselines = read_json(layout.baselines) if layout.baselines.is_file() else {}
    for method, about in METHODS.items():
        scores = _scores(layout.baselines, baselines.get(method, {}), evaluated.source, measures)
        name = f"without training: {about.title}"
        supervision = _OTHER_SUPERVISION.get(method, _BASELINE_SUPERVISION)
        results.append(RunResult(evaluated, name, "", supervision, (scores,) if scores else (), NOT_RUN))
    return results


def _missing(evaluated: EvaluatedSource, benchmark: Benchmark, layout: Layout, variant: str, has_result: bool) -> str:
    """Why a variant has no scores in the table, and the command that makes them."""
    server = "scores come from the benchmark's server" if benchmark.is_scored_by_server else ""
    if not evaluated.source:
        return f"{NOT_RUN} on {benchmark.title}: {evaluated.unlike}" + (f"; {server}" if server else "")
    if not has_result:
        return f"{NOT_RUN}: no result yet; `dvc repro evaluate@{variant}` makes it"
    if server and not evaluated.unlike:
        return f"{NOT_RUN}: {server}; `ssvos submit {layout.predictions(variant)}` makes its zip"
    return f"{NOT_RUN}: the evaluation videos have no masks"


def _variant_results(variant: str, params: Params, layout: Layout) -> dict[int, tuple[Path, dict]]:
    """val.json of a variant and of its runs with other seeds: seed -> path and content."""
    results = {}
    for path in sorted(layout.baselines.parent.glob("*/val.json")):
        if variant_of(path.parent.name) == variant:
            content = read_json(path)
            if not isinstance(content.get("scores"), dict):
                raise ValueError(f"{path}: not a result (it has no scores); `dvc repro` makes it again")
            results[params.variant(path.parent.name).train.seed] = path, content
    return results


def read_json(path: Path) -> dict:
    """Read a result file. Raises ValueError if it is not a JSON object."""
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); `dvc repro` makes it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a result (it has no scores); `dvc repro` makes it again")
    return content


def _scores(path: Path, scores: dict, source: str, measures: Sequence[str]) -> Scores | None:
    """A source's scores in percent; None if the source has none. path: their file, for the error message."""
    if source not in scores:
        return None
    try:
        values = {measure: scores[source]["global"][measure] for measure in measures}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a result ({source}: {error!r}); `dvc repro` makes it again") from error
    return {measure: None if value is None else 100 * value for measure, value in values.items()}
