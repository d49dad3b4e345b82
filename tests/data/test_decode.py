from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from drawn_sets import encoded, picture
from PIL import Image, ImageFile

from robustbench_tin.data.decode import BrokenImageError, decode_all, decode_image


def test_the_order_is_that_of_the_names_whatever_the_threads_do() -> None:
    files = {str(key): encoded(picture(key, (128, 128)), "PNG") for key in range(150)}
    files["70"] = b"broken"
    chunks = list(decode_all(files.__getitem__, list(files), 128, workers=4))
    assert len(chunks) > 2
    rows = [row for chunk in chunks for row in chunk.rows]
    assert rows == [row for row in range(150) if row != 70]
    images = np.concatenate([chunk.images for chunk in chunks])
    for row, image in zip(rows, images, strict=True):
        np.testing.assert_array_equal(image, np.asarray(picture(row, (128, 128))).transpose(2, 0, 1))
    assert [name for chunk in chunks for name, _ in chunk.broken] == ["70"]
    assert chunks[-1].done == 150


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.95])
def test_part_of_a_file_is_broken(kind: str, kept: float) -> None:
    data = encoded(picture(3), kind)
    with pytest.raises(BrokenImageError):
        decode_image(data[: int(kept * len(data))], 64)


def test_part_of_a_file_is_broken_even_where_pillow_was_told_to_pad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(picture(3))
    (chunk,) = decode_all({"half": data[: len(data) // 2]}.__getitem__, ["half"], 64)
    assert [name for name, _ in chunk.broken] == ["half"]
    assert ImageFile.LOAD_TRUNCATED_IMAGES  # as it was found


def test_what_is_no_image_says_so() -> None:
    with pytest.raises(BrokenImageError, match="is not a JPEG, PNG, BMP, WEBP, PPM or TIFF image"):
        decode_image(b"hello", 64)
    gif = io.BytesIO()
    picture(1).save(gif, "GIF")
    with pytest.raises(BrokenImageError, match="is not a JPEG"):
        decode_image(gif.getvalue(), 64)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_every_mode_is_read_as_pillow_shows_it(mode: str) -> None:
    image = picture(5).convert(mode)
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(data, 64), expected)


def test_sixteen_bits_keep_their_shades() -> None:
    shades = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    decoded = decode_image(encoded(Image.fromarray(shades), "PNG"), 64)
    np.testing.assert_array_equal(decoded[0], shades >> 8)


def test_a_large_jpeg_is_scaled_like_any_other_image() -> None:
    image = picture(9, (640, 512))
    jpeg, png = (decode_image(encoded(image, kind), 32).astype(int) for kind in ("JPEG", "PNG"))
    assert np.abs(jpeg - png).mean() < 2


@pytest.mark.parametrize("kind", ["PPM", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_the_other_kinds_of_image_folder(kind: str, mode: str) -> None:
    image = picture(5).convert(mode)
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(encoded(image, kind), 64), expected)


@pytest.mark.parametrize("kind", ["PPM", "TIFF"])
def test_sixteen_bits_of_other_kinds(kind: str) -> None:
    shades = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(shades), kind), 64)[0], shades >> 8)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_have_no_known_range(kind: type) -> None:
    data = encoded(Image.fromarray(np.ones((64, 64), kind)), "TIFF")
    with pytest.raises(BrokenImageError, match="has 32 bits per pixel, expected 8 or 16"):
        decode_image(data, 64)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_image_counts(kind: str) -> None:
    first, second = picture(1), picture(2)
    buffer = io.BytesIO()
    lossless = {"lossless": True} if kind == "WEBP" else {}
    first.save(buffer, kind, save_all=True, append_images=[second], **lossless)
    np.testing.assert_array_equal(decode_image(buffer.getvalue(), 64), np.asarray(first).transpose(2, 0, 1))


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = picture(5).quantize(16)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes(range(0, 256, 16)))
    np.testing.assert_array_equal(
        decode_image(buffer.getvalue(), 64), np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("size", [(12_000, 8_000), (80_000, 1), (1, 80_000)])
def test_too_many_pixels_are_refused_before_they_are_decoded(
    kind: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    data = encoded(Image.new("1", size), kind)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    (chunk,) = decode_all({"large": data}.__getitem__, ["large"], 64)
    ((_, reason),) = chunk.broken
    assert reason.startswith(f"is {size[0]}×{size[1]} pixels, expected at most 89,478,485")
    assert not recwarn.list


def test_any_error_of_a_decoder_is_a_broken_image(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(3))
    for error in (
        KeyError("x"),
        RecursionError(),
        MemoryError(),
        AttributeError("no fp"),
        ZeroDivisionError(),
    ):
        monkeypatch.setattr(ImageFile.ImageFile, "load", _raising(error))
        with pytest.raises(BrokenImageError, match=f"cannot be decoded \\({type(error).__name__}"):
            decode_image(data, 64)


def _raising(error: Exception) -> Callable[[object], None]:
    def load(_image: object) -> None:
        raise error

    return load
