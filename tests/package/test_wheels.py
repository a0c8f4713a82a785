"""What `make wheels` built: each file is installed into an empty environment and used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
UV = str(Path(sys.executable).with_name("uv"))
QEMU = ROOT / "target/tools/qemu/usr/bin/qemu-aarch64-static"
DEBIAN = ROOT / "target/tools/debian-arm64"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LICENCES = {"LICENSE", "THIRD-PARTY.txt", "uPlot.LICENSE"}
#: Bytes of a wheel.
LARGEST = 3 * 2**20
#: Neither cargo nor another tool of this machine's user is on it.
PATH = "/usr/bin:/bin"

pytestmark = [pytest.mark.wheels, pytest.mark.slow]


def wheel(machine: str) -> Path:
    """Return the wheel for a machine; its test is skipped where there is none."""
    wheels = list(DIST.glob(f"langmeter-*_{machine}.whl"))
    if not wheels and machine != "x86_64":
        pytest.skip(f"no wheel for {machine}: `make wheels` says why")
    (path,) = wheels
    return path


def sdist() -> Path:
    (path,) = DIST.glob("langmeter-*.tar.gz")
    return path


def quick_start() -> str:
    """Return the code of the quick start of README.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Quick start\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) >= 3
    return "\n".join([*blocks, "import langmeter; print(langmeter.__file__)"])


def run(*command: str | Path, **variables: str) -> str:
    """Run a program with no variables but these; returns what it printed."""
    done = subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": PATH, "LC_ALL": "C.UTF-8", **variables},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def uv(*arguments: str | Path) -> None:
    """Run uv, with this machine's settings: where packages come from is one of them."""
    subprocess.run([UV, "--quiet", *map(str, arguments)], check=True, env=os.environ)


def interpreter(version: str) -> str:
    """Return a Python of this machine, of the path, pyenv or uv; skips the test without one."""
    for command in (
        [f"python{version}", "-c", "import sys; print(sys.executable)"],
        [UV, "python", "find", "--no-project", "--system", "--no-python-downloads", version],
    ):
        with suppress(OSError):
            variables = os.environ | {"PYENV_VERSION": version}
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, env=variables
            )
            if done.returncode == 0:
                return done.stdout.strip()
    pytest.skip(f"Python {version} is not on this machine")


def installed(file: Path, folder: Path, version: str) -> Path:
    """Install a file with what it needs into a new environment; returns its Python."""
    uv("venv", "--no-project", "--python", interpreter(version), folder)
    uv("pip", "install", "--python", folder, "--only-binary", ":all:", file)
    return folder / "bin" / "python"


def check_quick_start(printed: str, folder: Path) -> None:
    assert "FakeListChatModel" in printed
    assert printed.splitlines()[-1].startswith(str(folder))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_wheel_is_small_and_has_the_licences(machine: str) -> None:
    """At most 3 MiB, one native module, for every Python from 3.11, and the texts of licences."""
    path = wheel(machine)
    assert path.stat().st_size <= LARGEST
    assert f"-cp311-abi3-manylinux2014_{machine}.manylinux_2_17_{machine}" in path.name
    with ZipFile(path) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith(".so")] == ["langmeter/_core.abi3.so"]
    assert {Path(name).name for name in names if "/licenses/" in name} == LICENCES
    assert {"langmeter/py.typed", "langmeter/_core.pyi"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benches"))]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_auditwheel_finds_no_younger_symbol(machine: str) -> None:
    """The module links glibc 2.17 and nothing that manylinux2014 lacks."""
    printed = run(sys.executable, "-m", "auditwheel", "show", wheel(machine))
    words = " ".join(printed.split())
    assert f'is consistent with the following platform tag: "manylinux_2_17_{machine}"' in words


@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_meters_without_cargo(version: str, tmp_path: Path) -> None:
    """In an empty environment of each Python, with nothing of this machine on the path."""
    assert shutil.which("cargo", path=PATH) is None
    python = installed(wheel("x86_64"), tmp_path / "venv", version)
    printed = run(python, "-I", "-c", quick_start(), HOME=str(tmp_path))
    check_quick_start(printed, tmp_path)
    assert "langmeter" in run(python.with_name("langmeter"), "--help", HOME=str(tmp_path))


def test_the_wheel_of_aarch64_meters(tmp_path: Path) -> None:
    """By qemu, in Debian's Python 3.11, with the wheels of aarch64 of all that it needs."""
    file = wheel("aarch64")
    if not (QEMU.exists() and DEBIAN.exists()):
        pytest.skip("qemu or Debian's Python for aarch64 cannot be had: the wheel is only read")
    platform = ("--python-platform", "aarch64-unknown-linux-gnu", "--python-version", "3.11")
    uv("pip", "install", *platform, "--only-binary", ":all:", "--target", tmp_path / "site", file)
    python = DEBIAN / "usr/bin/python3.11"
    code = f"import platform; assert platform.machine() == 'aarch64'\n{quick_start()}"
    variables = {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}
    check_quick_start(run(QEMU, "-L", DEBIAN, python, "-c", code, **variables), tmp_path)


def test_the_source_distribution_builds(tmp_path: Path) -> None:
    """It has what a build needs, and the build meters; without the optimisation across crates."""
    with tarfile.open(sdist()) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Cargo.lock", "LICENSE", "THIRD-PARTY.txt", "rust/core/build.rs", "README.md"} <= names
    soon = {
        "CARGO_PROFILE_RELEASE_LTO": "off",
        "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
        "CARGO_TARGET_DIR": str(ROOT / "target/sdist"),
    }
    command = [UV, "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(sdist())]
    subprocess.run(command, check=True, env=os.environ | soon, cwd=tmp_path)
    (built,) = tmp_path.glob("*.whl")
    python = installed(built, tmp_path / "venv", "3.11")
    check_quick_start(run(python, "-I", "-c", quick_start(), HOME=str(tmp_path)), tmp_path)
