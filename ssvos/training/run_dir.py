"""The output files of a training stage: checkpoint.pt with the chosen weights, history.csv with a row an epoch."""

import csv
import io
from pathlib import Path

from ssvos.config import Config
from ssvos.files import write_text
from ssvos.models.checkpoint import save_checkpoint
from ssvos.training.train_state import TrainState


def write_run(out: Path, train_state: TrainState, config: Config, stage: str, variant: str) -> Path:
    """Write both files, each atomically; returns the path of the checkpoint."""
    settings = getattr(config.train, stage)
    about = {
        "variant": variant,
        "stage": stage,
        "data": config.data.name,
        "height": settings.height,
        "width": settings.width,
        "epoch": train_state.best_epoch,
        "chosen_by": train_state.chosen_by,
        "holdout_score": train_state.best_score,
        "loss": config.loss.model_dump(mode="json"),
    }
    save_checkpoint(out / "checkpoint.pt", train_state.best_weights, config.model, about)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(train_state.history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(train_state.history)
    write_text(out / "history.csv", text.getvalue())
    return out / "checkpoint.pt"
