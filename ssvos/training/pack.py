"""`ssvos pack`: what one training stage reads, in one small folder, to be trained on another machine."""

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

_EMBEDDED = "embedded"  # where a fit looks for these clips, beside its index


def pack_from_file(path: Path, out: Path, height: int, quality: int, tracked: Tracked) -> Path:
    """Pack what the stage of a file of `ssvos fit` reads into the new folder `out`, whole or not at all; returns the
    YAML file in it, ready for `fit_from_file` wherever the folder is taken.

    height: rows that no frame has more of; quality: of the frames, as JPEG.
    Raises FileExistsError for a folder that is there already, and what preparing the data raises.
    """
    request, config = read_fit_file(path)
    places = _places(config)
    base = path.parent.absolute()
    given = request.init_checkpoint or getattr(config.train, request.stage).init_checkpoint
    start = (base / Path(given).expanduser()).read_bytes() if given else b""
    with new_folder(out) as folder:
        made, listed = folder / "made", base / request.index
        roots = source_roots(config, listed.parent / _EMBEDDED if request.index else made, base)
        index = read_index(listed) if request.index else prepare(config, roots, tracked)
        to = {name: folder / place for name, place in places.items()}
        pack(index, roots, config.scribbles, folder, to, height, quality, tracked)
        shutil.rmtree(made, ignore_errors=True)
        fit = {"stage": request.stage, "out": "run", "index": "index.parquet", "scribbles": "scribbles.parquet"}
        if start:
            write_bytes(folder / "start.pt", start)
            fit["init_checkpoint"] = "start.pt"
        write_text(folder / "fit.yaml", _text(config, places, fit))
    return out / "fit.yaml"


def _places(config: Config) -> dict[str, str]:
    """Each source's folder in the pack; ValueError where two would share one."""
    places = {s.name: _EMBEDDED if s.layout == "embedded" else s.name for s in config.data.sources}
    if len(set(places.values())) < len(places):
        raise ValueError(f"data.sources: {_EMBEDDED} is the rendered clips' folder in a pack; rename that source")
    return places


def _text(config: Config, places: dict[str, str], fit: dict[str, str]) -> str:
    values = config.model_dump(mode="json")
    for source in values["data"]["sources"]:
        source["root"] = "" if source["layout"] == "embedded" else places[source["name"]]
    text = StringIO()
    YAML(typ="safe").dump(values | {"fit": fit}, text)
    return text.getvalue()
