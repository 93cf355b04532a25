"""Rich objects that keep their form: vehicles, bicycles, boxes and rocks; and posts, bars and foliage in front."""

import numpy as np

from ssvos.data.rich.creatures import draw_gait
from ssvos.data.rich.sketch import CIRCLE, Palette, Part, Sketch, at, capsule, disk, fixed, limb, turned


def _wheel(centre: np.ndarray, radius: float, angle: np.ndarray, palette: Palette, hub: float) -> list[Part]:
    """A filled wheel whose spokes turn."""
    parts = [Part((disk(centre, radius),), palette.shade(3, 0.4)), Part((disk(centre, hub * radius),), palette[2])]
    spoke = turned(np.array([hub * radius, 0.0]), angle)
    rods = (capsule(centre - spoke, centre + spoke, 0.02, 0.02),)
    return [*parts, Part(rods, palette.shade(3, 0.5))]


def draw_vehicle(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A car, van, bus or cart from the side; some without wheels, such as boats and trains."""
    height, tall = rng.uniform(0.2, 0.4), rng.uniform(0.2, 0.6)
    front, back = rng.uniform(0.1, 0.9), rng.uniform(0.3, 0.95)
    body = [[-1, -height], [-0.95, height], [0.95, height], [1.0, 0.1], [0.95, -height * rng.uniform(0.3, 1)]]
    cabin = [[-back, 0.0], [-back + rng.uniform(0, 0.3), -height - tall], [front - 0.25, -height - tall]]
    cabin.append([front, 0.0])
    parts = [Part((fixed(cabin, num_frames),), palette[rng.integers(2)]), Part((fixed(body, num_frames),), palette[0])]
    middle = np.array(cabin).mean(axis=0)
    for pane in range(int(rng.integers(1, 4))):
        window = (np.array(cabin) - middle) * [0.22, 0.6] + middle + at((pane - 1) * 0.3 * (front + back), 0.0)
        window = np.clip(window, np.min(cabin, axis=0) + 0.04, np.max(cabin, axis=0) - 0.04)
        parts.append(Part((fixed(window.tolist(), num_frames),), palette.shade(2, 0.35)))
    if rng.random() < 0.6:  # a stripe along the body
        y = rng.uniform(-0.5, 0.7) * height
        parts.append(Part((fixed([[-0.95, y], [-0.95, y + 0.1], [0.95, y + 0.1], [0.95, y]], num_frames),), palette[1]))
    parts.append(Part((fixed([[0.85, 0.0], [0.98, 0.02], [0.96, 0.12], [0.85, 0.1]], num_frames),), (1.9, 1.8, 1.4)))
    if rng.random() < 0.85:
        radius, turn = rng.uniform(0.16, 0.3), draw_gait(num_frames, rng, 2 * pace)
        for x in (-0.6, 0.6) if rng.random() < 0.8 else (-0.7, -0.3, 0.65):
            parts += _wheel(np.broadcast_to([x, height], (num_frames, 2)), radius, turn, palette, rng.uniform(0.4, 0.7))
    return Sketch.of(parts)


def draw_bicycle(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """Two rings, thin rods between them, and most often a rider whose legs go round."""
    radius, thick = rng.uniform(0.3, 0.45), rng.uniform(0.02, 0.055)
    turn = draw_gait(num_frames, rng, pace)
    hubs = [np.broadcast_to([x, 0.5], (num_frames, 2)) for x in (-0.6, 0.6)]
    parts: list[Part] = []
    for hub in hubs:
        parts.append(Part((disk(hub, radius), disk(hub, radius - 2 * thick)), palette.shade(3, 0.4)))
        for k in range(int(rng.integers(0, 3))):
            spoke = turned(np.array([radius - thick, 0.0]), turn + k * np.pi / 3)
            parts.append(Part((capsule(hub - spoke, hub + spoke, 0.012, 0.012),), palette[3]))
    still = np.zeros((num_frames, 2))
    pedal, seat, bar = still + at(-0.05, 0.5), still + at(-0.25, -0.1), still + at(0.42, -0.15)
    frame = [(hubs[0], pedal), (pedal, seat), (seat, hubs[0]), (pedal, bar), (seat, bar), (bar, hubs[1])]
    parts += [Part((capsule(a, b, 0.8 * thick, 0.8 * thick),), palette[1]) for a, b in frame]
    if rng.random() < 0.8:
        parts += _rider(seat, pedal, bar, turn, rng, palette)
    return Sketch.of(parts)


def _rider(
    seat: np.ndarray, pedal: np.ndarray, bar: np.ndarray, turn: np.ndarray, rng: np.random.Generator, palette: Palette
) -> list[Part]:
    hip = seat - [0.0, 0.08]
    shoulder = hip + np.array([rng.uniform(0.15, 0.45), -rng.uniform(0.45, 0.65)])
    head = shoulder + at(0.08, -0.24)
    parts = []
    for side, light in ((0.0, 0.75), (np.pi, 1.0)):
        foot = pedal + 0.14 * np.stack([np.cos(turn + side), np.sin(turn + side)], axis=-1)
        knee = 0.5 * (hip + foot) + at(0.22, -0.08)
        parts += [Part((capsule(hip, knee, 0.1, 0.08),), palette.shade(2, light))]
        parts += [Part((capsule(knee, foot, 0.08, 0.05),), palette.shade(2, light))]
    elbow = 0.5 * (shoulder + bar) + at(0.0, 0.1)
    parts += [
        Part((capsule(shoulder, hip, 0.16, 0.14),), palette[0]),
        Part((capsule(shoulder, elbow, 0.07, 0.06),), palette[0]),
    ]
    parts += [Part((capsule(elbow, bar, 0.06, 0.05),), palette[2]), Part((disk(head, 0.14),), palette[3])]
    return parts


def draw_rigid(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A polygon with facets, a box of three faces, or a sign on a pole."""
    kind = rng.integers(3)
    if kind == 0:
        corners = int(rng.integers(4, 10))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        rim = (
            np.stack([np.cos(angle), np.sin(angle)], axis=-1)
            * rng.uniform(0.6, 1.2, (corners, 1))
            * [1.0, rng.uniform(0.5, 1)]
        )
        parts = [
            Part(
                (
                    fixed(
                        np.vstack(
                            [
                                CIRCLE * 0.45,
                            ]
                        ).tolist(),
                        num_frames,
                    ),
                ),
                palette[0],
            )
        ]
        parts.append(Part((fixed(rim.tolist(), num_frames),), palette[0]))
        for k in range(0, corners, 2):
            facet = [rim[k], rim[(k + 1) % corners], [0.1, -0.1]]
            parts.append(Part((fixed(np.array(facet).tolist(), num_frames),), palette[k // 2 + 1]))
        return Sketch.of(parts)
    if kind == 1:
        w, h, d = rng.uniform(0.5, 1.0), rng.uniform(0.4, 1.0), rng.uniform(0.1, 0.4)
        faces = [[[-w, -h], [w, -h], [w, h], [-w, h]], [[-w, -h], [-w + d, -h - d], [w + d, -h - d], [w, -h]]]
        faces.append([[w, -h], [w + d, -h - d], [w + d, h - d], [w, h]])
        light = (1.0, 1.3, 0.6)
        parts = [Part((fixed(f, num_frames),), palette.shade(0, k)) for f, k in zip(faces, light, strict=True)]
        panel = np.array(faces[0]) * rng.uniform(0.3, 0.9, 2)
        return Sketch.of([*parts, Part((fixed(panel.tolist(), num_frames),), palette[1])])
    foot, top = np.zeros((num_frames, 2)) + at(0.0, 1.2), np.zeros((num_frames, 2)) + at(0.0, -0.4)
    plate = CIRCLE if rng.random() < 0.5 else np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    plate = plate * rng.uniform(0.3, 0.9, 2) + at(0.0, -0.7)
    inner = (plate - [0.0, -0.7]) * 0.6 + at(0.0, -0.7)
    parts = [
        Part((capsule(foot, top, 0.06, 0.06),), palette[3]),
        Part((fixed(plate.tolist(), num_frames),), palette[0]),
    ]
    return Sketch.of([*parts, Part((fixed(inner.tolist(), num_frames),), palette[1])])


def draw_post(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A pole or trunk that crosses the frame from above to below, some with a branch."""
    still, width = np.zeros((num_frames, 2)), rng.uniform(0.015, 0.12)
    lean = rng.normal(0, 0.12)
    foot, top = still + at(-lean, 1.6), still + at(lean, -1.6)
    parts = [Part((capsule(foot, top, width, width * rng.uniform(0.6, 1)),), palette[0])]
    dark = capsule(foot + at(0.5 * width, 0), top + at(0.5 * width, 0), 0.4 * width, 0.3 * width)
    parts.append(Part((dark,), palette.shade(0, 0.7)))
    if rng.random() < 0.4:
        root = still + at(0.0, rng.uniform(-0.6, 0.3))
        upper, lower, _ = limb(
            root, (still[:, 0] + rng.choice([-2.2, 2.2]), still[:, 0] + 2.6), (0.7, 0.6), 0.6 * width
        )
        parts += [Part((upper,), palette[0]), Part((lower,), palette[0])]
    return Sketch.of(parts)


def draw_bar(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A rail across the frame, or a fence of some rails and posts."""
    still, width = np.zeros((num_frames, 2)), rng.uniform(0.01, 0.05)
    rails = [rng.uniform(-0.1, 0.1) + 0.3 * k for k in range(int(rng.integers(1, 4)))]
    parts = [Part((capsule(still + at(-3, y), still + at(3, y), width, width),), palette[0]) for y in rails]
    for x in np.arange(-2.5, 2.6, rng.uniform(0.4, 1.5)) if len(rails) > 1 else ():
        parts.append(Part((capsule(still + at(x, -0.15), still + at(x, 0.9), width, width),), palette.shade(1, 0.8)))
    return Sketch.of(parts)


def draw_foliage(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A bunch of leaves on twigs that sway."""
    count = int(rng.integers(8, 28))
    place = rng.normal(0, 0.45, (count, 2)) * [1.4, 1.0]
    sway = 0.06 * np.sin(draw_gait(num_frames, rng, 0.5)[:, None] + place[:, 0])
    stem = np.zeros((num_frames, 2)) + at(0.0, 1.0)
    parts, length, slim = [], rng.uniform(0.12, 0.4), rng.uniform(0.2, 0.6)
    for k in range(count):
        middle = place[k] + np.stack([sway[:, k], 0 * sway[:, k]], axis=-1)
        if k % 3 == 0:
            parts.append(Part((capsule(stem, middle, 0.02, 0.012),), palette.shade(3, 0.6)))
        leaf = turned(CIRCLE[::2] * [length, length * slim], rng.uniform(0, np.pi) + 2 * sway[:, k])
        parts.append(Part((middle[:, None] + leaf,), palette.shade(k % 2, rng.uniform(0.6, 1.3))))
    return Sketch.of(parts)
