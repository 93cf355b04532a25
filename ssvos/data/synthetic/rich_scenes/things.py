"""Rich objects that are not creatures: vehicles, bicycles, boxes and rocks; posts, bars and foliage as occluders."""

import numpy as np

from ssvos.data.synthetic.rich_scenes.creatures import draw_phases
from ssvos.data.synthetic.rich_scenes.sketch import (
    CIRCLE,
    Color,
    Palette,
    Part,
    Sketch,
    capsule,
    disk,
    limb,
    point,
    rotate,
    solid,
    static,
)


def _wheel(centre: np.ndarray, radius: float, angle: np.ndarray, palette: Palette, hub: float) -> list[Part]:
    """A filled wheel with rotating spokes."""
    parts = [solid(disk(centre, radius), palette.shade(3, 0.4)), solid(disk(centre, hub * radius), palette[2])]
    spoke = rotate(np.array([hub * radius, 0.0]), angle)
    return [*parts, solid(capsule(centre - spoke, centre + spoke, 0.02, 0.02), palette.shade(3, 0.5))]


def draw_vehicle(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A car, van, bus or cart from the side; sometimes without wheels, like a boat or a train."""
    height, tall = rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.6)
    front, back = rng.uniform(0.1, 0.9), rng.uniform(0.3, 0.95)
    body = [[-1, -height], [-0.95, height], [0.95, height], [1.0, 0.1], [0.95, -height * rng.uniform(0.3, 1)]]
    cabin = [[-back, 0.0], [-back + rng.uniform(0, 0.3), -height - tall], [front - 0.25, -height - tall]]
    cabin.append([front, 0.0])
    parts = [
        solid(static(cabin, num_frames), palette[int(rng.integers(2))]),
        solid(static(body, num_frames), palette[0]),
    ]
    middle = np.array(cabin).mean(axis=0)
    for pane in range(int(rng.integers(1, 4))):
        window = (np.array(cabin) - middle) * [0.22, 0.6] + middle + point((pane - 1) * 0.3 * (front + back), 0.0)
        window = np.clip(window, np.min(cabin, axis=0) + 0.04, np.max(cabin, axis=0) - 0.04)
        parts.append(solid(static(window, num_frames), palette.shade(2, 0.35)))
    if rng.random() < 0.6:  # a stripe along the body
        y = rng.uniform(-0.5, 0.7) * height
        parts.append(solid(static([[-0.95, y], [-0.95, y + 0.1], [0.95, y + 0.1], [0.95, y]], num_frames), palette[1]))
    parts.append(solid(static([[0.85, 0.0], [0.98, 0.02], [0.96, 0.12], [0.85, 0.1]], num_frames), (1.9, 1.8, 1.4)))
    if rng.random() < 0.85:
        radius, turn = rng.uniform(0.16, 0.3), draw_phases(num_frames, rng, 2 * pace)
        for x in (-0.6, 0.6) if rng.random() < 0.8 else (-0.7, -0.3, 0.65):
            parts += _wheel(np.broadcast_to([x, height], (num_frames, 2)), radius, turn, palette, rng.uniform(0.4, 0.7))
    return Sketch.of(parts)


def draw_bicycle(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """Two rings with thin rods between them, and in most cases a rider who pedals."""
    radius, thick = rng.uniform(0.3, 0.45), rng.uniform(0.02, 0.055)
    turn = draw_phases(num_frames, rng, pace)
    hubs = [np.broadcast_to([x, 0.5], (num_frames, 2)) for x in (-0.6, 0.6)]
    parts: list[Part] = []
    for hub in hubs:
        parts.append(Part((disk(hub, radius), disk(hub, radius - 2 * thick)), palette.shade(3, 0.4)))
        for k in range(int(rng.integers(0, 3))):
            spoke = rotate(np.array([radius - thick, 0.0]), turn + k * np.pi / 3)
            parts.append(solid(capsule(hub - spoke, hub + spoke, 0.012, 0.012), palette[3]))
    still = np.zeros((num_frames, 2))
    pedal, seat, bar = still + point(-0.05, 0.5), still + point(-0.25, -0.1), still + point(0.42, -0.15)
    frame = [(hubs[0], pedal), (pedal, seat), (seat, hubs[0]), (pedal, bar), (seat, bar), (bar, hubs[1])]
    parts += [solid(capsule(a, b, 0.8 * thick, 0.8 * thick), palette[1]) for a, b in frame]
    if rng.random() < 0.8:
        parts += _rider(seat, pedal, bar, turn, rng, palette)
    return Sketch.of(parts)


def _rider(
    seat: np.ndarray, pedal: np.ndarray, bar: np.ndarray, turn: np.ndarray, rng: np.random.Generator, palette: Palette
) -> list[Part]:
    hip = seat - [0.0, 0.08]
    shoulder = hip + np.array([rng.uniform(0.15, 0.45), -rng.uniform(0.45, 0.65)])
    head = shoulder + point(0.08, -0.24)
    parts = []
    for side, light in ((0.0, 0.75), (np.pi, 1.0)):
        foot = pedal + 0.14 * np.stack([np.cos(turn + side), np.sin(turn + side)], axis=-1)
        knee = 0.5 * (hip + foot) + point(0.22, -0.08)
        parts += [solid(capsule(hip, knee, 0.1, 0.08), palette.shade(2, light))]
        parts += [solid(capsule(knee, foot, 0.08, 0.05), palette.shade(2, light))]
    elbow = 0.5 * (shoulder + bar) + point(0.0, 0.1)
    parts += [
        solid(capsule(shoulder, hip, 0.16, 0.14), palette[0]),
        solid(capsule(shoulder, elbow, 0.07, 0.06), palette[0]),
    ]
    parts += [solid(capsule(elbow, bar, 0.06, 0.05), palette[2]), solid(disk(head, 0.14), palette[3])]
    return parts


def draw_rigid(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A polygon with facets, a box of three faces, or a sign on a pole."""
    outlines = (_facets, _box, _sign)[int(rng.integers(3))](rng, palette)
    return Sketch.of([solid(static(outline, num_frames), tint) for outline, tint in outlines])


def _facets(rng: np.random.Generator, palette: Palette) -> list[tuple[np.ndarray, Color]]:
    corners = int(rng.integers(4, 10))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    rim = np.stack([np.cos(angle), rng.uniform(0.5, 1) * np.sin(angle)], axis=-1) * rng.uniform(0.6, 1.2, (corners, 1))
    facets = [np.array([rim[k], rim[(k + 1) % corners], [0.1, -0.1]]) for k in range(0, corners, 2)]
    core = CIRCLE * 0.45  # if all corners are on one side, the rim alone is a sliver
    return [(core, palette[0]), (rim, palette[0]), *((facet, palette[k + 1]) for k, facet in enumerate(facets))]


def _box(rng: np.random.Generator, palette: Palette) -> list[tuple[np.ndarray, Color]]:
    w, h, d = rng.uniform(0.5, 1.0), rng.uniform(0.4, 1.0), rng.uniform(0.1, 0.4)
    front = np.array([[-w, -h], [w, -h], [w, h], [-w, h]])
    top = np.array([[-w, -h], [-w + d, -h - d], [w + d, -h - d], [w, -h]])
    side = np.array([[w, -h], [w + d, -h - d], [w + d, h - d], [w, h]])
    panel = front * rng.uniform(0.3, 0.9, 2)
    return [(front, palette[0]), (top, palette.shade(0, 1.3)), (side, palette.shade(0, 0.6)), (panel, palette[1])]


def _sign(rng: np.random.Generator, palette: Palette) -> list[tuple[np.ndarray, Color]]:
    pole = np.array([[-0.06, -0.4], [0.06, -0.4], [0.06, 1.2], [-0.06, 1.2]])
    plate = CIRCLE if rng.random() < 0.5 else np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    plate = plate * rng.uniform(0.3, 0.9, 2)
    middle = point(0.0, -0.7)
    return [(pole, palette[3]), (plate + middle, palette[0]), (0.6 * plate + middle, palette[1])]


def draw_post(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A pole or trunk that crosses the frame vertically, sometimes with a branch."""
    still, width = np.zeros((num_frames, 2)), rng.uniform(0.015, 0.12)
    lean = rng.normal(0, 0.12)
    foot, top = still + point(-lean, 1.6), still + point(lean, -1.6)
    parts = [solid(capsule(foot, top, width, width * rng.uniform(0.6, 1)), palette[0])]
    dark = capsule(foot + point(0.5 * width, 0), top + point(0.5 * width, 0), 0.4 * width, 0.3 * width)
    parts.append(solid(dark, palette.shade(0, 0.7)))
    if rng.random() < 0.4:
        root = still + point(0.0, rng.uniform(-0.6, 0.3))
        upper, lower, _ = limb(
            root, (still[:, 0] + rng.choice([-2.2, 2.2]), still[:, 0] + 2.6), (0.7, 0.6), 0.6 * width
        )
        parts += [solid(upper, palette[0]), solid(lower, palette[0])]
    return Sketch.of(parts)


def draw_bar(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A rail across the frame, or a fence of several rails and posts."""
    still, width = np.zeros((num_frames, 2)), rng.uniform(0.01, 0.05)
    rails = [rng.uniform(-0.1, 0.1) + 0.3 * k for k in range(int(rng.integers(1, 4)))]
    parts = [solid(capsule(still + point(-3, y), still + point(3, y), width, width), palette[0]) for y in rails]
    for x in np.arange(-2.5, 2.6, rng.uniform(0.4, 1.5)) if len(rails) > 1 else ():
        parts.append(
            solid(capsule(still + point(x, -0.15), still + point(x, 0.9), width, width), palette.shade(1, 0.8))
        )
    return Sketch.of(parts)


def draw_foliage(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """Leaves on swaying twigs."""
    count = int(rng.integers(8, 28))
    place = rng.normal(0, 0.45, (count, 2)) * [1.4, 1.0]
    sway = 0.06 * np.sin(draw_phases(num_frames, rng, 0.5)[:, None] + place[:, 0])
    stem = np.zeros((num_frames, 2)) + point(0.0, 1.0)
    parts, length, slim = [], rng.uniform(0.12, 0.4), rng.uniform(0.2, 0.6)
    for k in range(count):
        middle = place[k] + np.stack([sway[:, k], 0 * sway[:, k]], axis=-1)
        if k % 3 == 0:
            parts.append(solid(capsule(stem, middle, 0.02, 0.012), palette.shade(3, 0.6)))
        leaf = rotate(CIRCLE[::2] * [length, length * slim], rng.uniform(0, np.pi) + 2 * sway[:, k])
        parts.append(solid(middle[:, None] + leaf, palette.shade(k % 2, rng.uniform(0.6, 1.3))))
    return Sketch.of(parts)
