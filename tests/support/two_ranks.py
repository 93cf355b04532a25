"""A program that a test runs as two processes.

It trains a stage on the tiny data with DDP. Rank 0 writes the results to a file.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch

import ssvos.training.train_step
from ssvos.config import Config
from ssvos.data.clips import ClipDataset, ClipSpec
from ssvos.losses.joint import JointLoss
from ssvos.training.train_state import TrainState
from ssvos.training.trainer import first_network, fit
from ssvos.training.training_data import TrainingData, training_data

MARK = torch.tensor([1, 254, 3, 252, 5, 250], dtype=torch.uint8)  # smooth images do not contain this sequence


def main(folder: Path, rank: int) -> None:
    """Train, then train again from a state that rank 0 saved within the epoch."""
    job = torch.load(folder / "job.pt", weights_only=True)
    config = Config.model_validate(job["config"])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    roots = {name: Path(root) for name, root in job["roots"].items()}
    data = training_data(Path(job["index"]), Path(job["scribbles"]), roots, config)
    make_loss_nan([data.fit.draw(config.train.stage1, config.train.seed, 0)[job["nan_clip"]]])
    path = folder / "state.pt"
    results = {"two": train(config, data, None, lambda state: torch.save(state, path) if rank == 0 else None)}
    torch.distributed.barrier()
    results["resumed"] = train(config, data, TrainState(**torch.load(path, weights_only=True)))
    if rank == 0:
        torch.save(results, folder / "results.pt")


def train(config: Config, data: TrainingData, resume: TrainState | None = None, save=lambda _: None) -> dict:
    """Return the results of stage 1. save: receives the values of each state within the epoch."""
    warnings: list[str] = []
    done = fit(
        first_network(config),
        data,
        config,
        config.train.stage1,
        "cpu",
        lambda _: None,
        resume,
        save=lambda train_state: save(vars(train_state)),
        warn=warnings.append,
    )
    return {"weights": done.weights, "history": done.history, "skipped": done.skipped, "warnings": warnings}


def make_loss_nan(specs: list[ClipSpec], patch: Callable[[object, str, object], None] = setattr) -> None:
    """Make the loss NaN for every batch with one of these clips, as diverging weights do."""
    read_clip, loss = ClipDataset.__getitem__, ssvos.training.train_step.joint_loss

    def marked(self, k: int) -> dict:
        item = read_clip(self, k)
        if self.specs[k] in specs:
            item["frames"][0, 0, 0, : len(MARK)] = MARK
        return item

    def nan_loss(prediction, frames, *rest) -> JointLoss:
        terms = loss(prediction, frames, *rest)
        is_marked = (255 * frames[:, 0, 0, 0, : len(MARK)]).round() == MARK
        return terms._replace(total=terms.total * torch.nan) if is_marked.all(dim=1).any() else terms

    patch(ClipDataset, "__getitem__", marked)
    patch(ssvos.training.train_step, "joint_loss", nan_loss)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
