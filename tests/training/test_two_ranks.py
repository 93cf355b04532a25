"""Two workers of a real process group: accumulated batches, skipped batches, and states within an epoch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import changed
from two_ranks import make_loss_nan, train

SCRIPT = Path(__file__).parents[1] / "support" / "two_ranks.py"


@pytest.fixture(scope="module")
def results(tiny_data, tmp_path_factory) -> dict[str, dict]:
    """Results of one process, of two workers, and of two workers that resume from a state of the two.

    Each takes four steps of four clips in two parts. A clip of the second worker has a NaN loss in the second step.
    """
    stage = {"epochs": 1, "batch_clips": 4, "clips_per_epoch": 16, "accumulate": 2, "save_every": 3, "ema_decay": 0.5}
    config = changed(tiny_data.config, **stage)
    config = config.model_copy(update={"train": config.train.model_copy(update={"max_skipped_batches": 1})})
    job = {"config": config.model_dump(mode="json"), "index": str(tiny_data.index), "nan_clip": 4 + 2}
    job |= {"scribbles": str(tiny_data.scribbles), "roots": {k: str(v) for k, v in tiny_data.roots.items()}}
    folder = tmp_path_factory.mktemp("ranks")
    torch.save(job, folder / "job.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    ranks = [subprocess.Popen([sys.executable, SCRIPT, folder, str(rank)], env=environment) for rank in range(2)]
    data = tiny_data.load()
    with pytest.MonkeyPatch.context() as patch:
        make_loss_nan([data.fit.draw(config.train.stage1, config.train.seed, 0)[job["nan_clip"]]], patch.setattr)
        one = train(config, data)
    assert [process.wait(timeout=240) for process in ranks] == [0, 0]
    return torch.load(folder / "results.pt", weights_only=True) | {"one": one}


def test_workers_skip_the_same_batch_and_warn_once(results):
    assert [result["skipped"] for result in results.values()] == [1, 1, 1]
    for name in ("one", "two"):
        (line,) = results[name]["warnings"]
        assert "epoch 1, step 2" in line and "1 of at most 1" in line


def test_two_workers_have_the_gradients_of_one_process(results):
    one, two = results["one"], results["two"]
    for key, value in one["history"][0].items():
        assert two["history"][0][key] == pytest.approx(value, rel=2e-3, abs=2e-3), key
    for name, value in one["weights"].items():
        # Adam turns a gradient of nearly 0 into a full step of learning_rate
        assert (two["weights"][name] - value).abs().mean() < 2e-4, name


def test_workers_resumed_within_an_epoch_end_as_uninterrupted_ones(results):
    two, resumed = results["two"], results["resumed"]
    assert all(torch.equal(value, resumed["weights"][key]) for key, value in two["weights"].items())
    assert resumed["history"][0] == pytest.approx(two["history"][0], rel=1e-12) and not resumed["warnings"]
