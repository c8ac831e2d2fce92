"""A stand-in for the Hugging Face hub on this machine: uploads with large files, and downloads."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = (".safetensors",)  # what the hub keeps in Git LFS, as its .gitattributes says
TOKEN = "hf_of_this_test"


class LocalHub(ThreadingHTTPServer):
    """Keeps what is uploaded, and gives away what is put into it.

    Attributes:
        revisions: what can be downloaded: name of a repository and commit -> file -> content.
        sent: paths of the files that were downloaded.
        repositories: name -> whether it is private.
        files: of all repositories, name -> content, once committed.
        objects: large files by SHA-256, once uploaded.
        fails: path prefix -> status that requests to it are answered with.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.revisions: dict[tuple[str, str], dict[str, bytes]] = {}
        self.sent: list[str] = []
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.fails: dict[str, int] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The requests of an upload, and of the download of single files."""

    protocol_version = "HTTP/1.1"
    server: LocalHub

    def do_PUT(self):
        content = self.body()
        digest = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == digest
        self.server.objects[digest] = content
        self.answer({})

    def do_HEAD(self):
        self.send_file(body=False)

    def do_GET(self):
        self.send_file(body=True)

    def send_file(self, body: bool) -> None:
        """A file of a revision, by ``/<owner>/<name>/resolve/<commit>/<file>``."""
        name, _, place = self.path.lstrip("/").partition("/resolve/")
        commit, _, file = place.partition("/")
        files = self.server.revisions.get((name, commit))
        content = (files or {}).get(file)
        if content is None:
            missing = "RevisionNotFound" if files is None else "EntryNotFound"
            known = any(name == other for other, _ in self.server.revisions)
            self.send_response(404)
            self.send_header("X-Error-Code", missing if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.server.sent.append(self.path)
            self.wfile.write(content)

    def do_POST(self):
        content = self.body()
        for prefix, status in self.server.fails.items():
            if self.path.startswith(prefix):
                return self.send_status(status, {"error": "refused"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send_status(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories[name] = asked["visibility"] == "private"
            return self.answer({"url": f"{self.server.url}/{name}"})
        if "/preupload/" in self.path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(content)["files"]
            ]
            return self.answer({"files": modes})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}}}
                for each in json.loads(content)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.objects[value["oid"]]
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            oid = hashlib.sha1(content).hexdigest()
            commit = f"{self.server.url}/{name}/commit/{oid}"
            return self.answer({"success": True, "commitUrl": commit, "commitOid": oid})
        return self.send_status(404, {"error": f"the stand-in does not know {self.path}"})

    def body(self) -> bytes:
        """What is sent, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, values: object) -> None:
        """All is well."""
        self.send_status(200, values)

    def send_status(self, status: int, values: object) -> None:
        """A status and JSON."""
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def running_hub() -> Iterator[LocalHub]:
    """A hub that runs inside the context."""
    hub = LocalHub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
