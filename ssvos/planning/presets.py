"""Parameters by name: presets composed from conf/ by Hydra, as DVC composes them, brought to a folder, and written."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from ssvos.config import Config, read_yaml
from ssvos.files import write_text

_MADE_HERE = re.compile(r"# .* \(content ([0-9a-f]{12})\)\.\n# .*\n")
_LISTS = {"davis": ("train", "val"), "youtube-vos": ("train", "valid"), "folder": ("train", "val")}


@dataclass(frozen=True)
class Request:
    """Which parameters are wanted. Empty: as the preset, or params.yaml, has it.

    folders: `DIR` or `NAME=DIR`, or `demo` for the embedded data set. layout: of those folders; empty: recognised.
    train, val, holdout: names of lists. settings: `KEY=VALUE`, dotted keys, YAML values; `loss=paper` and the like
    choose a file of a group of conf/.
    """

    preset: str = ""
    folders: Sequence[str] = ()
    layout: str = ""
    train: str = ""
    val: str = ""
    holdout: str = ""
    settings: Sequence[str] = field(default=())


def requested_values(request: Request, params: Path, folder_preset: str) -> tuple[dict, str]:
    """The values that a request asks for, not yet checked, and what to call them in errors.

    params: the file that is taken where neither preset nor folder is named; conf/ lies beside it.
    folder_preset: the preset of a folder for which none is named.
    """
    conf = Path(params).parent / "conf"
    choices, settings = _sorted_out(request.settings, conf)
    folders = list(request.folders)
    is_demo = folders == ["demo"]
    preset = request.preset or ("demo" if is_demo else folder_preset if folders else "")
    if preset:
        choices |= {"data": "demo"} if is_demo else {}
        values, origin = compose(conf, preset, choices), f"preset {preset}"
    elif choices:
        raise ValueError(f"--set {'='.join(next(iter(choices.items())))}: is a part of a preset; add --preset")
    else:
        values, origin = read_yaml(params), str(params)
    if folders and not is_demo:
        values = on_folders(values, folders, request.layout)
    elif request.layout:
        raise ValueError("--layout: is that of a folder; add --data DIR")
    return _with_settings(_with_lists(values, request), settings), origin


def compose(conf: Path, preset: str, choices: Mapping[str, str] | None = None) -> dict:
    """A preset as Hydra composes it from conf/config.yaml: what `dvc exp run -S preset=NAME` writes to params.yaml.

    choices: group -> file, in place of the preset's own, for example {"loss": "paper"}.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    _require_choice(conf, "preset", preset)
    for group, name in (choices or {}).items():
        _require_choice(conf, group, name)
    overrides = [f"{group}={name}" for group, name in {"preset": preset, **(choices or {})}.items()]
    try:
        with initialize_config_dir(str(conf.absolute()), version_base=None):
            values = OmegaConf.to_container(hydra_compose("config", overrides=overrides), resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{conf}: preset {preset} does not compose; {' '.join(str(error).split())[:300]}") from error
    return {key: values[key] for key in (*Config.model_fields, "variants") if key in values} | values


def names_in(conf: Path, group: str) -> list[str]:
    """What can be chosen of a group, for example every preset; the demo first."""
    found = sorted(path.stem for path in (conf / group).glob("*.yaml"))
    return sorted(found, key=lambda name: name != "demo")


def _require_choice(conf: Path, group: str, name: str) -> None:
    known = names_in(conf, group)
    if not known:
        raise FileNotFoundError(f"{conf / group}: no such folder; run this in the project's folder")
    if name not in known:
        near = get_close_matches(name, known, 1, cutoff=0.3)
        hint = f", did you mean {near[0]}?" if near else ";"
        raise ValueError(f"{group} {name}: no such {group}{hint} ({', '.join(known)})")


def _sorted_out(settings: Sequence[str], conf: Path) -> tuple[dict[str, str], list[tuple[str, object]]]:
    """(group -> file, [(dotted key, value)]) of `KEY=VALUE` texts."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    choices, values = {}, []
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


def _with_settings(values: dict, settings: Sequence[tuple[str, object]]) -> dict:
    for key, value in settings:
        values = _replaced(values, key.split("."), value, key)
    return values


def _replaced(values: object, place: Sequence[str], value: object, key: str) -> object:
    """A copy of nested tables and lists with another value at one place; unknown keys are for the parser to name."""
    if not place:
        return value
    first, *rest = place
    if isinstance(values, list):
        if not (first.isdigit() and int(first) < len(values)):
            raise ValueError(f"--set {key}: {first} is no place in a list of {len(values)}; count from 0")
        return [_replaced(v, rest, value, key) if i == int(first) else v for i, v in enumerate(values)]
    table = values if isinstance(values, dict) else {}
    return {**table, first: _replaced(table.get(first), rest, value, key)}


def on_folders(values: dict, folders: Sequence[str], layout: str = "") -> dict:
    """Values whose sources lie in these folders. A preset of several sources has each named; otherwise the folders
    take the place of its one source, and the data set is called after them. Clips that a preset has rendered beside
    its folders stay."""
    from ssvos.data.index import fingerprint_listing

    given = dict(_named_folder(text) for text in folders)
    if len(given) < len(folders):
        raise ValueError("--data: two folders have one name; name them, --data NAME=DIR")
    data = dict(values.get("data") or {})
    own = {source["name"]: source for source in data.get("sources", ())}
    made = [source for source in own.values() if source["layout"] == "embedded"]
    own = {name: source for name, source in own.items() if source not in made} if len(made) < len(own) else own
    if len(own) > 1 and set(given) != set(own):
        wanted = " ".join(f"--data {name}=DIR" for name in own)
        raise ValueError(f"--data {' '.join(folders)}: this preset has {len(own)} sources; give {wanted}")
    sources = []
    for name, root in given.items():
        found = layout or recognise_layout(root)
        source = own.get(name, {}) if len(own) > 1 else {}
        lists = dict(zip(("train", "val"), _LISTS[found], strict=True))
        kept = source if source.get("layout") == found else {k: v for k, v in source.items() if k == "weight"}
        sources.append({"name": name, "layout": found, **lists, **kept, "root": str(root)})
    prints = [fingerprint_listing(root) for root in given.values()]
    print_ = prints[0] if len(prints) == 1 else hashlib.sha256("".join(prints).encode()).hexdigest()[:16]
    name = data.get("name") if len(own) > 1 else "-".join(given)
    if len(own) == len(given) == 1:
        values = _with_weight_of(values, *own, *given)
        sources += [source for source in made if source not in own.values()]
    return {**values, "data": {**data, "name": name, "sources": sources, "fingerprint": print_}}


def _with_weight_of(values: dict, before: str, name: str) -> dict:
    """Values whose stages give a source the weight that they gave it under the name it had before."""
    for stage in ("stage1", "stage2"):
        weights = (values.get("train") or {}).get(stage, {}).get("weights", {})
        if before in weights:
            renamed = {name if key == before else key: value for key, value in weights.items()}
            values = _replaced(values, ["train", stage, "weights"], renamed, "")
    return values


def _named_folder(text: str) -> tuple[str, Path]:
    """`NAME=DIR` or `DIR`, which is called after itself -> name and absolute folder."""
    name, equals, rest = text.partition("=")
    if not equals or "/" in name or Path(text).is_dir():
        name, rest = "", text
    root = Path(rest).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{rest}: no such folder; --data names a folder of videos, see docs/data.md")
    root = root.absolute()
    if name == "demo":
        raise ValueError(f"--data {text}: demo is the embedded data set's name; take another")
    own = re.sub(r"[^A-Za-z0-9_.-]+", "-", root.resolve().name).strip("-._")[:64] or "data"
    return name or ("demo-folder" if own == "demo" else own), root


def recognise_layout(root: Path) -> str:
    """The layout of a folder by what lies in it; ValueError if it is none that is known."""
    if (root / "JPEGImages").is_dir() and (root / "ImageSets").is_dir():
        return "davis"
    if (root / "train" / "meta.json").is_file():
        return "youtube-vos"
    if (root / "frames").is_dir():
        return "folder"
    raise ValueError(
        f"{root}: of no known layout; it should hold JPEGImages/ and ImageSets/ (davis), train/meta.json "
        "(youtube-vos) or frames/ (folder); --layout names one, docs/data.md describes them"
    )


def _with_lists(values: dict, request: Request) -> dict:
    lists = {key: name for key, name in (("train", request.train), ("val", request.val)) if name}
    if not lists and not request.holdout:
        return values
    data = dict(values.get("data") or {})
    sources = data.get("sources", [])
    given = [source for source in sources if source["layout"] != "embedded"] or sources
    if lists and len(given) != 1:
        raise ValueError(f"--{next(iter(lists))}: there are {len(given)} sources; --set data.sources.0.train=LIST")
    if lists:
        data["sources"] = [{**source, **lists} if source in given else source for source in sources]
    return {**values, "data": data | ({"holdout_split": request.holdout} if request.holdout else {})}


def require_folders(config: Config, origin: str) -> None:
    """ValueError for a source without a folder: parameters to run with must have them all."""
    missing = [source.name for source in config.data.sources if source.layout != "embedded" and not source.root]
    if missing:
        name = f"{missing[0]}=" if len(config.data.sources) > 1 else ""
        raise ValueError(f"{origin}: source {missing[0]} has no folder yet; give --data {name}DIR")


def write_params(values: dict, path: Path, origin: str) -> str:
    """Write a parameter file as plain YAML and say so; where what stood there was changed by hand it is kept beside it.

    The first lines say where the values come from and carry a digest of the rest, by which such a change is noticed.
    """
    from omegaconf import OmegaConf

    # DVC's own writer: floats with a point (1.0e-05), which YAML 1.1 needs, and quotes where text looks like a number
    body = OmegaConf.to_yaml(OmegaConf.create(values))
    text = (
        f"# {origin}, written by `ssvos plan --write` (content {_digest(body)}).\n"
        f"# Every key: ssvos/config. Presets: docs/presets.md.\n{body}"
    )
    current = path.read_text(encoding="utf-8") if path.is_file() else ""
    if current == text:
        return f"{path}: has these parameters already"
    said = f"{path}: written"
    if current and not _is_made_here(current):
        kept = _spare(path, current)
        write_text(kept, current)
        said += f"; yours is kept as {kept}"
    write_text(path, text)
    return said


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]


def _is_made_here(text: str) -> bool:
    head = _MADE_HERE.match(text)
    return bool(head) and head[1] == _digest(text[head.end() :])


def _spare(path: Path, content: str) -> Path:
    """params.yaml.orig, or with a number behind it where that holds something else."""
    candidates = (path.with_name(f"{path.name}.orig{'' if k == 1 else f'.{k}'}") for k in range(1, 1000))
    return next(p for p in candidates if not p.exists() or p.read_text(encoding="utf-8") == content)
