"""Rich objects that deform: blobs, two-legged and many-legged figures, birds and fish."""

import numpy as np

from ssvos.data.synthetic.rich_scenes.sketch import (
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


def draw_phases(num_frames: int, rng: np.random.Generator, pace: float) -> np.ndarray:
    """Phases (T,) of a periodic movement; pace 0: no movement, pace 1: a step in 5 to 20 frames."""
    return rng.uniform(0, 2 * np.pi) + pace * rng.uniform(0.3, 1.1) * np.arange(num_frames)


def draw_blob(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A contour with oscillating harmonics, wedges and spots of other colors; sometimes ragged like fur or leaves."""
    num_points = 96 if rng.random() < 0.3 else 48
    angle = np.linspace(0, 2 * np.pi, num_points + 1)[:-1]
    harmonic = np.arange(2, 8)
    falloff = rng.uniform(0.15, 0.5) / (harmonic - 1)
    phase = rng.uniform(0, 2 * np.pi, 6)
    swing = rng.uniform(0, 1, 6) * np.sin(draw_phases(num_frames, rng, pace)[:, None] * rng.uniform(0.3, 1, 6) + phase)
    coefficient = falloff * (rng.normal(0, 0.5, 6) + 0.7 * swing)
    radius = np.clip(1 + coefficient @ np.cos(np.outer(harmonic, angle) + phase[:, None]), 0.35, 1.8)
    if num_points > 48:
        radius = radius * (1 + rng.uniform(0.02, 0.1) * rng.standard_normal(num_points))
    stretch = np.sqrt(rng.uniform(1, 2.4))
    outline = radius[..., None] * np.stack([np.cos(angle) * stretch, np.sin(angle) / stretch], axis=-1)
    parts = [solid(outline, palette[0])]
    for kind in range(int(rng.integers(0, 4))):
        start, width = int(rng.integers(num_points)), int(rng.integers(num_points // 12, num_points // 2))
        wedge = outline[:, np.arange(start, start + width) % num_points]
        if rng.random() < 0.5:
            inner = wedge[:, ::-1] * rng.uniform(0, 0.8)
            parts.append(solid(np.concatenate([wedge, inner], axis=1), palette[kind + 1]))
        else:  # a spot inside
            middle = wedge.mean(axis=1, keepdims=True) * 0.6
            parts.append(solid(middle + outline * rng.uniform(0.08, 0.3), palette[kind + 1]))
    return Sketch.of(parts)


def draw_biped(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """Torso, head, two legs and two arms of two rods each; sometimes a rod in the hand or a skirt."""
    gait = draw_phases(num_frames, rng, pace)
    width, stride = rng.uniform(0.7, 1.4), rng.uniform(0.2, 1.0)
    lean = rng.normal(0, 0.15) + 0.1 * np.sin(2 * gait)
    hip = np.stack([0.04 * np.sin(gait), 0.05 * np.abs(np.sin(gait))], axis=-1)
    shoulder = hip + rotate(np.array([0.0, -rng.uniform(0.5, 0.75)]), lean)
    head = shoulder + rotate(np.array([rng.uniform(0, 0.1), -0.28]), lean)
    lift = rng.uniform(0, 2.6) if rng.random() < 0.3 else rng.uniform(0, 0.4)
    near: list[Part] = []
    far: list[Part] = []
    for side, parts, light in ((0, far, 0.75), (np.pi, near, 1.0)):
        swing = stride * np.sin(gait + side)
        knee = swing + rng.uniform(0.1, 0.9) * np.clip(np.cos(gait + side), 0, 1) * (0.3 + stride)
        thigh, shin, foot = limb(hip, (swing, knee), (0.5, 0.5), 0.13 * width)
        toe = foot + point(rng.uniform(0.08, 0.18), 0.02)
        parts += [solid(thigh, palette.shade(1, light)), solid(shin, palette.shade(1, light))]
        parts.append(solid(capsule(foot, toe, 0.07, 0.05), palette.shade(3, light)))
        arm = lift - swing * 0.8 if rng.random() < 0.8 else -lift - swing
        upper, lower, hand = limb(shoulder, (arm, arm - rng.uniform(0, 1.2)), (0.36, 0.34), 0.085 * width)
        parts += [solid(upper, palette.shade(0, 0.9 * light)), solid(lower, palette.shade(2, light))]
        if side and rng.random() < 0.25:
            rod = rotate(np.array([rng.uniform(0.4, 0.9), -rng.uniform(0, 0.9)]), 0.2 * np.sin(gait))
            parts.append(solid(capsule(hand - 0.3 * rod, hand + rod, 0.025, 0.025), palette[3]))
    body = [solid(capsule(shoulder, hip, 0.24 * width, 0.19 * width), palette[0])]
    if rng.random() < 0.3:
        belt = hip + 0.35 * (shoulder - hip)
        body.append(solid(capsule(hip, belt, 0.2 * width, 0.2 * width), palette[1]))
    size = rng.uniform(0.14, 0.22)
    body += [
        solid(capsule(shoulder, head, 0.08, 0.08), palette[2]),
        solid(disk(head, size, (0.9, 1.1)), palette[2]),
    ]
    if rng.random() < 0.7:  # hair or a cap
        body.append(solid(disk(head, size * 1.06, (0.9, 1.1))[:, 15:33], palette[3]))
    return Sketch.of(far + body + near)


def draw_walker(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A horizontal body on four to eight legs, with neck, head, ears or feelers, tail, humps and stripes."""
    gait = draw_phases(num_frames, rng, pace)
    girth, leg, stride = rng.uniform(0.2, 0.42), rng.uniform(0.35, 0.9), rng.uniform(0.15, 0.8)
    zero = np.zeros(num_frames)
    bob = np.stack([zero, 0.05 * np.sin(2 * gait)], axis=-1)
    rump, chest = bob + point(-rng.uniform(0.5, 0.8), 0.0), bob + point(0.6, rng.uniform(-0.15, 0.1))
    pairs = int(rng.choice([2, 2, 2, 3, 4]))
    thickness = rng.uniform(0.035, 0.13) if pairs == 2 else rng.uniform(0.025, 0.06)
    legs: list[list[Part]] = [[], []]
    for pair, place in enumerate(np.linspace(0.05, 0.95, pairs)):
        for side in range(2):
            root = rump + place * (chest - rump) + point(0.0, 0.5 * girth)
            phase = gait + side * np.pi + pair * np.pi * 0.6
            swing = stride * np.sin(phase)
            bend = swing + rng.uniform(0.2, 0.7) * np.clip(np.cos(phase), -0.2, 1)
            upper, lower, _ = limb(root, (swing, bend), (0.55 * leg, 0.5 * leg), thickness)
            light = 1.0 if side else 0.7
            legs[side] += [solid(upper, palette.shade(0, light)), solid(lower, palette.shade(1, light))]
    body = [solid(capsule(rump, chest, girth, girth * rng.uniform(0.8, 1.15)), palette[0])]
    for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.4 else 0):
        hump = rump + rng.uniform(0.1, 0.9) * (chest - rump) - [0.0, 0.8 * girth]
        body.append(solid(disk(hump, rng.uniform(0.1, 0.3)), palette[0]))
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.4 else 0):
        place = rump + rng.uniform(0, 1) * (chest - rump)
        body.append(solid(disk(place, 0.8 * girth, (rng.uniform(0.1, 0.5), 1.0)), palette[2]))
    nod = 0.15 * np.sin(gait)
    neck = chest + rotate(np.array([rng.uniform(0.15, 0.4), -rng.uniform(0, 0.8)]), nod)
    snout = neck + rotate(np.array([rng.uniform(0.1, 0.35), rng.uniform(-0.05, 0.15)]), nod)
    head = rng.uniform(0.09, 0.2)
    front = [solid(capsule(chest, neck, 0.6 * girth, head), palette[0])]
    front.append(solid(capsule(neck, snout, head, 0.6 * head), palette[int(rng.integers(3))]))
    for side in range(2):
        tip = neck + rotate(np.array([-0.1 + 0.15 * side, -rng.uniform(0.15, 0.45)]), nod)
        front.append(solid(capsule(neck, tip, rng.uniform(0.03, 0.07), 0.015), palette[3]))
    tail, tip, _ = limb(
        rump, (1.0 + 0.3 * np.sin(gait), 0.3 + 0.7 * np.sin(gait + 1)), (0.4, rng.uniform(0.1, 0.5)), 0.06
    )
    return Sketch.of(legs[0] + [solid(tail, palette[1]), solid(tip, palette[3])] + body + front + legs[1])


def draw_flapper(num_frames: int, rng: np.random.Generator, palette: Palette, pace: float) -> Sketch:
    """A bird from the side, or a fish: an oval body, a swinging tail, two beating wings or fins."""
    gait = draw_phases(num_frames, rng, 1.5 * pace)
    slim = rng.uniform(0.25, 0.55)
    origin = np.zeros((num_frames, 2))
    swing = np.stack([0 * gait, rng.uniform(0.0, 0.3) * np.sin(gait)], axis=-1)
    fan = static([[-0.75, 0.0], [-1.25, -0.3 * rng.uniform(0.3, 1.5)], [-1.15, 0.0], [-1.25, 0.25]], num_frames)
    neck = origin + point(0.85, -rng.uniform(0, 0.6))
    beak = neck[:, None] + np.array([[0.1, -0.06], [rng.uniform(0.25, 0.5), 0.02], [0.1, 0.08]])
    belly = disk(origin + point(0.1, 0.3 * slim), 0.7, (1.0, 0.5 * slim))
    wings = rng.uniform(0.4, 1.3), rng.uniform(0.2, 0.6), rng.uniform(0.6, 1.0)
    parts = [
        solid(_wing(gait - 0.3, *wings), palette.shade(1, 0.7)),
        solid(fan + swing[:, None] * [[0.0], [1.0], [1.0], [1.0]], palette[2]),
        solid(disk(origin, 1.0, (1.0, slim)), palette[0]),
        solid(belly, palette[3]),
        solid(capsule(origin + point(0.7, 0.0), neck, 0.18, 0.12), palette[0]),
        solid(disk(neck, 0.17), palette[2]),
        solid(beak, palette[3]),
        solid(disk(neck + point(0.05, -0.05), 0.04), palette.shade(3, 0.3)),
        solid(_wing(gait, *wings), palette[1]),
    ]
    return Sketch.of(parts)


def _wing(gait: np.ndarray, span: float, chord: float, beat: float) -> np.ndarray:
    """The outline of a wing that beats above the body, (T, 5, 2)."""
    tip = np.stack([np.full(len(gait), -0.25), -span * (0.2 + beat * np.sin(gait))], axis=-1)[:, None]
    root = static([[chord, 0.0], [0.0, 0.08], [-chord, 0.0]], len(gait))
    return np.concatenate([root, tip - point(0.15, 0.0), tip], axis=1)
