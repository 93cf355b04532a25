"""One training step: accumulated batches, precision, determinism, compilation, and steps that are not taken."""

from functools import partial

import pytest
import torch
from conftest import batch_of, changed, loss_of, run
from stage_runs import fit_with_warnings, saved_and_loaded, with_train

import ssvos.training.train_step
from ssvos.config import Config
from ssvos.device import deterministic
from ssvos.models.network import Network
from ssvos.training.train_step import TrainStep, copy_weights
from ssvos.training.trainer import first_network, fit


def gradients(config: Config, source, count: int) -> tuple[torch.Tensor, dict]:
    """Loss terms and gradients of the first batch, without the update of the weights."""
    network = first_network(config)
    train_step = TrainStep(network, config, config.train.stage1, torch.device("cpu"), print)
    network.train()
    terms = train_step._gradients(batch_of(source, config, count), 1.0)
    return terms, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("parts", [2, 4])
def test_an_accumulated_batch_has_the_loss_and_gradient_of_the_undivided_batch(tiny_data, parts):
    config, source = changed(tiny_data.config, batch_clips=4), tiny_data.load().fit
    network, batch = first_network(config), batch_of(source, config, 4)
    loss_of(network, batch, config).backward()
    whole = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    expected, _ = gradients(config, source, 4)
    terms, accumulated = gradients(changed(config, accumulate=parts), source, 4)
    torch.testing.assert_close(terms, expected, atol=1e-6, rtol=1e-5)
    assert accumulated.keys() == whole.keys()
    for name, gradient in whole.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(accumulated[name], gradient, atol=1e-4 * scale + 1e-8, rtol=1e-3, msg=name)


def test_the_network_takes_an_accumulated_batch_part_by_part(tiny_data, monkeypatch):
    sizes, forward = [], Network.forward
    monkeypatch.setattr(Network, "forward", lambda self, f, s: (sizes.append(len(f)), forward(self, f, s))[1])
    fit_with_warnings(
        changed(tiny_data.config, epochs=1, clips_per_epoch=4, batch_clips=4, accumulate=2), tiny_data.load()
    )
    assert sizes == [2, 2]


def test_float16_is_refused_on_a_cpu(tiny_data):
    with pytest.raises(ValueError, match="precision float16 needs a GPU"):
        run(changed(tiny_data.config, precision="float16"), tiny_data.load())


def test_the_loss_scale_of_float16_grows_and_is_resumed(tiny_data, monkeypatch):
    """On the CPU, where float16 is slow and refused outside this test."""
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
        save=lambda train_state: states.append(saved_and_loaded(train_state)),
    )
    assert [state.scaler["scale"] for state in states] == [2.0**n for n in (9, 9, 10, 10, 10, 11, 11, 11)]
    assert done.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=0.02)
    resumed = run(config, tiny_data.load(), seed=5, resume=states[4])
    assert all(torch.equal(value, resumed.weights[key]) for key, value in done.weights.items())
    assert resumed.scaler == done.scaler


def test_deterministic_mode_is_on_during_training_only(tiny_data, monkeypatch):
    seen, step = [], torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *a: (seen.append(torch.are_deterministic_algorithms_enabled()), step(self, *a))[1],
    )
    config = changed(tiny_data.config, epochs=1)
    one, two = (run(with_train(config, deterministic=True), tiny_data.load()) for _ in range(2))
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


def test_a_compiled_network_trains_like_an_uncompiled_one(tiny_data, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = changed(tiny_data.config, epochs=1)
    plain, _ = fit_with_warnings(config, tiny_data.load())
    compiled, warnings = fit_with_warnings(with_train(config, compile=True), tiny_data.load())
    assert not warnings
    assert compiled.weights.keys() == plain.weights.keys()
    assert compiled.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=1e-4)


def test_training_continues_with_one_warning_if_compilation_fails(tiny_data, monkeypatch):
    graphs = []

    def broken(graph, inputs):
        graphs.append(graph)
        raise NotImplementedError("no compiler here")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    config = changed(tiny_data.config, epochs=1)
    plain, _ = fit_with_warnings(config, tiny_data.load())
    uncompiled, warnings = fit_with_warnings(with_train(config, compile=True), tiny_data.load())
    assert len(graphs) == 1 and len(warnings) == 1 and "\n" not in warnings[0]
    assert warnings[0].startswith("train.compile: ") and "no compiler here" in warnings[0]
    assert all(torch.equal(value, uncompiled.weights[key]) for key, value in plain.weights.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_float16_trains_on_a_gpu_as_float32_does(tiny_data):
    losses = []
    for precision in ("float32", "float16"):
        config = changed(tiny_data.config, precision=precision, epochs=1, clips_per_epoch=8)
        train_state = fit(first_network(config), tiny_data.load(), config, config.train.stage1, "cuda", lambda _: None)
        losses.append(train_state.history[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("ramp", [0.0, 0.5, 1.0])
def test_the_ramp_scales_the_proximal_loss(tiny_data, ramp):
    proximal = tiny_data.config.loss.proximal.model_copy(update={"weight": 2.0, "filter": "exact"})
    loss = tiny_data.config.loss.model_copy(update={"regularizer": "none", "proximal": proximal})
    config, data = tiny_data.config.model_copy(update={"loss": loss}), tiny_data.load()
    train_step = TrainStep(first_network(config), config, config.train.stage1, torch.device("cpu"), print)
    total, pce, auxiliary, _, proximal_loss, _ = train_step._gradients(batch_of(data.fit, config, 2), ramp).tolist()
    assert proximal_loss > 0 if ramp else proximal_loss == 0
    auxiliary *= config.train.stage1.auxiliary_weight
    assert total == pytest.approx(pce + auxiliary + 2.0 * ramp * proximal_loss, rel=1e-5)


def test_a_step_with_an_infinite_gradient_is_not_taken(tiny_data, monkeypatch):
    """The loss is finite; the derivative of the square root at 0 is infinite."""
    config, data = changed(tiny_data.config, grad_clip_norm=1.0), tiny_data.load()
    train_step = TrainStep(first_network(config), config, config.train.stage1, torch.device("cpu"), print)
    batch, loss = batch_of(data.fit, config, 2), ssvos.training.train_step.joint_loss
    before = copy_weights(train_step.network)

    def steep(*parts):
        terms = loss(*parts)
        return terms._replace(total=terms.total + (0 * terms.total).sqrt())

    monkeypatch.setattr(ssvos.training.train_step, "joint_loss", steep)
    assert not torch.isfinite(train_step.step(batch, 1e-3, 1.0)[0])
    assert all(torch.equal(value, before[name]) for name, value in copy_weights(train_step.network).items())
    monkeypatch.setattr(ssvos.training.train_step, "joint_loss", loss)
    assert torch.isfinite(train_step.step(batch, 1e-3, 1.0)).all()
    assert any(not torch.equal(value, before[name]) for name, value in copy_weights(train_step.network).items())
