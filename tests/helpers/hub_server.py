"""A Hub on this machine: an HTTP server that speaks what huggingface_hub calls to make, fill and read repositories.

    with HubServer() as hub:
        hub.add_user("ada", token="hf_ada", orgs=("org",))
        subprocess.run(command, env=hub.environment(tmp_path, token="hf_ada"))
        hub.repositories["org/model"].files

Xet, which is a protocol of its own, is switched off in `environment`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.helpers.hub_repositories import Repository, blob_id, is_large


REPOSITORY = r"(?P<name>[\w.-]+/[\w.-]+)"
FRONT_MATTER = re.compile(r"^---\n(.*?)\n---", re.DOTALL)


@dataclass
class User:
    name: str
    role: str
    orgs: tuple[str, ...]


class Refused(Exception):
    def __init__(self, status, message, code=None, **headers):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


class HubServer(ThreadingHTTPServer):
    """Serves on a free port of 127.0.0.1 while the `with` block lasts.

    Attributes:
        repositories: Models by name; data sets are named "datasets/ORG/NAME".
        requests: Method and path of each request, in order.
        broken_uploads: By repository, how many uploads of large files are still to be cut off in their middle.
        broken_commits: By repository, how many commits are still to be cut off before they happen.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        # Another origin, as on the Hub: what clients know about a file has to be in the redirect.
        self.storage = f"http://localhost:{self.server_port}"
        self.users: dict[str, User] = {}
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.uploaded: set[tuple[str, str]] = set()
        self.requests: list[str] = []
        self.broken_uploads: Counter[str] = Counter()
        self.broken_commits: Counter[str] = Counter()
        self.lock = threading.RLock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        # A client that is killed or cut off is no news.
        pass

    def add_user(self, name, token, role="write", orgs=()):
        self.users[token] = User(name, role, tuple(orgs))

    def add_repository(self, name, files, private=False):
        repository = self.repositories[name] = Repository(name, private)
        repository.commit("files", {**repository.head.files, **files})
        return repository

    def environment(self, home: Path, token=None, **variables):
        """What a process needs to take this server for the Hub."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HF_") or name == "HF_PRUNABLE_SHARED"
        }
        environment |= {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        environment |= {
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        if token is not None:
            environment["HF_TOKEN"] = token
        return environment | variables


class Handler(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *arguments):
        pass

    def handle_request(self):
        split = urlsplit(self.path)
        path, self.query = unquote(split.path), parse_qs(split.query)
        self.server.requests.append(f"{self.command} {path}")
        try:
            for method, pattern, action in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    with self.server.lock:
                        return action(self, **match.groupdict())
            raise Refused(404, f"there is no {self.command} {path}")
        except Refused as refusal:
            headers = {"X-Error-Message": str(refusal), **refusal.headers}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self.answer({"error": str(refusal)}, refusal.status, **headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    # What requests are made of

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut_off(self):
        self.rfile.read1(1000)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def user(self):
        header = self.headers.get("Authorization")
        if header is None:
            return None
        if (user := self.server.users.get(header.removeprefix("Bearer "))) is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return user

    def repository(self, name, kind=None, writes=False):
        name = f"{kind}/{name}" if kind == "datasets" else name
        user, repository = self.user(), self.server.repositories.get(name)
        is_member = user is not None and name.split("/")[-2] in (user.name, *user.orgs)
        if repository is None or (repository.private and not is_member):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        if writes and not (is_member and user.role == "write"):
            raise Refused(403, "You have no right to write to this repository")
        return repository

    def commit_at(self, repository, revision):
        if (commit := repository.at(revision)) is None:
            raise Refused(404, "Revision not found", "RevisionNotFound")
        return commit

    # What is asked

    def whoami(self):
        if (user := self.user()) is None:
            raise Refused(401, "Invalid username or password.")
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}}
        orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in user.orgs]
        self.answer({"type": "user", "name": user.name, "orgs": orgs, "auth": token})

    def create(self):
        wanted, user = json.loads(self.body()), self.user()
        if user is None:
            raise Refused(401, "Invalid username or password.")
        owner = wanted.get("organization") or user.name
        name = f"{owner}/{wanted['name']}"
        if owner not in (user.name, *user.orgs) or user.role != "write":
            raise Refused(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        url = f"{self.server.endpoint}/{name}"
        if name in self.server.repositories:
            return self.answer({"error": "You already created this model repo", "url": url}, 409)
        is_private = wanted.get("visibility") == "private" or wanted.get("private", False)
        self.server.repositories[name] = Repository(name, is_private)
        self.answer({"url": url, "name": name})

    def validate_card(self):
        block, errors = FRONT_MATTER.match(json.loads(self.body())["content"]), []
        try:
            if block is not None and not isinstance(yaml.safe_load(block[1]), dict):
                errors.append({"message": "the metadata must be a mapping"})
        except yaml.YAMLError as error:
            errors.append({"message": f"the metadata is no YAML: {error}"})
        self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def info(self, kind, name, revision="main"):
        repository = self.repository(name, kind)
        commit = self.commit_at(repository, revision or "main")
        siblings = [{"rfilename": path} for path in commit.files]
        self.answer(
            {"id": name, "modelId": name, "sha": commit.oid, "private": repository.private, "siblings": siblings}
        )

    def commits(self, kind, name, revision):
        repository = self.repository(name, kind)
        entries = [
            {"id": commit.oid, "title": commit.title, "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}
            for commit in reversed(repository.commits)
        ]
        self.answer(entries)

    def tree(self, kind, name, revision, folder=None):
        commit = self.commit_at(self.repository(name, kind), revision)
        prefix = f"{folder}/" if folder else ""
        paths = [path for path in commit.files if path.startswith(prefix)]
        if folder and not paths:
            raise Refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.oid})
        if not self.query.get("recursive"):
            paths = [path for path in paths if "/" not in path.removeprefix(prefix)]
        self.answer([self.entry(path, commit.files[path]) for path in paths])

    def paths_info(self, kind, name, revision):
        commit = self.commit_at(self.repository(name, kind), revision)
        asked = self.body()
        paths = json.loads(asked)["paths"] if asked.startswith(b"{") else parse_qs(asked.decode())["paths"]
        self.answer([self.entry(path, commit.files[path]) for path in paths if path in commit.files])

    @staticmethod
    def entry(path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(path, content)}
        if is_large(path):
            entry["lfs"] = {"oid": blob_id(path, content), "size": len(content), "pointerSize": 134}
        return entry

    def preupload(self, kind, name, revision):
        repository = self.repository(name, kind, writes=True)
        files = []
        for file in json.loads(self.body())["files"]:
            content = repository.head.files.get(file["path"])
            oid = {} if content is None else {"oid": blob_id(file["path"], content)}
            mode = "lfs" if is_large(file["path"]) else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
        self.answer({"files": files})

    def large_file_batch(self, name):
        self.repository(name, writes=True)
        objects = []
        for asked in json.loads(self.body())["objects"]:
            address = f"{self.server.endpoint}/large/{asked['oid']}"
            upload, verify = {"href": f"{address}?repository={name}"}, {"href": f"{address}/verify"}
            actions = {"actions": {"upload": upload, "verify": verify}}
            is_there = (name, asked["oid"]) in self.server.uploaded
            objects.append({**asked, **({} if is_there else actions)})
        self.answer({"transfer": "basic", "objects": objects})

    def receive_large_file(self, oid):
        (name,) = self.query["repository"]
        if self.server.broken_uploads[name] > 0:
            self.server.broken_uploads[name] -= 1
            return self.cut_off()
        content = self.body()
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, "the content is not what its name says")
        self.server.large[oid] = content
        self.server.uploaded.add((name, oid))
        self.answer({})

    def verify_large_file(self, oid):
        asked = json.loads(self.body())
        if len(self.server.large.get(oid, b"")) != asked["size"]:
            raise Refused(422, "the upload is not complete")
        self.answer({})

    def send_large_file(self, oid):
        if "Authorization" in self.headers:
            raise Refused(400, "a token left the Hub")
        self.answer(self.server.large[oid], ETag=f'"{oid}"')

    def make_commit(self, kind, name, revision):
        repository = self.repository(name, kind, writes=True)
        if self.server.broken_commits[name] > 0:
            self.server.broken_commits[name] -= 1
            return self.cut_off()
        header, *lines = (json.loads(line) for line in self.body().splitlines())
        parent = header["value"].get("parentCommit")
        if parent not in (None, repository.head.oid):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.head.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if (name, value["oid"]) not in self.server.uploaded:
                    raise Refused(400, f"{value['path']} was not uploaded")
                files[value["path"]] = self.server.large[value["oid"]]
            else:
                del files[value["path"]]
        oid = repository.commit(header["value"]["summary"], files)
        url = f"{self.server.endpoint}/{name}/commit/{oid}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def resolve(self, kind, name, revision, path):
        commit = self.commit_at(self.repository(name, kind), revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise Refused(404, "Entry not found", "EntryNotFound", **headers)
        content = commit.files[path]
        oid = blob_id(path, content)
        if not is_large(path):
            return self.answer(content, ETag=f'"{oid}"', **headers)
        self.server.large[oid] = content
        headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": len(content)}
        self.answer(b"", 302, Location=f"{self.server.storage}/large/{oid}", **headers)


API = rf"/api/(?P<kind>models|datasets)/{REPOSITORY}"
ROUTES = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_card),
    ("GET", rf"{API}(/revision/(?P<revision>[^/]+))?", Handler.info),
    ("GET", rf"{API}/commits/(?P<revision>[^/]+)", Handler.commits),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", Handler.tree),
    ("POST", rf"{API}/paths-info/(?P<revision>[^/]+)", Handler.paths_info),
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", Handler.make_commit),
    ("POST", rf"/{REPOSITORY}\.git/info/lfs/objects/batch", Handler.large_file_batch),
    ("PUT", r"/large/(?P<oid>[0-9a-f]{64})", Handler.receive_large_file),
    ("POST", r"/large/(?P<oid>[0-9a-f]{64})/verify", Handler.verify_large_file),
    ("GET HEAD", r"/large/(?P<oid>[0-9a-f]{64})", Handler.send_large_file),
    ("GET HEAD", rf"/((?P<kind>datasets)/)?{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]
