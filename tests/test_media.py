"""Images: what is one, what is left of it, and where it is kept."""

import asyncio
import errno
import io
import os
import random
import stat
import threading
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageCms, PngImagePlugin

from blog import media
from blog.errors import Busy, NotAnImage, Refusal, StorageUnavailable, TooManyPixels
from blog.media import KINDS, NAME, TURNS, Folder, Images, Picture, remake
from tests.images import FORMATS, MEDIA_TYPES, SIZE, animation_of, chunk, gif, image_of, picture, png, read, written

LIMIT = 25_000_000
SECRET_PLACE = b"52.5200 N, 13.4050 E"


def exif(orientation: int = 1) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    data[0x010E] = SECRET_PLACE.decode()
    data.get_ifd(0x8825)[1] = "N"
    return data


def alike(one: Image.Image, other: Image.Image, tolerance: int) -> bool:
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    return max(high for _, high in difference.getextrema()) <= tolerance  # type: ignore[misc]


class TestKind:
    @pytest.mark.parametrize("extension", FORMATS)
    def test_by_content(self, extension: str) -> None:
        made = remake(image_of(extension), LIMIT)
        assert made.kind == (MEDIA_TYPES[extension], extension)
        assert (made.width, made.height) == SIZE
        assert read(made.content).format == FORMATS[extension]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x00",
            b"GIF89a",
            b"not an image",
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>",
            b"<!DOCTYPE html><script>alert(1)</script>",
            b"%PDF-1.7",
            b"<script>alert(1)</script>" + image_of("png"),
            written(picture(), "BMP"),
            written(picture(), "TIFF"),
            written(picture(), "PPM"),
            written(picture(), "ICO"),
            written(picture(), "JPEG2000"),
            b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 100,
            image_of("avif")[:8] + b"mif1" + b"\x00" * 100,
        ],
        ids=lambda content: repr(content[:12]),
    )
    def test_another(self, content: bytes) -> None:
        with pytest.raises(NotAnImage):
            remake(content, LIMIT)

    def test_no_other_reader_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Some start other programs, and most have met few strangers."""

        asked = []

        def accept(prefix: bytes) -> bool:
            asked.append(prefix)
            return False

        monkeypatch.setattr(Image, "ID", [*Image.ID, "ANY"])
        monkeypatch.setitem(Image.OPEN, "ANY", (PngImagePlugin.PngImageFile, accept))
        with pytest.raises(NotAnImage):
            remake(b"%!PS-Adobe-3.0 EPSF-3.0", LIMIT)
        assert not asked


class TestWhatIsLeft:
    @pytest.mark.parametrize("extension", ["png", "jpg", "webp", "avif"])
    @pytest.mark.parametrize("orientation", [1, *TURNS])
    def test_upright_and_without_metadata(self, extension: str, orientation: int) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        options: dict[str, Any] = {"exif": exif(orientation).tobytes(), "icc_profile": profile}
        if extension == "png":
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_text("Comment", SECRET_PLACE)
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", SECRET_PLACE.decode())
        else:
            options |= {"xmp": b"<x:xmpmeta>" + SECRET_PLACE + b"</x:xmpmeta>"}
        options |= {"comment": SECRET_PLACE} if extension == "jpg" else {}
        sent = image_of(extension, **options) + b"<script>" + SECRET_PLACE
        assert SECRET_PLACE in sent
        made = remake(sent, LIMIT)
        image = read(made.content)
        assert SECRET_PLACE not in made.content
        assert b"script" not in made.content
        assert not image.getexif()
        assert not {"exif", "xmp", "icc_profile", "comment", "Comment"} & set(image.info)
        assert (made.width, made.height) == image.size == (SIZE if orientation < 5 else SIZE[::-1])
        turn = TURNS.get(orientation)
        assert alike(
            image, picture().transpose(turn) if turn is not None else picture(), 0 if extension == "png" else 25
        )

    def test_comment_of_a_gif(self) -> None:
        made = remake(image_of("gif", comment=SECRET_PLACE) + SECRET_PLACE, LIMIT)
        assert SECRET_PLACE not in made.content
        assert alike(read(made.content), picture(mode="P"), 0)

    def test_exif_that_is_none(self) -> None:
        sent = image_of("png", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
        assert alike(read(remake(sent, LIMIT).content), picture(), 0)

    def test_exif_that_cannot_be_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise SyntaxError("not a TIFF file")

        monkeypatch.setattr(Image.Image, "getexif", fail)
        assert remake(image_of("png"), LIMIT).width == SIZE[0]

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "P", "RGB", "RGBA"])
    def test_every_pixel_of_a_png(self, mode: str) -> None:
        image = Image.linear_gradient("L").convert("I").point(lambda value: value * 257).convert("I;16")
        image = image if mode == "I;16" else picture(mode=mode)
        options = {"transparency": 7} if mode == "P" else {}
        made = read(remake(written(image, "PNG", **options), LIMIT).content)
        assert (made.mode, made.tobytes()) == (image.mode, image.tobytes())
        assert made.info == options

    def test_every_pixel_of_a_lossless_webp(self) -> None:
        image = picture(mode="RGBA")
        image.putalpha(Image.linear_gradient("L").resize(SIZE))
        sent = written(image, "WEBP", lossless=True, exact=True)
        assert read(remake(sent, LIMIT).content).tobytes() == image.tobytes()

    @pytest.mark.parametrize("quality", [30, 75, 95])
    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
    @pytest.mark.parametrize("progressive", [True, False])
    def test_quality_of_a_jpeg(self, quality: int, subsampling: str, progressive: bool) -> None:
        sent = image_of("jpg", quality=quality, subsampling=subsampling, progressive=progressive)
        before, after = read(sent), read(remake(sent, LIMIT).content)
        assert after.quantization == before.quantization  # type: ignore[attr-defined]
        assert after.layer == before.layer  # type: ignore[attr-defined]
        assert ("progressive" in after.info) == progressive
        assert alike(before, after, 8)

    def test_noise_that_fits_in_no_buffer(self) -> None:
        noise = Image.frombytes("RGB", (512, 512), random.Random(1).randbytes(512 * 512 * 3))
        sent = written(noise, "JPEG", quality=100, subsampling="4:4:4", progressive=False)
        assert read(remake(sent, LIMIT).content).quantization == read(sent).quantization  # type: ignore[attr-defined]

    def test_tables_that_cannot_be_written_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        odd = property(lambda _: {0: [1] * 64, 2: [1] * 64}, lambda *_: None)
        monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.quantization", odd, raising=False)
        assert remake(image_of("jpg"), LIMIT).width == SIZE[0]

    def test_printers_colours(self) -> None:
        made = read(remake(written(picture(mode="CMYK"), "JPEG"), LIMIT).content)
        assert made.mode == "RGB"
        assert alike(made, picture(), 40)

    def test_first_of_two_pictures_in_a_jpeg(self) -> None:
        sent = written(picture(), "MPO", save_all=True, append_images=[picture(turned=180)])
        made = remake(sent, LIMIT)
        assert made.kind.media_type == "image/jpeg"
        assert len(made.content) < len(sent) * 2 / 3
        assert alike(read(made.content), picture(), 25)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA"])
    def test_other_colours_are_converted(self, mode: str) -> None:
        swapped = swapped_profile()
        made = read(remake(written(picture(mode=mode), "PNG", icc_profile=swapped), LIMIT).content)
        assert made.mode == mode
        assert "icc_profile" not in made.info
        assert not alike(made, picture(), 60)
        red, green, blue = picture().split()
        assert alike(made, Image.merge("RGB", (green, red, blue)), 3)

    def test_a_profile_that_is_none(self) -> None:
        made = remake(written(picture(), "PNG", icc_profile=b"not a profile"), LIMIT)
        assert alike(read(made.content), picture(), 0)


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    tags = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    name = "sRGB".encode("utf-16-be")
    return bytes(profile).replace(name, "swap".encode("utf-16-be"))


class TestAnimation:
    @pytest.mark.parametrize("extension", ["png", "gif", "webp", "avif"])
    def test_stays_one(self, extension: str) -> None:
        options: dict[str, Any] = {"loop": 3} if extension != "avif" else {}
        sent = animation_of(extension, **options, **({"comment": SECRET_PLACE} if extension == "gif" else {}))
        made = remake(sent, LIMIT)
        assert SECRET_PLACE not in made.content
        before, after = read(sent), read(made.content)
        assert after.n_frames == before.n_frames == 3  # type: ignore[attr-defined]
        assert after.info.get("loop") == before.info.get("loop") == options.get("loop")
        for number, duration in enumerate((100, 200, 300)):
            before.seek(number)
            after.seek(number)
            before.load()
            after.load()
            assert after.info["duration"] == before.info["duration"] == duration
            assert alike(before, after, 0 if extension in ("png", "gif") else 40)

    def test_turned(self) -> None:
        made = remake(animation_of("webp", exif=exif(6).tobytes()), LIMIT)
        assert (made.width, made.height) == SIZE[::-1]
        assert read(made.content).n_frames == 3  # type: ignore[attr-defined]

    def test_nothing_shines_through(self) -> None:
        frames = []
        for left in (0, 32):
            frame = Image.new("RGBA", SIZE)
            frame.paste((255, 0, 0, 255), (left, 0, left + 32, 48))
            frames.append(frame)
        sent = written(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2, duration=100)
        after = read(remake(sent, LIMIT).content)
        after.seek(1)
        assert after.convert("RGBA").getpixel((5, 5))[3] == 0  # type: ignore[index]
        assert after.convert("RGBA").getpixel((40, 5)) == (255, 0, 0, 255)

    def test_a_picture_for_those_who_show_no_animation(self) -> None:
        still = picture(turned=90)
        sent = written(still, "PNG", save_all=True, default_image=True, append_images=[picture(), picture(turned=180)])
        after = read(remake(sent, LIMIT).content)
        assert after.info["default_image"]
        assert alike(after, still, 0)

    def test_longest_frame(self) -> None:
        sent = animation_of("gif", duration=655_000)
        after = read(remake(sent, LIMIT).content)
        assert after.info["duration"] == media.LONGEST_FRAME // 10 * 10


class TestTooMuch:
    @pytest.mark.parametrize(
        "content",
        [
            png(30_000, 30_000),
            png(2**31 - 1, 2**31 - 1),
            png(5_001, 5_000),
            gif(1, size=65_535),
            gif(1, size=5_001),
            gif(media.FRAMES + 1),
            gif(100_000),
            image_of("webp")[:12] + b"VP8X\n\0\0\0" + b"\0" * 4 + b"\xff\x3f\0" * 2 + image_of("webp")[12:],
        ],
        ids=["png", "largest png", "just too large", "gif", "medium gif", "frames", "many frames", "webp"],
    )
    def test_pixels_and_frames(self, content: bytes) -> None:
        with pytest.raises(TooManyPixels):
            remake(content, LIMIT)

    def test_a_frame_larger_than_the_first(self) -> None:
        first, grown = (written(Image.new("P", (size, size)), "GIF") for size in (1, 1_000))
        content = first.removesuffix(b";") + grown[grown.index(b",\0\0\0\0") :]
        remake(content, 1_000_001)
        with pytest.raises(TooManyPixels):
            remake(content, 1_000_000)

    @pytest.mark.parametrize(("extension", "weight"), [("png", 1), ("jpg", 1), ("gif", 1), ("webp", 2), ("avif", 2)])
    def test_just_enough(self, extension: str, weight: int) -> None:
        pixels = SIZE[0] * SIZE[1] * weight
        remake(image_of(extension), pixels)
        with pytest.raises(TooManyPixels):
            remake(image_of(extension), pixels - 1)

    @pytest.mark.parametrize("extension", ["png", "gif", "webp", "avif"])
    def test_all_frames_count(self, extension: str) -> None:
        pixels = SIZE[0] * SIZE[1] * 3 * media.WEIGHTS.get(FORMATS[extension], 1)
        remake(animation_of(extension), pixels)
        with pytest.raises(TooManyPixels):
            remake(animation_of(extension), pixels - 1)

    def test_as_many_frames_as_are_taken(self) -> None:
        assert remake(gif(media.FRAMES), LIMIT).width == 1

    def test_text_that_inflates(self) -> None:
        import zlib

        bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 60_000_000))
        with pytest.raises(NotAnImage):
            remake(png(1, 1, bomb, data=zlib.compress(b"\0\0")), LIMIT)


def damaged(content: bytes, seed: int, times: int) -> list[bytes]:
    """The same cut off anywhere, and with bits that are another."""
    dice = random.Random(seed)
    found = [content[: dice.randrange(len(content))] for _ in range(times)]
    for _ in range(times * 2):
        other = bytearray(content)
        for _ in range(dice.choice((1, 1, 2, 20))):
            other[dice.randrange(len(content) if dice.random() < 0.5 else 100)] ^= 1 << dice.randrange(8)
        found.append(bytes(other))
    return found


MADE = [*product([image_of], FORMATS), *((animation_of, extension) for extension in FORMATS if extension != "jpg")]


class TestBroken:
    @pytest.mark.parametrize(("make", "extension"), MADE)
    def test_anywhere(self, extension: str, make: Callable[[str], bytes]) -> None:
        """It is an image still or it is refused, and never anything else."""
        taken = 0
        for content in damaged(make(extension), seed=len(extension), times=40):
            try:
                made = remake(content, 1_000_000)
            except (NotAnImage, TooManyPixels):
                continue
            taken += 1
            read(made.content)
        assert taken < 120

    @pytest.mark.parametrize(("make", "extension"), MADE)
    def test_cut_off(self, extension: str, make: Callable[[str], bytes]) -> None:
        content = make(extension)
        # The last bytes of a PNG say no more than that it ends, and what its data sums up to.
        end = len(content) - (32 if extension == "png" else 1)
        for length in {*range(0, end, 7 if extension != "avif" else 97), end}:
            with pytest.raises(NotAnImage):
                remake(content[:length], LIMIT)

    @pytest.mark.parametrize("error", [MemoryError, RecursionError, KeyError, ZeroDivisionError, ValueError, OSError])
    def test_whatever_pillow_throws(self, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise error

        content = image_of("png")
        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
        with pytest.raises(NotAnImage):
            remake(content, LIMIT)


class TestTurns:
    async def test_one_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        under_way = most = 0
        lock = threading.Lock()

        def work(content: bytes, limit: int) -> Picture:
            nonlocal under_way, most
            assert threading.current_thread() is not threading.main_thread()
            with lock:
                under_way += 1
                most = max(most, under_way)
            real = remake(content, limit)
            with lock:
                under_way -= 1
            return real

        monkeypatch.setattr(media, "remake", work)
        images = Images(LIMIT)
        await asyncio.gather(*(images.remake(io.BytesIO(image_of("png")), 1) for _ in range(5)))
        assert most == 1

    async def test_too_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        go_on = threading.Event()

        def work(content: bytes, limit: int) -> Picture:
            go_on.wait(30)
            return remake(content, limit)

        monkeypatch.setattr(media, "remake", work)
        monkeypatch.setattr(media, "QUEUE_TIMEOUT", 0.05)
        images = Images(LIMIT)
        first = asyncio.create_task(images.remake(io.BytesIO(image_of("png")), 1))
        await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            await images.remake(io.BytesIO(image_of("png")), 1)
        go_on.set()
        assert (await first).width == SIZE[0]
        assert (await images.remake(io.BytesIO(image_of("png")), 1)).width == SIZE[0]  # the turn is free again


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "deep" / "media")


PICTURE = Picture(b"content", KINDS["PNG"], 1, 1)


class TestFolder:
    async def test_kept(self, folder: Folder, tmp_path: Path) -> None:
        async with folder.keeping(PICTURE) as name:
            assert NAME.fullmatch(name)
        found = await folder.find(name)
        assert found is not None
        assert found[0].read_bytes() == b"content"
        assert found[1].st_size == 7
        assert list(folder.names()) == [name]
        await folder.remove(name)
        assert await folder.find(name) is None
        await folder.remove(name)

    async def test_on_the_disk_before_anything_goes_on(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[bool] = []
        monkeypatch.setattr(os, "fsync", lambda handle: synced.append(stat.S_ISDIR(os.fstat(handle).st_mode)))
        folder.prepare()
        synced.clear()
        async with folder.keeping(PICTURE):
            assert synced == [False, True]

    async def test_not_kept_when_it_is_refused(self, folder: Folder) -> None:
        with pytest.raises(Refusal):
            async with folder.keeping(PICTURE):
                raise Refusal("No.")
        assert not list(folder.names())

    @pytest.mark.parametrize("where", ["fsync", "replace"])
    async def test_full(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch, where: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        folder.prepare()
        monkeypatch.setattr(os, where, fail)
        with pytest.raises(StorageUnavailable):
            async with folder.keeping(PICTURE):
                pytest.fail("it is not kept")
        assert not list(folder.names())
        assert "No space left" in caplog.text

    async def test_a_file_for_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "media").write_text("")
        folder = Folder(tmp_path / "media")
        with pytest.raises(StorageUnavailable):
            async with folder.keeping(PICTURE):
                pytest.fail("it is not kept")
        assert await folder.find(f"{'0' * 32}.png") is None

    async def test_not_to_be_read(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "stat", fail)
        with pytest.raises(StorageUnavailable):
            await folder.find(f"{'0' * 32}.png")

    async def test_not_to_be_deleted(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "unlink", fail)
        await folder.remove(f"{'0' * 32}.png")
        assert "an image was not deleted" in caplog.text

    @pytest.mark.parametrize(
        "name",
        ["", ".", "..", "../secret", "/etc/passwd", f"{'0' * 32}.svg", f"{'0' * 32}.png\n", f"{'A' * 32}.png", "\0"],
    )
    async def test_no_name_of_ours(self, folder: Folder, name: str, tmp_path: Path) -> None:
        folder.prepare()
        (tmp_path / "deep" / "secret").write_text("")
        assert await folder.find(name) is None

    def test_none_yet(self, folder: Folder) -> None:
        assert not list(folder.names())
