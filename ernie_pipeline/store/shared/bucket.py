"""Requests to a bucket: read, write, and write on a condition; tried again while they fail for a reason that passes.

Why obstore, and not fsspec: all that two machines agree on here stands on two requests, "write if nothing is there" and
"write if it is still what I saw" (If-None-Match and If-Match of S3, generations of Google's, ETags of Azure's).
obstore has both for all three, as `mode="create"` and `mode={"e_tag": ...}`, with an error of its own for each refusal.
fsspec (2026.2) has neither in its interface: `pipe_file(mode="create")` asks whether the object exists and then writes
("non-atomic but simple way", says its source), and there is no write on a version that was seen.

An answer may be lost after the bucket did what was asked. So a condition that fails is not yet a defeat: the object is
read back, and if it has the very bytes that were to be written, it was this writer's own request that came first.
Callers give each conditional write bytes of its own.
"""

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from ernie_pipeline.utils.errors import PipelineError, first_line

PATIENCE_S = 120.0
"""How long a request is tried again before the bucket counts as away; the first one of a process, `FIRST_S`."""
FIRST_S = 15.0
LONGEST_PAUSE_S = 5.0
PART_BYTES = 8 * 2**20
MOST_PARTS = 9_000
"""S3 takes 10,000."""

STATUS = re.compile(r"status code: (\d{3})")
CREDENTIALS = ("credential", "169.254.169.254", "metadata")

ENDPOINT = (
    "the address of its server in the environment (AWS_ENDPOINT_URL for S3) is none; write it with its scheme, as in "
    "http://127.0.0.1:9000"
)
"""obstore 0.12 panics at one that it cannot read, with an exception of Rust's that is no `Exception`."""

T = TypeVar("T")
Version = dict[str, str]
"""What tells an object's state from an earlier one: its ETag and, where the provider has them, its generation."""


class BucketError(PipelineError):
    """The bucket refuses, or has not answered for long."""


@dataclass(frozen=True)
class Stored:
    """An object's bytes and its version, for `replace`."""

    body: bytes
    version: Version


@dataclass(frozen=True)
class Listed:
    """An object's size in bytes and its ETag, as a listing shows them."""

    size: int
    etag: str


class Bucket:
    """The objects below an address. It is opened at the first request: a process that forks has no open one before."""

    def __init__(self, address: str, patience_s: float = PATIENCE_S, read_timeout_s: float = 30.0):
        self.address, self._patience_s, self._read_timeout_s = address.rstrip("/"), patience_s, read_timeout_s
        self._opened: Any = None
        self._answered = False

    def get(self, key: str) -> Stored | None:
        """The object, None if there is none."""

        def request() -> Stored:
            import obstore

            got = obstore.get(self._store(), key)
            return Stored(bytes(got.bytes()), _version(got.meta))

        try:
            return self._tried(request)
        except FileNotFoundError:
            return None

    def create(self, key: str, body: bytes) -> Version | None:
        """Write the object if there is none; its version, or None if another's is there."""
        return self._conditional(key, body, "create")

    def replace(self, key: str, body: bytes, version: Version) -> Version | None:
        """Write the object if it is still that version; the new version, or None if it is not."""
        return self._conditional(key, body, {**version})

    def put(self, key: str, content: bytes | Path) -> str:
        """Write the object, whatever is there, in parts if it is large; its ETag."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        chunk = max(PART_BYTES, size // MOST_PARTS)
        return self._tried(lambda: self._put(key, content, chunk_size=chunk), writes=True).get("e_tag", "")

    def list(self, below: str) -> dict[str, Listed]:
        """The objects whose keys begin with the folder `below`, by the rest of the key."""

        def request() -> dict[str, Listed]:
            import obstore

            found = [meta for page in obstore.list(self._store(), prefix=below) for meta in page]
            return {m["path"].removeprefix(f"{below}/"): Listed(m["size"], m["e_tag"] or "") for m in found}

        return self._tried(request)

    def read(self, key: str) -> Iterator[bytes]:
        """The object's bytes, piece by piece: one try. Raises `FileNotFoundError`, or an error that `passes` knows."""
        import obstore

        yield from (bytes(piece) for piece in obstore.get(self._store(), key).stream())

    def download(self, key: str, file: Path) -> str:
        """Write the object's bytes into a file, and give their SHA-256; "" if there is no such object."""

        def request() -> str:
            found = hashlib.sha256()
            with file.open("wb") as stream:
                for piece in self.read(key):
                    found.update(piece)
                    stream.write(piece)
            return found.hexdigest()

        file.parent.mkdir(parents=True, exist_ok=True)
        return self._or_missing(request)

    def hash_of(self, key: str) -> str:
        """The SHA-256 of the object's bytes; "" if there is no such object."""

        def request() -> str:
            found = hashlib.sha256()
            for piece in self.read(key):
                found.update(piece)
            return found.hexdigest()

        return self._or_missing(request)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        import obstore

        for key in keys:
            try:
                self._tried(lambda key=key: obstore.delete(self._store(), key), writes=True)  # type: ignore[misc]
            except FileNotFoundError:
                continue

    def check_conditions(self, key: str) -> None:
        """Raise `BucketError` if the server takes no notice of conditions, as some that speak S3 do.

        Then two machines would build over one another. `key`: of an object to try it with, which is removed.
        """
        first = self.create(key, b"first")
        refused = self.create(key, b"second") is None
        second = self.replace(key, b"third", first) if first else None
        honoured = bool(refused and second and first and self.replace(key, b"fourth", first) is None)
        self.delete([key])
        if not honoured:
            raise BucketError(
                f"{self.address}: the server writes without regard to conditions (If-None-Match, If-Match), so "
                "machines that share it would overwrite each other; use one that honours them"
            )

    def _or_missing(self, request: Callable[[], str]) -> str:
        try:
            return self._tried(request)
        except FileNotFoundError:
            return ""

    def _conditional(self, key: str, body: bytes, mode: Any) -> Version | None:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return self._tried(lambda: self._put(key, body, mode=mode), writes=True)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            there = self.get(key)
            if there is None:
                self._exists()
            return there.version if there and there.body == body else None

    def _exists(self) -> None:
        """Raise `BucketError` if it is the bucket that is missing: a write then fails as if the object were."""
        self.list("leases/-")

    def _put(self, key: str, content: bytes | Path, **options: Any) -> Version:
        import obstore

        return _version(obstore.put(self._store(), key, content, **options))

    def _store(self) -> Any:
        if self._opened is None:
            self._opened = _open(self.address, self._read_timeout_s)
        return self._opened

    def _tried(self, request: Callable[[], T], writes: bool = False) -> T:
        """What the request gives, tried again with growing pauses while its failure may pass.

        `writes`: whether it changes the bucket, which credentials that may read it need not be allowed to.
        """
        began, pause = time.monotonic(), 0.1
        while True:
            try:
                answer = request()
                self._answered = True
                return answer
            except BaseException as error:
                if type(error).__name__ == "PanicException":
                    raise BucketError(f"{self.address}: {ENDPOINT}") from error
                if not isinstance(error, Exception):
                    raise
                if isinstance(error, PipelineError) or not passes(error):
                    raise self._told(error, writes) from error
                patience = self._patience_s if self._answered else min(FIRST_S, self._patience_s)
                if time.monotonic() - began + pause > patience:
                    raise self._away(error) from error
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _told(self, error: Exception, writes: bool) -> Exception:
        """The sentence for a refusal; an error that callers look for stays as it is."""
        from obstore.exceptions import GenericError, InvalidPathError, PermissionDeniedError, UnauthenticatedError

        text, status = str(error), _status(error)
        if self._is_about_credentials(error):
            return self._away(error)
        if isinstance(error, (PermissionError, PermissionDeniedError, UnauthenticatedError)) or status in (401, 403):
            if writes and self._can_be_read():
                return BucketError(
                    f"{self.address} can be read with the credentials in the environment, but not written: plan, "
                    "verify, export and serving only read it; for a run, which writes there, use credentials that may "
                    "list, read, write and delete"
                )
            return BucketError(
                f"{self.address}: access is denied; check the credentials in the environment (AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY for S3) and that they may list, read, write and delete there"
            )
        if "NoSuchBucket" in text or ("list request" in text and status == 404):
            return BucketError(f"{self.address}: there is no such bucket; make it, or correct ERNIE_PIPELINE_HOME")
        if isinstance(error, InvalidPathError):
            return BucketError(
                f"{self.address} has an object whose name cannot be listed: {first_line(error)[:400]}; remove that "
                "object, which is not of ernie_pipeline"
            )
        if isinstance(error, GenericError):
            return BucketError(f"{self.address} refuses a request: {first_line(error)[:400]}")
        return error

    def _can_be_read(self) -> bool:
        """Whether a listing is answered now: one try."""
        import obstore

        try:
            next(iter(obstore.list(self._store(), prefix="leases/-")), None)
        except Exception:
            return False
        return True

    def _is_about_credentials(self, error: Exception) -> bool:
        """Whether none were found. The text has the object's address in it, whose own names say nothing of that."""
        text = str(error)
        for name in self.address.split("/"):
            if any(word in name for word in CREDENTIALS):
                text = text.replace(name, "")
        return any(word in text for word in CREDENTIALS)

    def _away(self, error: Exception) -> BucketError:
        if self._is_about_credentials(error):
            return BucketError(
                f"{self.address}: no credentials were found; set those of the bucket in the environment "
                "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3)"
            )
        status = _status(error)
        why = f"it answers with status {status}" if status else "no answer"
        return BucketError(
            f"{self.address} cannot be reached ({why}); check the network and, for a server other than the provider's, "
            "its address in AWS_ENDPOINT_URL, then run again: what was finished is kept"
        )


def passes(error: Exception) -> bool:
    """Whether the reason of a failure may pass: no answer, a cut one, an overloaded server; not a refusal."""
    from obstore.exceptions import BaseError, GenericError

    if not isinstance(error, (BaseError, ConnectionError, TimeoutError)):
        return False
    if isinstance(error, BaseError) and type(error) is not GenericError:
        return False
    status = _status(error)
    return status is None or status >= 500 or status in (408, 409, 429)


def _status(error: Exception) -> int | None:
    found = STATUS.search(str(error))
    return int(found[1]) if found else None


def _version(meta: Any) -> Version:
    return {key: meta[key] for key in ("e_tag", "version") if meta.get(key)}


def _open(address: str, read_timeout_s: float) -> Any:
    """obstore's store. Secrets and the endpoint are read by it from the environment, and are nowhere in ours."""
    try:
        from obstore.store import from_url
    except ModuleNotFoundError:
        raise BucketError(
            f"ERNIE_PIPELINE_HOME = {address!r} needs obstore, which is not installed: "
            'pip install "ernie_pipeline[bucket]"'
        ) from None
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=read_timeout_s),
        "timeout": timedelta(hours=6),  # of a whole request: a large file over a slow line
        "allow_http": True,  # only where AWS_ENDPOINT_URL says http://
    }
    retries: dict[str, Any] = {"max_retries": 1, "retry_timeout": timedelta(seconds=10)}  # the rest is done here
    try:
        return from_url(address, client_options=options, retry_config=retries)  # type: ignore[arg-type]
    except Exception as error:  # an address or a variable that it cannot read
        raise BucketError(f"{address}: {first_line(error)}; correct ERNIE_PIPELINE_HOME or the environment") from error
