"""Stage `evaluate`: a variant's scores on the judged videos, as a DVC metric, a CSV and on its MLflow run."""

import argparse

from pipelines.evaluation_scores import COLUMNS, count_videos, csv_text, figures, frame_rows, score_predictions, workers
from pipelines.params import Layout, read_params, write_json
from pipelines.stage import run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.run_records import Records, write_evaluation
from ssvos.files import write_text
from ssvos.models.checkpoint import file_digest, load_checkpoint
from ssvos.progress import progress_bar

_BRIEF = ("protocol", "global", "visibility")


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
        raise FileNotFoundError(f"{masks}: no masks to score; `dvc repro predict@{args.variant}` makes them")
    about = load_checkpoint(checkpoint)[1].about
    with workers(layout), progress_bar("scoring videos", count_videos(layout)) as advance:
        videos = score_predictions(config, layout, {args.variant: masks}, advance)[args.variant]
    scores = figures(config, layout, videos)
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
    write_text(layout.objects(args.variant), csv_text(object_rows(scores), ("source", "object")))
    write_text(layout.frame_scores(args.variant), csv_text(frame_rows(videos), COLUMNS))
    write_evaluation(Records.read(params, layout).evaluation(args.variant))
    print(f"{out}: " + (_line(scores) if scores else f"not scored, {result['not_scored']}"))


def object_rows(scores: dict) -> list[dict]:
    """One row an object: J and F, and for DAVIS their recall and decay."""
    rows = []
    for source, one in scores.items():
        for name, values in one["objects"].items():
            row = {"source": source, "object": name}
            rows.append(row | tracking.numbers(values))
    return rows


def _line(scores: dict) -> str:
    return "; ".join(
        f"{name} " + ", ".join(f"{k} {'-' if v is None else f'{100 * v:.1f}'}" for k, v in one["global"].items())
        for name, one in scores.items()
    )


if __name__ == "__main__":
    run_stage(main)
