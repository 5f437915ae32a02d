"""A stand-in of the Hugging Face hub on loopback, as far as `huggingface_hub` 1.x speaks to it to publish a model.

The contract, taken from that library's source; each refusal has the status and the header X-Error-Code (or
X-Error-Message) by which `hf_raise_for_status` tells it from others:

    GET  /api/whoami-v2                            name, orgs [name, roleInOrg], auth.accessToken.role; 401
    POST /api/repos/create                         name, organization, visibility; 403 another's namespace, 409 exists
    POST /api/validate-yaml                        the header of README.md; 400 with errors [message]
    GET  /api/models/ID[/revision/REV][?blobs=1]   sha, private, siblings [rfilename; size, blobId, lfs]
    GET  /api/models/ID/auth-check/write           403 for who may not
    GET  /api/models/ID/refs                       branches, tags [name, ref, targetCommit]
    GET  /api/models/ID/tree/REV                   files [path, size, oid, lfs]
    POST /api/models/ID/preupload/REV              for each file uploadMode regular or lfs (not text, or above 10 MB),
                                                   oid of what is there
    POST /ID.git/info/lfs/objects/batch            an upload's address for what is not stored yet, none for the rest
    PUT  /lfs/SHA256                               the content, held against its hash
    POST /api/models/ID/commit/REV                 lines: header (summary, parentCommit), file, lfsFile, deletedFile;
                                                   all of it or nothing; 412 when the branch is not at parentCommit
    POST /api/models/ID/tag/REV                    tag; 409 exists
    GET, HEAD /ID/resolve/REV/PATH                 the file; large ones by a redirect with X-Linked-ETag, -Size

A repository of another user that is private is not found (404, RepoNotFound); without a token, or for a missing one,
401. Xet, by which the real hub takes large files from clients that have `hf_xet`, is not spoken here:
HF_HUB_DISABLE_XET=1 makes the library use LFS.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "other")
RELATIONS = ("adapter", "finetune", "merge", "quantized")
LARGE = 10_000_000
TOKENS = {
    "hf_writes": {"name": "me", "role": "write", "orgs": {"lab": "write", "readers": "read"}},
    "hf_reads": {"name": "me", "role": "read", "orgs": {}},
    "hf_other": {"name": "other", "role": "write", "orgs": {}},
}


class RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str = "", message: str = "", **values: Any):
        super().__init__(message)
        self.status, self.values = status, {"error": message, **values}
        self.headers = {"X-Error-Code": code} if code else {"X-Error-Message": message} if message else {}


@dataclass
class Repository:
    """`commits`: oid to (message, {path: (content, whether it is kept by LFS)}), oldest first; the last is main."""

    private: bool
    commits: dict[str, tuple[str, dict[str, tuple[bytes, bool]]]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the newest commit, without what the hub itself put there."""
        return {path: content for path, (content, _) in self.at("main").items() if path != ".gitattributes"}

    def at(self, revision: str) -> dict[str, tuple[bytes, bool]]:
        return self.commits[self.resolve(revision)][1]

    def resolve(self, revision: str) -> str:
        oid = self.head if revision == "main" else self.tags.get(revision, revision)
        if oid not in self.commits:
            raise RefusedError(404, "RevisionNotFound")
        return oid

    def commit(self, message: str, files: dict[str, tuple[bytes, bool]]) -> str:
        made = hashlib.sha1(repr((message, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[made] = (message, files)
        return made


class Hub:
    """The hub's state. `faults`: (pattern of "METHOD PATH", status), each for the next request that it fits."""

    def __init__(self) -> None:
        self.url, self.mutex = "", threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.log: list[str] = []
        self.faults: list[tuple[str, int]] = []
        self.before: list[tuple[str, Callable[[], None]]] = []
        """What happens meanwhile: (pattern, what), each before the next request that it fits."""
        self.lost: list[str] = []
        """Patterns of requests, of each the next one that is done and then answered with 504."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to publish here."""
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": "hf_writes", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}

    def make(self, name: str, private: bool = True) -> Repository:
        self.repositories[name] = made = Repository(private)
        made.commit("initial commit", {".gitattributes": (b"*.safetensors filter=lfs\n", False)})
        return made

    def writes(self) -> list[str]:
        """The requests that changed something, or were to."""
        quiet = ("validate-yaml", "preupload", "objects/batch")
        return [each for each in self.log if each.split()[0] in ("POST", "PUT") and not each.endswith(quiet)]

    def answer(self, method: str, path: str, query: dict[str, Any], token: str, body: bytes) -> Any:
        request = f"{method} {path}"
        for happening in [each for each in self.before if re.search(each[0], request)][:1]:
            self.before.remove(happening)
            happening[1]()
        with self.mutex:
            self.log.append(request)
            for fault in [each for each in self.faults if re.search(each[0], request)][:1]:
                self.faults.remove(fault)
                raise RefusedError(fault[1], message="a fault")
            for pattern, call in ROUTES:
                if match := re.fullmatch(pattern, request):
                    found = call(self, token, body, query, **{k: unquote(v) for k, v in match.groupdict().items()})
                    for lost in [each for each in self.lost if re.search(each, request)][:1]:
                        self.lost.remove(lost)
                        raise RefusedError(504, message="the answer was lost")
                    return found
        raise RefusedError(404, message=f"no such route: {request}")

    def user(self, token: str) -> dict[str, Any]:
        if token not in TOKENS:
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        return TOKENS[token]

    def may_write(self, token: str, repo: str) -> bool:
        user, namespace = TOKENS.get(token, {"name": "", "orgs": {}, "role": ""}), repo.split("/")[0]
        return user["role"] == "write" and (namespace == user["name"] or user["orgs"].get(namespace) == "write")

    def repository(self, token: str, repo: str) -> Repository:
        if token:
            self.user(token)
        found = self.repositories.get(repo)
        member = repo.split("/")[0] in (TOKENS.get(token, {}).get("name"), *TOKENS.get(token, {}).get("orgs", ()))
        if found is None or (found.private and not member):
            raise RefusedError(404 if token else 401, "RepoNotFound")
        return found

    def writable(self, token: str, repo: str) -> Repository:
        found = self.repository(token, repo)
        if not self.may_write(token, repo):
            raise RefusedError(403, message="you may not write here")
        return found


def _whoami(hub: Hub, token: str, body: bytes, query: Any) -> Any:
    user = hub.user(token)
    organizations = [{"name": name, "roleInOrg": role} for name, role in user["orgs"].items()]
    access = {"accessToken": {"displayName": "test", "role": user["role"]}}
    return {"type": "user", "name": user["name"], "orgs": organizations, "auth": access}


def _create(hub: Hub, token: str, body: bytes, query: Any) -> Any:
    asked = json.loads(body)
    name = f"{asked['organization'] or hub.user(token)['name']}/{asked['name']}"
    if not hub.may_write(token, name):
        raise RefusedError(403, message="you may not create a repository in this namespace")
    if name in hub.repositories:
        raise RefusedError(409, message="You already created this model repo")
    hub.make(name, private=asked.get("visibility") == "private")
    return {"url": f"{hub.url}/{name}", "name": name, "id": name}


def _validate(hub: Hub, token: str, body: bytes, query: Any) -> Any:
    errors = header_errors(json.loads(body)["content"])
    if errors:
        raise RefusedError(400, message=errors[0], errors=[{"message": each} for each in errors], warnings=[])
    return {"errors": [], "warnings": []}


def header_errors(card: str) -> list[str]:
    """What the hub would not take in a card's header: https://github.com/huggingface/hub-docs, modelcard.md."""
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    values = yaml.safe_load(match[1]) if match else None
    if not isinstance(values, dict):
        return ["the metadata is missing"]
    errors = [f'"{key}" must be a list' for key in ("language", "tags") if not isinstance(values.get(key), list)]
    if values.get("license") not in LICENSES:
        errors.append(f'"license" must be one of {", ".join(LICENSES)}')
    if values.get("base_model_relation", "adapter") not in RELATIONS:
        errors.append('"base_model_relation" is no relation')
    for model in values.get("model-index", []):
        for result in model["results"]:
            complete = result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]
            if not complete or not all(m["type"] and isinstance(m["value"], int | float) for m in result["metrics"]):
                errors.append('"model-index" is incomplete')
    return errors


def _info(hub: Hub, token: str, body: bytes, query: Any, repo: str, revision: str = "main") -> Any:
    found = hub.repository(token, repo)
    siblings = [
        {"rfilename": path, **(_entry(*kept, oid="blobId", sha="sha256") if "blobs" in query else {})}
        for path, kept in found.at(revision).items()
    ]
    return {"_id": repo, "id": repo, "sha": found.resolve(revision), "private": found.private, "siblings": siblings}


def _entry(content: bytes, large: bool, oid: str, sha: str) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    lfs = {"lfs": {sha: digest, "size": len(content), "pointerSize": 130}} if large else {}
    return {"size": len(content), oid: git_hash(content), **lfs}


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _tree(hub: Hub, token: str, body: bytes, query: Any, repo: str, revision: str) -> Any:
    files = hub.repository(token, repo).at(revision)
    return [{"type": "file", "path": path, **_entry(*kept, oid="oid", sha="oid")} for path, kept in files.items()]


def _refs(hub: Hub, token: str, body: bytes, query: Any, repo: str) -> Any:
    found = hub.repository(token, repo)
    tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid} for tag, oid in found.tags.items()]
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": found.head}
    return {"branches": [main], "tags": tags, "converts": []}


def _auth_check(hub: Hub, token: str, body: bytes, query: Any, repo: str) -> Any:
    hub.writable(token, repo)
    return {}


def _preupload(hub: Hub, token: str, body: bytes, query: Any, repo: str, revision: str) -> Any:
    files = hub.writable(token, repo).at(revision)
    return {"files": [_mode(each, files) for each in json.loads(body)["files"]]}


def _mode(asked: dict[str, Any], files: dict[str, tuple[bytes, bool]]) -> dict[str, Any]:
    sample = base64.b64decode(asked["sample"])
    large = asked["size"] > LARGE or b"\0" in sample or sample.startswith(b"\x89PNG")
    content, was_large = files.get(asked["path"], (None, large))
    same = content is not None and was_large == large
    there = (hashlib.sha256(content or b"").hexdigest() if large else git_hash(content or b"")) if same else None
    return {
        "path": asked["path"],
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": False,
        **({"oid": there} if there else {}),
    }


def _batch(hub: Hub, token: str, body: bytes, query: Any, repo: str) -> Any:
    hub.writable(token, repo)
    objects = json.loads(body)["objects"]
    for each in objects:
        if each["oid"] not in hub.stored:
            each["actions"] = {"upload": {"href": f"{hub.url}/lfs/{each['oid']}", "header": {}}}
    return {"transfer": "basic", "objects": objects}


def _store(hub: Hub, token: str, body: bytes, query: Any, oid: str) -> Any:
    if hashlib.sha256(body).hexdigest() != oid:
        raise RefusedError(400, message="another content than was announced")
    hub.stored[oid] = body
    return {}


def _commit(hub: Hub, token: str, body: bytes, query: Any, repo: str, revision: str) -> Any:
    found = hub.writable(token, repo)
    lines = [json.loads(line) for line in body.splitlines()]
    files, summary = dict(found.at(revision)), ""
    for line in lines:
        kind, value = line["key"], line["value"]
        if kind == "header":
            summary = value["summary"]
            if value.get("parentCommit", found.head) != found.head:
                raise RefusedError(412, message="the branch is at another commit")
        elif kind == "file":
            files[value["path"]] = (base64.b64decode(value["content"]), False)
        elif kind == "lfsFile":
            if value["oid"] not in hub.stored:
                raise RefusedError(400, message="the large file was never uploaded")
            files[value["path"]] = (hub.stored[value["oid"]], True)
        elif kind == "deletedFile":
            del files[value["path"]]
    if errors := header_errors(files["README.md"][0].decode()) if "README.md" in files else []:
        raise RefusedError(400, message=errors[0])
    made = found.commit(summary, files)
    return {"success": True, "commitOid": made, "commitUrl": f"{hub.url}/{repo}/commit/{made}"}


def _tag(hub: Hub, token: str, body: bytes, query: Any, repo: str, revision: str) -> Any:
    found, tag = hub.writable(token, repo), json.loads(body)["tag"]
    if tag in found.tags:
        raise RefusedError(409, message="Tag reference exists already")
    found.tags[tag] = found.resolve(revision)
    return {}


@dataclass(frozen=True)
class File:
    """A file as an answer."""

    content: bytes
    commit: str
    large: bool


def _resolve(hub: Hub, token: str, body: bytes, query: Any, repo: str, revision: str, path: str) -> File:
    found = hub.repository(token, repo)
    if path not in found.at(revision):
        raise RefusedError(404, "EntryNotFound")
    return File(*found.at(revision)[path][:1], found.resolve(revision), found.at(revision)[path][1])


def _stored(hub: Hub, token: str, body: bytes, query: Any, oid: str) -> File:
    return File(hub.stored[oid], "", False)


ID, REV = r"(?P<repo>[^/]+/[^/]+?)", r"(?P<revision>[^/]+)"
ROUTES: list[tuple[str, Callable[..., Any]]] = [
    ("GET /api/whoami-v2", _whoami),
    ("POST /api/repos/create", _create),
    ("POST /api/validate-yaml", _validate),
    (f"GET /api/models/{ID}", _info),
    (f"GET /api/models/{ID}/revision/{REV}", _info),
    (f"GET /api/models/{ID}/auth-check/write", _auth_check),
    (f"GET /api/models/{ID}/refs", _refs),
    (f"GET /api/models/{ID}/tree/{REV}", _tree),
    (f"POST /api/models/{ID}/preupload/{REV}", _preupload),
    (rf"POST /{ID}\.git/info/lfs/objects/batch", _batch),
    ("PUT /lfs/(?P<oid>[0-9a-f]{64})", _store),
    (f"POST /api/models/{ID}/commit/{REV}", _commit),
    (f"POST /api/models/{ID}/tag/{REV}", _tag),
    (f"(?:GET|HEAD) /{ID}/resolve/{REV}/(?P<path>.+)", _resolve),
    ("(?:GET|HEAD) /stored/(?P<oid>[0-9a-f]{64})", _stored),
]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer's body waits 40 ms for the header to be acknowledged

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self) -> None:
            place, body = urlsplit(self.path), self._body()
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            try:
                found = hub.answer(self.command, place.path, parse_qs(place.query), token, body)
            except RefusedError as refused:
                self._send(refused.status, json.dumps(refused.values).encode(), refused.headers)
                return
            if isinstance(found, File):
                self._send_file(found)
            else:
                self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

        do_GET = do_HEAD = do_POST = do_PUT = answer

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _send_file(self, file: File) -> None:
            commit = {"X-Repo-Commit": file.commit} if file.commit else {}
            if file.large:
                oid = hashlib.sha256(file.content).hexdigest()
                elsewhere = hub.url.replace("127.0.0.1", "localhost")  # another host, as of the hub's own: not followed
                linked = {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(file.content))}
                self._send(302, b"", {**commit, **linked, "Location": f"{elsewhere}/stored/{oid}"})
            else:
                self._send(200, file.content, {**commit, "ETag": f'"{git_hash(file.content)}"'})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Of a client that did not wait for its answer."""


@contextmanager
def serving(port: int = 0) -> Iterator[Hub]:
    """A hub with nothing on it, at `Hub.url`."""
    hub = Hub()
    server = _Server(("127.0.0.1", port), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":  # a process of its own, until its standard input is closed; then what was published
    with serving(int(sys.argv[1])) as running:
        sys.stdin.read()
        for name, repository in running.repositories.items():
            print(name, repository.head, repository.tags, [*repository.files], sep="\n  ")
