"""Fixtures of the report's tests: a rendered data set, and a run on it with hand-written masks and scores."""

import shutil
from pathlib import Path

import pytest
from report_run import MARKUP_NAME, make_params, write_run

from ssvos.config import SyntheticConfig
from ssvos.config.variants import Params
from ssvos.data.synthetic.clips import make_dataset


@pytest.fixture(scope="module")
def rendered_set(tmp_path_factory) -> Path:
    """A folder with a rendered data set in DAVIS layout, whose first evaluation video has markup in its name."""
    folder = tmp_path_factory.mktemp("rendered")
    config = SyntheticConfig(num_train=2, num_val=3, num_frames=4, height=48, width=64, max_objects=2)
    make_dataset(config, folder / "set", lambda _: None)
    for kind in ("JPEGImages", "Annotations"):
        (folder / "set" / kind / "480p" / "val-000").rename(folder / "set" / kind / "480p" / MARKUP_NAME)
    val_list = next((folder / "set" / "ImageSets").rglob("val.txt"))
    val_list.write_text(val_list.read_text().replace("val-000", MARKUP_NAME))
    return folder


@pytest.fixture
def report_params(rendered_set, tmp_path, monkeypatch) -> Params:
    """The run's parameters. The working directory has the outputs of all stages before `report`."""
    monkeypatch.chdir(tmp_path)
    params = make_params(rendered_set / "set")
    if not (rendered_set / "run").is_dir():
        write_run(params.base, rendered_set / "set" / "Annotations" / "480p")
        shutil.copytree(tmp_path, rendered_set / "run")
    else:
        shutil.copytree(rendered_set / "run", tmp_path, dirs_exist_ok=True)
    return params
