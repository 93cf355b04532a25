"""`ssvos scribble`: simulate a scribble for every mask."""

from pathlib import Path
from typing import Annotated

import typer

from ssvos.progress import progress_bar


def scribble(
    masks: Annotated[Path, typer.Argument(help="Folder <seq>/<frame>.png of dense masks.")],
    out: Annotated[Path, typer.Argument(help="Folder for the scribbles <seq>/<frame>.png.")],
    width: Annotated[int, typer.Option(min=1, max=255, help="Stroke width in pixels.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the background rectangles.")] = 0,
) -> None:
    """Simulate a scribble for every mask: skeletons of the objects and a background rectangle around them.

    Example: ssvos scribble DAVIS/Annotations/480p scribbles/ --width 5 --seed 0
    """
    from ssvos.config import ScribbleConfig
    from ssvos.files import require_writable
    from ssvos.labels import read_labels, write_labels
    from ssvos.scribbles.simulate import scribble_rng, simulate_scribble

    config = ScribbleConfig(width=width, seed=seed)
    paths = _label_paths(masks)
    if out.resolve().is_relative_to(masks.resolve()):
        raise ValueError(f"{out}: is in {masks}, scribbles would overwrite masks; choose another folder")
    for path in paths:
        require_writable(out / path.parent.name / path.name)
    with progress_bar("scribbling", 2 * len(paths)) as advance:
        for path in paths:
            read_labels(path)  # finds broken masks before anything is written
            advance()
        for path in paths:
            sequence = path.parent.name
            drawn = simulate_scribble(read_labels(path), scribble_rng(seed, sequence, path.stem), config)
            write_labels(out / sequence / path.name, drawn)
            advance()
    typer.echo(f"{len(paths)} scribbles in {out}")


def _label_paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected <seq>/<frame>.png below it")
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix == ".png":
            raise ValueError(f"{path}: is next to the sequences; put masks in folders <seq>/<frame>.png")
    paths = sorted(folder.glob("*/*.png"))
    for path in sorted(folder.glob("*/*.[pP][nN][gG]")):
        if path.suffix != ".png":
            raise ValueError(f"{path}: the suffix must be .png; rename it to {path.stem}.png")
    if not paths:
        raise ValueError(f"{folder}: holds no <seq>/<frame>.png; give the folder above the sequences")
    return paths
