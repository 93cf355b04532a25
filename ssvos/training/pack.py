"""`ssvos pack`: the inputs of one training stage in one small folder, for training on another machine."""

import shutil
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML

from ssvos.config import Config
from ssvos.data.index import read_index
from ssvos.data.packing import pack
from ssvos.data.preparation import Tracked, prepare, source_roots
from ssvos.files import new_folder, write_bytes, write_text
from ssvos.training.fit import read_fit_file

_EMBEDDED = "embedded"  # the folder next to the index in which `ssvos fit` looks for rendered clips


def pack_from_file(path: Path, out: Path, height: int, quality: int, tracked: Tracked) -> Path:
    """Write the inputs of a training stage into the new folder `out`, completely or not at all.

    path: the file that `ssvos fit` would read.
    height: the largest height of a packed frame; higher frames are scaled down.
    quality: JPEG quality of the frames.
    tracked: shows progress.
    returns: the YAML file in `out`, which `fit_from_file` reads; the folder may be moved.
    Raises FileExistsError if `out` exists, and the errors of reading and preparing the data.
    """
    request, config = read_fit_file(path)
    folders = _source_folders(config)
    base = path.parent.absolute()
    init_checkpoint = request.init_checkpoint or getattr(config.train, request.stage).init_checkpoint
    start = (base / Path(init_checkpoint).expanduser()).read_bytes() if init_checkpoint else b""
    with new_folder(out) as folder:
        rendered, index_path = folder / "rendered", base / request.index
        roots = source_roots(config, index_path.parent / _EMBEDDED if request.index else rendered, base)
        index = read_index(index_path) if request.index else prepare(config, roots, tracked)
        packed_roots = {name: folder / subfolder for name, subfolder in folders.items()}
        pack(index, roots, config.scribbles, folder, packed_roots, height, quality, tracked)
        shutil.rmtree(rendered, ignore_errors=True)
        fit = {"stage": request.stage, "out": "run", "index": "index.parquet", "scribbles": "scribbles.parquet"}
        if start:
            write_bytes(folder / "start.pt", start)
            fit["init_checkpoint"] = "start.pt"
        write_text(folder / "fit.yaml", _fit_file(config, folders, fit))
    return out / "fit.yaml"


def _source_folders(config: Config) -> dict[str, str]:
    """Source name -> its folder in the pack; ValueError if two sources would share a folder."""
    folders = {s.name: _EMBEDDED if s.layout == "embedded" else s.name for s in config.data.sources}
    if len(set(folders.values())) < len(folders):
        raise ValueError(f"data.sources: a pack holds rendered clips in the folder {_EMBEDDED}; rename that source")
    return folders


def _fit_file(config: Config, folders: dict[str, str], fit: dict[str, str]) -> str:
    """The YAML text of the parameters with the packed roots, and of the section `fit`."""
    values = config.model_dump(mode="json")
    for source in values["data"]["sources"]:
        source["root"] = "" if source["layout"] == "embedded" else folders[source["name"]]
    text = StringIO()
    YAML(typ="safe").dump(values | {"fit": fit}, text)
    return text.getvalue()
