"""What a build that is cut short leaves for the next one, on whichever machine that is: checkpoints and kept rows.

While a build is at work, a thread looks every few seconds at its local folders and writes what is new into the bucket.

Checkpoints: `unfinished/<stage>/<fingerprint>/<fencing token>/` has the files as objects named by their SHA-256, and
last the object `index`, which says which file has which. So what an index lists was whole at one time, and an owner
that lost its lease writes where its successor does not look.

Rows: `rows/<set>/<file>.<first byte>` has complete lines that a process appended. Other machines keep each as a file of
its own; rows that were lost or altered are made again, as `row_cache.py` does.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ernie_pipeline.store.artifacts import UNFINISHED as LOCAL_UNFINISHED
from ernie_pipeline.store.aside import make_way
from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.store.readable import read_file
from ernie_pipeline.store.sealed import discard
from ernie_pipeline.store.shared.bucket import Bucket, BucketError
from ernie_pipeline.store.shared.publication import side_by_side
from ernie_pipeline.store.shared.records import is_inside, packed, unpacked
from ernie_pipeline.utils.errors import PipelineError, disk_full_sentence, is_disk_full

UNFINISHED, ROWS = "unfinished", "rows"
JOBS = "jobs"
"""Below it, `<stage>-<fingerprint>/`: what steps and jobs that share no disk know of each other (launch/modal)."""
INDEX = "index"
TOKEN = "token"
EVERY_S = 5.0
NUMBER = re.compile("[0-9]{1,20}")

State = tuple[int, int]
"""A file's size in bytes and when it was changed, in ns."""


class Carrier:
    """Carries the unfinished work of the artifact `key`, a stage and a fingerprint, and the rows in the folder `rows`.

    `root` is the local store, `token` the fencing token of the lease under which this build works. `below`: the folder
    of keys of the checkpoints, where it is not that of the build.
    """

    def __init__(
        self, bucket: Bucket, root: Path, key: tuple[str, str], token: int, rows: Path | None, below: str = ""
    ):
        self._bucket, self._root, self._key, self._token, self._rows = bucket, root, key, token, rows
        self._below = below or _below(key)
        self._folder = root / LOCAL_UNFINISHED / key[0] / key[1]
        self._token_file = root / ".shared" / "carried" / f"{key[0]}-{key[1]}.{TOKEN}"
        self._hashes: dict[str, tuple[State, str]] = {}
        self._stored: set[str] = set()
        self._listed: dict[str, str] = {}
        self._sent: dict[str, int] = {}

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Bring what others left, then send what this build leaves, until it ends."""
        self.bring()
        stop = threading.Event()
        thread = threading.Thread(target=self._send_until, args=(stop,), name="carrier", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            with suppress(BucketError, OSError):  # the build's own error, or its success, matters more
                self.send()

    def bring(self) -> None:
        """Make the local folders hold what was left in the bucket, where that goes beyond what is here.

        Raises `PipelineError` when the disk is full.
        """
        try:
            self._bring_unfinished()
            if self._rows:
                self._bring_rows(self._rows)
        except OSError as error:
            if is_disk_full(error):
                raise PipelineError(f"{self._key[0]}: {disk_full_sentence(str(self._root))}") from error
            raise

    def send(self) -> None:
        """Write what is new in the local folders into the bucket."""
        if self._rows:
            self._send_rows(self._rows)
        self._send_unfinished()

    def _send_until(self, stop: threading.Event) -> None:
        while not stop.wait(EVERY_S):
            with suppress(BucketError, OSError):  # what is not there now is sent the next time; a file may go meanwhile
                self.send()

    def _bring_unfinished(self) -> None:
        below = self._below
        indexed = [name for name in self._bucket.list(below) if name.partition("/")[2] == INDEX]
        last = max(map(_token_of, indexed), default=0)
        if last > self._local_token():
            there = self._bucket.get(f"{below}/{last}/{INDEX}")
            files = (unpacked(there.body) or {}) if there else {}
            discard(self._folder)
            inside = [name for name in files if is_inside(name)]
            side_by_side(lambda name: self._bring_file(f"{below}/{last}", name, files[name]), inside)
        make_way(self._token_file, self._root).write_text(str(self._token))

    def _bring_file(self, below: str, name: str, wanted: str) -> None:
        if self._bucket.download(f"{below}/{wanted}", self._folder / name) != wanted:
            (self._folder / name).unlink(missing_ok=True)  # its reader passes over a checkpoint that is not whole

    def _local_token(self) -> int:
        """Under which token the local folder was last worked on; 0 if there is none, or it cannot be told."""
        try:
            return int(read_file(self._token_file)) if self._folder.is_dir() else 0
        except (OSError, ValueError):
            return 0

    def _send_unfinished(self) -> None:
        files = {p.relative_to(self._folder).as_posix(): p for p in sorted(self._folder.rglob("*")) if p.is_file()}
        whole = {name: file for name, file in files.items() if not any(part[0] == "." for part in Path(name).parts)}
        hashes = {name: self._hash_of(name, file) for name, file in whole.items()}
        if hashes == self._listed:
            return
        below = f"{self._below}/{self._token}"
        new = {found: whole[name] for name, found in hashes.items() if found not in self._stored}
        side_by_side(lambda found: self._bucket.put(f"{below}/{found}", new[found]), new)
        self._bucket.put(f"{below}/{INDEX}", packed(hashes))
        self._listed, going = hashes, (self._stored | {*new}) - {*hashes.values()}
        self._bucket.delete([f"{below}/{found}" for found in going])
        self._stored = {*hashes.values()}

    def _hash_of(self, name: str, file: Path) -> str:
        entry = file.stat()
        state = (entry.st_size, entry.st_mtime_ns)
        if self._hashes.get(name, (None, ""))[0] != state:
            self._hashes[name] = (state, sha256_of(file))
        return self._hashes[name][1]

    def _bring_rows(self, folder: Path) -> None:
        below = f"{ROWS}/{folder.name}"

        def bring(name: str) -> None:
            origin, _, first = name.rpartition(".")
            if (
                not _is_part(name)
                or (folder / f"{origin}.jsonl").is_file()
                or (folder / f"{origin}.{first}.jsonl").is_file()
            ):
                return
            there = self._bucket.get(f"{below}/{name}")
            if there:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{origin}.{first}.jsonl").write_bytes(there.body)

        side_by_side(bring, self._bucket.list(below))

    def _send_rows(self, folder: Path) -> None:
        for file in sorted(folder.glob("*.jsonl")):
            if "." in file.stem:  # came from the bucket
                continue
            sent = self._already_sent(folder, file.stem)
            with file.open("rb") as lines:
                lines.seek(sent)
                new = lines.read()
            whole = new[: new.rfind(b"\n") + 1]
            if whole:
                self._bucket.put(f"{ROWS}/{folder.name}/{file.stem}.{sent}", whole)
                self._sent[file.stem] = sent + len(whole)

    def _already_sent(self, folder: Path, stem: str) -> int:
        """How many bytes of a file are in the bucket, whichever process sent them."""
        if stem not in self._sent:
            listed = self._bucket.list(f"{ROWS}/{folder.name}")
            parts = [(name.rpartition("."), entry.size) for name, entry in listed.items() if _is_part(name)]
            ends = [int(first) + size for (origin, _, first), size in parts if origin == stem]
            self._sent[stem] = max(ends, default=0)
        return self._sent[stem]


def forget(bucket: Bucket, key: tuple[str, str]) -> None:
    """Remove what any build of the artifact left in the bucket."""
    bucket.delete([f"{_below(key)}/{name}" for name in bucket.list(_below(key))])


def forget_before(bucket: Bucket, key: tuple[str, str], token: int) -> None:
    """The same, of builds up to this token: one that took over since is left alone."""
    names = [name for name in bucket.list(_below(key)) if 0 < _token_of(name) <= token]
    bucket.delete([f"{_below(key)}/{name}" for name in names])


def forget_jobs(bucket: Bucket, key: tuple[str, str]) -> None:
    """Remove what steps and jobs of the artifact wrote to each other."""
    below = f"{JOBS}/{key[0]}-{key[1]}"
    bucket.delete([f"{below}/{name}" for name in bucket.list(below)])


def _token_of(name: str) -> int:
    """The fencing token in the name of an object of an unfinished build; 0 for one that others have put there."""
    token = name.partition("/")[0]
    return int(token) if "/" in name and NUMBER.fullmatch(token) else 0


def _is_part(name: str) -> bool:
    """Whether an object has rows: others put theirs there too, such as a marker of a folder."""
    origin, _, first = name.rpartition(".")
    return bool(origin and "/" not in name and NUMBER.fullmatch(first))


def _below(key: tuple[str, str]) -> str:
    return f"{UNFINISHED}/{key[0]}/{key[1]}"
