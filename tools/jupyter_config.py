"""For `jupyter lab --config tools/jupyter_config.py`: a notebook and its .py stay one (see notebook_pairs.py)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from jupyter_pairs import PairedFileManager  # noqa: E402

c.ServerApp.contents_manager_class = PairedFileManager  # noqa: F821  # pyright: ignore
