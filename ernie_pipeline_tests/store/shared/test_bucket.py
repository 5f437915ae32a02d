"""Requests: conditions hold, failures that pass are tried again, and those that do not are told in one sentence."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ernie_pipeline.store.hashing.file_hash import sha256_of
from ernie_pipeline.store.shared.bucket import Bucket, BucketError
from ernie_pipeline_tests.store.shared.machines import put_object
from ernie_pipeline_tests.store.shared.server import KEYS, Server


def test_what_is_there_is_not_created_again_and_what_changed_is_not_replaced(bucket: Bucket) -> None:
    assert bucket.get("a/b") is None
    first = bucket.create("a/b", b"one")
    assert first
    assert bucket.create("a/b", b"two") is None
    second = bucket.replace("a/b", b"two", first)
    assert second
    assert bucket.replace("a/b", b"three", first) is None
    stored = bucket.get("a/b")
    assert stored
    assert (stored.body, stored.version) == (b"two", second)
    assert {name: listed.size for name, listed in bucket.list("a").items()} == {"b": 3}
    bucket.delete(["a/b", "a/b", "never/there"])
    assert bucket.list("a") == {}
    assert bucket.replace("a/b", b"four", second) is None


def test_of_many_writers_at_once_one_wins(bucket: Bucket) -> None:
    with ThreadPoolExecutor(8) as threads:
        created = [*threads.map(lambda n: bucket.create("race", b"%d" % n), range(8))]
        [version] = [version for version in created if version]
        assert version
        replaced = [*threads.map(lambda n: bucket.replace("race", b"new %d" % n, version), range(8))]
    assert sum(version is not None for version in replaced) == 1


@pytest.mark.parametrize("kind", ["slow", "failing", "lost", "repeated"])
def test_a_conditional_write_whose_answer_is_late_lost_or_doubled_is_known_as_ones_own(
    server: Server, bucket: Bucket, kind: str
) -> None:
    server.fail({"kind": kind, "match": "PUT", "times": 2, "seconds": 0.2})
    first = bucket.create("key", b"mine")
    assert first
    server.fail({"kind": kind, "match": "PUT", "times": 2, "seconds": 0.2})
    second = bucket.replace("key", b"mine again", first)
    assert second
    assert bucket.replace("key", b"stale", first) is None
    assert bucket.create("key", b"another's") is None


def test_reads_that_fail_are_cut_off_or_hang_are_made_again(server: Server, address: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    file, bucket = tmp_path / "copy", Bucket(address, patience_s=20, read_timeout_s=1)
    bucket.put("large", content)
    kinds = ("torn", "failing", "lost", "slow")
    server.fail(*({"kind": kind, "match": "GET .*large", "seconds": 3} for kind in kinds))
    assert bucket.download("large", file) == sha256_of(file)
    assert file.read_bytes() == content
    assert [line.split()[-1] for line in server.requests() if "GET" in line][:4] == [*kinds]
    assert bucket.download("nothing", tmp_path / "none") == ""


def test_a_large_file_goes_up_in_parts(server: Server, bucket: Bucket, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"0123456789abcdef" * (20 * 2**16))
    server.fail({"kind": "failing", "match": "PUT .*large", "times": 2})
    bucket.put("large", file)
    assert bucket.hash_of("large") == sha256_of(file)
    assert sum("PUT" in line for line in server.requests()) >= 3


def said(bucket: Bucket) -> str:
    with pytest.raises(BucketError) as caught:
        bucket.create("key", b"body")
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert not any(secret in sentence for secret in KEYS.values())
    return sentence


def test_a_bucket_that_is_not_there_is_named(server: Server) -> None:
    assert said(Bucket("s3://nowhere/home")).startswith("s3://nowhere/home: there is no such bucket; ")
    with pytest.raises(BucketError, match="there is no such bucket"):
        Bucket("s3://nowhere/home").list("store")


def test_denied_access_is_told(server: Server, bucket: Bucket) -> None:
    server.fail({"kind": "denied", "times": 9})
    assert "access is denied; check the credentials" in said(bucket)
    for request in (lambda: bucket.list("store"), lambda: bucket.get("key"), lambda: bucket.delete(["key"])):
        with pytest.raises(BucketError, match="access is denied"):
            request()


def test_credentials_that_may_only_read_are_told_as_such(server: Server, bucket: Bucket, address: str) -> None:
    assert bucket.create("key", b"body")
    server.fail({"kind": "denied", "match": "^(PUT|POST|DELETE)", "times": 99})
    reader = Bucket(address)
    assert reader.get("key")
    for write in (
        lambda: reader.create("other", b""),
        lambda: reader.put("key", b""),
        lambda: reader.delete(["key"]),
        lambda: Bucket(address).check_conditions("probe"),
    ):
        with pytest.raises(BucketError, match="can be read with the credentials in the environment, but not written"):
            write()
    assert [*reader.list("")] == ["key"]


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:9000", "nonsense", "http://", "http://hush:x", "http://127.0.0.1:99999"]
)
def test_an_address_of_a_server_that_is_none_is_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    sentence = said(bucket)
    assert "AWS_ENDPOINT_URL for S3) is none; write it with its scheme, as in http://127.0.0.1:9000" in sentence
    assert "hush" not in sentence


def test_without_credentials_it_says_which_to_set(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9/metadata")
    monkeypatch.setattr("ernie_pipeline.store.shared.bucket.FIRST_S", 1.0)
    assert "no credentials were found; set those of the bucket" in said(bucket)


def test_a_server_that_only_fails_is_told_after_a_while(server: Server, address: str) -> None:
    server.fail({"kind": "failing", "times": 10**6})
    began = time.monotonic()
    assert f"{address} cannot be reached (it answers with status 503)" in said(Bucket(address, patience_s=2))
    assert time.monotonic() - began < 5


def test_a_server_that_is_away_is_told(server: Server, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert f"{address} cannot be reached (no answer)" in said(Bucket(address, patience_s=1))


def test_an_address_that_cannot_be_read_is_told(server: Server) -> None:
    assert "correct ERNIE_PIPELINE_HOME" in said(Bucket("nonsense://x"))


def test_a_server_without_conditions_is_refused(server: Server, bucket: Bucket) -> None:
    bucket.check_conditions("probe")
    assert bucket.get("probe") is None
    server.fail({"kind": "drops_conditions", "times": 99})
    with pytest.raises(BucketError, match="without regard to conditions"):
        bucket.check_conditions("probe")
    assert bucket.get("probe") is None


@pytest.mark.parametrize("name", ["team-metadata", "credentials-of-none"])
def test_names_that_look_like_a_lack_of_credentials_are_names(server: Server, name: str) -> None:
    bucket = Bucket(f"{server.make_bucket(name)}/metadata/credential", patience_s=1)
    assert bucket.get("key") is None
    assert bucket.create("key", b"body")
    server.fail({"kind": "denied", "match": "PUT", "times": 1})
    assert "can be read with the credentials in the environment, but not written" in said(bucket)
    server.fail({"kind": "failing", "match": "PUT", "times": 50})
    assert "cannot be reached (it answers with status 503)" in said(bucket)


def test_an_object_whose_name_cannot_be_listed_is_named(server: Server, address: str, bucket: Bucket) -> None:
    put_object(server, f"{address}/store//x")
    with pytest.raises(BucketError, match=r"name cannot be listed: .*store//x.*remove that object"):
        bucket.list("store")
