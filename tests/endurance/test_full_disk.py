"""There is no room for the SQLite file to grow."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.endurance.conftest import NUMBERS
from tests.endurance.figures import Figures
from tests.endurance.load import Load, registered, take_stock
from tests.endurance.servers import Platform

BACK = 2
BODY = "Text " * 4_000
DISK = 16_000_000


class LimitedFiles:
    """Files that may not grow: EFBIG. It needs no right beyond one's own process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, platform: Platform) -> None:
        platform.limit_file_size(max(file.stat().st_size for file in self.folder.glob("blog.db*")))

    def empty(self, platform: Platform) -> None:
        platform.limit_file_size(None)


class SmallDisk:
    """A file system that is full: ENOSPC."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, platform: Platform) -> None:
        ballast = (self.folder / "ballast").open("wb", buffering=0)
        with ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(bytes(4096))

    def empty(self, platform: Platform) -> None:
        (self.folder / "ballast").unlink()


@pytest.fixture(params=["limited files", "small disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LimitedFiles | SmallDisk]:
    if request.param == "limited files":
        yield LimitedFiles(tmp_path)
        return
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    with mounted(tmp_path / "disk") as folder:
        yield SmallDisk(folder)


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_read_and_writes_are_refused(
    disk: LimitedFiles | SmallDisk, tmp_path: Path, figures: Figures
) -> None:
    url = sa.make_url(f"sqlite:///{disk.folder / 'blog.db'}")
    with Platform(tmp_path, url) as platform:
        with Load(platform.address, registered(platform.address)) as load:
            reads = load.get("/blog/?limit=1", clients=2, pause=0.02)
            writes = load.write(clients=2, pause=0.02, body=BODY)
            load.await_writes(20)
            disk.fill(platform)
            load.await_answers(writes, 503, 507, number=10)
            full = time.monotonic()
            time.sleep(NUMBERS.full_disk)
            load.await_answers(reads, 200, number=20)
            room = time.monotonic()
            disk.empty(platform)
            load.await_writes(20)
        is_running = platform.is_running
        platform.kill()
    stock = take_stock(url, load)

    refused = writes.with_status(503, 507)
    figures.statuses("statuses of reads", {200}, reads)
    figures.at_least("reads while it is full", 20, len(reads.since(full).until(room)))
    figures.equal("other statuses of writes", set(), set(writes.statuses) - {201, 503, 507})
    figures.seen("statuses of writes", writes.statuses)
    figures.equal("503 without Retry-After or problem", 0, refused.out_of_order)
    figures.at_most("first write once there is room", BACK, writes.since(room).with_status(201)[0].ended - room)
    figures.equal("same process", True, is_running)
    figures.equal("lost, doubled or damaged", "none", stock.faults)
