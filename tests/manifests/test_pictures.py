"""Picture files: exactness, alpha, orientation, hostile ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from bars import noise

from manifests import media
from manifests.errors import BadInput


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IHHHIHH", 8, 1, 0x0112, 3, 1, orientation, 0) + bytes(4)


def corners() -> np.ndarray:
    """A picture whose four corners differ: 32 × 48, grey levels 0, 80, 160, 240 clockwise from the top left."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, 24:], image[16:, 24:], image[16:, :24] = 80, 160, 240
    return image


def test_png_round_trip(tmp_path: Path) -> None:
    for channels in (3, 4):
        image = np.random.default_rng(channels).integers(0, 256, (40, 30, channels), dtype=np.uint8)
        media.write_png(tmp_path / "p.png", image)
        assert (tmp_path / "p.png").read_bytes() == media.encode_png(image)
        back = media.read_image_rgba(tmp_path / "p.png")
        assert np.array_equal(back[..., :channels], image)
        if channels == 3:
            assert (back[..., 3] == 255).all()
            assert np.array_equal(media.read_image(tmp_path / "p.png"), image)
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError):
            media.encode_png(bad)


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    image = np.zeros((16, 48, 4), np.uint8)
    image[..., 0], image[:, 16:32, 3], image[:, 32:, 3] = 200, 128, 255
    media.write_png(tmp_path / "p.png", image)
    row = media.read_image(tmp_path / "p.png")[8, ::16].tolist()
    assert row == [[255, 255, 255], [227, 127, 127], [200, 0, 0]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_and_sixteen_bit_become_eight_bit_rgb(tmp_path: Path, channels: int) -> None:
    deep = np.full((16, 16, channels), 0x8081, np.uint16)
    deep[0, 0, :3] = 0xFFFF
    if channels == 4:
        deep[..., 3] = 0xFFFF
    assert cv2.imwrite(str(tmp_path / "p.png"), deep)
    image = media.read_image(tmp_path / "p.png")
    assert image.shape == (16, 16, 3)
    assert image.dtype == np.uint8
    assert (image[1, 1] == 0x81 - 1).all()
    assert (image[0, 0] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_exif_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = corners()
    # Stored so that applying the orientation gives the upright picture: the inverse of what the standard says a reader must do.
    undo = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    stored = np.ascontiguousarray(undo[orientation](upright))
    data = bytes(cv2.imencode(kind, stored, [cv2.IMWRITE_WEBP_QUALITY, 101] if kind == ".webp" else [])[1])
    block = exif(orientation, ">" if orientation % 2 else "<")
    if kind == ".jpg":
        body = b"Exif\0\0" + block
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    elif kind == ".png":
        data = data[:33] + png_chunk(b"eXIf", block) + data[33:]
    else:
        h, w = stored.shape[:2]
        head = b"VP8X" + struct.pack("<II", 10, 0x08) + (w - 1).to_bytes(3, "little") + (h - 1).to_bytes(3, "little")
        data = b"WEBP" + head + data[12:] + b"EXIF" + struct.pack("<I", len(block)) + block
        data = b"RIFF" + struct.pack("<I", len(data)) + data
    (tmp_path / f"p{kind}").write_bytes(data)
    seen = media.read_image(tmp_path / f"p{kind}")
    assert seen.shape == upright.shape
    assert np.abs(seen.astype(int) - upright).mean() < 3


def refused_picture(path: Path, code: str) -> None:
    for read in (media.read_image, media.read_image_rgba):
        with pytest.raises(BadInput) as caught:
            read(path)
        assert caught.value.code == code, caught.value


def test_bombs_are_refused_before_decoding(tmp_path: Path) -> None:
    size = 60_000
    body = zlib.compress(bytes(1 << 20))
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
    (tmp_path / "b.png").write_bytes(png + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b""))
    refused_picture(tmp_path / "b.png", "too_large")
    jpeg = bytearray(cv2.imencode(".jpg", corners())[1])
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, size, size)
    (tmp_path / "b.jpg").write_bytes(jpeg)
    refused_picture(tmp_path / "b.jpg", "too_large")
    (tmp_path / "b.bmp").write_bytes(b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, size, -size, 1, 24, 0) + bytes(64))
    refused_picture(tmp_path / "b.bmp", "too_large")


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp", ".bmp"])
def test_cut_off_pictures(tmp_path: Path, kind: str) -> None:
    data = bytes(cv2.imencode(kind, noise(1, 64, 64)[0])[1])
    whole, cut = tmp_path / f"w{kind}", tmp_path / f"c{kind}"
    whole.write_bytes(data)
    assert media.read_image(whole).shape == (64, 64, 3)
    for share in (0.003, 0.5, 0.97):
        cut.write_bytes(data[: max(4, int(len(data) * share))])
        with pytest.raises(BadInput) as caught:
            media.read_image(cut)
        assert caught.value.code in {"truncated", "not_an_image"}


def test_what_is_no_picture(tmp_path: Path) -> None:
    cases = {"empty": b"", "text": b"hello\n" * 40, "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "jpeg": b"\xff\xd8\xff\xd9" * 9}
    for name, content in cases.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        with pytest.raises(BadInput) as caught:
            media.read_image(tmp_path / f"{name}.png")
        assert caught.value.code in {"not_an_image", "truncated"}
    refused_picture(tmp_path, "not_a_file")
    refused_picture(tmp_path / "absent.png", "missing")
    media.write_png(tmp_path / "small.png", np.zeros((64, 15, 3), np.uint8))
    refused_picture(tmp_path / "small.png", "too_small")


def test_contact_sheet() -> None:
    rows = [[np.full((100, 50, 3), 200, np.uint8)] * 3, [np.full((40, 80, 3), (255, 0, 0), np.uint8)]]
    sheet = media.contact_sheet(rows, ["driving — 3 frames", "target"], height_px=60, gap_px=4)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * (24 + 60 + 4) + 4, max(3 * 34 + 4, 120 + 4, 20 + 9 * 18), 3)
    assert (sheet[50, 10] == 200).all()
    assert sheet[140, 60].tolist() == [255, 0, 0]
    assert sheet[4:28].max() > 150, "the label is drawn"
    assert media.contact_sheet(rows, height_px=60, gap_px=4).shape[0] == 2 * 64 + 4
    with pytest.raises(ValueError):
        media.contact_sheet(rows, ["one"])
