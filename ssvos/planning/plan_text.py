"""A plan as text and as a table for a JSON file."""

from pathlib import Path
from typing import Any

from ssvos.config import BackboneConfig
from ssvos.planning.plan import STAGES, RunPlan, num_steps
from ssvos.planning.video_counts import SourceCounts

_UNKNOWN = "unknown until --data is given"
_DAY = 86400.0


def describe(plan: RunPlan, title: str) -> str:
    """The aligned text of a plan, without a newline at its end."""
    rows = [("plan", title), *_data(plan), *_stages(plan), *_networks(plan), ("machine", _machine(plan))]
    rows += [("", ""), *_variants(plan), ("", ""), *_totals(plan), *_remarks(plan)]
    return "\n".join(f"{name:<9} {text}".rstrip() for name, text in rows)


def as_table(plan: RunPlan) -> dict[str, Any]:
    """The numbers of a plan for a JSON file: seconds, bytes and counts; null if the folder is not known."""
    return {
        "data": plan.params.base.data.name,
        "videos": None if plan.sources is None else {s.source.name: _counts(s) for s in plan.sources},
        "stages": {
            name: {"steps": num_steps(stage) * stage.epochs, "workers": plan.workers[name]}
            for name, stage in zip(STAGES, (plan.params.base.train.stage1, plan.params.base.train.stage2), strict=True)
        },
        "variants": {
            name: {
                "parameters": variant.profile.parameters,
                "seconds": {**{stage: variant.stages[stage].seconds for stage in STAGES}, "masks": variant.masks},
                "memory": {stage: variant.stages[stage].memory for stage in STAGES},
                "memory_on_gpu": variant.on_gpu,
            }
            for name, variant in plan.variants.items()
        },
        "seconds": plan.seconds,
        "memory": plan.memory,
        "has_room": plan.has_room,
        "disk": {"checkpoints": plan.checkpoints, "masks": plan.masks},
    }


def _counts(source: SourceCounts) -> dict[str, int]:
    parts = {"train": source.train, "holdout": source.holdout, "val": source.val}
    return {name: len(part) for name, part in parts.items()} | {"frames": source.num_frames}


def _data(plan: RunPlan) -> list[tuple[str, str]]:
    if plan.sources is None:
        named = plan.params.base.data.sources
        return [("data", f"{s.name}, {s.layout}: {s.root or 'no folder yet'}; videos {_UNKNOWN}") for s in named]
    lines = []
    for counts in plan.sources:
        source = counts.source
        where = "rendered" if source.layout == "embedded" else f"{source.layout} in {source.root}"
        height, width = counts.size
        lines += [("data", f"{source.name}: {where}, {counts.num_frames} frames of {height}x{width}")]
        held_out_of = plan.params.base.data.holdout_split or f"of {source.train}"
        text = "unlimited clips" if source.unlimited else f"{len(counts.train)} videos of {source.train}"
        text += " for training, "
        text += (
            f"{len(counts.holdout)} held out ({held_out_of}) to choose the checkpoint, "
            f"{len(counts.val)} of {source.val} for evaluation"
            if source.val
            else "none held out, none for evaluation"
        )
        lines += [("", text)]
    return lines


def _stages(plan: RunPlan) -> list[tuple[str, str]]:
    train, rows = plan.params.base.train, []
    for number, (name, stage) in enumerate(zip(STAGES, (train.stage1, train.stage2), strict=True), 1):
        steps, share = num_steps(stage), stage.batch_clips // plan.workers[name]
        text = f"{stage.epochs} epochs x {stage.clips_per_epoch} clips = {steps} steps per epoch, "
        text += f"{steps * stage.epochs} in total; clips of {stage.clip_frames} frames x {stage.height}x{stage.width}, "
        rows.append((f"stage {number}", text + f"batch {stage.batch_clips}, {share} per worker"))
    return rows


def _networks(plan: RunPlan) -> list[tuple[str, str]]:
    rows = []
    for name, variant in plan.variants.items():
        backbone = plan.params.variants[name].model.backbone
        rows.append(("network", f"{name}: {_backbone(backbone)}, {variant.profile.parameters / 1e6:.2f} M parameters"))
    return rows


def _backbone(backbone: BackboneConfig) -> str:
    kind = "published weights" if backbone.weights else "random weights"
    width = "" if backbone.width == 64 else f" of width {backbone.width}"
    return f"{backbone.name}{width}, {kind}{', frozen to layer3' if backbone.frozen else ''}"


def _machine(plan: RunPlan) -> str:
    counts = sorted(set(plan.workers.values()))
    workers = " and ".join(map(str, counts)) + (" worker" if counts == [1] else " workers")
    return f"{plan.machine}; {workers}"


def _variants(plan: RunPlan) -> list[tuple[str, str]]:
    """One row per variant. The times of the stages include scoring after every epoch."""
    columns = ("stage 1", "stage 2", "masks", "total")
    rows = [("variant", "".join(f"{column:>10}" for column in columns) + f"{'memory per worker':>19}")]
    for name, variant in plan.variants.items():
        masks = "unknown" if plan.sources is None else duration(variant.masks)
        times = [*(duration(variant.stages[stage].seconds) for stage in STAGES), masks, duration(variant.seconds)]
        memory = size(max(variant.stages[stage].memory for stage in STAGES))
        rows.append((name, "".join(f"{time:>10}" for time in times) + f"{memory:>19}"))
    return rows


def _totals(plan: RunPlan) -> list[tuple[str, str]]:
    trials = plan.params.base.tune.trials
    rest = "checks, scribbles, baselines, scores, start-up"
    total = f"about {duration(plan.seconds)}"
    if plan.sources is None:
        total += ", without held-out scoring, masks, scribbles and scores, which are " + _UNKNOWN
    disk = f"about {size(plan.checkpoints)} of checkpoints"
    masks = f"masks {_UNKNOWN}" if plan.sources is None else f"{size(plan.masks)} of masks"
    return [
        ("search", f"at most {duration(plan.search)} for {trials} trials"),
        ("other", f"about {duration(plan.rest)}: {rest}"),
        ("total", total),
        ("disk", f"{disk}, {masks}, including copies"),
    ]


def _remarks(plan: RunPlan) -> list[tuple[str, str]]:
    remarks = []
    if not plan.has_room:
        kind, available = "memory", plan.machine.memory
        if plan.machine.num_gpus:
            kind, available = "GPU memory", plan.machine.gpu_memory
        remarks.append(
            f"needs {size(plan.memory)} of {kind}, {size(available)} available: "
            "lower batch_clips, clip_frames or the frame size"
        )
    if not plan.machine.num_gpus and plan.seconds > _DAY:
        needed = size(max(variant.on_gpu for variant in plan.variants.values()))
        remarks.append(f"this machine has no GPU, the times are those of its CPUs; a GPU would need {needed} of memory")
    for name, config in plan.params.variants.items():
        weights = config.model.backbone.weights_file
        if weights and not Path(weights).expanduser().is_file():
            remarks.append(f"{name} needs {weights}, which does not exist; docs/backbones.md says how to get it")
    return [("note", remark) for remark in remarks]


def duration(seconds: float) -> str:
    """A duration in words: 12 s, 4.5 min, 7.3 h, 12 days."""
    for limit, unit, name in ((90, 1, "s"), (90 * 60, 60, "min"), (2 * _DAY, 3600, "h")):
        if seconds < limit:
            return f"{_short(seconds / unit)} {name}"
    return f"{_short(seconds / _DAY)} days"


def size(count: float) -> str:
    """A number of bytes in words: 430 kB, 12 MB, 3.4 GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{_short(count / unit)} {name}"
    return f"{_short(count / 1e3)} kB"


def _short(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:.0f}"
