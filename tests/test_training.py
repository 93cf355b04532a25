"""The training loop: it fits, resumes, shares out its batches, and stops on nonsense."""

import copy
import io

import pytest
import torch
from conftest import TINY_MODEL, batch_of, changed, loss_of, run

import ssvos.training
from ssvos.checkpoint import save_checkpoint
from ssvos.training import Progress, first_network, fit


def test_gradients_of_a_batch_are_the_mean_of_those_of_its_halves(tiny_data):
    """What DDP relies on: it averages the workers' gradients."""
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
    dist = ssvos.training.dist
    monkeypatch.setattr(dist, "is_available", lambda: True)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda *_: rank)
    monkeypatch.setattr(dist, "get_world_size", lambda *_: world)


def test_workers_together_read_the_same_global_batches_as_one(tiny_data, monkeypatch):
    config, source = changed(tiny_data.config, batch_clips=4), tiny_data.load().fit
    stage = config.train.stage1
    specs = source.draw(stage.model_copy(update={"clips_per_epoch": 9}), 0, 0)

    def frames_of(rank: int, world: int) -> list[torch.Tensor]:
        pretend_rank(monkeypatch, rank, world)
        return [batch["frames"] for batch in ssvos.training._batches(source, specs, config, stage, 0)]

    whole, parts = frames_of(0, 1), [frames_of(rank, 2) for rank in range(2)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 2
    for step, batch in enumerate(whole):
        assert torch.equal(batch, torch.cat([part[step] for part in parts]))


def test_a_batch_that_workers_cannot_share_is_refused(tiny_data, monkeypatch):
    pretend_rank(monkeypatch, 0, 2)
    with pytest.raises(ValueError, match=r"batch_clips 3.*2 workers"):
        run(changed(tiny_data.config, batch_clips=3), tiny_data.load())


def test_fewer_clips_than_a_batch_are_refused(tiny_data):
    with pytest.raises(ValueError, match="clips_per_epoch 1"):
        run(changed(tiny_data.config, clips_per_epoch=1), tiny_data.load())


def saved_and_loaded(progress: Progress) -> Progress:
    """Through a file that is read safely, as a resumed run finds it."""
    buffer = io.BytesIO()
    torch.save(vars(progress), buffer)
    buffer.seek(0)
    return Progress(**torch.load(buffer, weights_only=True))


class Interrupted(Exception):
    pass


def test_resuming_at_an_epochs_end_gives_the_weights_of_an_uninterrupted_run(tiny_data):
    config = changed(tiny_data.config, epochs=3, warmup=3, max_norm=1.0)
    whole = run(config, tiny_data.load())
    kept = []

    def interrupt(report):
        kept.append(saved_and_loaded(report.progress))
        raise Interrupted

    with pytest.raises(Interrupted):
        run(config, tiny_data.load(), report=interrupt)
    assert kept[0].epoch == 1
    resumed = run(config, tiny_data.load(), seed=5, resume=kept[0])
    assert resumed.history == whole.history and resumed.best_epoch == whole.best_epoch
    for part in ("weights", "best_weights"):
        one, two = getattr(whole, part), getattr(resumed, part)
        assert one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())


def test_a_finished_progress_trains_no_further(tiny_data):
    done = run(tiny_data.config, tiny_data.load())
    again = run(tiny_data.config, tiny_data.load(), resume=copy.deepcopy(done))
    assert again.epoch == 2 and again.history == done.history


def test_the_best_epoch_is_kept_and_patience_ends_a_stage(tiny_data, monkeypatch):
    scores = iter([0.3, 0.5, 0.4, 0.2, 0.9])
    monkeypatch.setattr(ssvos.training, "holdout_score", lambda *_: {"holdout_score": next(scores)})
    seen = []
    config = changed(tiny_data.config, epochs=5, clips_per_epoch=2, patience=2)
    progress = run(config, tiny_data.load(), report=lambda r: seen.append(copy.deepcopy(r.progress.weights)))
    assert progress.epoch == 4 and (progress.best_epoch, progress.best_score) == (2, 0.5)
    assert all(torch.equal(value, seen[1][key]) for key, value in progress.best_weights.items())
    assert any(not torch.equal(value, seen[3][key]) for key, value in progress.best_weights.items())


def test_the_learning_rate_warms_up_by_step_and_decays_by_epoch(tiny_data, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1],
    )
    run(
        changed(tiny_data.config, learning_rate=0.01, decay=0.5, warmup=4, clips_per_epoch=6, epochs=2),
        tiny_data.load(),
    )
    expected = [0.01 * f for f in (0.25, 0.5, 0.75, 0.5, 0.5, 0.5)]
    assert rates == pytest.approx(expected)


def test_weight_decay_does_not_wipe_out_the_attention_before_it_begins(tiny_data):
    """At gamma = 0 its weights have no gradient; Adam would turn a decay alone into steps of full size."""
    config = changed(tiny_data.config, epochs=2, clips_per_epoch=8, learning_rate=1e-2, weight_decay=1e-3)
    network = first_network(config)
    before = {name: value.clone() for name, value in network.attention.state_dict().items()}
    network.attention.scale.requires_grad_(False)  # gamma stays 0
    fit(network, tiny_data.load(), config, config.train.stage1, "cpu", lambda _: None)
    for name, value in network.attention.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not network.attention.scale.any()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_clips(tiny_data):
    config, data = tiny_data.config, tiny_data.load()
    network = first_network(config)
    torch.nn.init.constant_(network.fusion.join.weight, float("nan"))
    sequence = data.fit.videos[data.fit.draw(config.train.stage1, 0, 0)[0].video].sequence
    with pytest.raises(FloatingPointError, match=rf"epoch 1, step 1 .*{sequence}"):
        fit(network, data, config, config.train.stage1, "cpu", lambda _: None)


def test_the_history_holds_every_term_and_the_total_is_their_sum(tiny_data):
    reports = []
    progress = run(tiny_data.config, tiny_data.load(), report=lambda r: reports.append(r.line("ours", 2)))
    assert [row["epoch"] for row in progress.history] == [1, 2]
    for row in progress.history:
        parts = row["partial_cross_entropy"] + 0.5 * row["auxiliary"] + 0.9 * row["regularizer"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5) and row["regularizer"] > 0
        assert 0 <= row["holdout_score"] <= 1
    assert reports[0].startswith("ours  epoch 1/2  loss ") and "held-out J" in reports[0]


def test_a_stage_begins_with_a_checkpoint_of_the_same_network_alone(tiny_data, tmp_path):
    config = tiny_data.config
    start = first_network(config.model_copy(update={"train": config.train.model_copy(update={"seed": 9})}))
    save_checkpoint(tmp_path / "start.pt", start.state_dict(), TINY_MODEL, {})
    taken = first_network(config, tmp_path / "start.pt").state_dict()
    assert all(torch.equal(value, taken[key]) for key, value in start.state_dict().items())
    other = config.model_copy(update={"model": TINY_MODEL.model_copy(update={"state": "fine"})})
    with pytest.raises(ValueError, match=r"start\.pt"):
        first_network(other, tmp_path / "start.pt")
