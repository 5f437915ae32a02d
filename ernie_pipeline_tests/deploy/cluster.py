"""A PostgreSQL of one's own: Debian's binaries, a temporary folder, a port of 127.0.0.1."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

USER, PASSWORD = "ernie", "for-tests-only"
WAIT_S = 30


def binaries() -> Path | None:
    """The folder of initdb and postgres, the newest version's; None where there is no PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda file: float(file.parts[-3]))
    return found[-1].parent if found else None


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@dataclass
class Cluster:
    """One PostgreSQL server. PostgreSQL refuses root, so for root it runs as somebody else, who owns the folder."""

    folder: Path
    port: int
    owner: str | None
    process: "subprocess.Popen[bytes] | None" = None
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environment = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": PASSWORD,
        }

    def make(self) -> None:
        """initdb, with a password that every connection must give."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self.owner:
            shutil.chown(self.folder, self.owner)
            shutil.chown(secret, self.owner)
        options = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}", "--no-sync", "--encoding=UTF8"]
        self._run("initdb", f"--pgdata={self.folder / 'data'}", *options)

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder}
        settings = [f"-c{key}={value}" for key, value in {**options, "fsync": "off"}.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._binary("postgres"), f"-D{self.folder / 'data'}", *settings],
                stdout=log,
                stderr=log,
                user=self.owner,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + WAIT_S
        while subprocess.run([self._binary("pg_isready"), "-q"], env=self._with_login()).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """A fast shutdown: every connection is cut, as by `systemctl restart postgresql`."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(WAIT_S)
            self.process = None

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql prints for it, unadorned."""
        return self._run("psql", "-XAtq", "-vON_ERROR_STOP=1", "-d", database, "-c", statement).strip()

    def run_file(self, file: Path) -> None:
        """A file of statements, as PostgreSQL's image runs those of docker-entrypoint-initdb.d."""
        self._run("psql", "-Xq", "-vON_ERROR_STOP=1", "-d", "postgres", statements=file.read_text())

    def _run(self, name: str, *arguments: str, statements: str = "") -> str:
        run = subprocess.run(
            [self._binary(name), *arguments],
            env=self._with_login(),
            user=self.owner,
            cwd=self.folder,
            input=statements,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def _with_login(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **self.environment}

    @staticmethod
    def _binary(name: str) -> str:
        folder = binaries()
        assert folder
        return str(folder / name)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A new, empty one, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ernie-postgres-"))  # not pytest's, which only root may enter
    cluster = Cluster(folder, free_ports(1)[0], _unprivileged())
    try:
        cluster.make()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> str | None:
    """Whom PostgreSQL runs as; None for whoever runs the tests."""
    if os.geteuid():
        return None
    users = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"
