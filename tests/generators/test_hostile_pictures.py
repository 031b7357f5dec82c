"""Pictures that no gallery should hold: each is answered with a reason, or handled rightly. None crashes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from generators.base import ImageRequest
from generators.images import drawn
from generators.images.collage import Collage
from generators.poses.people import PeopleTracker
from generators.poses.tracks import People
from manifests import media
from manifests.errors import BadInput
from manifests.records import Geometry

GEOMETRY = Geometry(frames=5, height=288, width=224)
HEIGHT_PX = 320
Picture = np.ndarray


def _png(image: Picture) -> bytes:
    """Any array that OpenCV writes, channels already in its order."""
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def _jpeg(image: Picture) -> bytes:
    return bytes(cv2.imencode(".jpg", image)[1].tobytes())


def _turned_jpeg(image: Picture, orientation: int) -> bytes:
    """A JPEG whose pixels lie on their side and whose EXIF tag (0x0112) says how to put them upright."""
    turn = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_COUNTERCLOCKWISE, 8: cv2.ROTATE_90_CLOCKWISE}[orientation]
    plain = _jpeg(cv2.rotate(image, turn))
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x0112, 3, 1, orientation) + bytes(4)
    return plain[:2] + _segment(0xE1, b"Exif\0\0" + tiff) + plain[2:]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _cmyk_jpeg(blocks_HW4: Picture) -> bytes:
    """A baseline JPEG of four components, one colour for each block of 8×8, inverted as Adobe writes them (ITU-T T.81, annex F)."""
    counts = [0, 1, 5, 1, 1, 1, 1, 1, 1] + [0] * 7
    codes, code = [], 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes.append(f"{code:0{length}b}")
            code += 1
        code <<= 1
    bits, last = [], [0, 0, 0, 0]
    for row in blocks_HW4.tolist():
        for pixel in row:
            for k in range(4):
                step, last[k] = pixel[k] - 128 - last[k], pixel[k] - 128
                size = abs(step).bit_length()
                bits.append(codes[size] + (f"{step if step > 0 else step + (1 << size) - 1:0{size}b}" if size else "") + "0")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width = blocks_HW4.shape[:2]
    frame = struct.pack(">BHHB", 8, 8 * height, 8 * width, 4) + b"".join(bytes([k, 0x11, 0]) for k in (1, 2, 3, 4))
    return b"".join((
        b"\xff\xd8", _segment(0xEE, b"Adobe\0d" + bytes(5)), _segment(0xDB, b"\0" + bytes([8] * 64)), _segment(0xC0, frame),
        _segment(0xC4, b"\0" + bytes(counts) + bytes(range(12))), _segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0"),
        _segment(0xDA, b"\4" + b"".join(bytes([k, 0]) for k in (1, 2, 3, 4)) + b"\0\x3f\0"), scan, b"\xff\xd9",
    ))  # fmt: skip


def _palette_png(image: Picture) -> bytes:
    """An indexed PNG of 64 colours."""
    index = ((image // 64).astype(int) @ [16, 4, 1]).astype(np.uint8)
    palette = bytes(v * 64 + 32 for i in range(64) for v in (i // 16, i // 4 % 4, i % 4))

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", index.shape[1], index.shape[0], 8, 3, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in index)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", palette) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def _dog() -> Picture:
    """A dog, simply drawn, from the side."""
    lawn = np.full((300, 400, 3), (120, 170, 120), np.uint8)
    fur, dark = (60, 90, 140), (50, 80, 130)
    cv2.ellipse(lawn, (200, 165), (100, 46), 0, 0, 360, fur, -1)
    cv2.circle(lawn, (315, 120), 40, fur, -1)
    cv2.circle(lawn, (326, 112), 5, (0, 0, 0), -1)
    for x in (130, 162, 238, 270):
        cv2.line(lawn, (x, 188), (x, 265), dark, 13)
    cv2.line(lawn, (104, 150), (62, 105), dark, 10)
    return lawn


def _animated_webp(frames: list[Picture]) -> bytes:
    """WebP animation of opaque frames, 100 ms each (RFC 9649)."""
    height, width = frames[0].shape[:2]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")

    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)

    stills = [cv2.imencode(".webp", frame)[1].tobytes()[12:] for frame in frames]
    moving = b"".join(chunk(b"ANMF", bytes(6) + size + (100).to_bytes(3, "little") + b"\2" + still) for still in stills)
    body = b"WEBP" + chunk(b"VP8X", b"\2" + bytes(3) + size) + chunk(b"ANIM", bytes(6)) + moving
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.fixture(scope="module")
def figure() -> drawn.Drawing:
    return drawn.draw_mannequin(4, HEIGHT_PX)


@pytest.fixture(scope="module")
def pictures(figure: drawn.Drawing, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files by name."""
    folder = tmp_path_factory.mktemp("hostile")
    rgb, alpha = figure.image_HWC, np.round(figure.alpha_HW * 255).astype(np.uint8)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    bright = rgb[::2, ::2].astype(int).max(2, keepdims=True)
    inks = np.concatenate([rgb[::2, ::2].astype(int) * 255 // np.maximum(bright, 1), bright], 2)
    small = cv2.resize(bgr, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    huge = cv2.resize(bgr, (5748, 8000))
    files = {
        "plain.png": _png(bgr),
        "nobody.png": _png(drawn.scene(1, 320, 448)[..., ::-1]),
        "ten.png": _png(np.vstack([np.hstack([small] * 5)] * 2)),
        "animal.png": _png(_dog()),
        "64.png": _png(cv2.resize(bgr, (64, 64), interpolation=cv2.INTER_AREA)),
        "8000.jpg": _jpeg(cv2.copyMakeBorder(huge, 0, 0, 0, 2252, cv2.BORDER_REPLICATE)),
        "12000.png": _png(np.zeros((12000, 12000), np.uint8)),
        "line.png": _png(bgr[100:101]),
        "strip.png": _png(cv2.resize(bgr, (1200, 20))),
        "grey8.png": _png(grey),
        "grey16.png": _png(grey.astype(np.uint16) * 257),
        "colour16.png": _png(bgr.astype(np.uint16) * 257),
        "alpha.png": _png(np.dstack([np.where(alpha[..., None] > 0, bgr, 0).astype(np.uint8), alpha])),
        "clear.png": _png(np.dstack([bgr, np.zeros_like(alpha)])),
        "faint.png": _png(np.dstack([bgr, np.full_like(alpha, 120)])),
        "palette.png": _palette_png(rgb),
        "cmyk.jpg": _cmyk_jpeg(inks),
        "exif3.jpg": _turned_jpeg(bgr, 3),
        "exif6.jpg": _turned_jpeg(bgr, 6),
        "exif8.jpg": _turned_jpeg(bgr, 8),
        "truncated.png": _png(bgr)[:20000],
        "truncated.jpg": _jpeg(bgr)[:5000],
        "text.png": b"this is no picture\n" * 30,
        "empty.png": b"",
        "moving.gif": b"GIF89a" + struct.pack("<HH", 229, 320) + bytes(200) + b";",
        "moving.webp": _animated_webp([bgr, bgr[:, ::-1].copy()]),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}


@pytest.fixture(scope="module")
def clip_people(figure: drawn.Drawing) -> People:
    """A clip in which the same figure stands a little smaller."""
    frame = cv2.resize(figure.image_HWC, (GEOMETRY.width, GEOMETRY.height), interpolation=cv2.INTER_AREA)
    people = PeopleTracker().track(np.repeat(frame[None], 5, 0), 16.0)
    assert people.count == 1
    return people


READ = {
    "12000.png": "too_large",
    "line.png": "too_small",
    "truncated.png": "truncated",
    "truncated.jpg": "truncated",
    "text.png": "not_an_image",
    "empty.png": "not_an_image",
    "moving.gif": "not_an_image",
}
"""refused when read"""
LOOKED_AT = {
    "nobody.png": "no_person",
    "animal.png": "no_person",
    "clear.png": "no_person",
    "strip.png": "no_person",
    "ten.png": "several_people",
    "64.png": "too_small",
    "faint.png": "no_matte",
}
"""refused when looked at"""
LIKE_THE_PLAIN_ONE = {
    "grey8.png": 60, "grey16.png": 60, "colour16.png": 1, "alpha.png": 4, "palette.png": 30, "cmyk.jpg": 8, "exif3.jpg": 6, "exif6.jpg": 6,
    "exif8.jpg": 6, "moving.webp": 8,
}  # fmt: skip
"""painted as the plain picture is, up to so many grey levels on average over the figure"""


def _run(collage: Collage, character: Path, people: People, out: Path) -> tuple[Picture, tuple[str, ...]]:
    report = collage.run(ImageRequest({"character": character}, "", "", 1.0, GEOMETRY, people, "replacement", 0), out)
    return media.read_image(out), report.reasons


@pytest.mark.parametrize(("name", "code"), [*READ.items(), *LOOKED_AT.items()])
def test_refused_with_one_clear_line(
    collage: Collage, pictures: dict[str, Path], clip_people: People, tmp_path: Path, name: str, code: str
) -> None:
    with pytest.raises(BadInput) as caught:
        _run(collage, pictures[name], clip_people, tmp_path / "o.png")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize("name", READ)
def test_unreadable_pictures_are_refused_in_every_role(
    collage: Collage, pictures: dict[str, Path], clip_people: People, tmp_path: Path, name: str
) -> None:
    for role in ("scene", "clothing"):
        given = {"character": pictures["plain.png"], role: pictures[name]}
        with pytest.raises(BadInput) as caught:
            collage.run(ImageRequest(given, "", "", 1.0, GEOMETRY, clip_people, "animation", 0), tmp_path / "o.png")
        assert caught.value.code == READ[name]


@pytest.mark.parametrize(("name", "levels"), LIKE_THE_PLAIN_ONE.items())
def test_read_rightly(collage: Collage, pictures: dict[str, Path], clip_people: People, tmp_path: Path, name: str, levels: float) -> None:
    plain, _ = _run(collage, pictures["plain.png"], clip_people, tmp_path / "plain.png")
    image, reasons = _run(collage, pictures[name], clip_people, tmp_path / "o.png")
    assert reasons == ()
    shown = [np.abs(picture.astype(int) - picture[0, 0]).max(2) > 12 for picture in (plain, image)]
    assert (shown[0] & shown[1]).sum() / (shown[0] | shown[1]).sum() > 0.8
    both = cv2.erode((shown[0] & shown[1]).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert np.abs(plain.astype(int) - image)[both].mean() < levels


def test_a_huge_picture_is_worked_on_at_a_size_that_fits(
    collage: Collage, pictures: dict[str, Path], clip_people: People, tmp_path: Path
) -> None:
    image, reasons = _run(collage, pictures["8000.jpg"], clip_people, tmp_path / "o.png")
    assert reasons == ()
    assert PeopleTracker().still(image).count == 1
