"""The chat page of a run, as a Hugging Face Space, which starts this file as app.py."""

import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).parent
    sys.path.insert(0, str(folder / "src"))
    from helpers.inference.serve import serve_chat
    from helpers.runs.record import Run

    serve_chat(Run(folder / "run"), host="0.0.0.0", on_space=True)
