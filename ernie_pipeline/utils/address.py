"""Addresses of servers and databases, and what must be in no error, log, page or file: whatever may be a secret.

A user, a password or a token may stand anywhere before the path, and after it in the query; and they are pasted with
all kinds of characters in them, whatever the standard says. So nothing before the path is shown but what is a scheme,
and what can only be a host and a port.
"""

import re
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

MASK = "***"
SQLITE = "sqlite:///"
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
HOST = re.compile(r"(?:[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")
"""A name or an address, and a port; PostgreSQL's addresses may have several, parted by commas."""
LOCAL = frozenset({"sqlite", "file"})
"""What is on this machine, with a path and nothing before it."""
SHORT = 4
"""Characters below which a secret is masked only where it stands alone: else every "a" of a message would be one."""


def public_uri(uri: str) -> str:
    """The address without what may be a secret: what may be stored, logged and shown.

    Without "://" it is a name, a path or "file:" with a path; of anything else nothing is shown.
    """
    scheme, rest = _scheme_and_rest(uri)
    if not scheme:
        shown = _before_query(uri)
        return MASK if "@" in uri or ":" in shown.removeprefix("file:") else shown
    if _is_local(scheme, rest):
        return f"{scheme}://{_before_query(rest)}"
    authority, path = _authority_and_path(rest)
    return f"{scheme}://{_host(authority)}{path}"


def without_secrets(text: str, uri: str) -> str:
    """A text, such as another library's message, in which nothing of the address stands that `public_uri` hides."""
    text = text.replace(uri, public_uri(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        whole = re.escape(secret) if len(secret) >= SHORT else rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])"
        text = re.sub(whole, MASK, text)
    return text


def sqlite_file(uri: str) -> Path:
    """The file that MLflow opens for an SQLite address: SQLAlchemy takes %20 for a space."""
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0]))


def local_folder(location: str) -> Path | None:
    """The path of a folder on this machine, given as a path or as "file:"; None for a place elsewhere."""
    place = urlsplit(location)
    return Path(unquote(place.path)) if place.scheme in ("", "file") else None


def _scheme_and_rest(uri: str) -> tuple[str, str]:
    scheme = SCHEME.match(uri)
    return (scheme[0], uri[scheme.end() + len("://") :]) if scheme else ("", uri)


def _is_local(scheme: str, rest: str) -> bool:
    """Whether it is a path: a local database or folder has no login, but may well have an @ in its path."""
    return rest.startswith("/") and (scheme.partition("+")[0] in LOCAL or "@" not in rest)


def _before_query(rest: str) -> str:
    return re.split(r"[?#]", rest, maxsplit=1)[0]


def _authority_and_path(rest: str) -> tuple[str, str]:
    """What stands before the path, and the path. The login ends with the last @, whatever is in it.

    An @ behind a "?" or "#" may be in the query, or end a password with such a character in it: nothing is shown then.
    """
    login, at, after = rest.rpartition("@")
    if re.search(r"[?#]", login):
        return MASK, ""
    host, slash, path = _before_query(after).partition("/")
    return f"{login}{at}{host}", slash + path


def _host(authority: str) -> str:
    """The hosts and ports at the end of it, or the mask where they may be something else."""
    hosts = authority.rpartition("@")[2]
    return hosts if all(HOST.fullmatch(host) for host in hosts.split(",")) else MASK


def _secrets(uri: str) -> set[str]:
    """Every part of the address that may be a secret: as it stands there, as it is meant, and as others write it."""
    scheme, rest = _scheme_and_rest(uri)
    login = "" if _is_local(scheme, rest) else rest.rpartition("@")[0]
    queries = re.split(r"[?#]", rest)[1:]
    pairs = [pair for query in queries for pair in re.split("[&;]", query)]
    parts = [login, *login.partition(":")[::2], *queries, *pairs, *(pair.partition("=")[2] for pair in pairs)]
    if MASK in public_uri(uri):
        parts += [rest, rest.partition(":")[2], *re.split("[:@/?#]", rest)]
    meant = {form for part in parts for form in (part, unquote(part), unquote_plus(part))}
    return {form for part in meant for form in (part, quote(part), quote(part, safe=""), quote_plus(part)) if form}
