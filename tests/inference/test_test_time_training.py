"""Test-time training on the first scribble: its effect on loss and masks, and what it does not change."""

import numpy as np
import pytest
import torch
from conftest import make_network

from ssvos.config import LossConfig, PredictConfig, TestTimeTrainingConfig
from ssvos.inference.segmenter import VideoSegmenter, segment
from ssvos.inference.test_time_training import train_at_test_time
from ssvos.labels import binary_scribbles
from ssvos.losses.joint import joint_loss

SIZE = HEIGHT, WIDTH = 48, 64
LOSS = LossConfig(sigma_xy=20.0)
TRAINING = TestTimeTrainingConfig(steps=6, learning_rate=3e-3)


def first_frame() -> tuple[np.ndarray, np.ndarray]:
    """A red and a green square on grey, with strokes on them."""
    rng = np.random.default_rng(0)
    frame = np.full((*SIZE, 3), 120, np.uint8)
    frame[8:28, 6:26], frame[20:42, 36:58] = (200, 30, 30), (30, 180, 40)
    frame = np.clip(frame + rng.integers(-10, 10, frame.shape), 0, 255).astype(np.uint8)
    scribble = np.full(SIZE, 255, np.uint8)
    scribble[14:18, 10:22], scribble[30:34, 40:54], scribble[2:5, 2:60] = 1, 2, 0
    return frame, scribble


def loss_on_first(network, frame: np.ndarray, scribble: np.ndarray) -> float:
    image = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    strokes = torch.from_numpy(binary_scribbles(scribble, (1, 2)))
    frames = image.expand(2, 2, *image.shape[1:])
    with torch.no_grad():
        prediction = network(frames, strokes)
        return float(joint_loss(prediction, frames, strokes[:, None].expand(-1, 2, -1, -1), LOSS, 0.0).total)


def test_it_lowers_the_loss_of_the_first_frame_and_does_not_change_the_network():
    network = make_network().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frame, scribble = first_frame()
    trained = train_at_test_time(network, frame, scribble, TRAINING, LOSS)
    assert loss_on_first(trained, frame, scribble) < 0.9 * loss_on_first(network, frame, scribble)
    assert not trained.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_same_scribble_gives_the_same_weights():
    network, first = make_network(), first_frame()
    once, again = (train_at_test_time(network, *first, TRAINING, LOSS).state_dict() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in once.items())


def test_a_segmenter_trains_once_on_the_first_scribble_with_an_object():
    network, (frame, scribble) = make_network(), first_frame()
    settings = PredictConfig(test_time_training=TRAINING)
    early, late = (np.where(np.isin(scribble, (0, i)), scribble, 255).astype(np.uint8) for i in (1, 2))
    segmenter = VideoSegmenter(network, config=settings, loss=LOSS)
    segmenter(frame, np.full(SIZE, 255, np.uint8))
    assert segmenter.network is network
    segmenter(frame, early)
    trained = segmenter.network
    assert trained is not network
    segmenter(frame, late)
    assert segmenter.network is trained
    expected = train_at_test_time(network, frame, early, TRAINING, LOSS).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in trained.state_dict().items())


def test_training_changes_the_masks():
    network, (frame, scribble) = make_network(), first_frame()
    masks = [
        list(segment(network, [frame] * 2, {0: scribble}, None, PredictConfig(test_time_training=config), LOSS))
        for config in (TestTimeTrainingConfig(), TRAINING)
    ]
    assert not np.array_equal(*masks)


def test_the_error_of_a_NaN_loss_names_the_learning_rate():
    network, first = make_network(), first_frame()
    with torch.no_grad():
        next(network.upsampling.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"predict\.test_time_training: .* lower its learning_rate"):
        train_at_test_time(network, *first, TRAINING, LOSS)
