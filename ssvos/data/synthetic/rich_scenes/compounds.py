"""Rich objects made of several: a rider on an animal, a person on a board, with a cart, or below a canopy."""

import numpy as np

from ssvos.data.synthetic.rich_scenes.creatures import draw_biped, draw_phases, draw_walker
from ssvos.data.synthetic.rich_scenes.sketch import Palette, Sketch, capsule, disk, point, solid, static
from ssvos.data.synthetic.rich_scenes.things import draw_vehicle

Placed = tuple[Sketch, float, tuple[float, float]]  # a sketch, its scale, its shift


def combine(*placed: Placed) -> Sketch:
    """One sketch of several scaled and shifted sketches; later ones are in front."""
    spans: list[tuple[slice, ...]] = []
    start = 0
    for sketch, _, _ in placed:
        spans += [tuple(slice(s.start + start, s.stop + start) for s in own) for own in sketch.spans]
        start += sketch.points.shape[1]
    points = [sketch.points * scale + shift for sketch, scale, shift in placed]
    return Sketch(
        np.concatenate(points, axis=1), tuple(spans), tuple(t for sketch, _, _ in placed for t in sketch.tints)
    )


def draw_compound(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A person together with something else as one object."""
    person = draw_biped(num_frames, rng, Palette(rng, palette.variety), pace)
    kind = rng.integers(4)
    if kind == 0:
        mount = draw_walker(num_frames, rng, palette, pace)
        return combine((mount, 1.0, (0.0, 0.0)), (person, rng.uniform(0.5, 0.9), (0.0, -rng.uniform(0.3, 0.6))))
    if kind == 1:
        return combine((_board(num_frames, rng, palette, pace), 1.0, (0.0, 0.0)), (person, 1.0, (0.0, 0.0)))
    if kind == 2:
        cart = draw_vehicle(num_frames, rng, palette, pace)
        side = rng.choice([-1.0, 1.0])
        return combine((person, 1.0, (-0.8 * side, 0.0)), (cart, rng.uniform(0.4, 0.7), (0.3 * side, 0.55)))
    return combine((_canopy(num_frames, rng, palette), 1.0, (0.0, 0.0)), (person, 0.8, (0.0, 0.3)))


def _board(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A board under the feet, sometimes with wheels."""
    still, half = np.zeros((num_frames, 2)), rng.uniform(0.4, 0.8)
    parts = [solid(capsule(still + point(-half, 1.04), still + point(half, 1.04), 0.04, 0.04), palette[1])]
    if rng.random() < 0.6:
        for x in (-0.7 * half, 0.7 * half):
            parts.append(solid(disk(still + point(x, 1.12), 0.07), palette.shade(3, 0.5)))
    return Sketch.of(parts)


def _canopy(num_frames: int, rng: np.random.Generator, palette: Palette) -> Sketch:
    """A swinging kite or parachute on lines above."""
    sway = 0.15 * np.sin(draw_phases(num_frames, rng, 0.5))
    high, wide, deep = rng.uniform(0.9, 2.0), rng.uniform(0.5, 1.4), rng.uniform(0.2, 0.5)
    arc = np.linspace(-1, 1, 13)
    rim = np.stack([wide * arc, -high - deep * np.sqrt(1 - 0.9 * arc**2)], axis=-1)
    outline = np.concatenate([rim, rim[::-1] * [0.95, 1.0] + [0.0, rng.uniform(0.12, 0.3)]])
    moved = static(outline, num_frames) + np.stack([sway, 0 * sway], -1)[:, None]
    hands = np.zeros((num_frames, 2)) + point(0.0, 0.0)
    parts = [solid(capsule(hands, moved[:, k], 0.012, 0.008), palette[3]) for k in (14, 19, 24)]
    parts.append(solid(moved, palette[1]))
    return Sketch.of([*parts, solid(moved[:, [3, 4, 5, 6, 19, 20, 21, 22]], palette[2])])
