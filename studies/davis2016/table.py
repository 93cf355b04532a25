"""Print the study's table: J&F of every validation clip in percent, for variants, baselines and published methods.

python studies/davis2016/table.py > table.md
"""

import json
from pathlib import Path

import numpy as np

from ssvos.config import read_yaml
from ssvos.metrics.tables import read_published_clips

HERE = Path(__file__).parent
PUBLISHED = ("OSVOS", "OSMN", "OFL", "BVS", "SEA", "TSP")


def clip_scores(result: dict) -> dict[str, float]:
    """J&F by clip in percent. Every clip has one object."""
    return {name.rsplit("_", 1)[0]: 50 * (o["J"]["mean"] + o["F"]["mean"]) for name, o in result["objects"].items()}


def main() -> None:
    scores = {}
    for path in sorted((HERE / "results").glob("*.json")):
        scores[path.stem] = clip_scores(json.loads(path.read_text(encoding="utf-8")))
    published_clips = read_published_clips()
    published = {name: {clip: sum(jf) / 2 for clip, jf in published_clips[name].items()} for name in PUBLISHED}
    listed = [name for name in read_yaml(HERE / "checkpoints.yaml") if name in scores]
    names = [*listed, *sorted(set(scores) - set(listed))]
    columns = {name: scores[name] for name in names} | published
    clips = sorted(next(iter(columns.values())))
    print("| clip | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for clip in clips:
        print(f"| {clip} | " + " | ".join(f"{column[clip]:.1f}" for column in columns.values()) + " |")
    means = " | ".join(f"**{np.mean([column[clip] for clip in clips]):.1f}**" for column in columns.values())
    print(f"| **mean** | {means} |")


if __name__ == "__main__":
    main()
