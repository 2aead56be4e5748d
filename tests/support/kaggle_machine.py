"""A stand-in for Kaggle: a loopback server that speaks the calls the official package makes, and its machines.

A pushed notebook is either really executed, in folders shaped as Kaggle's, or a `script` says what it leaves.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
from kagglesdk import kaggle_env
from kagglesdk.blobs.types.blob_api_service import ApiStartBlobUploadResponse
from kagglesdk.datasets.types import dataset_api_service as datasets
from kagglesdk.datasets.types.dataset_enums import DatabundleVersionStatus
from kagglesdk.kernels.types import kernels_api_service as messages
from kagglesdk.kernels.types.kernels_enums import KernelWorkerStatus as Status

from helpers.runs.checkpoints import list_files
from helpers.runs.session import SESSION_START, boot_clock

LIVE = (Status.QUEUED, Status.RUNNING)
QUOTA_BYTES = 20 * 10**9


class Kaggle:
    """The server. `faults` names a call and what goes wrong with it next: an HTTP code, "garbled" (an error page in
    place of the answer, the call is lost) or "accepted" (the same, but the call arrived).

    `limit` is a session's seconds, `keeps` whether a killed session's output is kept, `old_mounts` how inputs lie.
    `images` are the docker images, the newest last, each with a folder where its Python finds more packages (or None);
    `tells_image` is whether a notebook's metadata have it, `no_image` how one is refused: by an HTTP code or a message.
    `python` is the machines' Python, `variables` what their environment has besides.
    """

    def __init__(self, work: Path, script=None, limit: float = 90.0, keeps: bool = True, old_mounts: bool = False):
        self.work, self.script, self.limit, self.keeps, self.old_mounts = work, script, limit, keeps, old_mounts
        self.kernels, self.requests, self.faults, self.violations = {}, [], {}, []
        self.used_hours, self.bad_datasets, self.threads = 3.0, [], []
        self.images, self.tells_image, self.no_image = {"gcr.io/kaggle-images/python@sha256:1": None}, True, None
        self.blobs, self.datasets, self.processing = {}, {}, 2
        self.python, self.variables = sys.executable, {}

    def __enter__(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def send(self, code, content, kind="application/json"):
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                fault = server.faults.get("GET", [])
                if fault:
                    return self.send(fault.pop(0), b"<html>busy</html>", "text/html")
                self.send(200, (server.work / self.path.lstrip("/")).read_bytes(), "application/octet-stream")

            def do_PUT(self):
                server.blobs[self.path.split("/")[-1]]["content"] = self.rfile.read(int(self.headers["Content-Length"]))
                self.send(200, b"")

            def do_POST(self):
                name = self.path.split("/")[-1]
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                waiting = server.faults.get(name, [])
                fault = waiting.pop(0) if waiting else None
                if isinstance(fault, int):
                    return self.send(fault, b"<html>busy</html>", "text/html")
                if fault == "garbled":
                    return self.send(200, b"<html>busy</html>", "text/html")
                code, answer = getattr(server, name)(body)
                if fault == "accepted":
                    return self.send(200, b"<html>busy</html>", "text/html")
                self.send(code, json.dumps(answer).encode())

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.real = kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD]
        kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = self.address
        return self

    def __exit__(self, *error):
        kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = self.real
        for thread in self.threads:
            thread.join()
        self.http.shutdown()
        self.http.server_close()

    # The calls

    def SaveKernel(self, body):
        request = messages.ApiSaveKernelRequest.from_dict(body)
        self.requests.append(request)
        if request.docker_image and isinstance(self.no_image, int):
            return self.no_image, {"code": self.no_image, "message": ""}
        if request.docker_image and self.no_image:
            refusal = messages.ApiSaveKernelResponse()
            refusal.error = self.no_image
            return 200, refusal.to_dict()
        family = request.slug.rpartition("-")[0]
        live = [slug for slug, kernel in self.kernels.items() if slug.startswith(family) and kernel["status"] in LIVE]
        self.violations += [f"{request.slug} while {', '.join(live)} works"] if live else []
        answer = messages.ApiSaveKernelResponse()
        answer.ref, answer.version_number = request.slug, 1
        answer.invalid_dataset_sources = [name for name in request.dataset_data_sources if name in self.bad_datasets]
        self.kernels[request.slug] = {"status": Status.RUNNING, "message": "", "folder": self.folder(request.slug)}
        self.kernels[request.slug]["image"] = request.docker_image or [*self.images][-1]
        self.kernels[request.slug]["folder"].mkdir(parents=True)
        self.threads.append(threading.Thread(target=self.work_on, args=(request,)))
        self.threads[-1].start()
        return 200, answer.to_dict()

    def GetKernelSessionStatus(self, body):
        kernel = self.kernels.get(f"{body['userName']}/{body['kernelSlug']}")
        if kernel is None:
            return 404, {"code": 404, "message": "no such notebook"}
        answer = messages.ApiGetKernelSessionStatusResponse()
        answer.status, answer.failure_message = kernel["status"], kernel["message"] or None
        return 200, answer.to_dict()

    def GetKernel(self, body):
        kernel = self.kernels[f"{body['userName']}/{body['kernelSlug']}"]
        answer = messages.ApiGetKernelResponse()
        answer.metadata, answer.blob = messages.ApiKernelMetadata(), messages.ApiKernelBlob()
        answer.blob.language, answer.blob.kernel_type, answer.blob.slug = "python", "notebook", body["kernelSlug"]
        answer.metadata.docker_image = kernel["image"] if self.tells_image else None
        return 200, answer.to_dict()

    def ListKernelSessionOutput(self, body):
        folder = self.kernels[f"{body['userName']}/{body['kernelSlug']}"]["folder"]
        size, start = int(body.get("pageSize", 20)), int(body.get("pageToken") or 0)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        answer = messages.ApiListKernelSessionOutputResponse()
        answer.files = []
        for name in names[start : start + size]:
            file = messages.ApiKernelSessionOutputFile()
            file.file_name, file.url = name, f"{self.address}/{(folder / name).relative_to(self.work).as_posix()}"
            answer.files.append(file)
        answer.next_page_token = str(start + size) if start + size < len(names) else None
        return 200, answer.to_dict()

    def GetAcceleratorQuotaStatistics(self, body):
        return 200, {
            "quotaRefreshTime": "2026-11-28T00:00:00Z",
            "gpuQuota": {"timeUsed": f"{self.used_hours * 3600:.0f}s", "totalTimeAllowed": "108000s"},
        }

    # Data sets

    def StartBlobUpload(self, body):
        answer = ApiStartBlobUploadResponse()
        answer.token = f"blob-{len(self.blobs)}"
        answer.create_url = f"{self.address}/{answer.token}"
        self.blobs[answer.token] = {"name": body["name"], "content": b""}
        return 200, answer.to_dict()

    def GetDatasetStatus(self, body):
        dataset = self.datasets.get(f"{body['ownerSlug']}/{body['datasetSlug']}")
        if dataset is None or dataset["looks"] < self.processing:
            if dataset is not None:
                dataset["looks"] += 1
            return 403, {"code": 403, "message": "Permission 'datasets.get' was denied"}
        answer = datasets.ApiGetDatasetStatusResponse()
        answer.status = dataset["status"]
        return 200, answer.to_dict()

    def CreateDataset(self, body):
        request = datasets.ApiCreateDatasetRequest.from_dict(body)
        name, answer = f"{request.owner_slug}/{request.slug}", datasets.ApiCreateDatasetResponse()
        if name in self.datasets:
            answer.status, answer.error = "error", f"The requested title {request.title!r} is already in use"
            return 200, answer.to_dict()
        self.datasets[name] = {"private": request.is_private, "versions": [self.received(request.files)], "looks": 0}
        self.datasets[name]["status"] = DatabundleVersionStatus.READY
        answer.status = "ok"
        return 200, answer.to_dict()

    def CreateDatasetVersion(self, body):
        request = datasets.ApiCreateDatasetVersionRequest.from_dict(body)
        self.datasets[f"{request.owner_slug}/{request.dataset_slug}"]["versions"].append(
            self.received(request.body.files)
        )
        answer = datasets.ApiCreateDatasetResponse()
        answer.status = "ok"
        return 200, answer.to_dict()

    def received(self, files):
        """Returns {name: content} of the uploads that a data set is made of."""
        return {self.blobs[file.token]["name"]: self.blobs[file.token]["content"] for file in files}

    def mount(self, dataset, root, by_name=True):
        """Unpacks a data set's newest version as an input below `root`; an archive into a folder of its name or not."""
        place = root / "input/datasets" / dataset
        for name, content in self.datasets[dataset]["versions"][-1].items():
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                archive.extractall(place / Path(name).stem if by_name else place)
        return place

    # The machines

    def folder(self, slug):
        return self.work / slug.replace("/", "_") / "working"

    def work_on(self, request):
        """Runs a session to its end, and notes how it ended."""
        kernel = self.kernels[request.slug]
        sources = [self.kernels[name]["folder"] for name in request.kernel_data_sources]
        act = self.script or self.execute
        kernel["status"], kernel["message"] = act(request, kernel["folder"], sources)

    def execute(self, request, working, sources):
        """Executes the notebook where a Kaggle machine would, for `limit` seconds at the most."""
        root = working.parent
        for name, source in zip(request.kernel_data_sources, sources):
            owner, slug = name.split("/")
            mount = root / "input" / (slug if self.old_mounts else f"notebooks/{owner}/{slug}")
            shutil.copytree(source, mount)
            for path in (mount, *mount.rglob("*")):
                path.chmod(0o555 if path.is_dir() else 0o444)
        (root / "input").mkdir(exist_ok=True)
        before = list_files(root / "input")
        (root / "notebook.ipynb").write_text(request.text, encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "SAHANUBHUTI_KAGGLE": str(root)}
        environment |= {SESSION_START: str(boot_clock()), "HF_HUB_OFFLINE": "1"}
        image = self.kernels[request.slug]["image"]
        environment |= {"KAGGLE_DOCKER_IMAGE": image, "PYTHONPATH": str(self.images[image] or "")}
        environment |= self.variables
        command = [self.python, "-m", "papermill", str(root / "notebook.ipynb"), str(root / "executed.ipynb")]
        with open(root / "log", "w") as log:
            process = subprocess.Popen(
                command, cwd=working, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        ends, killed = time.monotonic() + self.limit, False
        while process.poll() is None:
            time.sleep(0.2)
            if time.monotonic() > ends:
                kill(process)
                killed = True
        assert list_files(root / "input") == before, "a session wrote to its input"
        size = sum(path.stat().st_size for path in working.rglob("*") if path.is_file())
        if killed and not self.keeps:
            shutil.rmtree(working)
            working.mkdir()
        if size > QUOTA_BYTES:
            return Status.ERROR, "the working folder holds more than 20 GB"
        if killed:
            return Status.ERROR, "stopped: over the time of a session"
        return (Status.ERROR, "the notebook failed") if process.returncode else (Status.COMPLETE, "")


def kill(process: subprocess.Popen) -> None:
    """Kills a process with SIGKILL and all that it started, kernels in sessions of their own included."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=20)
    process.wait()
