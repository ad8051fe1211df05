"""Gathers an image's root file system: a virtual environment, its interpreter, and what these load. Runs in the Dockerfile.

    python3 rootfs.py VIRTUAL_ENVIRONMENT TARGET

The shared libraries are those that the dynamic linker names for the interpreter and every extension module, so nothing
is there on suspicion. Parts of the standard library that no server needs are left out. Debian's records of the packages
that the files come from go to /var/lib/dpkg/status.d, where vulnerability scanners look in images without dpkg.

It stands alone: inside the build there is nothing but Python's standard library, of whatever version the base has.
"""

import compileall
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

USER = 10001
LEFT_OUT = (
    *("__pycache__", "config-*", "dist-packages", "site-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data"),
    *("test", "tests", "tkinter", "turtledemo", "turtle.py", "_tkinter*", "_test*", "_xxtestfuzz*", "xxlimited*"),
)
"""Of the standard library: what builds, tests or draws."""
UNUSED = ("kubernetes_asyncio/client/api", "kubernetes_asyncio/client/models")
"""Of our dependencies: 900 generated models, a third of the image; controller/kube/config.py imports around them."""
PLAIN = (
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/lib/ssl",
    "/etc/os-release",
    "/etc/debian_version",
)
LOADED_LATE = ("libgcc_s.so.1",)
"""Opened by name when first needed: by the C library, to end a thread."""
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/sbin/nologin\ndriver-upgrade:x:{USER}:{USER}::/:/sbin/nologin\n",
    "etc/group": f"root:x:0:\ndriver-upgrade:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def main(environment: Path, root: Path) -> None:
    """Fills `root`."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    interpreter = (environment / "bin" / "python3").resolve()
    skeleton(root)
    copy_tree(stdlib, root, shutil.ignore_patterns(*LEFT_OUT))
    copy_tree(environment, root, shutil.ignore_patterns("__pycache__", "activate*", "Activate*"))
    for packages in inside(root, environment).glob("lib/python*/site-packages"):
        for name in UNUSED:
            shutil.rmtree(packages / name)  # one that is not there any more is to be noticed
    copy_chain(environment / "bin" / "python3", root)
    modules = [path for top in (stdlib, environment) for path in inside(root, top).rglob("*.so*")]
    libraries = sorted(linked([interpreter, *modules], inside(root, environment)))
    for library in libraries:
        copy_chain(library, root)
    for name in PLAIN:
        copy_plain(Path(name), root)
    records(root, [interpreter, *libraries, stdlib / "os.py"])
    for top in (stdlib, environment):
        compile_tree(inside(root, top), top)


def inside(root: Path, path: Path) -> Path:
    """Where a path of this file system is in the new one."""
    return root / path.relative_to("/")


def skeleton(root: Path) -> None:
    """Directories, the links of a merged /usr as they are here, and the files that name users."""
    for name in ("etc", "tmp", "usr/lib", "usr/bin", "proc", "sys", "dev", "run"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for name in ("bin", "lib", "lib64"):
        link = Path("/") / name
        if link.is_symlink():
            (root / name).symlink_to(link.readlink())
            inside(root, link.resolve()).mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (root / name).write_text(content)


def copy_tree(source: Path, root: Path, ignore: Callable[[str, list[str]], set[str]]) -> None:
    """Copies a directory to the same place, links as links."""
    shutil.copytree(source, inside(root, source), symlinks=True, ignore=ignore, dirs_exist_ok=True)


def copy_chain(path: Path, root: Path) -> None:
    """Copies a file and every link on the way to it."""
    target = inside(root, path.parent.resolve() / path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        target.unlink()
    if path.is_symlink():
        target.symlink_to(path.readlink())
        copy_chain(path.parent / path.readlink(), root)
    else:
        shutil.copy2(path, target)


def copy_plain(path: Path, root: Path) -> None:
    """Copies a file or a directory of links, if this base has it."""
    if path.is_dir():
        copy_tree(path, root, shutil.ignore_patterns("private", "misc"))
    elif path.exists():
        inside(root, path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, inside(root, path))


def linked(programs: Iterable[Path], own: Path) -> Iterator[Path]:
    """Every shared library outside `own` that the dynamic linker loads for the programs, the linker itself included.

    Raises:
        SystemExit: one is missing here, and so would be in the image.
    """
    said = "".join(
        subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout for program in programs
    )
    if missing := re.findall(r"(\S+) => not found", said):
        raise SystemExit(f"rootfs: libraries not found in the base image: {', '.join(sorted(set(missing)))}")
    found = {Path(path) for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", said, re.MULTILINE)}
    libc = next(path for path in found if path.name.startswith("libc.so"))
    late = {libc.parent / name for name in LOADED_LATE}
    return (path for path in found | late if path.exists() and not path.is_relative_to(own))


def records(root: Path, files: Iterable[Path]) -> None:
    """Writes the records of the Debian packages that own the files; a Python of its own (/usr/local) has none."""
    names = {name for file in files for name in owners(file)}
    folder = root / "var" / "lib" / "dpkg" / "status.d"
    folder.mkdir(parents=True)
    for name in sorted(names):
        record = subprocess.run(["dpkg-query", "--status", name], capture_output=True, text=True, check=True).stdout
        (folder / name.partition(":")[0]).write_text(record)


def owners(file: Path) -> set[str]:
    """Packages that own a file; dpkg knows it by its path before or after /usr was merged."""
    real = file.resolve()
    forms = {str(file), str(real), str(real).removeprefix("/usr")}
    said = subprocess.run(["dpkg-query", "--search", *forms], capture_output=True, text=True, check=False).stdout
    return {line.partition(": ")[0] for line in said.splitlines() if ": " in line and not line.startswith("diversion")}


def compile_tree(tree: Path, real: Path) -> None:
    """Compiles all modules below a directory, to be used without a look at their sources.

    Raises:
        SystemExit: a module does not compile.
    """
    mode = PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(
        tree, maxlevels=20, stripdir=str(tree), prependdir=str(real), quiet=1, invalidation_mode=mode
    ):
        raise SystemExit(f"rootfs: not everything below {real} compiles")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
