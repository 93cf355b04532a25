"""Print the study's table: J&F of every judged clip in percent, rows of this study beside the answers without training.

python studies/davis2016/table.py > table.md
"""

import json
from pathlib import Path

import numpy as np

from ssvos.config import read_yaml
from ssvos.metrics.tables import read_published_clips

HERE = Path(__file__).parent
PUBLISHED = ("OSVOS", "OSMN", "OFL", "BVS", "SEA", "TSP")


def of_row(result: dict) -> dict[str, float]:
    """Clip -> J&F in percent: a clip's one object counts as the clip."""
    return {name.rsplit("_", 1)[0]: 50 * (o["J"]["mean"] + o["F"]["mean"]) for name, o in result["objects"].items()}


def main() -> None:
    rows = {}
    for path in sorted((HERE / "results").glob("*.json")):
        rows[path.stem] = of_row(json.loads(path.read_text(encoding="utf-8")))
    read = read_published_clips()
    published = {name: {clip: sum(jf) / 2 for clip, jf in read[name].items()} for name in PUBLISHED}
    listed = [name for name in read_yaml(HERE / "checkpoints.yaml") if name in rows]
    names = [*listed, *sorted(set(rows) - set(listed))]
    columns = {name: rows[name] for name in names} | published
    clips = sorted(next(iter(columns.values())))
    print("| clip | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for clip in clips:
        print(f"| {clip} | " + " | ".join(f"{column[clip]:.1f}" for column in columns.values()) + " |")
    means = " | ".join(f"**{np.mean([column[clip] for clip in clips]):.1f}**" for column in columns.values())
    print(f"| **mean** | {means} |")


if __name__ == "__main__":
    main()
