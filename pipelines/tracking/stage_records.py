"""Builds each stage's MLflow record from the files that the stage wrote."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from pipelines.params import BEST, CURVES, TRIALS, Layout, flatten, nested, typed
from pipelines.tracking.contact_sheet import contact_sheets
from pipelines.tracking.record import SEARCHES, DataUse, Record, data_digest, numbers
from ssvos.config import Config, read_yaml
from ssvos.config.variants import Params, merge
from ssvos.data.index import read_index
from ssvos.data.preparation import sequences_by_split
from ssvos.models.checkpoint import file_digest, load_checkpoint

_TEXT_COLUMNS = {"source", "object", "status"}


@dataclass(frozen=True)
class Records:
    """Builds the records of one data set's outputs; `read` loads the index that all of them refer to.

    counts: sequences of each split.
    """

    params: Params
    layout: Layout
    data: DataUse
    counts: dict[str, int]

    @classmethod
    def read(cls, params: Params, layout: Layout) -> "Records":
        index = read_index(layout.index)
        counts = sequences_by_split(index)
        digest = data_digest(index)
        data = DataUse(layout.name, digest, str(layout.index), "", {"frames": len(index), **counts})
        return cls(params, layout, data, counts)

    def record(self, stage: str, output: Path, context: str, config: Config, variant: str = "", **content) -> Record:
        """Return a record identified by its stage, variant, data and the digest of its main output.

        context: what the run used the data for, see `DataUse`.
        content: further fields of the record.
        """
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
        metrics = numbers(json.loads(path.read_text()))
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
            history=_read_rows(out / "history.csv"),
            files={"": [out / "history.csv"] if is_last else [checkpoint, out / "history.csv"]},
            model=checkpoint if is_last else None,
        )

    def prediction(self, variant: str) -> Record:
        path = self.layout.speed(variant)
        speed = json.loads(path.read_text())
        tags = {"checkpoint.digest": speed["checkpoint"]}
        config = self.params.variant(variant)
        tables = {"videos.json": speed["videos"]}
        metrics = numbers(speed)
        return self.record("predict", path, "evaluation", config, variant, tags=tags, metrics=metrics, tables=tables)

    def evaluation(self, variant: str) -> Record:
        path = self.layout.results(variant)
        result = json.loads(path.read_text())
        config = self.params.variant(variant)
        sheets = contact_sheets(config, self.layout, self.layout.predictions(variant))
        rows = _read_rows(self.layout.objects(variant))
        for row in rows:  # the source becomes the last column: MLflow compares runs by the first two
            row["source"] = row.pop("source")
        return self.record(
            "evaluate",
            path,
            "evaluation",
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
            {"baseline": name, "sequence": sequence, **values, "source": source}
            for name, scores in result.items()
            for source, summary in scores.items()
            for sequence, values in summary.get("sequences", {}).items()
        ]
        return self.record(
            "baselines",
            self.layout.baselines,
            "evaluation",
            self.params.base,
            metrics=metrics,
            tables={"scores.json": rows, "videos.json": videos},
        )

    def tables(self) -> Record:
        """The record of the paper's tables with this run's results, as rows by file name."""
        folder, path = self.layout.tables, self.layout.tables / "numbers.json"
        rows = {f"{table.stem}.json": _read_text_rows(table) for table in sorted(folder.glob("*.csv"))}
        pages = [self.layout.tables_page, *sorted(folder.glob("*.md"))]
        metrics = numbers(json.loads(path.read_text()))
        return self.record(
            "tables", path, "evaluation", self.params.base, metrics=metrics, tables=rows, files={"": pages}
        )

    def report(self) -> Record:
        return self.record("report", self.layout.page, "evaluation", self.params.base, files={"": [self.layout.page]})

    def search(self) -> Record:
        result = read_yaml(BEST)
        scores = {"best_score": result["best"], "score_before": result["before"] or {}}
        metrics = {key: trial["score"] for key, trial in scores.items() if trial.get("score") is not None}
        metrics |= {key: result["search"][key] for key in ("trials", "finished", "stopped", "failed")}
        return self.record(
            "tune",
            TRIALS,
            "training",
            self.params.variant(result["search"]["variant"]),
            result["search"]["variant"],
            tags={"search": result["search"]["digest"]},
            metrics=metrics,
            tables={"trials.json": _read_rows(TRIALS)},
            files={"": [TRIALS, BEST]},
            experiment=SEARCHES,
        )


def trial_record(search: Record, config: Config, number: int, values: dict[str, float], history: list[dict]) -> Record:
    """Return a trial's record: its parameters with the searched `values`, and its history."""
    trial_config = Config.model_validate(merge(config.model_dump(mode="json"), nested(values)))
    tags = {k: search.tags[k] for k in ("data", "data.digest", "variant", "search")}
    tags |= {"stage": "trial", "trial": str(number)}
    best = max((row["holdout_score"] for row in history), default=None)
    metrics = {} if best is None else {"best_holdout_score": best, "epochs": len(history)}
    return Record(
        f"trial {number}", tags, flatten(trial_config), search.data, metrics, history=history, experiment=SEARCHES
    )


def trial_records(search: Record, config: Config) -> list[Record]:
    """Return the records of the trials on disk that did not fail, in order."""
    curves = _read_rows(CURVES)
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


def test_metrics(scores: dict[str, dict], prefix: str) -> dict[str, float]:
    """Return metrics such as test.global.J_and_F-Mean; several sources put their name before `global`."""
    metrics = {}
    for name, summary in scores.items():
        start = prefix if len(scores) == 1 else f"{prefix}{name}."
        selected = {key: summary[key] for key in ("global", "visibility") if key in summary}
        metrics |= {f"{start}{key}": value for key, value in numbers(selected).items()}
    return metrics


def score_rows(name: str, scores: dict[str, dict]) -> list[dict]:
    """Return a row per source with the benchmark's global scores of a variant or baseline."""
    return [
        {"source": source, **summary["global"], "protocol": summary["protocol"], "method": name}
        for source, summary in scores.items()
    ]


def _read_rows(path: Path) -> list[dict[str, object]]:
    """Read a CSV file; text columns stay text even if they contain only digits."""
    with open(path, newline="") as file:
        return [{k: v if k in _TEXT_COLUMNS else _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _read_text_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text  # an empty cell, or a choice of a search
