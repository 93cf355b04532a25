"""The state of a training stage on disk: its two latest copies, and the digest that names its run."""

import logging

import pytest
import torch
from conftest import changed

from ssvos.training.train_state import SavedState, TrainState, run_digest, to_bytes


def test_the_digest_depends_on_parameters_data_and_init_checkpoint(tiny_data, tmp_path):
    config, files = tiny_data.config, [tiny_data.index, tiny_data.scribbles]
    (tmp_path / "other.pt").write_bytes(b"x")
    digests = [
        run_digest(config, "stage1", files),
        run_digest(config, "stage2", files),
        run_digest(changed(config, lr_decay=0.5), "stage1", files),
        run_digest(config, "stage1", [tmp_path / "other.pt", files[1]]),
        run_digest(config, "stage1", [*files, tmp_path / "other.pt"]),
    ]
    assert len(set(digests)) == len(digests)
    assert run_digest(changed(config, save_every=7), "stage1", files) == digests[0]


def a_state(epoch: int, digest: str = "d") -> bytes:
    return to_bytes(TrainState(epoch=epoch, weights={"a": torch.arange(5000.0)}), digest)


def truncated(state: bytes) -> bytes:
    return state[: len(state) // 2]


def one_byte_changed(state: bytes) -> bytes:
    offset = state.index(torch.arange(5000.0).numpy().tobytes()) + 4321
    return state[:offset] + bytes([state[offset] ^ 1]) + state[offset + 1 :]


BREAK = [truncated, one_byte_changed, lambda _: b"", lambda _: b"no state at all"]


@pytest.mark.parametrize("break_state", BREAK)
def test_the_previous_state_replaces_a_broken_one(tmp_path, caplog, break_state):
    saved = SavedState(tmp_path / "progress.pt", "d")
    assert saved.read() is None
    for epoch in (1, 2, 3):
        saved.write(a_state(epoch))
    assert saved.read().epoch == 3 and len(list(tmp_path.iterdir())) == 2
    saved.path.write_bytes(break_state(saved.path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert saved.read().epoch == 2
    assert caplog.text.count("progress.pt: not a complete state") == 1
    saved.write(a_state(4))  # the broken state must not become the previous one
    saved.path.write_bytes(b"")
    assert saved.read().epoch == 2
    saved.previous.write_bytes(b"")
    assert saved.read() is None


def test_a_process_killed_while_it_saves_leaves_the_previous_state(tmp_path, monkeypatch):
    saved = SavedState(tmp_path / "progress.pt", "d")
    saved.write(a_state(1))
    monkeypatch.setattr("ssvos.training.train_state.write_bytes", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        saved.write(a_state(2))
    assert saved.read().epoch == 1


def test_the_state_of_another_run_is_refused(tmp_path):
    SavedState(tmp_path / "progress.pt", "other").write(a_state(1, "other"))
    with pytest.raises(ValueError, match=r"progress\.pt: the state of a run with other parameters or data"):
        SavedState(tmp_path / "progress.pt", "d").read()


def test_reading_a_state_runs_no_code(tmp_path):
    class Code:
        def __reduce__(self):
            return open, (str(tmp_path / "it-ran"), "w")

    torch.save({"digest": "d", "progress": Code()}, tmp_path / "progress.pt")
    assert SavedState(tmp_path / "progress.pt", "d").read() is None
    assert not (tmp_path / "it-ran").exists()
