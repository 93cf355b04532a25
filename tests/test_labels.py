"""Label images on disk: palette, round trip, grey masks of DAVIS-2016, rejected files, atomic writing."""

import io

import numpy as np
import pytest
from PIL import Image

from ssvos.files import atomic_path, write_text
from ssvos.labels import (
    binary_scribbles,
    davis_palette,
    decode_labels,
    encode_labels,
    object_ids,
    read_labels,
    write_labels,
)

LABELS = np.array([[0, 1, 2], [7, 254, 255]], dtype=np.uint8)


def save_image(path, array: np.ndarray, mode: str | None = None):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_the_palette_begins_with_the_published_colours():
    published = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    assert [tuple(c) for c in davis_palette()[:6].tolist()] == published
    assert davis_palette()[8].tolist() == [64, 0, 0] and davis_palette()[255].tolist() == [224, 224, 192]


def test_every_label_survives_a_palette_png(tmp_path):
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_labels(tmp_path / "deep" / "a.png", every)
    np.testing.assert_array_equal(read_labels(tmp_path / "deep" / "a.png"), every)
    np.testing.assert_array_equal(decode_labels(encode_labels(every)), every)
    with Image.open(tmp_path / "deep" / "a.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[:768] == davis_palette().ravel().tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255, 255], [0, 1, 1]),
        ([0, 1, 255], [0, 1, 255]),
        ([0, 0, 0], [0, 0, 0]),
        ([0, 128, 2], [0, 128, 2]),
    ],
)
def test_255_in_a_grey_mask_without_other_labels_is_object_1(tmp_path, values, expected):
    path = save_image(tmp_path / "m.png", np.array([values], dtype=np.uint8))
    assert read_labels(path).tolist() == [expected]


def test_255_in_a_palette_image_is_unlabelled(tmp_path):
    write_labels(tmp_path / "s.png", np.array([[0, 255]], dtype=np.uint8))
    assert read_labels(tmp_path / "s.png").tolist() == [[0, 255]]


def test_1_in_a_bilevel_mask_is_object_1(tmp_path):
    path = save_image(tmp_path / "b.png", np.array([[0, 255]], dtype=np.uint8), "1")
    assert read_labels(path).tolist() == [[0, 1]]


def _rgb(path):
    save_image(path, np.zeros((4, 4, 3), dtype=np.uint8))


def _16_bit(path):
    save_image(path, np.full((4, 4), 300, dtype=np.uint16))


def _truncated(path):
    noise = np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.uint8)
    path.write_bytes(encode_labels(noise)[:-200])


def _text(path):
    path.write_text("not an image")


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("make", [_rgb, _16_bit, _truncated, _text, _empty])
def test_a_file_that_is_not_a_label_image_is_rejected_in_one_line_that_names_it(tmp_path, make):
    make(tmp_path / "wrong.png")
    with pytest.raises(ValueError, match=r"wrong\.png: .*PNG") as caught:
        read_labels(tmp_path / "wrong.png")
    assert "\n" not in str(caught.value)


def test_an_error_names_the_missing_label_image(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_labels(tmp_path / "none.png")


def test_an_error_about_bytes_uses_the_name_argument():
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    with pytest.raises(ValueError, match=r"clip/0007: .*RGB"):
        decode_labels(buffer.getvalue(), "clip/0007")


def test_background_and_unlabelled_are_not_objects():
    assert object_ids(LABELS) == (1, 2, 7, 254)
    assert object_ids(np.array([[0, 255]], dtype=np.uint8)) == ()


def test_other_objects_are_background_in_a_binary_scribble():
    planes = binary_scribbles(LABELS, (2, 7))
    assert planes.tolist() == [[[0, 0, 1], [0, 0, 255]], [[0, 0, 0], [1, 0, 255]]]


def test_an_error_while_writing_leaves_the_old_file_and_no_temporary_file(tmp_path):
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        assert temporary.suffix == ".txt" and temporary != target
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_written_file_replaces_the_old_one_and_has_default_permissions(tmp_path):
    target = tmp_path / "new" / "file.txt"
    for text in ("one", "two"):
        write_text(target, text)
        assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]
    reference = tmp_path / "plain.txt"
    reference.write_text("")
    assert target.stat().st_mode == reference.stat().st_mode
