"""What a training stage leaves: checkpoint.pt with the weights chosen, history.csv with a row an epoch."""

import csv
import io
from pathlib import Path

from ssvos.config import Config
from ssvos.files import write_text
from ssvos.models.checkpoint import save_checkpoint
from ssvos.training.trainer import TrainState


def write_run(out: Path, progress: TrainState, config: Config, stage: str, variant: str) -> Path:
    """Write both files, each whole or not at all; returns the checkpoint's path."""
    settings = getattr(config.train, stage)
    about = {
        "variant": variant,
        "stage": stage,
        "data": config.data.name,
        "height": settings.height,
        "width": settings.width,
        "epoch": progress.best_epoch,
        "chosen_by": progress.chosen_by,
        "holdout_score": progress.best_score,
        "loss": config.loss.model_dump(mode="json"),
    }
    save_checkpoint(out / "checkpoint.pt", progress.best_weights, config.model, about)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(progress.history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(progress.history)
    write_text(out / "history.csv", text.getvalue())
    return out / "checkpoint.pt"
