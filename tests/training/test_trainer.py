"""The training loop: it fits, resumes, shares out its batches, and stops on nonsense."""

import copy
import io
from functools import partial

import pytest
import torch
from conftest import TINY_MODEL, batch_of, changed, loss_of, run
from two_ranks import spoil

import ssvos.training.trainer
from ssvos.config import Config
from ssvos.device import deterministic
from ssvos.losses.joint import JointLoss
from ssvos.models.checkpoint import save_checkpoint
from ssvos.training.train_step import TrainStep, copied
from ssvos.training.trainer import LOSS_TERMS, TrainState, first_network, fit


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
    dist = torch.distributed
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
        return [batch["frames"] for batch in ssvos.training.trainer._batches(source, specs, config, stage, 0)]

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


def saved_and_loaded(progress: TrainState) -> TrainState:
    """Through a file that is read safely, as a resumed run finds it."""
    buffer = io.BytesIO()
    torch.save(vars(progress), buffer)
    buffer.seek(0)
    return TrainState(**torch.load(buffer, weights_only=True))


class Interrupted(Exception):
    pass


def test_resuming_at_an_epochs_end_gives_the_weights_of_an_uninterrupted_run(tiny_data):
    config = changed(tiny_data.config, epochs=3, warmup_steps=3, grad_clip_norm=1.0)
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
    monkeypatch.setattr(ssvos.training.trainer, "holdout_score", lambda *_: {"holdout_score": next(scores)})
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
        changed(tiny_data.config, learning_rate=0.01, lr_decay=0.5, warmup_steps=4, clips_per_epoch=6, epochs=2),
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
        assert row["proximal"] == 0
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


def trained(config: Config, **stage) -> Config:
    """The configuration with other values for both stages together; first-stage values by `changed`."""
    return config.model_copy(update={"train": config.train.model_copy(update=stage)})


def told(config: Config, data, network=None) -> tuple[TrainState, list[str]]:
    """The finished progress, and the lines that were said meanwhile."""
    said: list[str] = []
    network = network or first_network(config)
    return fit(network, data, config, config.train.stage1, "cpu", lambda _: None, say=said.append), said


def gradients(config: Config, source, count: int, precision: str = "float32") -> tuple[torch.Tensor, dict]:
    """Loss terms and gradients that a step of the first batch takes, without its update."""
    network = first_network(config)
    learner = TrainStep(network, config, config.train.stage1, torch.device("cpu"), print)
    network.train()
    terms = learner._gradients(batch_of(source, config, count), 1.0)
    return terms, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("parts", [2, 4])
def test_an_accumulated_batch_has_the_loss_and_gradient_of_the_whole_one(tiny_data, parts):
    config, source = changed(tiny_data.config, batch_clips=4), tiny_data.load().fit
    network, batch = first_network(config), batch_of(source, config, 4)
    loss_of(network, batch, config).backward()
    whole = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    expected, _ = gradients(config, source, 4)
    terms, found = gradients(changed(config, accumulate=parts), source, 4)
    torch.testing.assert_close(terms, expected, atol=1e-6, rtol=1e-5)
    assert found.keys() == whole.keys()
    for name, gradient in whole.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, atol=1e-4 * scale + 1e-8, rtol=1e-3, msg=name)


def test_an_accumulated_batch_goes_through_the_network_part_by_part(tiny_data, monkeypatch):
    sizes, forward = [], ssvos.training.train_step.Network.forward
    monkeypatch.setattr(
        ssvos.training.train_step.Network, "forward", lambda self, f, s: (sizes.append(len(f)), forward(self, f, s))[1]
    )
    told(changed(tiny_data.config, epochs=1, clips_per_epoch=4, batch_clips=4, accumulate=2), tiny_data.load())
    assert sizes == [2, 2]


def test_a_batch_whose_parts_workers_cannot_share_is_refused(tiny_data, monkeypatch):
    pretend_rank(monkeypatch, 0, 2)
    with pytest.raises(ValueError, match=r"batch_clips 6 cannot be shared by 2 workers in 2 parts; .* multiple of 4"):
        run(changed(tiny_data.config, batch_clips=6, clips_per_epoch=6, accumulate=2), tiny_data.load())


def test_the_loss_terms_of_the_history_are_those_of_the_joint_loss():
    assert len(LOSS_TERMS) == len(JointLoss._fields) and LOSS_TERMS[1:] == JointLoss._fields[1:]


def test_float16_is_refused_on_a_cpu(tiny_data):
    with pytest.raises(ValueError, match="precision float16 needs a GPU"):
        run(changed(tiny_data.config, precision="float16"), tiny_data.load())


def test_float16_scales_its_loss_and_the_scale_is_resumed(tiny_data, monkeypatch):
    """On the CPU, which computes in float16 slowly, and is refused but here."""
    monkeypatch.setattr("ssvos.training.train_step.require_precision", lambda *_: None)
    monkeypatch.setattr("torch.amp.GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**9, growth_interval=3))
    config = changed(
        tiny_data.config, precision="float16", epochs=2, clips_per_epoch=8, save_every=1, grad_clip_norm=1.0
    )
    plain = run(changed(config, precision="float32", epochs=1), tiny_data.load())
    states = []
    network = first_network(config)
    done = fit(
        network,
        tiny_data.load(),
        config,
        config.train.stage1,
        "cpu",
        lambda _: None,
        save=lambda progress: states.append(saved_and_loaded(progress)),
    )
    assert [state.scaler["scale"] for state in states] == [2.0**n for n in (9, 9, 10, 10, 10, 11, 11, 11)]
    assert done.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=0.02)
    resumed = run(config, tiny_data.load(), seed=5, resume=states[4])
    assert all(torch.equal(value, resumed.weights[key]) for key, value in done.weights.items())
    assert resumed.scaler == done.scaler


def test_deterministic_mode_is_on_while_it_trains_and_then_as_it_was(tiny_data, monkeypatch):
    seen, step = [], torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *a: (seen.append(torch.are_deterministic_algorithms_enabled()), step(self, *a))[1],
    )
    config = changed(tiny_data.config, epochs=1)
    one, two = (run(trained(config, deterministic=True), tiny_data.load()) for _ in range(2))
    assert seen == [True] * 4 and not torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(value, two.weights[key]) for key, value in one.weights.items())
    run(config, tiny_data.load())
    assert seen[4:] == [False] * 2


def test_an_operator_without_a_deterministic_algorithm_is_named():
    values, places = torch.zeros(4), torch.tensor([0, 1])
    with (
        pytest.raises(ValueError, match=r"train\.deterministic: put_ does not .*; set it to false"),
        deterministic(True),
    ):
        values.put_(places, torch.ones(2), accumulate=False)
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(RuntimeError, match="size"), deterministic(True):
        torch.zeros(2) + torch.zeros(3)


def test_a_compiled_network_trains_as_the_plain_one(tiny_data, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = changed(tiny_data.config, epochs=1)
    plain, _ = told(config, tiny_data.load())
    compiled, said = told(trained(config, compile=True), tiny_data.load())
    assert not said
    assert compiled.weights.keys() == plain.weights.keys()
    assert compiled.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=1e-4)


def test_where_compilation_fails_it_is_told_once_and_training_goes_on(tiny_data, monkeypatch):
    tried = []

    def broken(graph, inputs):
        tried.append(graph)
        raise NotImplementedError("no compiler here")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    config = changed(tiny_data.config, epochs=1)
    plain, _ = told(config, tiny_data.load())
    went_on, said = told(trained(config, compile=True), tiny_data.load())
    assert len(tried) == 1 and len(said) == 1 and "\n" not in said[0]
    assert said[0].startswith("train.compile: ") and "no compiler here" in said[0]
    assert all(torch.equal(value, went_on.weights[key]) for key, value in plain.weights.items())


def spoilt(data, batches: list[int], config: Config, monkeypatch) -> list[str]:
    """Make the loss of these batches of the first epoch not finite; returns the first video of each."""
    stage = config.train.stage1
    specs = data.fit.draw(stage, config.train.seed, 0)
    first = [specs[number * stage.batch_clips] for number in batches]
    spoil(first, monkeypatch.setattr)
    return [data.fit.videos[spec.video].sequence for spec in first]


def test_a_batch_whose_loss_is_not_finite_may_be_left_out(tiny_data, monkeypatch):
    config, data = changed(tiny_data.config, epochs=2, clips_per_epoch=6, ema_decay=0.5), tiny_data.load()
    names = spoilt(data, [1], config, monkeypatch)
    progress, said = told(trained(config, max_skipped_batches=1), data)
    assert len(said) == 1 and "epoch 1, step 2" in said[0] and names[0] in said[0] and "1 of at most 1" in said[0]
    assert progress.skipped == 1 and len(progress.history) == 2
    assert all(torch.isfinite(value).all() for value in progress.weights.values())
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in progress.history)
    # Adam's and the average's counts of steps: 3 an epoch, less the one
    steps = {int(state["step"]) for state in progress.optimizer["state"].values()}
    assert max(steps) == 5 and int(progress.average["n_averaged"]) == 5


def test_one_batch_more_than_may_be_left_out_stops_the_run(tiny_data, monkeypatch):
    config, data = changed(tiny_data.config, epochs=1, clips_per_epoch=6), tiny_data.load()
    spoilt(data, [0, 2], config, monkeypatch)
    said = []
    config = trained(config, max_skipped_batches=1)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 3 .*after 1 batches left out"):
        fit(first_network(config), data, config, config.train.stage1, "cpu", lambda _: None, say=said.append)
    assert len(said) == 1


def test_an_epoch_tells_its_speed_and_keeps_it_out_of_the_history(tiny_data, monkeypatch):
    clip = ssvos.training.trainer.ClipDataset.__getitem__
    slow = lambda self, k: (ssvos.training.trainer.time.sleep(0.2), clip(self, k))[1]  # noqa: E731
    monkeypatch.setattr(ssvos.training.trainer.ClipDataset, "__getitem__", slow)
    reports = []
    run(changed(tiny_data.config, epochs=1), tiny_data.load(), report=reports.append)
    (report,) = reports
    assert set(report.speed) == {"clips_per_second", "data_wait_share", "peak_memory_gb"}
    assert not set(report.speed) & set(report.row)
    seconds = 4 / report.speed["clips_per_second"]  # of 4 clips, each of which was waited for 0.2 s or more
    assert 0.8 / seconds <= report.speed["data_wait_share"] < 1
    assert 0.05 < report.speed["peak_memory_gb"] < 64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_float16_trains_on_a_gpu_as_float32_does(tiny_data):
    losses = []
    for precision in ("float32", "float16"):
        config = changed(tiny_data.config, precision=precision, epochs=1, clips_per_epoch=8)
        progress = fit(first_network(config), tiny_data.load(), config, config.train.stage1, "cuda", lambda _: None)
        losses.append(progress.history[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_ramp_raises_the_proximal_loss_as_well(tiny_data, share):
    proximal = tiny_data.config.loss.proximal.model_copy(update={"weight": 2.0, "filter": "exact"})
    loss = tiny_data.config.loss.model_copy(update={"regularizer": "none", "proximal": proximal})
    config, data = tiny_data.config.model_copy(update={"loss": loss}), tiny_data.load()
    learner = TrainStep(first_network(config), config, config.train.stage1, torch.device("cpu"), print)
    total, pce, auxiliary, _, found = learner._gradients(batch_of(data.fit, config, 2), share).tolist()
    assert found > 0 if share else found == 0
    auxiliary *= config.train.stage1.auxiliary_weight
    assert total == pytest.approx(pce + auxiliary + 2.0 * share * found, rel=1e-5)


def test_a_step_whose_gradient_is_not_finite_is_not_taken(tiny_data, monkeypatch):
    """The loss is finite, the root's slope at 0 is not."""
    config, data = changed(tiny_data.config, grad_clip_norm=1.0), tiny_data.load()
    learner = TrainStep(first_network(config), config, config.train.stage1, torch.device("cpu"), print)
    batch, loss = batch_of(data.fit, config, 2), ssvos.training.train_step.joint_loss
    before = copied(learner.network)

    def steep(*parts):
        terms = loss(*parts)
        return terms._replace(total=terms.total + (0 * terms.total).sqrt())

    monkeypatch.setattr(ssvos.training.train_step, "joint_loss", steep)
    assert not torch.isfinite(learner.step(batch, 1e-3, 1.0)[0])
    assert all(torch.equal(value, before[name]) for name, value in copied(learner.network).items())
    monkeypatch.setattr(ssvos.training.train_step, "joint_loss", loss)
    assert torch.isfinite(learner.step(batch, 1e-3, 1.0)).all()
    assert any(not torch.equal(value, before[name]) for name, value in copied(learner.network).items())
