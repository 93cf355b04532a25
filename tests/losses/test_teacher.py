"""The teacher's labels: strokes are held, only confident pixels count, and frames do not influence each other."""

import pytest
import torch
from conftest import make_network

from ssvos.config import LossConfig, MemoryConfig
from ssvos.config.loss import ProximalConfig, TeacherConfig
from ssvos.losses.proximal import refined_mask
from ssvos.losses.teacher import teacher_targets

HEIGHT, WIDTH = 48, 64


def clips(batch: int = 2, length: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames with a bright square, and strokes on it and around it."""
    frames = 0.2 + 0.05 * torch.rand(batch, length, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    frames[..., 16:32, 20:44] += 0.6
    target = torch.full((batch, length, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    target[..., 22:26, 24:40] = 1
    target[..., 8:10, 8:56] = target[..., 38:40, 8:56] = target[..., 8:40, 8:10] = target[..., 8:40, 54:56] = 0
    return frames, target


def config(confident: float = 0.8, outside: bool = True) -> LossConfig:
    teacher = TeacherConfig(weight=1.0, confident=confident, outside=outside)
    return LossConfig(teacher=teacher, proximal=ProximalConfig(filter="exact", iterations=3))


@pytest.fixture
def teacher():
    return make_network(memory=MemoryConfig(frames=2)).eval()


def test_strokes_keep_their_label(teacher):
    frames, target = clips()
    labels = teacher_targets(teacher, frames, target, config())
    is_stroke = target != 255
    assert torch.equal(labels[is_stroke], target[is_stroke]) and labels.dtype == torch.uint8


def test_only_confident_pixels_of_the_refined_mask_are_labelled(teacher):
    frames, target = clips(1, 1)
    labels = teacher_targets(teacher, frames, target, config(0.7, outside=False))[0, 0]
    with torch.no_grad():
        trunk = teacher.encode(frames[:, 0])
        logits, _, _ = teacher.first_step(trunk, teacher.begin(trunk, target[:, 0]))
        mask = refined_mask(logits, frames[:, 0], target[:, 0], config().proximal)
    foreground = torch.nn.functional.interpolate(mask[:, 1:], size=(HEIGHT, WIDTH), mode="bilinear")[0, 0]
    free = target[0, 0] == 255
    assert torch.equal(labels[free] == 1, foreground[free] >= 0.7)
    assert torch.equal(labels[free] == 0, foreground[free] <= 1 - 0.7)
    assert {0, 1, 255} == set(labels.unique().tolist())


def test_outside_the_rectangle_around_the_strokes_is_background(teacher):
    frames, target = clips()
    labels = teacher_targets(teacher, frames, target, config(0.99))
    for window in (labels[..., :8, :], labels[..., 40:, :], labels[..., :8], labels[..., 56:]):
        assert (window == 0).all()


def test_every_frame_is_segmented_from_its_own_strokes(teacher):
    frames, target = clips()
    target[0, 1, 22:26, 24:30] = 255
    together = teacher_targets(teacher, frames, target, config())
    for b in range(2):
        for t in range(2):
            alone = teacher_targets(teacher, frames[b : b + 1, t : t + 1], target[b : b + 1, t : t + 1], config())
            assert (together[b, t] != alone[0, 0]).float().mean() < 0.001  # rounding at the threshold


def test_a_frame_without_the_object_has_its_strokes_alone(teacher):
    frames, target = clips()
    target[1, 0][target[1, 0] == 1] = 255
    labels = teacher_targets(teacher, frames, target, config())
    assert torch.equal(labels[1, 0], target[1, 0]) and not torch.equal(labels[0, 0], target[0, 0])


def test_the_teacher_gets_no_gradient(teacher):
    frames, target = clips()
    labels = teacher_targets(teacher, frames, target, config())
    assert not labels.requires_grad and all(p.grad is None for p in teacher.parameters())
