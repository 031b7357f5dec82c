"""Pictures in and out. Everything public is reached through `manifests.media`.

Headers are read before anything is decoded, so a decompression bomb costs nothing and a half-downloaded file is refused instead of
being filled up with grey.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from manifests.containers import regular_file
from manifests.errors import BadInput
from manifests.files import replacing

Image = npt.NDArray[np.uint8]
"""HWC, RGB or RGBA"""

MAX_PIXELS = 100_000_000
MIN_SIDE_PX = 16
MAX_FILE_BYTES = 512 << 20
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_KINDS = "use PNG, JPEG, WebP or BMP"


def read_image(path: Path) -> Image:
    """A picture as uint8 RGB of shape (H, W, 3).

    EXIF orientation is applied, alpha is composited on white, grey becomes RGB, 16 bits become 8. Of an animation the first picture.
    Raises BadInput: missing, not_a_file, unreadable, not_an_image, truncated, too_large (over 100 million pixels), too_small (a
    side under 16 px).
    """
    image = read_image_rgba(path)
    if image[..., 3].min() == 255:
        return np.ascontiguousarray(image[..., :3])
    alpha = image[..., 3:].astype(np.uint16)
    return ((image[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def read_image_rgba(path: Path) -> Image:
    """A picture as uint8 RGBA of shape (H, W, 4), not premultiplied; alpha is 255 where the file has none. Errors as `read_image`."""
    path = Path(path)
    if regular_file(path, "a picture", "not_an_image") > MAX_FILE_BYTES:
        raise BadInput(f"{path} has more than {MAX_FILE_BYTES >> 20} MB; save it as a compressed PNG or JPEG", "too_large")
    data = path.read_bytes()
    try:
        size, orientation = _header(data)
    except (struct.error, IndexError) as e:
        raise BadInput(f"{path} is cut off inside its header; fetch the file again", "truncated") from e
    if size is None:
        raise BadInput(f"{path} is no picture this project reads; {_KINDS}", "not_an_image")
    _check_size(path, *size)
    if not _complete(data):
        raise BadInput(f"{path} is cut off: its end mark is missing; fetch the file again", "truncated")
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        raise BadInput(f"{path} can't be decoded ({e.err}); {_KINDS}", "not_an_image") from e
    if decoded is None or decoded.size == 0:
        raise BadInput(f"{path} can't be decoded; {_KINDS}", "not_an_image")
    return _oriented(_rgba(np.asarray(decoded)), orientation)


def encode_png(image: Image) -> bytes:
    """PNG bytes of a uint8 picture of shape (H, W, 3) or (H, W, 4). The same picture gives the same bytes."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4) or image.size == 0:
        raise ValueError(f"expected uint8 (H, W, 3 or 4), got {image.dtype} {image.shape}")
    code = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    options = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    done, data = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(image), code), options)
    if not done:
        raise ValueError(f"could not encode a picture of shape {image.shape}")
    return bytes(data.tobytes())


def write_png(path: Path, image: Image) -> None:
    """Write a PNG; the file appears whole or not at all. Raises OutOfSpace when the disk is full or can't be written."""
    data = encode_png(image)
    with replacing(Path(path)) as part:
        part.write_bytes(data)


def contact_sheet(rows: Sequence[Sequence[Image]], labels: Sequence[str] | None = None, height_px: int = 180, gap_px: int = 6) -> Image:
    """Rows of RGB pictures, all scaled to one height, each row under its label, on dark grey. Returns (H, W, 3) uint8."""
    if not rows or (labels is not None and len(labels) != len(rows)):
        raise ValueError(f"got {len(rows)} rows and {None if labels is None else len(labels)} labels; give one label a row")
    bar_px = 24 if labels is not None else 0
    strips = [[_to_height(image, height_px) for image in row] for row in rows]
    width = max(sum(image.shape[1] + gap_px for image in row) for row in strips) + gap_px
    width = max([width, *(20 + 9 * len(text) for text in labels or ())])
    sheet = np.full((len(rows) * (bar_px + height_px + gap_px) + gap_px, width, 3), 40, np.uint8)
    for i, row in enumerate(strips):
        y, x = gap_px + i * (bar_px + height_px + gap_px), gap_px
        if labels is not None:
            cv2.putText(sheet, _ascii(labels[i]), (x, y + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA)
        for image in row:
            sheet[y + bar_px : y + bar_px + height_px, x : x + image.shape[1]] = image
            x += image.shape[1] + gap_px
    return sheet


def _ascii(text: str) -> str:
    """OpenCV's line fonts know ASCII only."""
    return text.encode("ascii", "replace").decode()


def _to_height(image: Image, height_px: int) -> Image:
    width = max(1, round(image.shape[1] * height_px / image.shape[0]))
    how = cv2.INTER_AREA if image.shape[0] > height_px else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(image[..., :3]), (width, height_px), interpolation=how), np.uint8)


def _check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE_PX:
        raise BadInput(f"{path} is {width}×{height} px, each side needs {MIN_SIDE_PX} or more; use a larger picture", "too_small")
    if width * height > MAX_PIXELS:
        raise BadInput(f"{path} is {width}×{height} px, allowed are {MAX_PIXELS // 1_000_000} million pixels; scale it down", "too_large")


def _rgba(decoded: npt.NDArray[np.generic]) -> Image:
    """OpenCV's grey, BGR or BGRA in 8 or 16 bits as 8-bit RGBA."""
    image = decoded if decoded.ndim == 3 else decoded[..., None]
    if image.dtype == np.uint16:
        image = (image.astype(np.uint32) + 128) // 257
    elif image.dtype != np.uint8:
        raise BadInput(f"pictures with {image.dtype} samples are not read; {_KINDS}", "not_an_image")
    image = image.astype(np.uint8, copy=False)
    if image.shape[2] <= 2:
        colour, alpha = np.repeat(image[..., :1], 3, 2), image[..., 1:]
    else:
        colour, alpha = image[..., 2::-1], image[..., 3:]
    if alpha.shape[2] == 0:
        alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
    return np.concatenate([colour, alpha], 2)


def _oriented(image: Image, orientation: int) -> Image:
    """Apply EXIF orientation 1 to 8 (EXIF 2.32, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _header(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """(width, height) and EXIF orientation from the header; None when the file is of no known kind."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        width, height = struct.unpack_from(">II", data, 16)
        exif = next((body for name, body in _png_chunks(data) if name == b"eXIf"), b"")
        return (width, height), _orientation(exif)
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg_header(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_header(data)
    if data[:2] == b"BM":
        width, height = struct.unpack_from("<ii", data, 18)
        return (abs(width), abs(height)), 1
    return None, 1


def _complete(data: bytes) -> bool:
    """Whether the end mark is there. Decoders fill what is missing with grey and only warn."""
    if data[:2] == b"\xff\xd8":
        scan = next((at for marker, at, _ in _jpeg_segments(data) if marker == 0xDA), None)
        return scan is not None and data.find(b"\xff\xd9", scan) >= 0
    if data[:4] == b"\x89PNG":
        return any(name == b"IEND" for name, _ in _png_chunks(data))
    if data[:4] == b"RIFF":
        return int.from_bytes(data[4:8], "little") + 8 <= len(data) + 1
    return True


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + min(length, 1 << 16)]
        at += 12 + length


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Marker, position of its content and the content, up to and including the first scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at + 4, data[at + 4 : at + 2 + length]
        if marker == 0xDA or length < 2:
            return
        at += 2 + length


def _jpeg_header(data: bytes) -> tuple[tuple[int, int] | None, int]:
    orientation = 1
    for marker, _, body in _jpeg_segments(data):
        if marker == 0xE1 and body[:6] == b"Exif\0\0" and orientation == 1:
            orientation = _orientation(body[6:])
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", body, 1)
            return (width, height), orientation
    raise IndexError("no frame header before the first scan")


def _webp_header(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """Size from the first chunk (RFC 9649); orientation from the EXIF chunk."""
    name, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise IndexError("no room for a WebP header")
    if name == b"VP8X":
        size = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        return size, _orientation(_webp_exif(data))
    if name == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), 1
    if name == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return (width & 0x3FFF, height & 0x3FFF), 1
    return None, 1


def _webp_exif(data: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            return data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0")
        at += 8 + length + (length & 1)
    return b""


def _orientation(exif: bytes) -> int:
    """Tag 0x0112 of the first directory of a TIFF block; 1 (upright) when absent or malformed."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    try:
        at = struct.unpack_from(order + "I", exif, 4)[0]
        for i in range(struct.unpack_from(order + "H", exif, at)[0]):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, at + 2 + 12 * i)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
