"""Before a run: which data, how much work, about how long; `--data` writes params.yaml for a folder of your own."""

import argparse
import re
from pathlib import Path

from pipelines.cluster import available_cpus
from pipelines.params import PARAMS, read_params
from pipelines.stage import run_stage
from ssvos.config import Config, StageConfig, parse, read_yaml
from ssvos.data.index import fingerprint_listing
from ssvos.data.videos import read_source
from ssvos.files import write_text
from ssvos.variants import Params

DEMO = Path("conf/demo.yaml")
# seconds a megapixel of training takes on one CPU core with the preset's network: benchmarks/bench_training.py
_SECONDS_PER_MEGAPIXEL = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a folder in DAVIS layout, or `demo` for the embedded data set")
    parser.add_argument("--preset", default="davis-cpu", help="which conf/<preset>.yaml a folder is run with")
    parser.add_argument("--train", default="train", help="the list to train on")
    parser.add_argument("--val", default="val", help="the list to judge on")
    parser.add_argument("--holdout", default="", help="a list to choose the checkpoint by; default: a part of --train")
    args = parser.parse_args()
    if args.data == "demo":
        _write(DEMO.read_text(encoding="utf-8"))
    elif args.data:
        _write(_for_folder(Path(args.data), args))
    print(describe(read_params()), flush=True)


def _for_folder(root: Path, args: argparse.Namespace) -> str:
    """The preset's text with the `data` section of this folder."""
    from io import StringIO

    from ruamel.yaml import YAML

    preset = Path("conf") / f"{args.preset}.yaml"
    if not preset.is_file():
        known = ", ".join(sorted(path.stem for path in Path("conf").glob("*.yaml")))
        raise ValueError(f"PRESET {args.preset}: no such preset; there are {known}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; DATA must name a folder in DAVIS layout")
    root = root.expanduser().absolute()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", root.name).strip("-.") or "data"
    if name == "demo":
        name = "demo-folder"  # `demo` is the embedded set's
    yaml = YAML()
    content = yaml.load(preset.read_text(encoding="utf-8"))
    source = {"name": name, "layout": "davis", "root": str(root), "train": args.train, "val": args.val}
    content["data"].update(
        name=name, sources=[source], holdout_split=args.holdout, fingerprint=fingerprint_listing(root)
    )
    parse(Config, {key: value for key, value in _plain(content).items() if key != "variants"}, preset)
    text = StringIO()
    yaml.dump(content, text)
    return text.getvalue()


def _plain(content) -> dict:
    import json

    return json.loads(json.dumps(content))


def _write(text: str) -> None:
    """Replace params.yaml; what a person had written there is kept beside it."""
    current = PARAMS.read_text(encoding="utf-8") if PARAMS.is_file() else ""
    if current == text:
        return
    made_here = current == DEMO.read_text(encoding="utf-8") or read_yaml(PARAMS).get("data", {}).get("fingerprint")
    if current and not made_here:
        write_text(Path("params.yaml.orig"), current)
        print("your params.yaml is kept as params.yaml.orig")
    write_text(PARAMS, text)


def describe(params: Params) -> str:
    """What will be run and a rough time on this machine's CPUs."""
    config = params.base
    lines = [f"data set {config.data.name}: {_videos(config)}"]
    total = 0.0
    for variant in params.variants.values():
        for stage in ("stage1", "stage2"):
            total += _minutes(getattr(variant.train, stage))
    for stage in ("stage1", "stage2"):
        s: StageConfig = getattr(config.train, stage)
        lines.append(
            f"{stage}: {s.epochs} epochs of {s.clips_per_epoch} clips, {s.clip_frames} frames of {s.height}x{s.width}, "
            f"{s.batch_clips} clips a step"
        )
    lines.append(
        f"variants: {', '.join(params.variants)}; training takes about {max(1, round(total))} minutes on "
        f"{available_cpus()} CPUs, far less on a GPU; then masks, scores and {Path('reports/index.html')}"
    )
    if config.data.name != "demo":
        lines.append("`make repro DATA=demo` goes back to the embedded data set")
    return "\n".join(lines)


def _videos(config: Config) -> str:
    parts = []
    for source in config.data.sources:
        if source.layout == "embedded":
            s = config.synthetic
            parts.append(f"made here, {s.num_train} clips to train on and {s.num_val} to judge, {s.height}x{s.width}")
        else:
            counts = [len(read_source(source, split)) for split in (source.train, source.val)]
            parts.append(
                f"{source.root}, {counts[0]} videos of {source.train!r} to train on, "
                f"{counts[1]} of {source.val!r} to judge"
            )
    return "; ".join(parts)


def _minutes(stage: StageConfig) -> float:
    pixels = stage.epochs * stage.clips_per_epoch * stage.clip_frames * stage.height * stage.width
    return pixels / 1e6 * _SECONDS_PER_MEGAPIXEL / available_cpus() / 60


if __name__ == "__main__":
    run_stage(main)
