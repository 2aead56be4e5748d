"""Starts the chat page of a run."""

import sys

from helpers.inference.loaded_model import LoadedModel
from helpers.platforms.environment import set_up
from helpers.runs.record import Run


def serve_chat(run: Run, host: str = "127.0.0.1", port: int = 7860, with_care: bool = True) -> int:
    """Serves the chat page until it is interrupted; returns the exit code: 0, or 2 when the run cannot be served.

    Without `with_care` a message in a crisis gets no fixed message: for experiments only.
    """
    for needed in (run / "train" / "config.json", run / "train" / "adapter" / "adapter_config.json"):
        if not needed.is_file():
            print(f"error: {needed} is not there: expected a run that 02_train has finished.", file=sys.stderr)
            return 2
    try:
        from helpers.inference.chat_page import ChatPage
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        print("error: the chat page needs gradio: pip install 'gradio==6.31.0'", file=sys.stderr)
        return 2
    set_up()
    ChatPage(LoadedModel(run), with_care, run.folder.resolve().parent / "experiments.db").serve(host, port)
    return 0
