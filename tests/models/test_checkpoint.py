"""Checkpoints: bit-equal round trip, equal bytes, and one line of error for every other file."""

import pickle

import pytest
import torch
from conftest import TINY_MODEL, make_network

from ssvos.models.checkpoint import file_digest, load_checkpoint, save_checkpoint

ABOUT = {"variant": "ours", "stage": "stage1", "height": 48, "width": 64, "holdout_score": 0.25}


@pytest.fixture
def path(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", make_network().state_dict(), TINY_MODEL, ABOUT)
    return tmp_path / "checkpoint.pt"


def test_loading_rebuilds_the_network_in_evaluation_mode_with_bit_equal_weights(path):
    network, info = load_checkpoint(path)
    expected = make_network().state_dict()
    loaded = network.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())
    assert info.model == TINY_MODEL and info.about == ABOUT and info.size == (48, 64)
    assert not network.training


def test_the_size_of_a_checkpoint_without_one_is_none(tmp_path):
    save_checkpoint(tmp_path / "c.pt", make_network().state_dict(), TINY_MODEL, {})
    assert load_checkpoint(tmp_path / "c.pt")[1].size is None


def test_the_same_weights_give_the_same_bytes_in_any_folder(tmp_path, path):
    network, _ = load_checkpoint(path)
    for folder in ("a", "elsewhere"):
        save_checkpoint(tmp_path / folder / "checkpoint.pt", network.state_dict(), TINY_MODEL, ABOUT)
        assert (tmp_path / folder / "checkpoint.pt").read_bytes() == path.read_bytes()
    assert file_digest(path) == file_digest(tmp_path / "a" / "checkpoint.pt")


def test_different_weights_have_different_digests(tmp_path, path):
    save_checkpoint(tmp_path / "other.pt", make_network(1).state_dict(), TINY_MODEL, ABOUT)
    assert file_digest(tmp_path / "other.pt") != file_digest(path)


def test_a_frozen_backbone_is_frozen_after_loading(tmp_path):
    model = TINY_MODEL.model_copy(update={"backbone": TINY_MODEL.backbone.model_copy(update={"frozen": True})})
    before = make_network(backbone=model.backbone)
    save_checkpoint(tmp_path / "c.pt", before.state_dict(), model, {})
    after, _ = load_checkpoint(tmp_path / "c.pt")
    trainable = [[n for n, p in net.named_parameters() if p.requires_grad] for net in (before, after)]
    assert trainable[0] == trainable[1]


def _garbage(path):
    path.write_bytes(b"garbage" * 100)


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-5000])


def _empty(path):
    path.write_bytes(b"")


def _changed(**parts):
    def change(path):
        content = torch.load(path, weights_only=True)
        torch.save({k: v for k, v in (content | parts).items() if v is not None}, path)

    return change


def _missing_weight(path):
    content = torch.load(path, weights_only=True)
    content["weights"].pop("appearance.rho")
    torch.save(content, path)


def _weight_of_wrong_shape(path):
    content = torch.load(path, weights_only=True)
    content["weights"]["appearance.rho"] = torch.zeros(2, 2)
    torch.save(content, path)


def _other_parameters(path):
    content = torch.load(path, weights_only=True)
    content["model"]["fusion_channels"] = 24
    torch.save(content, path)


def _impossible_width(path):
    content = torch.load(path, weights_only=True)
    content["model"]["backbone"]["width"] = 12
    torch.save(content, path)


def test_a_checkpoint_of_the_time_of_the_learnt_memory_loads_if_it_was_off(path):
    _changed(model=_with_memory(path, {"channels": 0, "frames": 1, "confident": 0.8}))(path)
    network, info = load_checkpoint(path)
    assert info.model.memory.frames == 0 and not hasattr(network, "memory")


def test_a_checkpoint_with_a_learnt_memory_is_refused(path):
    _changed(model=_with_memory(path, {"channels": 8, "frames": 1, "confident": 0.8}))(path)
    with pytest.raises(ValueError, match=r"train it again .*a memory with learnt keys no longer exists"):
        load_checkpoint(path)


def _with_memory(path, memory: dict) -> dict:
    return torch.load(path, weights_only=True)["model"] | {"memory": memory}


@pytest.mark.parametrize(
    "tamper",
    [
        _garbage,
        _truncated,
        _empty,
        lambda path: torch.save({"a": torch.zeros(3)}, path),
        lambda path: torch.save([1, 2], path),
        _changed(format="ssvos-checkpoint-0"),
        _changed(weights=None),
        _changed(weights=3),
        _changed(weights={}),
        _changed(about=None),
        _changed(model={"unknown_key": 1}),
        _changed(model=None),
        _missing_weight,
        _weight_of_wrong_shape,
        _other_parameters,
        _impossible_width,
    ],
)
def test_any_other_file_raises_one_line_that_names_it(path, tamper):
    tamper(path)
    with pytest.raises(ValueError, match=r"checkpoint\.pt: ") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


class _Code:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_a_pickle_with_code_is_rejected_and_does_not_run(tmp_path):
    marker = tmp_path / "code-ran"
    bad = {"format": "ssvos-checkpoint-1", "about": _Code(marker)}
    torch.save(bad, tmp_path / "bad.pt")
    (tmp_path / "worse.pt").write_bytes(pickle.dumps(bad, protocol=2))
    for name in ("bad.pt", "worse.pt"):
        with pytest.raises(ValueError, match=name):
            load_checkpoint(tmp_path / name)
    assert not marker.exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        load_checkpoint(tmp_path / "none.pt")
