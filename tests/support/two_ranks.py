"""Run by a test as two processes: a stage of the tiny data by DDP, whose results rank 0 writes to a file."""

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

MARK = torch.tensor([1, 254, 3, 252, 5, 250], dtype=torch.uint8)  # no smooth image has it


def main(folder: Path, rank: int) -> None:
    """Train, and go on from the state that rank 0 came to meanwhile."""
    job = torch.load(folder / "job.pt", weights_only=True)
    config = Config.model_validate(job["config"])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    roots = {name: Path(root) for name, root in job["roots"].items()}
    data = training_data(Path(job["index"]), Path(job["scribbles"]), roots, config)
    spoil([data.fit.draw(config.train.stage1, config.train.seed, 0)[job["spoilt"]]])
    state = folder / "state.pt"
    results = {"two": trained(config, data, None, lambda made: torch.save(made, state) if rank == 0 else None)}
    torch.distributed.barrier()
    results["resumed"] = trained(config, data, TrainState(**torch.load(state, weights_only=True)))
    if rank == 0:
        torch.save(results, folder / "results.pt")


def trained(config: Config, data: TrainingData, resume: TrainState | None = None, keep=lambda _: None) -> dict:
    """keep: gets a state within the epoch, as plain values."""
    said: list[str] = []
    done = fit(
        first_network(config),
        data,
        config,
        config.train.stage1,
        "cpu",
        lambda _: None,
        resume,
        save=lambda train_state: keep(vars(train_state)),
        warn=said.append,
    )
    return {"weights": done.weights, "history": done.history, "skipped": done.skipped, "said": said}


def spoil(specs: list[ClipSpec], patch: Callable[[object, str, object], None] = setattr) -> None:
    """Make the loss of a batch that holds one of these clips not finite, as weights do that have grown too large."""
    clip, loss = ClipDataset.__getitem__, ssvos.training.train_step.joint_loss

    def marked(self, k: int) -> dict:
        item = clip(self, k)
        if self.specs[k] in specs:
            item["frames"][0, 0, 0, : len(MARK)] = MARK
        return item

    def spoilt(prediction, frames, *rest) -> JointLoss:
        terms = loss(prediction, frames, *rest)
        found = (255 * frames[:, 0, 0, 0, : len(MARK)]).round() == MARK
        return terms._replace(total=terms.total * torch.nan) if found.all(dim=1).any() else terms

    patch(ClipDataset, "__getitem__", marked)
    patch(ssvos.training.train_step, "joint_loss", spoilt)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
