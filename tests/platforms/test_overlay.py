"""The packages beside a platform's own."""

import os
import sys
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from helpers.platforms import overlay
from helpers.platforms.environment import ROOT


def add_package(folder, name, version, requires=()):
    """Writes a package of one module and its metadata into a folder, as an installer does."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"version = {version!r}\n")
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")


@pytest.fixture
def project(tmp_path):
    """Returns a checkout with requirements and a lock of four packages."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "requirements.txt").write_text("alpha==2.0  # pinned\nbeta>=1\nnumpy>=1\n")
    (root / "requirements-unsloth.txt").write_text("gamma==3.0\n")
    pins = {"alpha": "2.0", "beta": "1.5", "gamma": "3.0", "delta": "4.0", "numpy": "2.0"}
    lines = [f"{name}=={version} \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n" for name, version in pins.items()]
    (root / "requirements.lock").write_text("".join(lines) + 'epsilon==1.0 ; python_version < "3" \\\n    --hash=c\n')
    return root


@pytest.fixture
def session(project, tmp_path, monkeypatch):
    """Returns the image's folder, with an installer that writes what the lock names and notes its calls."""
    image = tmp_path / "image"
    image.mkdir()
    calls = []

    def install(pins, folder):
        calls.append([pin.split("=")[0] for pin in pins])
        for pin in pins:
            name, version = pin.split()[0].split("==")
            needs = ["delta>=4", "numpy>=9"] if name == "alpha" else []
            add_package(folder, name, version, needs)

    monkeypatch.setattr(overlay, "install_packages", install)
    monkeypatch.setattr(sys, "path", [str(image)])
    monkeypatch.setattr(overlay.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "kept")
    monkeypatch.delenv(overlay.FOLDER, raising=False)
    return types.SimpleNamespace(image=image, calls=calls, root=project)


def test_a_pin_keeps_all_its_hashes(project):
    version, lines = overlay.read_lock(project)["alpha"]
    assert version == "2.0"
    assert lines.count("--hash") == 2


def test_a_pin_for_another_python_is_left_out(project):
    assert "epsilon" not in overlay.read_lock(project)


def test_the_real_lock_has_every_requirement():
    pinned = overlay.read_lock(ROOT)
    asked = {overlay.canonicalize_name(need.name): need for need in overlay.read_requirements(ROOT)}
    for name, need in asked.items():
        if name != "torch":  # whose build the machine decides
            assert need.specifier.contains(pinned[name][0]), f"{need}: run `make lock`"


def test_what_the_image_has_is_left_to_it(session):
    add_package(session.image, "beta", "1.2")
    folder = overlay.use_overlay(session.root)
    assert "beta" not in overlay.read_versions(folder)


def test_what_the_image_lacks_is_beside_it(session):
    add_package(session.image, "alpha", "1.0")
    assert overlay.read_versions(overlay.use_overlay(session.root))["gamma"] == "3.0"


def test_another_version_is_beside_the_images(session):
    add_package(session.image, "alpha", "1.0")
    overlay.use_overlay(session.root)
    assert overlay.read_versions(*sys.path)["alpha"] == "2.0"
    assert overlay.read_versions(session.image)["alpha"] == "1.0"


def test_what_a_package_asks_for_comes_with_it(session):
    assert overlay.read_versions(overlay.use_overlay(session.root))["delta"] == "4.0"
    assert session.calls == [["alpha", "beta", "gamma"], ["delta"]]


def test_the_platforms_own_packages_are_never_beside(session):
    assert "numpy" not in overlay.read_versions(overlay.use_overlay(session.root))


def test_a_version_that_the_lock_overrules_adds_nothing():
    missing = [Requirement("certifi>=2026"), Requirement("gamma>=9")]
    assert overlay.select_packages(missing, {}, {"gamma": ("3.0", "")}) == []


def test_an_image_that_has_all_needs_no_folder(session):
    for name, version in {"alpha": "2.0", "beta": "1.5", "gamma": "3.0", "numpy": "2.1"}.items():
        add_package(session.image, name, version)
    assert overlay.use_overlay(session.root) is None
    assert sys.path == [str(session.image)]


def test_a_second_notebook_of_the_session_installs_nothing(session, monkeypatch):
    overlay.use_overlay(session.root)
    calls = len(session.calls)
    monkeypatch.delenv(overlay.FOLDER)
    monkeypatch.setattr(sys, "path", [str(session.image)])
    overlay.use_overlay(session.root)
    assert len(session.calls) == calls


def test_child_processes_look_there_first(session):
    folder = overlay.use_overlay(session.root)
    assert os.environ["PYTHONPATH"] == f"{folder}{os.pathsep}kept"


def test_a_half_made_folder_is_made_anew(session, monkeypatch):
    folder = overlay.use_overlay(session.root)
    (folder / overlay.COMPLETE).unlink()
    add_package(folder, "omega", "1.0")
    monkeypatch.setattr(sys, "path", [str(session.image)])
    assert "omega" not in overlay.read_versions(overlay.use_overlay(session.root))


def test_packages_of_another_user_are_not_used(session, monkeypatch):
    folder = overlay.use_overlay(session.root)
    monkeypatch.setattr(overlay.os, "getuid", lambda: folder.stat().st_uid + 1)
    assert not overlay.is_complete(folder)


def test_packages_for_another_lock_are_not_used(session, monkeypatch, tmp_path):
    other = tmp_path / "sahanubhuti-packages-other"
    add_package(other, "alpha", "9.0")
    monkeypatch.setenv(overlay.FOLDER, str(other))
    assert overlay.use_overlay(session.root) != other


def test_a_version_that_the_image_keeps_is_named(session, capsys):
    add_package(session.image, "numpy", "0.9")
    overlay.use_overlay(session.root)
    assert "tested with numpy>=1: the image has others, and keeps them" in capsys.readouterr().out


def test_another_image_gets_a_folder_of_its_own(session, monkeypatch):
    first = overlay.use_overlay(session.root)
    monkeypatch.delenv(overlay.FOLDER)
    monkeypatch.setattr(sys, "path", [str(session.image)])
    add_package(session.image, "alpha", "1.0")
    assert overlay.use_overlay(session.root) != first


def test_a_package_imported_before_asks_for_a_restart(session, monkeypatch):
    add_package(session.image, "alpha", "1.0")
    module = types.ModuleType("alpha")
    module.__file__ = str(session.image / "alpha/__init__.py")
    monkeypatch.setitem(sys.modules, "alpha", module)
    with pytest.raises(RuntimeError, match=r"already imported alpha 1.0, and the suite needs 2.0: restart the kernel"):
        overlay.use_overlay(session.root)
    assert sys.path == [str(session.image)]


def test_an_installer_that_fails_leaves_no_folder(session, tmp_path, monkeypatch):
    def fail(pins, folder):
        add_package(folder, "alpha", "2.0")
        raise RuntimeError("no network")

    monkeypatch.setattr(overlay, "install_packages", fail)
    with pytest.raises(RuntimeError, match="no network"):
        overlay.use_overlay(session.root)
    assert [path.name for path in tmp_path.glob("sahanubhuti-packages-*") if path.is_dir()] == []


def test_an_installer_without_network_says_what_to_switch_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RuntimeError, match="Switch the internet on"):
        overlay.install_packages([f"sahanubhuti-absent==1.0 --hash=sha256:{'a' * 64}"], tmp_path / "folder")
