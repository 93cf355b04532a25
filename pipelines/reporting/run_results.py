"""A run's answers beside one of the paper's tables: which of its sources the table takes, and their scores by seed."""

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
_TRAINED, _UNTRAINED = "scribble-supervised", "the first frame's scribbles"
_GIVEN = {"empty": "none", "copied": "the first frame's true mask"}
Scores = dict[str, float | None]  # percent by measure, None where no judged object counts towards one


@dataclass(frozen=True)
class Place:
    """What this run judges, seen from a table. source: the one whose scores the table shows, "" if none are; unlike:
    why its videos are not the table's, "" if they are."""

    source: str
    name: str
    unlike: str


@dataclass(frozen=True)
class Answer:
    """One answer of this run. variant: "" if it needs no training; scores: by seed; missing: why there are none."""

    place: Place
    name: str
    variant: str
    supervision: str
    scores: tuple[Scores, ...]
    missing: str

    def of(self, measure: str) -> list[float] | None:
        """The seeds' values, empty if not run; None where one is undefined."""
        values = [one[measure] for one in self.scores]
        return None if None in values else values


def places(benchmark: Benchmark, params: Params, layout: Layout, videos: Sequence[IndexedVideo]) -> list[Place]:
    """The sources that a table shows: the one with the table's own videos, else all of its protocol, else none by name.

    videos: the judged ones.
    """
    found, sources = [], [source for source in params.base.data.sources if source.val]
    for source in sources:
        own = [video for video in videos if video.dataset == source.name]
        num_objects = sum(len(video.objects) for video in own)
        unlike = benchmark.unlike(source.layout, source.val, {video.sequence for video in own}, num_objects)
        is_shown = (source.layout == "youtube-vos") == (benchmark.layout == "youtube-vos")
        is_shown &= benchmark.takes_other_videos or not unlike
        name = f"{layout.name}: {source.name}" if len(sources) > 1 else layout.name
        found.append(Place(source.name if is_shown else "", f"{name} ({source.layout})", unlike))
    exact, shown = [place for place in found if not place.unlike], [place for place in found if place.source]
    reasons = "; ".join(dict.fromkeys(place.unlike for place in found))
    return exact or shown or [Place("", ", ".join(place.name for place in found), reasons)]


def answers(
    place: Place, benchmark: Benchmark, measures: Sequence[str], params: Params, layout: Layout
) -> list[Answer]:
    """Every variant, the main one first, and every answer without training; ValueError for a result that is cut off."""
    found = []
    for variant in reversed(list(params.variants)):
        results = _results(variant, params, layout)
        scores = [_scores(path, one["scores"], place.source, measures) for path, one in results.values()]
        is_whole = bool(scores) and None not in scores
        name = f"{variant}, seeds {', '.join(map(str, results))}" if is_whole and len(scores) > 1 else variant
        missing = "" if is_whole else _missing(place, benchmark, layout, variant, has_result=bool(scores))
        found.append(Answer(place, name, variant, _TRAINED, tuple(scores) if is_whole else (), missing))
    baselines = read_json(layout.baselines) if layout.baselines.is_file() else {}
    for method in METHODS:
        scores = _scores(layout.baselines, baselines.get(method, {}), place.source, measures)
        name = f"without training: {method.replace('_', ' + ')}"
        found.append(Answer(place, name, "", _GIVEN.get(method, _UNTRAINED), (scores,) if scores else (), NOT_RUN))
    return found


def _missing(place: Place, benchmark: Benchmark, layout: Layout, variant: str, has_result: bool) -> str:
    server = "scores come from the benchmark's server" if benchmark.is_scored_by_server else ""
    if not place.source:
        return f"{NOT_RUN} on {benchmark.title}: {place.unlike}" + (f"; {server}" if server else "")
    if not has_result:
        return f"{NOT_RUN}: no result yet; `dvc repro evaluate@{variant}` makes it"
    if server and not place.unlike:
        return f"{NOT_RUN}: {server}; `ssvos submit {layout.predictions(variant)}` makes its zip"
    return f"{NOT_RUN}: the judged videos have no masks"


def _results(variant: str, params: Params, layout: Layout) -> dict[int, tuple[Path, dict]]:
    """What `evaluate` wrote of a variant, and of the variant with seeds of their own, by seed."""
    found = {}
    for path in sorted(layout.baselines.parent.glob("*/val.json")):
        if variant_of(path.parent.name) == variant:
            result = read_json(path)
            if not isinstance(result.get("scores"), dict):
                raise ValueError(f"{path}: not a result (it has no scores); `dvc repro` makes it again")
            found[params.variant(path.parent.name).train.seed] = path, result
    return found


def read_json(path: Path) -> dict:
    """A result's file; ValueError for one that is not JSON."""
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); `dvc repro` makes it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a result (it has no scores); `dvc repro` makes it again")
    return content


def _scores(path: Path, scores: dict, source: str, measures: Sequence[str]) -> Scores | None:
    """A source's scores in percent; None without any."""
    if source not in scores:
        return None
    try:
        values = {measure: scores[source]["global"][measure] for measure in measures}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a result ({source}: {error!r}); `dvc repro` makes it again") from error
    return {measure: None if value is None else 100 * value for measure, value in values.items()}
