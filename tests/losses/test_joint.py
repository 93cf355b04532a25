"""The joint loss (Eq. 19): the sum of its terms, on the requested frames."""

import pytest
import torch

from ssvos.config import LossConfig, ProximalConfig, TeacherConfig
from ssvos.losses.dense_crf import regularizer
from ssvos.losses.joint import joint_loss
from ssvos.losses.partial_cross_entropy import partial_cross_entropy
from ssvos.losses.proximal import proximal_loss
from ssvos.models.grid import upsample_coarse
from ssvos.models.state import ClipPrediction

CONFIG = LossConfig(weight=0.7, sigma_xy=10.0, filter="exact")


def case(batch: int = 2, length: int = 3) -> tuple[ClipPrediction, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    prediction = ClipPrediction(
        torch.randn(batch, length, 2, 20, 30, generator=generator),
        torch.randn(batch, length, 2, 2, 2, generator=generator),
    )
    frames = torch.rand(batch, length, 3, 20, 30, generator=generator)
    target = torch.full((batch, length, 20, 30), 255, dtype=torch.uint8)
    target[:, :, 2, :9], target[:, :, 12:14, 5:9] = 0, 1
    target[0, 1] = 255
    return prediction, frames, target


@pytest.mark.parametrize("auxiliary_weight", [0.0, 0.4])
@pytest.mark.parametrize("kind", ["none", "dense_crf", "scribble_supervised"])
def test_the_total_is_the_weighted_sum_of_its_terms(kind, auxiliary_weight):
    prediction, frames, target = case()
    config = CONFIG.model_copy(update={"regularizer": kind})
    terms = joint_loss(prediction, frames, target, config, auxiliary_weight)
    labels = target.flatten(0, 1)
    pce = partial_cross_entropy(prediction.logits.flatten(0, 1), labels, config.balance)
    coarse = upsample_coarse(prediction.coarse_logits.flatten(0, 1), 20, 30)
    auxiliary = partial_cross_entropy(coarse, labels, config.balance)
    probs = prediction.logits.softmax(dim=2).flatten(0, 1)
    energy = 0.0 if kind == "none" else float(regularizer(probs, frames.flatten(0, 1), config))
    torch.testing.assert_close(terms.partial_cross_entropy, pce)
    assert float(terms.regularizer) == pytest.approx(energy, rel=1e-6)
    assert float(terms.auxiliary) == pytest.approx(float(auxiliary) if auxiliary_weight else 0.0)
    expected = float(pce) + auxiliary_weight * float(auxiliary) + 0.7 * energy
    assert float(terms.total) == pytest.approx(expected, rel=1e-6)


def test_the_regularizer_is_computed_on_the_chosen_frames_of_each_clip():
    prediction, frames, target = case()
    terms = joint_loss(prediction, frames, target, CONFIG, 0.0, torch.tensor([[2, 0], [1, 1]]))
    probs = prediction.logits.softmax(dim=2)
    picked = [(0, 2), (0, 0), (1, 1), (1, 1)]
    each = [float(regularizer(probs[b, t][None], frames[b, t][None], CONFIG)) for b, t in picked]
    assert float(terms.regularizer) == pytest.approx(sum(each) / 4, rel=1e-5)


def test_the_proximal_loss_is_a_weighted_term_on_the_chosen_frames():
    prediction, frames, target = case()
    proximal = ProximalConfig(weight=0.3, filter="exact")
    config = CONFIG.model_copy(update={"regularizer": "none", "proximal": proximal})
    terms = joint_loss(prediction, frames, target, config, 0.0, torch.tensor([[2], [1]]))
    picked = torch.tensor([0, 1]), torch.tensor([2, 1])
    expected = proximal_loss(prediction.logits[picked], frames[picked], target[picked], proximal)
    torch.testing.assert_close(terms.proximal, expected)
    torch.testing.assert_close(terms.total, terms.partial_cross_entropy + 0.3 * expected)
    off = joint_loss(prediction, frames, target, config.model_copy(update={"proximal": ProximalConfig()}), 0.0)
    assert float(off.proximal) == 0 and torch.equal(off.total, off.partial_cross_entropy)


def test_the_regularizer_has_no_gradient_on_the_other_frames():
    prediction, frames, _ = case()
    logits = prediction.logits.clone().requires_grad_()
    unlabelled = torch.full((2, 3, 20, 30), 255, dtype=torch.uint8)
    terms = joint_loss(prediction._replace(logits=logits), frames, unlabelled, CONFIG, 0.0, torch.tensor([[2], [0]]))
    terms.total.backward()
    has_gradient = logits.grad.abs().amax(dim=(2, 3, 4)) > 0
    assert has_gradient.tolist() == [[False, False, True], [True, False, False]]


def test_a_batch_of_clips_is_the_mean_of_its_clips_in_every_term():
    prediction, frames, target = case()
    chosen = torch.tensor([[2], [0]])
    whole = joint_loss(prediction, frames, target, CONFIG, 0.4, chosen)
    each = [
        joint_loss(
            ClipPrediction(*(p[b : b + 1] for p in prediction)),
            frames[b : b + 1],
            target[b : b + 1],
            CONFIG,
            0.4,
            chosen[b : b + 1],
        )
        for b in range(2)
    ]
    for term, first, second in zip(whole, *each, strict=True):
        torch.testing.assert_close(term, (first + second) / 2)


def test_the_teachers_labels_are_a_weighted_term_over_all_pixels():
    prediction, frames, target = case()
    taught = torch.randint(0, 2, target.shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    taught[:, :, 15:] = 255
    config = CONFIG.model_copy(update={"regularizer": "none", "teacher": TeacherConfig(weight=0.5)})
    terms = joint_loss(prediction, frames, target, config, 0.0, taught=taught)
    log_probs = prediction.logits.log_softmax(dim=2)[:, :, :, :15]
    expected = -log_probs.gather(2, taught[:, :, None, :15].long()).mean()
    torch.testing.assert_close(terms.teacher, expected)
    torch.testing.assert_close(terms.total, terms.partial_cross_entropy + 0.5 * expected)
    assert float(joint_loss(prediction, frames, target, config, 0.0).teacher) == 0
