"""Images that tests upload."""

import io
import zlib
from typing import Any

from PIL import Image

SIZE = (64, 48)
FORMATS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "webp": "WEBP", "avif": "AVIF"}
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "avif": "image/avif"}


def picture(size: tuple[int, int] = SIZE, *, mode: str = "RGB", turned: int = 0) -> Image.Image:
    """Something to be seen, which is not the same on any two sides."""
    colours = Image.merge("RGB", [Image.linear_gradient("L").rotate(angle).resize(size) for angle in (0, 90, 180)])
    return colours.rotate(turned).convert(mode)


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def image_of(extension: str, **options: Any) -> bytes:
    return written(picture(mode="P" if extension == "gif" else "RGB"), FORMATS[extension], **options)


def animation_of(extension: str, **options: Any) -> bytes:
    frames = [picture(turned=turned) for turned in (0, 90, 180)]
    given = {"save_all": True, "append_images": frames[1:], "duration": [100, 200, 300]} | options
    return written(frames[0], FORMATS[extension], **given)


def read(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(width: int, height: int, *chunks: bytes, data: bytes = b"") -> bytes:
    """A PNG that says it has this size, whatever is in it."""
    header = chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif(frames: int, size: int = 1) -> bytes:
    """A GIF with this many frames of one pixel."""
    side = size.to_bytes(2, "little")
    frame = b"\x21\xf9\x04\x00\x01\x00\x00\x00\x2c" + b"\x00" * 4 + b"\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    return b"GIF89a" + side + side + b"\x80\x00\x00" + b"\x00\x00\x00\xff\xff\xff" + frame * frames + b";"
