"""Cropping to bounding boxes, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from robustbench_tin.data.boxes import crop_and_fill, crop_and_pad, usable


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 1, 1), True),
        ((0, 0, 7, 5), True),
        ((3, 2, 40, 40), True),
        ((3, 3, 3, 5), False),
        ((3, 3, 5, 3), False),
        ((5, 3, 2, 5), False),
        ((-1, -1, -1, -1), False),
        ((-2, 0, 5, 5), False),
        ((7, 0, 12, 5), False),
        ((0, 5, 5, 9), False),
        ((20, 20, 30, 30), False),
    ],
)
def test_usable_boxes_hold_two_by_two_pixels_of_the_image(box: tuple[int, ...], expected: bool) -> None:
    """In images 6 high and 8 wide."""
    assert usable(np.array([box], np.int32), 6, 8).tolist() == [expected]


def test_a_crop_keeps_its_pixels_and_lies_in_the_middle_of_black() -> None:
    images = np.random.default_rng(0).integers(1, 256, (2, 3, 8, 8), dtype=np.uint8)
    before = images.copy()
    cropped = crop_and_pad(images, np.array([[1, 2, 4, 3], [0, 0, 7, 7]], np.int32))
    assert cropped.shape == images.shape
    assert cropped.dtype == np.uint8
    # Four wide and two high: two columns and three rows of black on either side.
    assert np.array_equal(cropped[0, :, 3:5, 2:6], images[0, :, 2:4, 1:5])
    assert np.count_nonzero(cropped[0]) == 3 * 2 * 4
    assert np.array_equal(cropped[1], images[1])
    assert np.array_equal(images, before)


def test_what_a_box_holds_outside_the_image_is_left_out() -> None:
    images = np.full((1, 3, 8, 8), 9, np.uint8)
    cropped = crop_and_pad(images, np.array([[6, 4, 30, 30]], np.int32))
    assert np.count_nonzero(cropped) == 3 * 4 * 2
    assert np.all(cropped[0, :, 2:6, 3:5] == 9)


def test_a_filled_crop_spans_the_image_and_holds_nothing_from_outside_its_box() -> None:
    images = np.full((2, 3, 16, 12), 255, np.uint8)
    images[0, :, 4:8, 2:10] = 40
    images[1, 0, :, :6], images[1, 0, :, 6:] = 10, 200
    filled = crop_and_fill(images, np.array([[2, 4, 9, 7], [0, 0, 40, 40]], np.int32))
    assert filled.shape == images.shape
    assert np.all(filled[0] == 40)
    assert np.array_equal(filled[1], images[1]), "a box of the whole image changes nothing"
