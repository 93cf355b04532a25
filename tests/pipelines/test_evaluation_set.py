"""Which videos are scored at all."""

import pytest

from pipelines.evaluation_set import is_scorable
from ssvos.data.index import IndexedFrame, IndexedVideo


def video(*objects: tuple[int, ...] | None, masked: bool = True) -> IndexedVideo:
    """A video whose frames are labelled with these objects; None: not labelled."""
    frames = [
        IndexedFrame(f"{k:05d}", f"{k}.jpg", f"{k}.png" if masked and ids is not None else None, None, 48, 64, ids, "")
        for k, ids in enumerate(objects)
    ]
    return IndexedVideo("set", "val", "video", tuple(frames), {})


CASES = [
    (video((1, 2), (1, 2), (1,)), True, "masks of all frames"),
    (video((1, 2), None, None), False, "the first mask alone, as of a test list"),
    (video((1,), None, (2,), None), False, "first appearances alone, as of YouTube-VOS valid"),
    (video((1,), None, (1, 2), None, (1, 2)), True, "a late object, masks on some frames"),
    (video((1,), None, ()), True, "a mask that says that the object has gone"),
    (video((1,), (1,), masked=False), False, "scribbles and no mask"),
]


@pytest.mark.parametrize(("given", "expected", "what"), CASES, ids=[what for *_, what in CASES])
def test_a_video_is_scored_if_a_mask_says_more_than_where_an_object_begins(given, expected, what):
    assert is_scorable(given) is expected
