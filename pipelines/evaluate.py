"""Stage `evaluate`: a variant's scores on the judged videos, as a DVC metric, a CSV and on its MLflow run."""

import argparse
import csv
import io

from pipelines import tracking
from pipelines.judged import score
from pipelines.params import Layout, flatten, read_params, write_json
from pipelines.stage import run_stage
from ssvos.checkpoint import file_digest, load_checkpoint
from ssvos.files import write_text

_BRIEF = ("protocol", "global", "visibility")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    args = parser.parse_args()
    config = read_params().variant(args.variant)
    layout = Layout(config.data.name)
    checkpoint = layout.run(args.variant, "stage2") / "checkpoint.pt"
    scores = score(config, layout, layout.predictions(args.variant))
    about = load_checkpoint(checkpoint)[1].about
    result = {
        "data": layout.name,
        "variant": args.variant,
        "checkpoint": file_digest(checkpoint),
        "chosen_by": about["chosen_by"],
        "holdout_score": about["holdout_score"],
        "scores": {name: {key: one[key] for key in _BRIEF if key in one} for name, one in scores.items()},
    }
    if not scores:
        result["not_scored"] = "the judged videos have no masks"
    out = layout.results(args.variant)
    write_json(out, result)
    rows = object_rows(scores)
    write_text(out.with_name("objects.csv"), _csv(rows))
    _track(args.variant, layout, config, result, rows)
    print(f"{out}: " + (_line(scores) if scores else f"not scored, {result['not_scored']}"))


def object_rows(scores: dict) -> list[dict]:
    """One row an object: J and F, and for DAVIS their recall and decay."""
    rows = []
    for source, one in scores.items():
        for name, values in one["objects"].items():
            row = {"source": source, "object": name}
            rows.append(row | tracking.numbers(values))
    return rows


def _csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["source", "object"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _line(scores: dict) -> str:
    return "; ".join(
        f"{name} " + ", ".join(f"{k} {'-' if v is None else f'{100 * v:.1f}'}" for k, v in one["global"].items())
        for name, one in scores.items()
    )


def _track(variant: str, layout: Layout, config, result: dict, rows: list[dict]) -> None:
    """Test metrics go to the training run, found by its checkpoint's digest, and to a run of this stage."""
    metrics = {}
    for name, one in result["scores"].items():
        prefix = "" if len(result["scores"]) == 1 else f"{name}."
        metrics |= {f"test.{prefix}{key}": value for key, value in tracking.numbers(one).items()}
    tags = {"variant": variant, "data": layout.name, "checkpoint.digest": result["checkpoint"]}
    trained = tracking.find_run(tags | {"stage": "train_stage2"})
    own = tracking.open_run(f"{variant} evaluate", tags | {"stage": "evaluate"}, flatten(config))
    for run_id in filter(None, (trained, own)):
        tracking.log_metrics(run_id, metrics)
        if rows:
            tracking.log_table(run_id, rows, "objects.json")
    tracking.close_run(own)


if __name__ == "__main__":
    run_stage(main)
