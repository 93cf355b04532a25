"""What each stage leaves in MLflow, read from its files alone; run as a command it writes every run that is missing.

After `dvc pull`, a cache hit or a lost database: `python -m pipelines.tracking.run_records`.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.params import BEST, CURVES, TRIALS, Layout, flatten, nested, read_params, typed
from pipelines.stage import no_arguments, run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.contact_sheet import contact_sheets
from pipelines.tracking.mlflow_client import DataUse, Record
from ssvos.config import Config, read_yaml
from ssvos.config.variants import Params, merge, variant_of
from ssvos.data.index import read_index
from ssvos.data.preparation import sequences_by_split
from ssvos.files import explain
from ssvos.models.checkpoint import file_digest, load_checkpoint
from ssvos.progress import progress_bar

_NAMES = {"source", "object", "status"}  # columns of text


@dataclass(frozen=True)
class Records:
    """Makes the records of one data set's outputs."""

    params: Params
    layout: Layout
    data: DataUse
    counts: dict[str, int]

    @classmethod
    def read(cls, params: Params, layout: Layout) -> "Records":
        index = read_index(layout.index)
        counts = sequences_by_split(index)
        digest = tracking.data_digest(index)
        data = DataUse(layout.name, digest, str(layout.index), "", {"frames": len(index), **counts})
        return cls(params, layout, data, counts)

    def record(self, stage: str, output: Path, context: str, config: Config, variant: str = "", **content) -> Record:
        """A record whose identity is its stage, its variant, its data and the bytes of its main output."""
        tags = {"stage": stage, "data": self.layout.name, "data.digest": self.data.digest}
        tags |= {"variant": variant} if variant else {}
        tags |= {"output.digest": file_digest(output)} | content.pop("tags", {})
        use = DataUse(self.data.name, self.data.digest, self.data.source, context, self.data.profile)
        name = f"{variant} {stage}" if variant else f"{self.layout.name} {stage}"
        return Record(name, tags, flatten(config), use, **content)

    def prepare(self) -> Record:
        metrics = {"frames": self.data.profile["frames"]} | {f"sequences.{k}": v for k, v in self.counts.items()}
        return self.record("prepare", self.layout.index, "index", self.params.base, metrics=metrics)

    def scribbles(self) -> Record:
        path = self.layout.scribbles / "summary.json"
        metrics = tracking.numbers(json.loads(path.read_text()))
        store = self.layout.scribbles / "scribbles.parquet"
        return self.record("scribbles", store, "scribbles", self.params.base, metrics=metrics, files={"": [path]})

    def training(self, variant: str, stage: str) -> Record:
        out, is_last = self.layout.run(variant, stage), stage == "stage2"
        checkpoint = out / "checkpoint.pt"
        about = load_checkpoint(checkpoint)[1].about
        return self.record(
            f"train_{stage}",
            checkpoint,
            "training",
            self.params.variant(variant),
            variant,
            tags={"checkpoint.digest": file_digest(checkpoint), "chosen_by": about["chosen_by"]},
            metrics={"best_holdout_score": about["holdout_score"], "best_epoch": about["epoch"]},
            history=_rows(out / "history.csv"),
            files={"": [out / "history.csv"] if is_last else [checkpoint, out / "history.csv"]},
            model=checkpoint if is_last else None,
        )

    def prediction(self, variant: str) -> Record:
        path = self.layout.speed(variant)
        speed = json.loads(path.read_text())
        tags = {"checkpoint.digest": speed["checkpoint"]}
        config = self.params.variant(variant)
        tables = {"videos.json": speed["videos"]}
        metrics = tracking.numbers(speed)
        return self.record("predict", path, "judged", config, variant, tags=tags, metrics=metrics, tables=tables)

    def evaluation(self, variant: str) -> Record:
        path = self.layout.results(variant)
        result = json.loads(path.read_text())
        config = self.params.variant(variant)
        sheets = contact_sheets(config, self.layout, self.layout.predictions(variant))
        rows = _rows(self.layout.objects(variant))
        for row in rows:  # the source last: by default MLflow compares runs by the first two columns
            row["source"] = row.pop("source")
        return self.record(
            "evaluate",
            path,
            "judged",
            config,
            variant,
            tags={"checkpoint.digest": result["checkpoint"]},
            metrics=test_metrics(result["scores"], "test."),
            tables={"scores.json": score_rows(variant, result["scores"]), "objects.json": rows},
            files={"": [path, *filter(Path.is_file, [self.layout.frame_scores(variant)])]},
            pictures={f"masks/{name}": sheet for name, sheet in sheets.items()},
        )

    def baselines(self) -> Record:
        result = json.loads(self.layout.baselines.read_text())
        metrics = {key: n for name, scores in result.items() for key, n in test_metrics(scores, f"{name}.").items()}
        rows = [row for name, scores in result.items() for row in score_rows(name, scores)]
        videos = [
            {"answer": name, "sequence": sequence, **values, "source": source}
            for name, scores in result.items()
            for source, one in scores.items()
            for sequence, values in one.get("sequences", {}).items()
        ]
        return self.record(
            "baselines",
            self.layout.baselines,
            "judged",
            self.params.base,
            metrics=metrics,
            tables={"scores.json": rows, "videos.json": videos},
        )

    def tables(self) -> Record:
        """The paper's tables with this run in them; their rows by file name."""
        folder, path = self.layout.tables, self.layout.tables / "numbers.json"
        rows = {f"{table.stem}.json": _texts(table) for table in sorted(folder.glob("*.csv"))}
        pages = [self.layout.tables_page, *sorted(folder.glob("*.md"))]
        metrics = tracking.numbers(json.loads(path.read_text()))
        return self.record("tables", path, "judged", self.params.base, metrics=metrics, tables=rows, files={"": pages})

    def report(self) -> Record:
        return self.record("report", self.layout.page, "judged", self.params.base, files={"": [self.layout.page]})

    def search(self) -> Record:
        found = read_yaml(BEST)
        scores = {"best_score": found["best"], "score_before": found["before"] or {}}
        metrics = {key: one["score"] for key, one in scores.items() if one.get("score") is not None}
        metrics |= {key: found["search"][key] for key in ("trials", "finished", "stopped", "failed")}
        return self.record(
            "tune",
            TRIALS,
            "training",
            self.params.variant(found["search"]["variant"]),
            found["search"]["variant"],
            tags={"search": found["search"]["digest"]},
            metrics=metrics,
            tables={"trials.json": _rows(TRIALS)},
            files={"": [TRIALS, BEST]},
            experiment=tracking.SEARCHES,
        )


def trial_record(search: Record, config: Config, number: int, values: dict[str, float], history: list[dict]) -> Record:
    """The record of a trial: all its parameters, the searched ones with its own values, and its curve."""
    own = Config.model_validate(merge(config.model_dump(mode="json"), nested(values)))
    tags = {k: search.tags[k] for k in ("data", "data.digest", "variant", "search")}
    tags |= {"stage": "trial", "trial": str(number)}
    best = max((row["holdout_score"] for row in history), default=None)
    metrics = {} if best is None else {"best_holdout_score": best, "epochs": len(history)}
    return Record(
        f"trial {number}", tags, flatten(own), search.data, metrics, history=history, experiment=tracking.SEARCHES
    )


def _rows(path: Path) -> list[dict[str, object]]:
    """The rows of a CSV file; names stay text, also those of digits alone."""
    with open(path, newline="") as file:
        return [{k: v if k in _NAMES else _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _texts(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text  # nothing, or a choice of a search


def test_metrics(scores: dict[str, dict], prefix: str) -> dict[str, float]:
    """test.global.J_and_F-Mean and so on; with several sources the source's name comes before `global`."""
    metrics = {}
    for name, one in scores.items():
        start = prefix if len(scores) == 1 else f"{prefix}{name}."
        shown = {key: one[key] for key in ("global", "visibility") if key in one}
        metrics |= {f"{start}{key}": value for key, value in tracking.numbers(shown).items()}
    return metrics


def score_rows(answer: str, scores: dict[str, dict]) -> list[dict]:
    """A row a source: the benchmark's global scores of an answer."""
    return [
        {"source": source, **one["global"], "protocol": one["protocol"], "answer": answer}
        for source, one in scores.items()
    ]


def write_evaluation(record: Record) -> None:
    """The evaluation's own run, and its scores on the training run and logged model whose checkpoint was judged."""
    write_once(record)
    keys = ("variant", "data", "data.digest", "checkpoint.digest")
    trained = tracking.find_run({"stage": "train_stage2"} | {key: record.tags[key] for key in keys})
    if trained:
        tracking.log_metrics(trained, record.metrics, data=record.data)


def write_once(record: Record, parent: str = "") -> str:
    """Write a record unless the store has it; returns its run's id."""
    return tracking.find_run(record.tags, record.experiment) or tracking.write(record, parent=parent)


def write_search(records: Records, record: Record) -> None:
    """A search's run and a child run for every trial."""
    parent = write_once(record)
    config = records.params.variant(record.tags["variant"])
    config = Config.model_validate(merge(config.model_dump(mode="json"), config.tune.trial))
    for trial in trial_records(record, config):
        write_once(trial, parent)


def trial_records(search: Record, config: Config) -> list[Record]:
    """The trials of the search on disk, in order."""
    curves = _rows(CURVES)
    trials = [row for row in search.tables["trials.json"] if row["status"] != "failed"]
    return [
        trial_record(
            search,
            config,
            int(row["trial"]),
            typed(config, {key: value for key, value in row.items() if "." in key}),
            [{k: v for k, v in point.items() if k != "trial"} for point in curves if point["trial"] == row["trial"]],
        )
        for row in trials
    ]


def all_of(records: Records) -> Iterator[tuple[str, Callable[[], object]]]:
    """What to write and how, for every output of the data set that is on disk."""
    layout, names = records.layout, _run_names(records)

    def once(make: Callable[..., Record], *args: str) -> Callable[[], object]:
        return lambda: write_once(make(*args))

    yield "prepare", once(records.prepare)
    if (layout.scribbles / "summary.json").is_file():
        yield "scribbles", once(records.scribbles)
    for name in names:
        for stage in ("stage1", "stage2"):
            if (layout.run(name, stage) / "checkpoint.pt").is_file():
                yield f"{name} train_{stage}", once(records.training, name, stage)
        if layout.speed(name).is_file():
            yield f"{name} predict", once(records.prediction, name)
        if layout.results(name).is_file():
            yield f"{name} evaluate", lambda name=name: write_evaluation(records.evaluation(name))
    if layout.baselines.is_file():
        yield "baselines", once(records.baselines)
    if (layout.tables / "numbers.json").is_file():
        yield "tables", once(records.tables)
    if BEST.is_file() and read_yaml(BEST)["search"]["data"] == layout.name:
        yield "tune", lambda: write_search(records, records.search())
    if layout.page.is_file():
        yield "report", once(records.report)


def _run_names(records: Records) -> list[str]:
    """The variants, and those of them that a study ran with seeds of their own."""
    names = list(records.params.variants)
    return names + [name for name in records.layout.run_names() if variant_of(name) in names and name not in names]


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    layout = Layout(params.base.data.name)
    tracking.require_store()
    if not layout.index.is_file():
        raise FileNotFoundError(f"{layout.index}: nothing to record yet; `dvc pull` or `dvc repro` makes it")
    steps = list(all_of(Records.read(params, layout)))
    with progress_bar("writing runs", len(steps)) as advance:
        for label, write in steps:
            try:
                write()
            except (KeyError, TypeError, json.JSONDecodeError, FileNotFoundError) as error:
                raise ValueError(
                    f"{label}: its outputs are not whole ({explain(error)}); `dvc checkout` brings them back"
                ) from error
            advance()
    print(f"{tracking.tracking_uri()}: holds " + ", ".join(label for label, _ in steps))


if __name__ == "__main__":
    run_stage(main)
