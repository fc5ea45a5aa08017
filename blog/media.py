"""Images: known by their content, made anew so that nothing else of the file stays, and kept in a folder.

The only importer of Pillow, and the only module that knows where an image lies: whoever keeps images elsewhere
gives `Folder` another inside.
"""

import io
import logging
import os
import re
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from uuid import uuid4

import anyio.to_thread
from PIL import (
    AvifImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from blog.errors import NotAnImage, Refusal, StorageUnavailable, TooManyPixels
from blog.turns import Turns

logger = logging.getLogger(__name__)


class Kind(NamedTuple):
    """What an image of one format is called."""

    media_type: str
    extension: str


KINDS = {
    PngImagePlugin.PngImageFile.format: Kind("image/png", "png"),
    JpegImagePlugin.JpegImageFile.format: Kind("image/jpeg", "jpg"),
    GifImagePlugin.GifImageFile.format: Kind("image/gif", "gif"),
    WebPImagePlugin.WebPImageFile.format: Kind("image/webp", "webp"),
    AvifImagePlugin.AvifImageFile.format: Kind("image/avif", "avif"),
}
"""By Pillow's names; it is asked for no others, and it looks at content alone."""

MEDIA_TYPES = {kind.extension: kind.media_type for kind in KINDS.values()}
NAME = re.compile(rf"[0-9a-f]{{32}}\.(?:{'|'.join(MEDIA_TYPES)})")
DRAFT = ".draft-"

FRAMES = 1_000
"""Frames of an animation: a hundred thousand of one pixel each would keep a thread busy for minutes."""

WEIGHTS = {"WEBP": 2, "AVIF": 2}
"""How many times a pixel counts, because it takes so much more memory and time: one of the others takes 10 bytes with
all that is done about it, one of these with transparency 35."""

LONGEST_FRAME = 65_535
"""Milliseconds, which PNG writes in sixteen bits."""

QUEUE_TIMEOUT = 10
"""Seconds that an image waits for its turn: two or three of the largest, or thirty from a telephone."""

# Of what is lossy and does not say how much was lost, hardly more shall be; and AVIF's usual speed of 6 takes five
# times as long for a twentieth of the size.
WEBP_LOSSY, WEBP_LOSSLESS = {"quality": 90, "method": 2}, {"lossless": True, "quality": 0, "method": 0, "exact": True}
AVIF = {"quality": 85, "speed": 9, "max_threads": 1}
JPEG = {"quality": 90}

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation that EXIF knows."""

AvifImagePlugin.DEFAULT_MAX_THREADS = AVIF["max_threads"]


class Picture(NamedTuple):
    """An image of ours: made here, with nothing in it but what is seen."""

    content: bytes
    kind: Kind
    width: int
    height: int


class Images:
    """Makes images anew, one at a time and never on the event loop; none with more than `pixel_limit` pixels,
    those of all its frames together; those of WebP and AVIF count twice.
    """

    def __init__(self, pixel_limit: int) -> None:
        self._pixel_limit = pixel_limit
        self._turns = Turns(QUEUE_TIMEOUT)

    async def remake(self, file: BinaryIO, owner: int) -> Picture:
        """The image in a user's `file`.

        Raises NotAnImage, TooManyPixels and Busy, and OSError when the file is not readable.
        """
        async with self._turns.of(owner):
            return await anyio.to_thread.run_sync(lambda: remake(file.read(), self._pixel_limit))


def remake(content: bytes, pixel_limit: int) -> Picture:
    """The image that these bytes are, upright, in sRGB and without metadata. Raises NotAnImage and TooManyPixels.

    What is animated stays so. What is lossless stays as it was, but for colours of another profile and for more than
    eight bits a channel, which only grey has.
    """
    # Pillow warns of what is odd, and strangers would write the log.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _remake(content, pixel_limit)
        except Refusal:
            raise
        except Image.DecompressionBombError:
            raise TooManyPixels from None
        except Exception as error:  # broken bytes bring forth errors of any class, MemoryError too
            raise NotAnImage from error


def _remake(content: bytes, pixel_limit: int) -> Picture:
    frames, kind, options = _read(content, pixel_limit)
    for frame in frames:
        # Encoders take comments and profiles from there too.
        frame.info = {name: value for name, value in frame.info.items() if name == "transparency"}
    return Picture(_encode(frames[0], kind, options), KINDS[kind], *frames[0].size)


def _read(content: bytes, pixel_limit: int) -> tuple[list[Image.Image], str, list[dict[str, Any]]]:
    """The frames, the format, and how to write them: what decoded them is gone by then, and its memory."""
    stream = io.BytesIO(content)
    image = Image.open(stream, formats=list(KINDS))
    # A JPEG with a second, smaller picture behind the first, as some cameras make them, is an MPO to Pillow.
    kind = str(image.format).replace("MPO", "JPEG")
    frames: list[Image.Image] = []
    durations: list[float] = []
    turn = profile = None
    for frame in _frames(image, kind, pixel_limit):
        if not frames:
            turn, profile = _turn(image), image.info.get("icc_profile")
        durations.append(min(frame.info.get("duration", 0), LONGEST_FRAME))
        seen = _in_srgb(frame, profile)
        seen = seen.copy() if turn is None else seen.transpose(turn)
        frames.append(seen)
    # Pillow does not tell the end of a GIF from the lack of it.
    if kind == "GIF" and content[stream.tell() - 1 : stream.tell()] != b";":
        raise NotAnImage
    options = _options(image, kind, content)
    if len(frames) > 1:
        animation: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": durations}
        animation |= {name: image.info[name] for name in ("loop", "default_image") if name in image.info}
        if kind == "GIF" and any(frame.has_transparency_data for frame in frames):
            animation["disposal"] = 2  # else what was seen would shine through the next frame
        options = [given | animation for given in options]
    return frames, kind, options


def _frames(image: Image.Image, kind: str, pixel_limit: int) -> Iterator[Image.Image]:
    """The image at each of its frames, loaded; refused before one is that would be too much."""
    pixels, weight = 0, WEIGHTS.get(kind, 1)
    for number in range(FRAMES + 1):
        try:
            image.seek(number)
        except EOFError:
            return
        pixels += image.width * image.height * weight  # a GIF may grow from frame to frame
        if pixels > pixel_limit or number == FRAMES:
            raise TooManyPixels
        image.load()
        yield image
        if kind == "JPEG":
            return


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the picture is good, and what is said of it is not
        return None


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image in the colours that are meant where no profile says otherwise."""
    if profile is not None and image.mode in ("RGB", "RGBA", "CMYK"):
        try:
            known = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in str(known.profile.profile_description):
                mode = image.mode.replace("CMYK", "RGB")
                converted = ImageCms.profileToProfile(image, known, ImageCms.createProfile("sRGB"), outputMode=mode)
                assert converted is not None  # noqa: S101  (only in place it is)
                return converted
        except Exception:  # noqa: S110  (no profile, or for other colours: as if there were none)
            pass
    return image.convert("RGB") if image.mode == "CMYK" else image


def _options(image: Image.Image, kind: str, content: bytes) -> list[dict[str, Any]]:
    """How to write it, and how else where that cannot be done."""
    match kind:
        case "JPEG":
            assert isinstance(image, JpegImagePlugin.JpegImageFile)  # noqa: S101
            if image.mode == "CMYK":
                return [JPEG]
            kept = {"qtables": image.quantization, "subsampling": JpegImagePlugin.get_sampling(image)}
            # Optimised or progressive it must fit into a buffer, and noise does not.
            return [kept | {"optimize": True, "progressive": "progressive" in image.info}, kept, JPEG]
        case "WEBP":
            return [WEBP_LOSSLESS if b"VP8L" in content else WEBP_LOSSY]
        case "AVIF":
            return [AVIF]
        case _:
            return [{}]


def _encode(image: Image.Image, kind: str, options: list[dict[str, Any]]) -> bytes:
    *attempts, last = options
    for given in attempts:
        with suppress(OSError, ValueError), io.BytesIO() as written:
            image.save(written, kind, **given)
            return written.getvalue()
    with io.BytesIO() as written:
        image.save(written, kind, **last)
        return written.getvalue()


class Folder:
    """Images by name, as files in one folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """Make the folder if there is none, and try to write there. Raises OSError."""
        self._make()
        with tempfile.TemporaryFile(dir=self._path):
            pass

    @asynccontextmanager
    async def keeping(self, picture: Picture) -> AsyncIterator[str]:
        """The name under which the image is kept, for good on the disk by then; not kept if what follows is refused.

        Raises StorageUnavailable.
        """
        name = f"{uuid4().hex}.{picture.kind.extension}"
        try:
            await anyio.to_thread.run_sync(self._save, name, picture.content)
        except OSError as error:
            logger.error("an image cannot be kept: %s", error)
            raise StorageUnavailable from error
        try:
            yield name
        except Exception:
            await self.remove(name)
            raise

    async def find(self, name: str) -> tuple[Path, os.stat_result] | None:
        """The file of this name, unless there is none or nothing here is ever called so. Raises StorageUnavailable."""
        if not NAME.fullmatch(name):
            return None
        path = self._path / name
        try:
            return path, await anyio.to_thread.run_sync(path.stat)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            logger.error("an image cannot be read: %s", error)
            raise StorageUnavailable from error

    async def remove(self, name: str) -> None:
        """Delete the file of this name, if it is there. A failure is logged, and leaves a file without a row."""
        try:
            await anyio.to_thread.run_sync(lambda: (self._path / name).unlink(missing_ok=True))
        except OSError as error:
            logger.warning("an image was not deleted: %s", error)

    def names(self) -> Iterator[str]:
        """Everything that lies there, drafts that were never finished too; in no order."""
        with suppress(FileNotFoundError), os.scandir(self._path) as entries:
            for entry in entries:
                yield entry.name

    def _save(self, name: str, content: bytes) -> None:
        """Write the whole file under another name first, so that there is never half of it."""
        self._make()
        handle, draft = tempfile.mkstemp(dir=self._path, prefix=DRAFT)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._path / name)
            _sync(self._path)
        except BaseException:
            for left in (Path(draft), self._path / name):
                with suppress(OSError):
                    left.unlink(missing_ok=True)
            raise

    def _make(self) -> None:
        if not self._path.is_dir():
            self._path.mkdir(parents=True, exist_ok=True)
            _sync(self._path.parent)


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
