"""Starts the chat page of a run."""

import errno
import socket

from helpers.inference.loaded_model import LoadedModel
from helpers.inference.space_store import open_space_store
from helpers.platforms.environment import set_up
from helpers.platforms.errors import Refused, describe_error
from helpers.runs.feedback import KEEP_DAYS, FeedbackStore
from helpers.runs.record import Run


def check_address(host: str, port: int) -> None:
    """Raises Refused where no page can be served: the port is in use, or no address of this machine is called so."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return  # 0 is any free port
    except socket.gaierror as error:
        raise Refused(f"--host {host} is no address of this machine: choose 127.0.0.1, or 0.0.0.0 for all.") from error
    except PermissionError as error:
        raise Refused(f"port {port} needs an administrator's rights: choose another --port, 1024 or more.") from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise Refused(f"--host {host} --port {port} cannot be listened on ({describe_error(error)}).") from error
        raise Refused(f"port {port} is in use: choose another --port, or end the program that uses it.") from error


def serve_chat(
    run: Run,
    host: str = "127.0.0.1",
    port: int = 7860,
    with_care: bool = True,
    keep_days: int = KEEP_DAYS,
    on_space: bool = False,
) -> None:
    """Serves the chat page until it is interrupted; thumbs are kept for so many days.

    Raises Refused for an untrained or damaged run, without gradio, and as `check_address` does.

    Without `with_care` a message in a crisis gets no fixed message: for experiments only. `on_space`: a Hugging Face
    Space, whose thumbs are kept in a private data set of its owner.
    """
    for needed in (run / "train" / "config.json", run / "train" / "adapter" / "adapter_config.json"):
        if not needed.is_file():
            raise Refused(f"{needed} is not there: expected a run that 02_train has finished.")
    try:
        from helpers.inference.chat_page import ChatPage
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise Refused("the chat page needs gradio: pip install 'gradio==6.31.0'") from error
    check_address(host, port)
    set_up()
    try:
        model = LoadedModel(run)
    except Exception as error:  # peft's, transformers' and safetensors' own, for a file that is damaged or missing
        raise Refused(f"the model of {run} cannot be loaded ({describe_error(error)}).") from error
    database = run.folder.resolve().parent / "experiments.db"
    store = open_space_store(database, keep_days) if on_space else FeedbackStore(database, keep_days)
    ChatPage(model, with_care, store).serve(host, port)
