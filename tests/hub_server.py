"""A small hub on this machine, for tests: models and data sets over HTTP as the real clients ask for them.

``huggingface_hub``, ``datasets`` and ``transformers`` read ``HF_ENDPOINT`` when they are imported, so a test starts the
server and then a fresh process::

    with HubServer(root) as server:
        subprocess.run([sys.executable, "-c", code], env=server.environment(cache))

``root`` holds ``models/<org>/<name>/<files>`` and ``datasets/<org>/<name>/<files>``. Every repository has one commit,
named by its content, on the branch ``main``. Models can also be made and uploaded to, by clients that have a token
and ``HF_HUB_DISABLE_XET`` set: large files then go the older way, as LFS objects.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KINDS = ("models", "datasets")
#: Suffixes that the hub keeps in large-file storage, where the ETag is the content's SHA-256.
LARGE = (".safetensors", ".bin", ".parquet", ".gz")


class Repository:
    """One model or data set: its folder, its files and the commit that names their content."""

    def __init__(self, kind: str, name: str, folder: Path) -> None:
        self.kind, self.name, self.folder = kind, name, folder
        self.paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        digest = hashlib.sha1(usedforsecurity=False)
        for path in self.paths:
            digest.update(path.encode() + b"\0" + self.etag(path).encode() + b"\n")
        self.commit = digest.hexdigest()

    def content(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def etag(self, path: str) -> str:
        content = self.content(path)
        if path.endswith(LARGE):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def folders(self) -> set[str]:
        return {parent.as_posix() for path in self.paths for parent in Path(path).parents} - {"."}

    def entry(self, path: str) -> dict[str, Any]:
        """A line of the tree listing, as the hub writes it."""
        if path not in self.paths:
            return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
        size = len(self.content(path))
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": self.etag(path)[:40], "size": size}
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": self.etag(path), "size": size, "pointerSize": 130}
        return entry

    def tree(self, under: str, recursive: bool) -> list[dict[str, Any]]:
        inside = [p for p in sorted({*self.paths, *self.folders()}) if not under or p.startswith(under + "/")]
        if not recursive:
            inside = [p for p in inside if "/" not in p[len(under) :].strip("/")]
        return [self.entry(path) for path in inside]

    def info(self) -> dict[str, Any]:
        return {
            "_id": self.commit[:24],
            "id": self.name,
            "sha": self.commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": "2024-01-01T00:00:00.000Z",
            "createdAt": "2024-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in self.paths],
        }


class HubServer:
    """Serves ``root`` on 127.0.0.1 at a free port until the ``with`` block ends.

    Attributes:
        url: what ``HF_ENDPOINT`` should be.
        requests: ``"METHOD path"`` of every request answered so far.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects: dict[str, bytes] = {}  # large files that were uploaded, by SHA-256
        self.repositories: dict[tuple[str, str], Repository] = {}
        for kind in KINDS:
            for folder in sorted((root / kind).glob("*/*")):
                name = folder.relative_to(root / kind).as_posix()
                self.repositories[kind, name] = Repository(kind, name, folder)
        self.requests: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def commit(self, kind: str, name: str) -> str:
        return self.repositories[kind, name].commit

    def write(self, name: str, files: Mapping[str, bytes]) -> Repository:
        """Add ``files`` to the model ``name``, which is made if it is not there: its new commit."""
        folder = self.root / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        self.repositories["models", name] = Repository("models", name, folder)
        return self.repositories["models", name]

    def environment(self, cache: Path, **more: str) -> dict[str, str]:
        """Variables for a fresh process that knows this hub only and keeps its caches in ``cache``."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
        return {**inherited, **own, "no_proxy": "127.0.0.1", **more}

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self._body())

    def do_PUT(self) -> None:
        """A large file's content, where the LFS batch said it should go."""
        content = self._body()
        self.hub.objects[hashlib.sha256(content).hexdigest()] = content
        self._send(200, b"", {})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean; ``HubServer.requests`` has the log."""

    def _answer(self, body: bytes = b"") -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if self.command == "POST" and self._upload(parts, body):
            return
        if parts[0] == "api" and len(parts) >= 4:
            self._api(parts[1], "/".join(parts[2:4]), parts[4:], query, body)
        elif "resolve" in parts:
            at = parts.index("resolve")
            kind = parts[0] if parts[0] in KINDS else "models"
            name = "/".join(parts[at - 2 : at])
            self._file(kind, name, parts[at + 1], "/".join(parts[at + 2 :]))
        else:
            self._missing("EntryNotFound", f"nothing at {path}")

    def _repository(self, kind: str, name: str, revision: str) -> Repository | None:
        found = self.hub.repositories.get((kind, name))
        if found is None:
            self._missing("RepoNotFound", "Repository not found")
        elif revision not in ("main", found.commit):
            self._missing("RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return found

    def _api(self, kind: str, name: str, rest: list[str], query: Mapping[str, str], body: bytes) -> None:
        verb = rest[0] if rest else "revision"
        found = self._repository(kind, name, rest[1] if len(rest) > 1 else "main")
        if found is None:
            return
        if verb == "revision":
            self._json(found.info())
        elif verb == "tree":
            self._json(found.tree("/".join(rest[2:]), query.get("recursive", "").lower() in ("true", "1")))
        elif verb == "paths-info":
            asked = [path.strip("/") for path in parse_qs(body.decode()).get("paths", [])]
            self._json([found.entry(path) for path in asked if path in {*found.paths, *found.folders()}])
        elif verb == "refs":
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": found.commit}
            self._json({"branches": [main], "tags": [], "converts": [], "pullRequests": []})
        else:
            self._missing("EntryNotFound", f"this stand-in has no {verb}")

    def _upload(self, parts: list[str], body: bytes) -> bool:
        """Whether the request was a step of an upload of a model; it is then answered."""
        name = "/".join(parts[2:4])
        if parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            self._json({"transfer": "basic", "objects": [self._batch(one) for one in json.loads(body)["objects"]]})
        elif parts[0] == "api" and parts[4:5] == ["preupload"]:
            asked = [one["path"] for one in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in asked}
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            self._json({"files": files})
        elif parts[0] == "api" and parts[4:5] == ["commit"]:
            made = self.hub.write(name, dict(self._committed(body)))
            self._json({"success": True, "commitOid": made.commit, "commitUrl": f"{self.hub.url}/{name}/commit/main"})
        else:
            return False
        return True

    def _create(self, asked: Mapping[str, Any]) -> None:
        if not self.headers.get("Authorization"):
            self._send(401, b'{"error": "Invalid credentials"}', {"Content-Type": "application/json"})
            return
        name = f"{asked['organization']}/{asked['name']}"
        if ("models", name) not in self.hub.repositories:
            self.hub.write(name, {})
        self._json({"url": f"{self.hub.url}/{name}", "private": asked.get("visibility") == "private"})

    def _batch(self, one: Mapping[str, Any]) -> dict[str, Any]:
        return {**one, "actions": {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}}

    def _committed(self, body: bytes) -> Iterator[tuple[str, bytes]]:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                yield line["value"]["path"], base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                yield line["value"]["path"], self.hub.objects[line["value"]["oid"]]

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        found = self._repository(kind, name, revision)
        if found is None:
            return
        if path not in found.paths:
            self._missing("EntryNotFound", "Entry not found", {"X-Repo-Commit": found.commit})
            return
        content, status = found.content(path), 200
        headers = {"X-Repo-Commit": found.commit, "ETag": f'"{found.etag(path)}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            last = min(int(end or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
            content, status = content[int(start) : last + 1], 206
        self._send(status, content, {**headers, "Content-Type": "application/octet-stream"})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        more = {"Content-Type": "application/json", "X-Error-Code": code, "X-Error-Message": message}
        self._send(404, body, {**more, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
