"""The report that docs/ shows."""

import shutil

import build_gallery
import pytest


def test_a_run_without_a_report_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(build_gallery, "DOCS", tmp_path)
    assert build_gallery.main(tmp_path / "run") == 2
    assert "expected the folder of a finished run" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


def test_the_links_to_other_pages_go_with_their_note():
    page = '<nav><a href="../html/02_train.html">02_train</a><p class="inside">These open only …</p></nav>'
    assert build_gallery.without_links(page) == "<nav>02_train</nav>"


@pytest.mark.browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium is installed: apt-get install chromium")
def test_the_report_and_its_first_screen_are_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(build_gallery, "DOCS", tmp_path)
    (tmp_path / "run/report").mkdir(parents=True)
    (tmp_path / "run/report/index.html").write_text("<body style='background: #d22'>প্রতিবেদন")
    assert build_gallery.main(tmp_path / "run") == 0
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "run/report/index.html").read_bytes()
    picture = (tmp_path / "report.png").read_bytes()
    assert picture[16:24] == (1280).to_bytes(4, "big") + (900).to_bytes(4, "big")
