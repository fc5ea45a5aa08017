"""What the tests start for themselves and may therefore kill: the platform, PostgreSQL and MariaDB.

A database server has a port and a data folder of its own, and writes as safely as it does by default. All listen on
127.0.0.1 only and are ended by their process ids.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import sqlalchemy as sa

from tests.benchmarks.databases import SYNC_DRIVERS
from tests.conftest import HANG, ROOT, SECRET
from tests.ports import reserved_port

ESTABLISHED = "01"
"""What /proc/net/tcp calls a connection that both ends hold."""


def wait_for(condition: Callable[[], bool], what: str, *, pause: float = 0.02) -> float:
    """How many seconds it took until `condition` held. How long it should take is for a test to say."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > HANG:
            raise AssertionError(f"{what}: not within {HANG} s")
        time.sleep(pause)
    return time.monotonic() - begin


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_alive(pid: int) -> bool:
    """Whether this process still runs; one that ended and that nobody asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def memory_of(pid: int) -> int:
    """Resident memory in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


def open_files(pid: int) -> int:
    """How many a process has open, its connections among them."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def open_connections(port: int) -> int:
    """How many the server at this port holds."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)


@contextmanager
def connected(url: sa.URL) -> Iterator[sa.Connection]:
    """A connection of the test's own, past the platform; each statement commits by itself."""
    timeouts = {
        "sqlite": ["timeout"],
        "postgresql": ["connect_timeout"],
        "mariadb": ["connect_timeout", "read_timeout"],
    }
    engine = sa.create_engine(
        url.set(drivername=SYNC_DRIVERS[url.drivername]),
        poolclass=sa.NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args=dict.fromkeys(timeouts[url.drivername], HANG),
    )
    with engine.connect() as connection:
        yield connection


class DatabaseServer:
    """One database server of the test's own. `url` is that of an empty database on it."""

    name: str
    runs_as: str
    """The account that it runs as when we are root, because it refuses to be root or should."""
    programs: tuple[str, ...]
    admin: str
    first_database: str
    stop_signal: int

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=f"blog_{self.name}_"))
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._account = {"user": self.runs_as, "group": self.runs_as, "extra_groups": []}
            shutil.chown(self._folder, self.runs_as, self.runs_as)
        self._data = self._folder / "data"
        self._port = reserved_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._server_url = sa.URL.create(
            self.name, self.admin, host="127.0.0.1", port=self._port, database=self.first_database
        )
        self.url = self._server_url.set(database="blog")

    def __enter__(self) -> Self:
        try:
            self._run(self._prepare())
            self.start()
            self.make_database("blog")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.crash()
        shutil.rmtree(self._folder)

    @classmethod
    def program(cls, name: str) -> str | None:
        """Where this program is; distributions keep servers off the path."""
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
        folders = [*map(str, reversed(versions)), os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
        return shutil.which(name, path=os.pathsep.join(folders))

    @classmethod
    def is_installed(cls) -> bool:
        return all(cls.program(name) for name in cls.programs)

    def _prepare(self) -> list[str]:
        """The command that makes the data folder."""
        raise NotImplementedError

    def _serve(self) -> list[str]:
        """The command that serves it."""
        raise NotImplementedError

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, timeout=HANG, **self._account)
        assert done.returncode == 0, done.stdout + done.stderr

    def make_database(self, name: str) -> sa.URL:
        """A new empty database on this server."""
        with connected(self._server_url) as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self._server_url.set(database=name)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    @property
    def processes(self) -> list[int]:
        """The ids of all processes of this server, the one that starts the others first."""
        assert self._process is not None
        return [self._process.pid, *children(self._process.pid)]

    @property
    def answers(self) -> bool:
        try:
            with connected(self._server_url) as connection:
                return bool(connection.scalar(sa.text("SELECT 1")))
        except sa.exc.OperationalError:
            return False

    def start(self) -> None:
        """Start it, and return as soon as it answers."""
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                self._serve(), cwd=self._folder, stdout=log, stderr=log, start_new_session=True, **self._account
            )
        self._process = process

        def answers() -> bool:
            assert process.poll() is None, self.log
            return self.answers

        wait_for(answers, f"{self.name} answers")

    def stop(self) -> None:
        """Stop it in good order, though without waiting for its clients."""
        assert self._process is not None
        self._process.send_signal(self.stop_signal)
        self._process.wait(HANG)

    def crash(self) -> None:
        """End every process of it at once, as a loss of power would; stop() is not needed afterwards."""
        if self._process is None or self._process.poll() is not None:
            return
        processes = self.processes
        for pid in processes:
            self._signal(pid, signal.SIGKILL)
        self._process.wait(HANG)
        # PostgreSQL does not start while one of its former processes holds the shared memory.
        wait_for(lambda: not any(map(is_alive, processes)), f"{self.name} is gone")

    def freeze(self) -> None:
        """Stop every process of it in its tracks: connections stay, the kernel accepts new ones, nobody answers."""
        assert self._process is not None
        # Once the first is stopped, there are no new ones.
        self._signal(self._process.pid, signal.SIGSTOP)
        for pid in self.processes[1:]:
            self._signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in reversed(self.processes):
            self._signal(pid, signal.SIGCONT)

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class PostgreSQL(DatabaseServer):
    """PostgreSQL, with fsync and synchronous_commit on, as they are by default."""

    name = "postgresql"
    runs_as = "postgres"
    programs = ("initdb", "postgres")
    admin = "blog"
    first_database = "postgres"
    stop_signal = signal.SIGINT  # "fast": SIGTERM would wait for the platform to hang up

    def _prepare(self) -> list[str]:
        return [
            str(self.program("initdb")),
            *("--pgdata", str(self._data), "--username", self.admin, "--auth", "trust"),
            *("--encoding", "UTF8", "--no-locale"),
        ]

    def _serve(self) -> list[str]:
        return [
            str(self.program("postgres")),
            *("-D", str(self._data), "-p", str(self._port), "-k", str(self._folder), "-h", "127.0.0.1"),
        ]


class MariaDB(DatabaseServer):
    """MariaDB, with a log that is flushed at every commit, as it is by default."""

    name = "mariadb"
    runs_as = "mysql"
    programs = ("mariadb-install-db", "mariadbd")
    admin = "root"
    first_database = "mysql"
    stop_signal = signal.SIGTERM

    def _prepare(self) -> list[str]:
        return [
            str(self.program("mariadb-install-db")),
            *("--no-defaults", f"--datadir={self._data}", "--auth-root-authentication-method=normal"),
            *("--skip-test-db", "--skip-name-resolve"),
        ]

    def _serve(self) -> list[str]:
        return [
            str(self.program("mariadbd")),
            *("--no-defaults", f"--datadir={self._data}", f"--port={self._port}", "--bind-address=127.0.0.1"),
            *(f"--socket={self._folder / 'socket'}", f"--pid-file={self._folder / 'pid'}"),
            "--skip-name-resolve",
        ]


SERVERS: dict[str, type[DatabaseServer]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}


class Platform:
    """`python -m blog serve` in a folder of its own, on a port that stays the same from start to start.

    `settings` are environment variables without their prefix: `password_rounds=12`.
    """

    def __init__(self, folder: Path, url: sa.URL | None = None, **settings: object) -> None:
        self.port = reserved_port()
        self.address = f"http://127.0.0.1:{self.port}"
        url = url or sa.make_url(f"sqlite:///{folder / 'blog.db'}")
        given = {"secret_key": SECRET, "password_rounds": 4, "access_token_lifetime": "PT1H"} | settings
        given |= {"database_url": url.render_as_string(hide_password=False), "port": self.port}
        self._folder = folder
        self._settings = {f"BLOG_{name.upper()}": str(value) for name, value in given.items()}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        # pytest shows it only with a test that failed.
        log = self.log
        fault = log.find("Traceback")
        if fault != -1:
            print(
                f"--- the first fault of the platform at {self.address} ---\n{log[max(fault - 500, 0) : fault + 8000]}"
            )
        print(f"--- the end of what the platform at {self.address} said ---\n{log[-2000:]}")

    @property
    def log(self) -> str:
        return (self._folder / f"platform-{self.port}.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> float:
        """Start it, and say how many seconds later it answered for the first time."""
        begin = time.monotonic()
        with (self._folder / f"platform-{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "blog", "serve"],
                cwd=self._folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | self._settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that its workers can be killed with it
            )
        with httpx.Client(base_url=self.address, timeout=HANG) as client:

            def answers() -> bool:
                assert self.is_running, self.log[-4000:]
                try:
                    return client.get("/health").status_code < 500
                except httpx.TransportError:
                    return False

            wait_for(answers, "the platform answers", pause=0.01)
        return time.monotonic() - begin

    def kill(self) -> None:
        """kill -9, its workers too."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(HANG)

    def terminate(self) -> None:
        """Ask it to end, as an init system does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Its exit code, once it has ended; negative when a signal ended it."""
        assert self._process is not None
        return self._process.wait(HANG)

    def limit_file_size(self, size: int | None) -> None:
        """Let it write no file beyond this many bytes from now on: to it, the disk is full."""
        soft = resource.RLIM_INFINITY if size is None else size
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
