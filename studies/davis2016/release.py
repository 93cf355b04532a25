"""Make the bundled checkpoint, in half precision, from a training on rendered clips alone.

python studies/davis2016/release.py RUNS/rendered OUT

RUNS/rendered: the folder of a variant whose training (train.py) was stopped in stage 2 after an epoch. The checkpoint
has the average of the weights at that point, not the weights of the best epoch, because two rendered videos are too few
to choose an epoch.
"""

import hashlib
import sys
from pathlib import Path

from ssvos.config import read_yaml
from ssvos.models.checkpoint import load_checkpoint, save_checkpoint
from ssvos.training.train_state import from_bytes


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("release: expected two arguments; give the folder of a variant and the path of the checkpoint")
    run_dir, out = map(Path, sys.argv[1:])
    states = [path for path in run_dir.glob("stage2/resume-*.pt") if not path.stem.endswith("-before")]
    if len(states) != 1:
        raise ValueError(
            f"{run_dir}/stage2: has {len(states)} saved states, expected 1; stop a training after an epoch (train.py)"
        )
    progress, _ = from_bytes(states[0].read_bytes())
    network, info = load_checkpoint(run_dir / "stage1/checkpoint.pt")
    average = {name.removeprefix("module."): w for name, w in progress.average.items() if name != "n_averaged"}
    network.load_state_dict(average)
    weights = {name: w.half() if w.is_floating_point() else w for name, w in network.state_dict().items()}
    stage = read_yaml(run_dir / "stage2.yaml")["train"]["stage2"]
    about = {key: info.about[key] for key in ("variant", "data", "loss")}
    about |= {"stage": "stage2", "height": stage["height"], "width": stage["width"], "epoch": progress.epoch}
    save_checkpoint(out, weights, info.model, about)
    content = out.read_bytes()
    print(f"{out}: epoch {progress.epoch}, {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"release: {error}")
