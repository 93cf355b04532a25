"""States and inputs at SSVOS_STORAGE, on a real S3 server and in a folder."""

import logging
import os

import pytest
import torch
from cluster_head import free_port
from object_store import KEYS, object_store

from pipelines.cluster.checkpoint_store import CheckpointStore
from pipelines.cluster.storage import Place, put, remove_folder, require_storage, resume_folder, storage
from pipelines.tuning.search_callback import Trial
from pipelines.tuning.trial_store import TrialStore
from ssvos.training.train_state import TrainState, to_bytes


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch, object_store("127.0.0.1", free_port()) as url:
        for key, value in KEYS.items():
            patch.setenv(key, value)
        yield url


@pytest.fixture(params=["object store", "folder", "folder by URL"])
def somewhere(request, bucket, tmp_path, monkeypatch) -> str:
    """What SSVOS_STORAGE is."""
    url = {"object store": bucket, "folder": str(tmp_path), "folder by URL": f"file://{tmp_path}"}[request.param]
    monkeypatch.setenv("SSVOS_STORAGE", url)
    return url


def a_state(epoch: int) -> bytes:
    return to_bytes(TrainState(epoch=epoch, weights={"a": torch.arange(5000.0)}), "d")


def test_of_two_states_the_one_before_replaces_a_broken_one(somewhere, caplog):
    require_storage()
    folder = resume_folder("run")
    kept = CheckpointStore(folder / "progress.pt", "d")
    assert kept.read() is None
    for epoch in (1, 2, 3):
        kept.write(a_state(epoch))
    assert kept.read().epoch == 3
    put(kept.path, kept.path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert kept.read().epoch == 2
    assert f"{kept.path}: not a complete state" in caplog.text and "?" not in str(kept.path)
    kept.write(a_state(4))
    assert kept.read().epoch == 4
    remove_folder(folder)
    assert kept.read() is None


def test_trials_of_a_search_read_back(somewhere):
    folder = resume_folder("search")
    trials = [Trial(number, {"a": 0.5}, f"run-{number}") for number in (0, 1, 10)]
    for trial in reversed(trials):
        TrialStore(folder).write(trial)
    assert TrialStore(folder).known == trials
    remove_folder(folder)
    assert TrialStore(folder).known == []


def test_nothing_asked_for_is_the_projects_folder(monkeypatch):
    monkeypatch.delenv("SSVOS_STORAGE", raising=False)
    require_storage()
    assert storage() is None and str(resume_folder("run")) == os.path.join("resume", "run")


def test_a_password_in_the_url_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("SSVOS_STORAGE", "s3://name:secret@bucket/x?endpoint_override=127.0.0.1%3A1&region=us-east-1")
    with pytest.raises(ValueError, match="not usable") as told:
        require_storage()
    assert "secret" not in str(told.value)


def test_a_bucket_that_is_not_there_is_told_before_any_work(bucket, monkeypatch):
    monkeypatch.setenv("SSVOS_STORAGE", bucket.replace("//bucket", "//other"))
    with pytest.raises(ValueError, match=r"SSVOS_STORAGE s3://other/shared: not usable \(.+\); give s3://BUCKET"):
        require_storage()


def test_names_in_a_store():
    place = Place("s3://bucket/x?region=us-east-1", "ssvos") / "resume" / "run" / "progress.pt"
    assert str(place) == "s3://bucket/x/ssvos/resume/run/progress.pt"
    assert (place.stem, place.suffix) == ("progress", ".pt")
    assert str(place.with_name("a.b")) == "s3://bucket/x/ssvos/resume/run/a.b"
