"""Stage `evaluate`: a variant's scores on the evaluation videos, as a DVC metric, as CSV and in its MLflow run."""

import argparse

from pipelines.evaluation_scores import (
    COLUMNS,
    count_videos,
    csv_text,
    frame_rows,
    score_predictions,
    scoring_cluster,
    summarize_videos,
)
from pipelines.params import Layout, read_params, write_json
from pipelines.stage import run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.record import numbers
from pipelines.tracking.run_records import write_evaluation
from pipelines.tracking.stage_records import Records
from ssvos.files import write_text
from ssvos.models.checkpoint import file_digest, load_checkpoint
from ssvos.progress import progress_bar

_METRIC_KEYS = ("protocol", "global", "visibility")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", required=True)
    args = parser.parse_args()
    params = read_params()
    config = params.variant(args.variant)
    tracking.connect()
    layout = Layout(config.data.name)
    checkpoint = layout.run(args.variant, "stage2") / "checkpoint.pt"
    masks = layout.predictions(args.variant)
    if not masks.is_dir():
        raise FileNotFoundError(f"{masks}: no masks to score; run `dvc repro predict@{args.variant}` first")
    about = load_checkpoint(checkpoint)[1].about
    with scoring_cluster(layout), progress_bar("scoring videos", count_videos(layout)) as advance:
        videos = score_predictions(config, layout, {args.variant: masks}, advance)[args.variant]
    scores = summarize_videos(config, layout, videos)
    result = {
        "data": layout.name,
        "variant": args.variant,
        "checkpoint": file_digest(checkpoint),
        "chosen_by": about["chosen_by"],
        "holdout_score": about["holdout_score"],
        "scores": {
            source: {key: summary[key] for key in _METRIC_KEYS if key in summary} for source, summary in scores.items()
        },
    }
    if not scores:
        result["not_scored"] = "the evaluation videos have no masks"
    out = layout.results(args.variant)
    write_json(out, result)
    write_text(layout.objects(args.variant), csv_text(object_rows(scores), ("source", "object")))
    write_text(layout.frame_scores(args.variant), csv_text(frame_rows(videos), COLUMNS))
    write_evaluation(Records.read(params, layout).evaluation(args.variant))
    print(f"{out}: " + (_summary_line(scores) if scores else f"not scored, {result['not_scored']}"))


def object_rows(scores: dict) -> list[dict]:
    """Return a row per object: J and F, and for DAVIS also their recall and decay."""
    rows = []
    for source, summary in scores.items():
        for name, values in summary["objects"].items():
            row = {"source": source, "object": name}
            rows.append(row | numbers(values))
    return rows


def _summary_line(scores: dict) -> str:
    return "; ".join(
        f"{source} " + ", ".join(f"{k} {'-' if v is None else f'{100 * v:.1f}'}" for k, v in summary["global"].items())
        for source, summary in scores.items()
    )


if __name__ == "__main__":
    run_stage(main)
