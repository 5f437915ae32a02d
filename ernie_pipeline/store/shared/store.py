"""The artifact store of a home in a bucket: the bucket is the truth, the local folder a cache of it.

Every stage goes on reading local folders. What was built is published before anything below may use it.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ernie_pipeline.store.artifacts import MANIFEST, Artifact, ArtifactStore, Check, Provenance
from ernie_pipeline.store.aside import is_own_file, make_way
from ernie_pipeline.store.lock import sole_builder
from ernie_pipeline.store.pins import Pins
from ernie_pipeline.store.sealed import damaged_file, read_sealed
from ernie_pipeline.store.shared import history
from ernie_pipeline.store.shared.bucket import Bucket, BucketError, Version
from ernie_pipeline.store.shared.carried import Carrier, forget, forget_before, forget_jobs
from ernie_pipeline.store.shared.format import check_format
from ernie_pipeline.store.shared.lease import SECONDS, Lease
from ernie_pipeline.store.shared.pins import SharedPins
from ernie_pipeline.store.shared.publication import (
    DamagedError,
    Publication,
    damaged_object,
    download,
    publish,
    read_record,
)
from ernie_pipeline.utils.errors import PipelineError

TRIES = 5
"""How often a publication that another machine changes meanwhile is looked at again."""
UNPUBLISHED = ".shared/unpublished"
"""A mark for each artifact that was built here, and is not yet known to be in the bucket."""
KNOWN_BUILDS = ".shared/builds"
LEASES = "leases"

Key = tuple[str, str]
"""A stage and a fingerprint."""


@dataclass(frozen=True)
class PublishedArtifact(Artifact):
    """An artifact that is intact in the bucket, and not yet here: what it says is downloaded when it is asked for."""

    fetch: Callable[[], object] = object

    def json(self, name: str) -> Any:
        """The parsed JSON file `name` of the artifact. Raises `PipelineError` if it cannot be had as published."""
        try:
            self.fetch()
        except NotIntactError as error:
            raise PipelineError(f"{error.stage} {error.fingerprint}: {error}; run again") from error
        return super().json(name)


class SharedStore(ArtifactStore):
    """An `ArtifactStore` whose artifacts are in a bucket. `fetch`: whether what is found is downloaded at once, as a
    run does; a plan reads records and listings only."""

    def __init__(self, root: Path, bucket: Bucket, fetch: bool, lease_s: float = SECONDS):
        super().__init__(root)
        self.bucket, self._fetch_at_once, self._lease_s = bucket, fetch, lease_s
        self._leases: dict[Key, Lease] = {}
        self._seen: dict[Key, Version | None] = {}
        self._format_known = False

    def find(self, stage: str, fingerprint: str) -> tuple[Artifact | None, str]:
        """The artifact that is intact in the bucket, or None and the reason, as `ArtifactStore.find` gives it."""
        published, problem = self._published(stage, fingerprint)
        if published is None:
            return None, problem
        if not self._fetch_at_once:
            folder, manifest = self.folder(stage, fingerprint), published.manifest
            return PublishedArtifact(folder, manifest, fetch=lambda: self._local(stage, fingerprint, published)), ""
        try:
            return self._local(stage, fingerprint, published), ""
        except NotIntactError as error:
            return None, str(error)

    @contextmanager
    def sole_builder(self, stage: str, fingerprint: str, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the machine's lock of an artifact, and the lease of it among all machines."""
        lease = Lease(self.bucket, f"{LEASES}/{stage}-{fingerprint}", self._lease_s)
        what = f"{stage} {fingerprint}"
        with sole_builder(self.root, stage, fingerprint, on_wait):
            lease.acquire(
                lambda who: on_wait(f"{what} is being built by {who}; waiting for it, to reuse what it makes")
            )
            self._leases[stage, fingerprint] = lease
            try:
                yield
            finally:
                del self._leases[stage, fingerprint]
                lease.release()

    def build(
        self,
        made_from: Provenance,
        write: Callable[[Path], Iterable[Check] | None],
        note: str = "",
        cost: Callable[[Path], dict[str, Any]] = lambda folder: {},
    ) -> Artifact:
        """`ArtifactStore.build`, then publish; an artifact that another machine has published meanwhile is taken.

        Only within `sole_builder`. What an earlier run built here and could not publish is published now, not built
        again.
        """
        stage, fingerprint = made_from.stage, made_from.fingerprint
        mark = self.root / UNPUBLISHED / f"{stage}-{fingerprint}"
        left = super().find(stage, fingerprint)[0] if is_own_file(mark) else None
        if left is None:
            built = super().build(made_from, write, note, cost)
            make_way(mark, self.root).touch()
        else:
            built = Artifact(left.folder, left.manifest, reused=False, note=note)
        artifact = self._publish(built, stage, fingerprint)
        mark.unlink(missing_ok=True)
        return artifact

    @contextmanager
    def carried(self, stage: str, fingerprint: str, rows: Path | None) -> Iterator[None]:
        """Within it, a build finds what others left of this work, and leaves its own: see `carried.py`."""
        lease = self._leases[stage, fingerprint]
        with Carrier(self.bucket, self.root, (stage, fingerprint), lease.token, rows).at_work():
            yield

    def forget_unfinished(self, stage: str, fingerprint: str) -> None:
        """Remove what builds had kept, here and in the bucket. For its sole builder only."""
        super().forget_unfinished(stage, fingerprint)
        with suppress(BucketError):  # small; the next build of it removes it
            lease = self._leases.get((stage, fingerprint))
            if lease:
                forget_before(self.bucket, (stage, fingerprint), lease.token)
            else:
                forget(self.bucket, (stage, fingerprint))
            if not lease or lease.confirm():  # else another machine may follow a job
                forget_jobs(self.bucket, (stage, fingerprint))

    def check_bucket(self) -> None:
        """Raise `BucketError` for a bucket that is not there, denies access, or takes no notice of conditions."""
        self.bucket.check_conditions(f"{LEASES}/.probe-{uuid.uuid4().hex}")

    def pins(self, run: str) -> Pins:
        """What the steps of a run agree on, on whichever machines they are."""
        return SharedPins(self.root, run, self.bucket)

    def add_build(self, build: Mapping[str, Any]) -> None:
        """Add a build to the history that all machines share."""
        history.add_build(self.bucket, build)

    def known_builds(self, stage: str) -> list[dict[str, Any]]:
        """The builds of a stage on all machines."""
        self._check_format()
        return history.known_builds(self.bucket, stage, self.root / KNOWN_BUILDS)

    def _check_format(self) -> None:
        """Raise `PipelineError`, once asked, for a bucket that a newer version of this package has written in."""
        if not self._format_known:
            check_format(self.bucket)
            self._format_known = True

    def _published(self, stage: str, fingerprint: str) -> tuple[Publication | None, str]:
        """The publication, its objects there as they were written, or None and the reason."""
        self._check_format()
        for _ in range(TRIES):
            published, problem, version = read_record(self.bucket, stage, fingerprint)
            self._seen[stage, fingerprint] = version
            if published is None:
                return None, problem
            damaged = damaged_object(self.bucket, stage, fingerprint, published)
            if not damaged:
                return published, ""
            if read_record(self.bucket, stage, fingerprint)[2] == version:
                return None, f"artifact altered: {damaged}"
        return None, f"artifact altered: {damaged}"

    def _local(self, stage: str, fingerprint: str, published: Publication) -> Artifact:
        """A published artifact here: downloaded, unless it is here already, intact.

        Raises `NotIntactError` if what is in the bucket is not what was published.
        """
        if self._is_here(stage, fingerprint, published):
            return Artifact(self.folder(stage, fingerprint), published.manifest)
        if (stage, fingerprint) in self._leases:  # then the machine's lock is held
            return self._fetch(stage, fingerprint)
        with sole_builder(self.root, stage, fingerprint, lambda _: None):
            return self._fetch(stage, fingerprint)

    def _fetch(self, stage: str, fingerprint: str) -> Artifact:
        """What is published now, which another machine may have replaced since it was looked at."""
        for _ in range(TRIES):
            published, problem = self._published(stage, fingerprint)
            if published is None:
                break
            folder = self.folder(stage, fingerprint)
            if not self._is_here(stage, fingerprint, published):
                try:
                    download(self.bucket, stage, fingerprint, published, folder)
                except DamagedError as error:
                    problem = f"artifact altered: {error}"
                    continue
            return Artifact(folder, published.manifest)
        raise NotIntactError(stage, fingerprint, problem)

    def _is_here(self, stage: str, fingerprint: str, published: Publication) -> bool:
        folder = self.folder(stage, fingerprint)
        manifest, problem = read_sealed(folder / MANIFEST)
        same = not problem and manifest == published.manifest
        return same and not damaged_file(folder, manifest["files"], besides=[MANIFEST])

    def _publish(self, built: Artifact, stage: str, fingerprint: str) -> Artifact:
        """Publish what was built here, or take what was published first."""
        lease = self._leases[stage, fingerprint]
        for _ in range(TRIES):
            over = self._seen.get((stage, fingerprint))
            try:
                if publish(self.bucket, (stage, fingerprint), built.folder, lease.token, lease.confirm, over):
                    return built
            except FileNotFoundError as error:
                raise PipelineError(
                    f"{stage} {fingerprint} was removed by others from {built.folder} before all of it was in "
                    f"{self.bucket.address}; run again"
                ) from error
            # the lease ran out, or another machine has published; once we hold it again, one of the two is settled
            if not lease.confirm():
                lease.release()
                lease.acquire(lambda _: None)
            if self._published(stage, fingerprint)[0] and self._seen[stage, fingerprint] != over:
                return self._fetch(stage, fingerprint)
        raise PipelineError(
            f"{stage} {fingerprint} was built, but not published in {self.bucket.address}: other machines keep "
            "replacing it; run again, and it is published without being built again"
        )


class NotIntactError(PipelineError):
    """What was published is not there as it was; the text is the reason as `ArtifactStore.find` gives it."""

    def __init__(self, stage: str, fingerprint: str, reason: str):
        super().__init__(reason)
        self.stage, self.fingerprint = stage, fingerprint
