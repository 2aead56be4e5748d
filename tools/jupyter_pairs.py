"""Jupyter's file manager for the pairs: opening settles a pair by contents, saving loses no edit of the other file."""

from pathlib import Path
from typing import Any, ClassVar

import nbformat
from build_notebooks import setup_cell, sources
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupytext.async_contentsmanager import build_async_jupytext_contents_manager_class
from nbformat import NotebookNode
from notebook_pairs import PairConflict, agreement, read_source, refresh_index, write_pair
from tornado.web import HTTPError


class PairedFileManager(build_async_jupytext_contents_manager_class(AsyncLargeFileManager)):
    """Jupytext's own manager, which goes by the files' times, with the contents settled before it reads."""

    saved: ClassVar[dict[Path, tuple[str, str]]] = {}  # per pair: the cells' hash at its last save, and at its opening

    def pair_of(self, path: str) -> Path | None:
        """Returns the .py of the pair that a file of the server belongs to; None where it is no notebook of ours."""
        file = Path(self._get_os_path(path.strip("/"))).resolve().with_suffix(".py")
        return file if file in sources() else None

    async def get(self, path: str, content: bool = True, **options: Any) -> dict[str, Any]:
        """Reads a file; of a pair whose files differ, the one that changed. 409 where both did."""
        pair = self.pair_of(path)
        if pair and content:
            try:
                write_pair(pair, setup_cell())
            except PairConflict as conflict:
                raise HTTPError(409, str(conflict)) from conflict
        return await super().get(path, content=content, **options)

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        """Writes both files of a pair. 409 where the .py changed while the notebook was open."""
        pair = self.pair_of(path)
        if pair and model.get("type") == "notebook" and model.get("content"):
            notebook = NotebookNode(nbformat.from_dict(model["content"]))
            source = agreement(read_source(pair.read_text(encoding="utf-8")))["cells"]
            opened, wanted = notebook.metadata.get("pair", {}).get("cells"), agreement(notebook)
            if source not in (opened, wanted["cells"]) and self.saved.get(pair) != (source, opened):
                raise HTTPError(409, f"{pair.name} changed since this notebook was opened: reload it before you save.")
            self.saved[pair] = (wanted["cells"], opened)
            model["content"]["metadata"]["pair"] = wanted
        saved = await super().save(model, path)
        if pair:
            refresh_index([pair.with_suffix(".ipynb")])
        return dict(saved or {})
