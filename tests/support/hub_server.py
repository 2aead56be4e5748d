"""A stand-in for the Hugging Face Hub: a loopback server with repositories that are gated, stall or hang in Xet."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The server. `repositories` is {name: {file: bytes}}; a name of a data set begins with "datasets/".

    `gated` names repositories that only the token "granted" may read, `xet` files that are announced as stored in Xet,
    whose own server here never answers, `stalls` {file: bytes after which its next download stays silent}; `fault` is a
    status that every call of the API gets. `requests` are (method, path, range) in the order of their arrival.
    Repositories can be made, committed to, and their history squashed: `private` names those that are, `history` has
    {name: the versions of its files that a commit still has}.
    """

    def __init__(self, repositories, gated=(), xet=(), stalls=None, fault=0):
        self.repositories, self.gated, self.xet, self.fault = repositories, gated, xet, fault
        self.stalls, self.requests, self.closing = dict(stalls or {}), [], threading.Event()
        self.private, self.history = set(), {name: [dict(files)] for name, files in repositories.items()}

    def __enter__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                path = unquote(urlsplit(self.path).path.lstrip("/"))
                hub.requests.append((self.command, path, self.headers.get("Range", "")))
                hub.answer(self, path)

            def do_POST(self):
                path = unquote(urlsplit(self.path).path.lstrip("/"))
                hub.requests.append((self.command, path, ""))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.answer_write(self, path, body)

            def may_read(self, name):
                return name not in hub.gated or self.headers.get("Authorization") == "Bearer granted"

            def send(self, status, content=b"", headers=None):
                self.send_response(status)
                for name, value in {"Content-Length": len(content), **(headers or {})}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def downloads(self):
        """Returns the paths of the files whose content was asked for."""
        return [path for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]

    def answer(self, request, path):
        """Answers one request."""
        if path.startswith("cas/"):  # Xet's server: it takes the call, and nothing follows
            self.closing.wait(60)
        elif match := re.fullmatch(r"api/(?:models/)?((?:datasets/)?[^/]+/[^/]+)(/.*)?", path):
            self.answer_api(request, match[1], match[2] or "")
        elif match := re.fullmatch(r"((?:datasets/)?[^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self.answer_file(request, match[1], match[2])
        else:
            request.send(404)

    def answer_api(self, request, name, call):
        """Answers a call of the API: what is in a repository, who may read it, where its Xet server is."""
        files = self.repositories.get(name)
        if self.fault:
            return request.send(self.fault)
        if files is None:
            return request.send(401, headers={"X-Error-Code": "RepoNotFound"})
        if call.startswith("/auth-check") and not request.may_read(name):
            return request.send(403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        if call.startswith("/xet-read-token"):
            xet = {"X-Xet-Cas-Url": f"{self.address}/cas", "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": 2**33}
            return request.send(200, b"{}", xet)
        is_tree, folder = call.startswith("/tree/"), "".join(f"{part}/" for part in call.split("/")[3:])
        entries = [self.describe(file, content) for file, content in files.items() if file.startswith(folder * is_tree)]
        folders = {file.partition("/")[0] for file in files if "/" in file and not folder}
        tree = [*entries, *({"type": "directory", "path": path, "oid": "0" * 40} for path in folders)]
        own = name.removeprefix("datasets/")
        content = tree if is_tree else {"id": own, "sha": COMMIT, "siblings": entries, "private": name in self.private}
        request.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def answer_write(self, request, path, body):
        """Answers a call that makes a repository, commits to it or squashes its history."""
        if self.fault:
            return request.send(self.fault)
        if path == "api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['type']}s/{wanted['organization']}/{wanted['name']}"
            address = {"url": f"{self.address}/{name}"}
            if name in self.repositories:
                return request.send(409, json.dumps(address).encode(), {"Content-Type": "application/json"})
            self.repositories[name], self.history[name] = {}, [{}]
            self.private |= {name} if wanted.get("private") or wanted.get("visibility") == "private" else set()
            return request.send(200, json.dumps(address).encode(), {"Content-Type": "application/json"})
        kind, owner, repository, call = path.split("/")[1:5]
        name, content = f"{kind}/{owner}/{repository}", {}
        if call == "preupload":
            files = [{"path": each["path"], "uploadMode": "regular"} for each in json.loads(body)["files"]]
            content = {"files": [each | {"shouldIgnore": False} for each in files]}
        elif call == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    file = line["value"]
                    self.repositories[name][file["path"]] = base64.b64decode(file["content"])
            self.history[name].append(dict(self.repositories[name]))
            content = {"commitUrl": f"{self.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
        elif call == "super-squash":
            self.history[name] = [dict(self.repositories[name])]
        else:
            return request.send(404)
        request.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def describe(self, file, content):
        """Returns what the API says of a file, for a list of files and for a tree alike."""
        facts = {"type": "file", "path": file, "rfilename": file, "size": len(content), "oid": "0" * 40}
        if file in self.xet:
            digest = hashlib.sha256(content).hexdigest()
            lfs = {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 100}
            facts |= {"lfs": lfs, "xetHash": digest}
        return facts

    def answer_file(self, request, name, file):
        """Sends a file, or the part that is asked for; falls silent after some bytes where `stalls` says so."""
        content = self.repositories.get(name, {}).get(file)
        if content is None:
            return request.send(404, headers={"X-Error-Code": "EntryNotFound"})
        if not request.may_read(name):
            return request.send(403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        start = int((re.match(r"bytes=(\d+)-", request.headers.get("Range", "")) or [0, 0])[1])
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        headers |= {"Accept-Ranges": "bytes", "Content-Length": len(content) - start}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if request.command == "HEAD" or file not in self.stalls:
            return request.send(206 if start else 200, content[start:], headers)
        request.send(206 if start else 200, content[start : start + self.stalls.pop(file)], headers)
        self.closing.wait(60)
