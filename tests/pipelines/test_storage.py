"""Saved states and trials in SSVOS_STORAGE, on a real S3 server and in a folder."""

import logging
import os

import pytest
import torch
from cluster_head import free_port
from object_store import KEYS, object_store

from pipelines.cluster.checkpoint_store import CheckpointStore
from pipelines.cluster.storage import StorageLocation, put, remove_folder, require_storage, resume_folder, storage
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
def storage_url(request, bucket, tmp_path, monkeypatch) -> str:
    """The value of SSVOS_STORAGE."""
    url = {"object store": bucket, "folder": str(tmp_path), "folder by URL": f"file://{tmp_path}"}[request.param]
    monkeypatch.setenv("SSVOS_STORAGE", url)
    return url


def make_state(epoch: int) -> bytes:
    return to_bytes(TrainState(epoch=epoch, weights={"a": torch.arange(5000.0)}), "d")


def test_the_previous_state_replaces_a_broken_one(storage_url, caplog):
    require_storage()
    folder = resume_folder("run")
    store = CheckpointStore(folder / "progress.pt", "d")
    assert store.read() is None
    for epoch in (1, 2, 3):
        store.write(make_state(epoch))
    assert store.read().epoch == 3
    put(store.path, store.path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert store.read().epoch == 2
    assert f"{store.path}: not a complete state" in caplog.text and "?" not in str(store.path)
    store.write(make_state(4))
    assert store.read().epoch == 4
    remove_folder(folder)
    assert store.read() is None


def test_saved_trials_are_read_back(storage_url):
    folder = resume_folder("search")
    trials = [Trial(number, {"a": 0.5}, f"run-{number}") for number in (0, 1, 10)]
    for trial in reversed(trials):
        TrialStore(folder).write(trial)
    assert TrialStore(folder).known == trials
    remove_folder(folder)
    assert TrialStore(folder).known == []


def test_without_a_storage_states_are_in_the_projects_folder(monkeypatch):
    monkeypatch.delenv("SSVOS_STORAGE", raising=False)
    require_storage()
    assert storage() is None and str(resume_folder("run")) == os.path.join("resume", "run")


def test_messages_do_not_contain_the_urls_password(monkeypatch):
    monkeypatch.setenv("SSVOS_STORAGE", "s3://name:secret@bucket/x?endpoint_override=127.0.0.1%3A1&region=us-east-1")
    with pytest.raises(ValueError, match="not usable") as raised:
        require_storage()
    assert "secret" not in str(raised.value)


def test_a_missing_bucket_is_reported_before_any_work(bucket, monkeypatch):
    monkeypatch.setenv("SSVOS_STORAGE", bucket.replace("//bucket", "//other"))
    with pytest.raises(ValueError, match=r"SSVOS_STORAGE s3://other/shared: not usable \(.+\); use s3://BUCKET"):
        require_storage()


def test_names_of_a_storage_location():
    location = StorageLocation("s3://bucket/x?region=us-east-1", "ssvos") / "resume" / "run" / "progress.pt"
    assert str(location) == "s3://bucket/x/ssvos/resume/run/progress.pt"
    assert (location.stem, location.suffix) == ("progress", ".pt")
    assert str(location.with_name("a.b")) == "s3://bucket/x/ssvos/resume/run/a.b"
