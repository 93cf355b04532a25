"""The training loop: epochs, history, checkpoints, resuming, shared batches, and skipped ones."""

import copy
import time

import pytest
import torch
from conftest import TINY_MODEL, batch_of, changed, loss_of, run
from stage_runs import fit_with_warnings, saved_and_loaded, with_train
from two_ranks import make_loss_nan

import ssvos.training.trainer
from ssvos.config import Config
from ssvos.data.clips import ClipDataset
from ssvos.losses.joint import JointLoss
from ssvos.models.checkpoint import save_checkpoint
from ssvos.training.trainer import LOSS_TERMS, first_network, fit
from ssvos.training.training_data import batches


def test_the_gradients_of_a_batch_are_the_mean_of_those_of_its_halves(tiny_data):
    """DDP relies on this: it averages the gradients of the workers."""
    config, source = tiny_data.config, tiny_data.load().fit
    batch = batch_of(source, config, 4)
    whole, halved = first_network(config), first_network(config)
    loss_of(whole, batch, config).backward()
    for half in (slice(0, 2), slice(2, 4)):
        (loss_of(halved, {k: v[half] for k, v in batch.items()}, config) / 2).backward()
    for (name, one), two in zip(whole.named_parameters(), halved.parameters(), strict=True):
        if one.grad is None:
            assert two.grad is None, name
            continue
        scale = float(one.grad.abs().max())
        torch.testing.assert_close(two.grad, one.grad, atol=1e-4 * scale + 1e-8, rtol=1e-3, msg=name)


def pretend_rank(monkeypatch, rank: int, world: int) -> None:
    dist = torch.distributed
    monkeypatch.setattr(dist, "is_available", lambda: True)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda *_: rank)
    monkeypatch.setattr(dist, "get_world_size", lambda *_: world)


def test_two_workers_together_read_the_same_global_batches_as_one(tiny_data, monkeypatch):
    config, source = changed(tiny_data.config, batch_clips=4), tiny_data.load().fit
    stage = config.train.stage1
    specs = source.draw(stage.model_copy(update={"clips_per_epoch": 9}), 0, 0)

    def frames_of(rank: int, world: int) -> list[torch.Tensor]:
        pretend_rank(monkeypatch, rank, world)
        return [batch["frames"] for batch in batches(source, specs, config, stage, 0)]

    whole, parts = frames_of(0, 1), [frames_of(rank, 2) for rank in range(2)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 2
    for step, batch in enumerate(whole):
        assert torch.equal(batch, torch.cat([part[step] for part in parts]))


def test_a_batch_that_the_workers_cannot_share_is_refused(tiny_data, monkeypatch):
    pretend_rank(monkeypatch, 0, 2)
    with pytest.raises(ValueError, match=r"batch_clips 3.*2 workers"):
        run(changed(tiny_data.config, batch_clips=3), tiny_data.load())


def test_an_epoch_of_fewer_clips_than_a_batch_is_refused(tiny_data):
    with pytest.raises(ValueError, match="clips_per_epoch 1"):
        run(changed(tiny_data.config, clips_per_epoch=1), tiny_data.load())


class Interrupted(Exception):
    pass


def test_resuming_after_an_epoch_gives_the_weights_of_an_uninterrupted_run(tiny_data):
    config = changed(tiny_data.config, epochs=3, warmup_steps=3, grad_clip_norm=1.0)
    whole = run(config, tiny_data.load())
    saved = []

    def interrupt(report):
        saved.append(saved_and_loaded(report.train_state))
        raise Interrupted

    with pytest.raises(Interrupted):
        run(config, tiny_data.load(), report=interrupt)
    assert saved[0].epoch == 1
    resumed = run(config, tiny_data.load(), seed=5, resume=saved[0])
    assert resumed.history == whole.history and resumed.best_epoch == whole.best_epoch
    for part in ("weights", "best_weights"):
        one, two = getattr(whole, part), getattr(resumed, part)
        assert one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())


def test_a_finished_stage_does_not_train_further(tiny_data):
    done = run(tiny_data.config, tiny_data.load())
    again = run(tiny_data.config, tiny_data.load(), resume=copy.deepcopy(done))
    assert again.epoch == 2 and again.history == done.history


def test_the_best_epoch_is_kept_and_patience_ends_a_stage(tiny_data, monkeypatch):
    scores = iter([0.3, 0.5, 0.4, 0.2, 0.9])
    monkeypatch.setattr(ssvos.training.trainer, "holdout_score", lambda *_: {"holdout_score": next(scores)})
    seen = []
    config = changed(tiny_data.config, epochs=5, clips_per_epoch=2, patience=2)
    train_state = run(config, tiny_data.load(), report=lambda r: seen.append(copy.deepcopy(r.train_state.weights)))
    assert train_state.epoch == 4 and (train_state.best_epoch, train_state.best_score) == (2, 0.5)
    assert all(torch.equal(value, seen[1][key]) for key, value in train_state.best_weights.items())
    assert any(not torch.equal(value, seen[3][key]) for key, value in train_state.best_weights.items())


def test_the_learning_rate_warms_up_by_step_and_decays_by_epoch(tiny_data, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1],
    )
    run(
        changed(tiny_data.config, learning_rate=0.01, lr_decay=0.5, warmup_steps=4, clips_per_epoch=6, epochs=2),
        tiny_data.load(),
    )
    expected = [0.01 * f for f in (0.25, 0.5, 0.75, 0.5, 0.5, 0.5)]
    assert rates == pytest.approx(expected)


def test_the_weights_of_attention_do_not_decay(tiny_data):
    """At gamma = 0 they have no gradient, and Adam would turn weight decay alone into full steps."""
    config = changed(tiny_data.config, epochs=2, clips_per_epoch=8, learning_rate=1e-2, weight_decay=1e-3)
    network = first_network(config)
    before = {name: value.clone() for name, value in network.attention.state_dict().items()}
    network.attention.scale.requires_grad_(False)  # gamma stays 0
    fit(network, tiny_data.load(), config, config.train.stage1, "cpu", lambda _: None)
    for name, value in network.attention.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not network.attention.scale.any()


def test_a_NaN_loss_stops_the_run_and_the_error_names_the_clips(tiny_data):
    config, data = tiny_data.config, tiny_data.load()
    network = first_network(config)
    torch.nn.init.constant_(network.fusion.join.weight, float("nan"))
    sequence = data.fit.videos[data.fit.draw(config.train.stage1, 0, 0)[0].video].sequence
    with pytest.raises(FloatingPointError, match=rf"epoch 1, step 1 .*{sequence}"):
        fit(network, data, config, config.train.stage1, "cpu", lambda _: None)


def test_the_history_has_every_loss_term_and_the_total_is_their_weighted_sum(tiny_data):
    reports = []
    train_state = run(tiny_data.config, tiny_data.load(), report=lambda r: reports.append(r.line("ours", 2)))
    assert [row["epoch"] for row in train_state.history] == [1, 2]
    for row in train_state.history:
        parts = row["partial_cross_entropy"] + 0.5 * row["auxiliary"] + 0.9 * row["regularizer"]
        assert row["proximal"] == 0
        assert row["loss"] == pytest.approx(parts, rel=1e-5) and row["regularizer"] > 0
        assert 0 <= row["holdout_score"] <= 1
    assert reports[0].startswith("ours  epoch 1/2  loss ") and "held-out J" in reports[0]


def test_a_stage_starts_from_a_checkpoint_of_the_same_network_only(tiny_data, tmp_path):
    config = tiny_data.config
    start = first_network(config.model_copy(update={"train": config.train.model_copy(update={"seed": 9})}))
    save_checkpoint(tmp_path / "start.pt", start.state_dict(), TINY_MODEL, {})
    loaded = first_network(config, tmp_path / "start.pt").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in start.state_dict().items())
    other = config.model_copy(update={"model": TINY_MODEL.model_copy(update={"state": "fine"})})
    with pytest.raises(ValueError, match=r"start\.pt"):
        first_network(other, tmp_path / "start.pt")


def test_a_batch_whose_parts_the_workers_cannot_share_is_refused(tiny_data, monkeypatch):
    pretend_rank(monkeypatch, 0, 2)
    with pytest.raises(ValueError, match=r"batch_clips 6 cannot be shared by 2 workers in 2 parts; .* multiple of 4"):
        run(changed(tiny_data.config, batch_clips=6, clips_per_epoch=6, accumulate=2), tiny_data.load())


def test_the_loss_terms_of_the_history_are_those_of_the_joint_loss():
    assert len(LOSS_TERMS) == len(JointLoss._fields) and LOSS_TERMS[1:] == JointLoss._fields[1:]


def make_batches_nan(data, batch_numbers: list[int], config: Config, monkeypatch) -> list[str]:
    """Make the loss of these batches of the first epoch NaN; returns the first video of each."""
    stage = config.train.stage1
    specs = data.fit.draw(stage, config.train.seed, 0)
    first = [specs[number * stage.batch_clips] for number in batch_numbers]
    make_loss_nan(first, monkeypatch.setattr)
    return [data.fit.videos[spec.video].sequence for spec in first]


def test_a_batch_with_a_NaN_loss_may_be_skipped(tiny_data, monkeypatch):
    config, data = changed(tiny_data.config, epochs=2, clips_per_epoch=6, ema_decay=0.5), tiny_data.load()
    names = make_batches_nan(data, [1], config, monkeypatch)
    train_state, warnings = fit_with_warnings(with_train(config, max_skipped_batches=1), data)
    (warning,) = warnings
    assert "epoch 1, step 2" in warning and names[0] in warning and "1 of at most 1" in warning
    assert train_state.skipped == 1 and len(train_state.history) == 2
    assert all(torch.isfinite(value).all() for value in train_state.weights.values())
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in train_state.history)
    # steps that Adam and the average counted: 3 an epoch without the skipped one
    steps = {int(state["step"]) for state in train_state.optimizer["state"].values()}
    assert max(steps) == 5 and int(train_state.average["n_averaged"]) == 5


def test_one_batch_more_than_may_be_skipped_stops_the_run(tiny_data, monkeypatch):
    config, data = changed(tiny_data.config, epochs=1, clips_per_epoch=6), tiny_data.load()
    make_batches_nan(data, [0, 2], config, monkeypatch)
    warnings = []
    config = with_train(config, max_skipped_batches=1)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 3 .*after 1 skipped batches"):
        fit(first_network(config), data, config, config.train.stage1, "cpu", lambda _: None, warn=warnings.append)
    assert len(warnings) == 1


def test_the_speed_of_an_epoch_is_reported_but_not_in_the_history(tiny_data, monkeypatch):
    read_clip = ClipDataset.__getitem__
    monkeypatch.setattr(ClipDataset, "__getitem__", lambda self, k: (time.sleep(0.2), read_clip(self, k))[1])
    reports = []
    run(changed(tiny_data.config, epochs=1), tiny_data.load(), report=reports.append)
    (report,) = reports
    assert set(report.speed) == {"clips_per_second", "data_wait_share", "peak_memory_gb"}
    assert not set(report.speed) & set(report.row)
    seconds = 4 / report.speed["clips_per_second"]  # of 4 clips; the loop waits at least 0.2 s for each
    assert 0.8 / seconds <= report.speed["data_wait_share"] < 1
    assert 0.05 < report.speed["peak_memory_gb"] < 64
