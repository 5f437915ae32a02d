"""Whatever stands in an address before its path, or in its query, is shown nowhere."""

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ernie_pipeline.utils.address import public_uri, without_secrets

MARK = "S3CR3T"
SCHEMES = ("http", "https", "postgresql", "postgresql+psycopg2", "mysql", "databricks", "sqlite", "ftp")
PLACES = (
    "{scheme}://{secret}@host/db",
    "{scheme}://me:{secret}@host:5000/db",
    "{scheme}://{secret}:pw@host/db",
    "{scheme}://me:{secret}@host/db?ssl=require#top",
    "{scheme}://host/db?password={secret}",
    "{scheme}://host/db?user=me&password={secret}&x=1",
    "{scheme}://me:pw@host/db#{secret}",
    "{scheme}://me:pw@host/db?user=a@b&password={secret}",
    "{scheme}:/me:{secret}@host/db",
    "{scheme}:///me:{secret}@host/db",
    "me:{secret}@host/db",
    "{secret}@host",
    "host:{secret}",
)
LOCAL_PLACES = ("sqlite:////home/db?key={secret}", "sqlite:///x.db#{secret}", "file:///tmp/x?token={secret}")

around = some.text(some.characters(codec="utf-8", exclude_characters="\n"), max_size=6)
secrets = some.builds(lambda before, after: before + MARK + after, around, around)


def placed(place: str, scheme: str, secret: str) -> str:
    if place.startswith("{scheme}:///me") and scheme == "sqlite":
        scheme = "http"  # of SQLite that is a file's path
    return place.format(scheme=scheme, secret=secret)


@given(some.sampled_from(PLACES + LOCAL_PLACES), some.sampled_from(SCHEMES), secrets, some.booleans())
def test_a_secret_is_shown_wherever_it_stands_and_whatever_is_in_it_never(
    place: str, scheme: str, secret: str, escaped: bool
) -> None:
    written = quote(secret, safe="") if escaped else secret
    uri = placed(place, scheme, written)
    assert MARK not in public_uri(uri)
    for form in {uri, written, secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}:
        assert MARK not in without_secrets(f"could not connect to '{form}' (timeout)", uri), form


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("postgresql://a:1,b:2/db?target_session_attrs=any", "postgresql://a:1,b:2/db"),
        ("postgresql:///mlflow?host=/run/postgresql", "postgresql:///mlflow"),
        ("databricks", "databricks"),
        ("./mlruns", "./mlruns"),
        ("file:./mlruns", "file:./mlruns"),
        ("sqlite:////home/a@b/x.db", "sqlite:////home/a@b/x.db"),
        ("http://host:s3cret/x", "http://***/x"),
        ("http:///me:s3cret@host/x", "http://host/x"),
        ("me:s3cret@host", "***"),
    ],
)
def test_what_is_shown_of_an_address(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown


def test_a_short_secret_is_masked_where_it_stands_alone() -> None:
    said = 'FATAL: role "a" does not exist, at a:b'
    assert without_secrets(said, "postgresql://a:b@host/db") == 'FATAL: role "***" does not exist, at ***'
