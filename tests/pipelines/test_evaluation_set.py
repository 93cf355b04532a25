"""Which evaluation videos are scored."""

import pytest

from pipelines.evaluation_set import is_scorable
from ssvos.data.index import IndexedFrame, IndexedVideo


def make_video(*objects: tuple[int, ...] | None, masked: bool = True) -> IndexedVideo:
    """A video with a frame per argument: the frame's object ids, or None if it is not labelled."""
    frames = [
        IndexedFrame(f"{k:05d}", f"{k}.jpg", f"{k}.png" if masked and ids is not None else None, None, 48, 64, ids, "")
        for k, ids in enumerate(objects)
    ]
    return IndexedVideo("set", "val", "video", tuple(frames), {})


CASES = [
    (make_video((1, 2), (1, 2), (1,)), True, "masks of all frames"),
    (make_video((1, 2), None, None), False, "only the first mask, as in a test list"),
    (make_video((1,), None, (2,), None), False, "only first appearances, as in YouTube-VOS valid"),
    (make_video((1,), None, (1, 2), None, (1, 2)), True, "a late object, masks on some frames"),
    (make_video((1,), None, ()), True, "a mask without the object that has left"),
    (make_video((1,), (1,), masked=False), False, "scribbles without a mask"),
]


@pytest.mark.parametrize(("video", "expected", "description"), CASES, ids=[description for *_, description in CASES])
def test_a_video_is_scored_if_it_has_a_mask_after_its_objects_first_appearances(video, expected, description):
    assert is_scorable(video) is expected
