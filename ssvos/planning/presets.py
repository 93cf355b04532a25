"""Presets: parameters that Hydra composes from conf/, as DVC does, applied to folders of videos and written to a
file."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ssvos.config import Config, read_yaml
from ssvos.files import write_text

_HEADER = re.compile(r"# .* \(content ([0-9a-f]{12})\)\.\n# .*\n")
Values = dict[str, Any]  # the nested tables of a parameter file
_LISTS = {"davis": ("train", "val"), "youtube-vos": ("train", "valid"), "folder": ("train", "val")}


@dataclass(frozen=True)
class Request:
    """The requested parameters. An empty field keeps the value of the preset or of params.yaml.

    folders: `DIR` or `NAME=DIR`, or `demo` for the embedded data set.
    layout: of the folders; empty: detected.
    train, val, holdout: names of lists.
    settings: `KEY=VALUE` with dotted keys and YAML values; a setting like `loss=paper` chooses a file of a group of
        conf/.
    """

    preset: str = ""
    folders: Sequence[str] = ()
    layout: str = ""
    train: str = ""
    val: str = ""
    holdout: str = ""
    settings: Sequence[str] = field(default=())


def requested_values(request: Request, params: Path, folder_preset: str) -> tuple[Values, str]:
    """The requested values, not checked yet, and their name for errors.

    params: the file that is used if the request has neither a preset nor a folder; conf/ is next to it.
    folder_preset: the preset that is used if the request has a folder but no preset.
    """
    conf = Path(params).parent / "conf"
    choices, settings = _split_settings(request.settings, conf)
    folders = list(request.folders)
    is_demo = folders == ["demo"]
    preset = request.preset or ("demo" if is_demo else folder_preset if folders else "")
    if preset:
        choices |= {"data": "demo"} if is_demo else {}
        values, origin = compose(conf, preset, choices), f"preset {preset}"
    elif choices:
        raise ValueError(f"--set {'='.join(next(iter(choices.items())))}: needs a preset; add --preset")
    else:
        values, origin = read_yaml(params), str(params)
    if folders and not is_demo:
        values = on_folders(values, folders, request.layout)
    elif request.layout:
        raise ValueError("--layout: needs a folder; add --data DIR")
    return _with_settings(_with_lists(values, request), settings), origin


def compose(conf: Path, preset: str, choices: Mapping[str, str] | None = None) -> Values:
    """Compose a preset from conf/config.yaml with Hydra, to the values that `dvc exp run -S preset=NAME` writes.

    choices: group -> file that replaces the preset's own, for example {"loss": "paper"}.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]  # no stubs installed

    _require_choice(conf, "preset", preset)
    for group, name in (choices or {}).items():
        _require_choice(conf, group, name)
    overrides = [f"{group}={name}" for group, name in {"preset": preset, **(choices or {})}.items()]
    try:
        with initialize_config_dir(str(conf.absolute()), version_base=None):
            composed = OmegaConf.to_container(hydra_compose("config", overrides=overrides), resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{conf}: preset {preset} does not compose; {' '.join(str(error).split())[:300]}") from error
    assert isinstance(composed, dict)
    values = {str(key): value for key, value in composed.items()}
    return {key: values[key] for key in (*Config.model_fields, "variants") if key in values} | values


def names_in(conf: Path, group: str) -> list[str]:
    """The names of the files of a group, for example of all presets; `demo` first."""
    names = sorted(path.stem for path in (conf / group).glob("*.yaml"))
    return sorted(names, key=lambda name: name != "demo")


def _require_choice(conf: Path, group: str, name: str) -> None:
    known = names_in(conf, group)
    if not known:
        raise FileNotFoundError(f"{conf / group}: no such folder; run this in the project's folder")
    if name not in known:
        similar = get_close_matches(name, known, 1, cutoff=0.3)
        hint = f", did you mean {similar[0]}?" if similar else ";"
        raise ValueError(f"{group} {name}: no such {group}{hint} ({', '.join(known)})")


def _split_settings(settings: Sequence[str], conf: Path) -> tuple[dict[str, str], list[tuple[str, object]]]:
    """Split `KEY=VALUE` texts into the chosen files, group -> file, and the values, [(dotted key, value)]."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    choices: dict[str, str] = {}
    values: list[tuple[str, object]] = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (key and equals):
            raise ValueError(f"--set {setting}: expected KEY=VALUE, for example train.seed=1")
        try:
            value = YAML(typ="safe").load(text) if text else ""
        except YAMLError as error:
            raise ValueError(f"--set {setting}: the value is not readable as YAML; quote it") from error
        if key == "preset":
            raise ValueError(f"--set {setting}: choose it with --preset {text}")
        if isinstance(value, str) and (conf / key).is_dir():
            choices[key] = value
        else:
            values.append((key, value))
    return choices, values


def _with_settings(values: Values, settings: Sequence[tuple[str, object]]) -> Values:
    for key, value in settings:
        values = _replaced(values, key.split("."), value, key)
    return values


def _replaced(values: Any, path: Sequence[str], value: object, key: str) -> Any:
    """A copy of nested tables and lists with another value at one path. The parser reports unknown keys.

    key: the dotted key, for errors.
    """
    if not path:
        return value
    first, *rest = path
    if isinstance(values, list):
        if not (first.isdigit() and int(first) < len(values)):
            raise ValueError(f"--set {key}: {first} is not an index of a list of {len(values)}; count from 0")
        return [_replaced(v, rest, value, key) if i == int(first) else v for i, v in enumerate(values)]
    table = values if isinstance(values, dict) else {}
    return {**table, first: _replaced(table.get(first), rest, value, key)}


def on_folders(values: Values, folders: Sequence[str], layout: str = "") -> Values:
    """Replace the sources of some values by folders.

    If the preset has several sources, every folder needs the name of one. Otherwise the folders replace its only
    source, and the data set gets their names. Rendered clips of a preset with other sources stay.
    """
    from ssvos.data.index import fingerprint_listing

    roots = dict(_named_folder(text) for text in folders)
    if len(roots) < len(folders):
        raise ValueError("--data: two folders have the same name; name them with --data NAME=DIR")
    data = dict(values.get("data") or {})
    own = {source["name"]: source for source in data.get("sources", ())}
    rendered = [source for source in own.values() if source["layout"] == "embedded"]
    if len(rendered) < len(own):
        own = {name: source for name, source in own.items() if source not in rendered}
    if len(own) > 1 and set(roots) != set(own):
        required = " ".join(f"--data {name}=DIR" for name in own)
        raise ValueError(f"--data {' '.join(folders)}: this preset has {len(own)} sources; give {required}")
    sources = []
    for name, root in roots.items():
        root_layout = layout or recognise_layout(root)
        source = own.get(name, {}) if len(own) > 1 else {}
        lists = dict(zip(("train", "val"), _LISTS[root_layout], strict=True))
        is_same_layout = source.get("layout") == root_layout
        kept = source if is_same_layout else {key: value for key, value in source.items() if key == "weight"}
        sources.append({"name": name, "layout": root_layout, **lists, **kept, "root": str(root)})
    fingerprints = [fingerprint_listing(root) for root in roots.values()]
    fingerprint = fingerprints[0]
    if len(fingerprints) > 1:
        fingerprint = hashlib.sha256("".join(fingerprints).encode()).hexdigest()[:16]
    data_name = data.get("name") if len(own) > 1 else "-".join(roots)
    if len(own) == len(roots) == 1:
        values = _with_weight_of(values, *own, *roots)
        sources += [source for source in rendered if source not in own.values()]
    return {**values, "data": {**data, "name": data_name, "sources": sources, "fingerprint": fingerprint}}


def _with_weight_of(values: Values, before: str, name: str) -> Values:
    """Rename a source in the `weights` of the stages."""
    for stage in ("stage1", "stage2"):
        weights = (values.get("train") or {}).get(stage, {}).get("weights", {})
        if before in weights:
            renamed = {name if key == before else key: value for key, value in weights.items()}
            values = _replaced(values, ["train", stage, "weights"], renamed, "")
    return values


def _named_folder(text: str) -> tuple[str, Path]:
    """The name and the absolute path of `NAME=DIR` or `DIR`; the name of `DIR` is that of the folder."""
    name, equals, rest = text.partition("=")
    if not equals or "/" in name or Path(text).is_dir():
        name, rest = "", text
    root = Path(rest).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{rest}: no such folder; give --data a folder of videos, see docs/data.md")
    root = root.absolute()
    if name == "demo":
        raise ValueError(f"--data {text}: demo is the embedded data set's name; use another")
    own = re.sub(r"[^A-Za-z0-9_.-]+", "-", root.resolve().name).strip("-._")[:64] or "data"
    return name or ("demo-folder" if own == "demo" else own), root


def recognise_layout(root: Path) -> str:
    """Detect the layout of a folder from its contents; ValueError for an unknown layout."""
    if (root / "JPEGImages").is_dir() and (root / "ImageSets").is_dir():
        return "davis"
    if (root / "train" / "meta.json").is_file():
        return "youtube-vos"
    if (root / "frames").is_dir():
        return "folder"
    raise ValueError(
        f"{root}: unknown layout, expected JPEGImages/ and ImageSets/ (davis), train/meta.json (youtube-vos) or "
        "frames/ (folder); give --layout, see docs/data.md"
    )


def _with_lists(values: Values, request: Request) -> Values:
    """Replace the names of the lists."""
    lists = {key: name for key, name in (("train", request.train), ("val", request.val)) if name}
    if not lists and not request.holdout:
        return values
    data = dict(values.get("data") or {})
    sources = data.get("sources", [])
    on_disk = [source for source in sources if source["layout"] != "embedded"] or sources
    if lists and len(on_disk) != 1:
        raise ValueError(
            f"--{next(iter(lists))}: there are {len(on_disk)} sources; use --set data.sources.0.train=LIST"
        )
    if lists:
        data["sources"] = [{**source, **lists} if source in on_disk else source for source in sources]
    return {**values, "data": data | ({"holdout_split": request.holdout} if request.holdout else {})}


def require_folders(config: Config, origin: str) -> None:
    """ValueError for a source without a folder, which a run needs."""
    missing = [source.name for source in config.data.sources if source.layout != "embedded" and not source.root]
    if missing:
        name = f"{missing[0]}=" if len(config.data.sources) > 1 else ""
        raise ValueError(f"{origin}: source {missing[0]} has no folder yet; give --data {name}DIR")


def write_params(values: Values, path: Path, origin: str) -> str:
    """Write a parameter file as plain YAML and return a message about it. A file that was changed by hand is kept under
    another name.

    The first lines name the origin of the values and a digest of the rest, by which changes are detected.
    """
    from omegaconf import OmegaConf

    # DVC's writer: floats with a point (1.0e-05), as YAML 1.1 needs, and quotes around text that looks like a number
    body = OmegaConf.to_yaml(OmegaConf.create(values))
    text = (
        f"# {origin}, written by `ssvos plan --write` (content {_digest(body)}).\n"
        f"# Every key: ssvos/config. Presets: docs/presets.md.\n{body}"
    )
    current = path.read_text(encoding="utf-8") if path.is_file() else ""
    if current == text:
        return f"{path}: has these parameters already"
    message = f"{path}: written"
    if current and not _is_unchanged(current):
        backup = _backup_path(path, current)
        write_text(backup, current)
        message += f"; the previous file is kept as {backup}"
    write_text(path, text)
    return message


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]


def _is_unchanged(text: str) -> bool:
    """Whether `write_params` wrote the text and nobody has changed it since."""
    header = _HEADER.match(text)
    return header is not None and header[1] == _digest(text[header.end() :])


def _backup_path(path: Path, content: str) -> Path:
    """params.yaml.orig, or with the first number for which no file with other content exists."""
    candidates = (path.with_name(f"{path.name}.orig{'' if k == 1 else f'.{k}'}") for k in range(1, 1000))
    return next(p for p in candidates if not p.exists() or p.read_text(encoding="utf-8") == content)
