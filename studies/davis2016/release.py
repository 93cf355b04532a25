"""Make the bundled checkpoint from a training: half precision, and the frame size of prediction.

python studies/davis2016/release.py CHECKPOINT OUT --height 368 --width 656
"""

import argparse
import hashlib
import sys
from pathlib import Path

from ssvos.models.checkpoint import load_checkpoint, save_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    args = parser.parse_args()
    network, info = load_checkpoint(args.checkpoint)
    weights = {name: w.half() if w.is_floating_point() else w for name, w in network.state_dict().items()}
    save_checkpoint(args.out, weights, info.model, info.about | {"height": args.height, "width": args.width})
    content = args.out.read_bytes()
    print(f"{args.out}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"release: {error}")
