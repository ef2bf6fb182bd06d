"""A Debian bookworm with nothing on it, to run things in as an ordinary user: a folder, `unshare` and `chroot`.

The root is made by mmdebstrap from the machine's own mirror and kept below ``.cache``, named by what is in it; runs
never change it: the user can write only to a home and a ``/tmp`` that are mounted over it for one run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["SETTINGS", "Machine", "make_root", "obstacle"]

SUITE = "bookworm"
VARIANT = "minbase"
USER = 1000
HOME = "/home/dev"
PATH = "/usr/local/bin:/usr/bin:/bin"
UNUSED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")

# What a machine is told about its package indexes: variables, then files of the system, then of the user.
SETTINGS = re.compile(
    r"(PIP|UV|NPM_CONFIG)_\w*(INDEX|LINKS|CERT|HOST|REGISTRY|CAFILE|PROXY|TIMEOUT|TLS)\w*"
    r"|SSL_CERT_FILE|NODE_EXTRA_CA_CERTS|REQUESTS_CA_BUNDLE|(HTTPS?|ALL|NO)_PROXY",
    re.IGNORECASE,
)
SYSTEM_FILES = (
    "/etc/hosts", "/etc/resolv.conf", "/etc/pip.conf", "/etc/uv/uv.toml", "/etc/ssl/certs/ca-certificates.crt",
)  # fmt: skip
USER_FILES = (".npmrc", ".pip/pip.conf", ".config/pip/pip.conf", ".config/uv/uv.toml")

# $1 root, $2 home, then pairs FROM TO up to "--", then the command. Runs in a mount namespace of its own.
MOUNTS = f"""
root=$1 home=$2; shift 2
mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"; mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount --bind "$home" "$root{HOME}"
while [ "$1" != -- ]; do mount --bind "$1" "$root$1"; shift; done; shift
exec /usr/sbin/chroot --userspec={USER}:{USER} "$root" /usr/bin/env -i "$@"
"""


def obstacle() -> str | None:
    """Why no root can be made or entered here, with what to do; None when it can."""
    if os.geteuid() != 0:
        return "making a Debian root needs root"
    if shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not installed: apt-get install mmdebstrap"
    if not mirror():
        return f"apt knows no mirror of {SUITE}: apt-get update"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return "this machine does not let root make a mount namespace"
    return None


def mirror() -> str:
    """Where apt of this machine gets the suite from; empty when it does not."""
    if shutil.which("apt-get") is None:
        return ""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages", f"Codename: {SUITE}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return min(done.stdout.split(), default="")


def make_root(cache: Path, packages: Sequence[str]) -> Path:
    """The root that holds ``packages``, made if it is not there yet."""
    recipe = repr((SUITE, VARIANT, sorted(packages), UNUSED, HOME, USER))
    root = cache / f"{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    cache.mkdir(exist_ok=True)
    with (cache / f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            half = cache / f"{root.name}.half"
            shutil.rmtree(half, ignore_errors=True)
            command = ["mmdebstrap", "--quiet", f"--variant={VARIANT}", f"--include={','.join(packages)}"]
            command += [f"--dpkgopt=path-exclude={pattern}" for pattern in UNUSED]
            done = subprocess.run([*command, SUITE, str(half), mirror()], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (half / HOME[1:]).mkdir(parents=True)
            with (half / "etc/passwd").open("a") as users, (half / "etc/group").open("a") as groups:
                users.write(f"dev:x:{USER}:{USER}::{HOME}:/bin/bash\n")
                groups.write(f"dev:x:{USER}:\n")
            half.rename(root)
    return root


class Machine:
    """A root with a home folder of its own; nothing it does is seen in the root itself."""

    def __init__(self, root: Path, home: Path) -> None:
        self._root = root
        self._home = home
        home.mkdir()
        for name in USER_FILES:
            source = Path.home() / name
            if source.is_file():
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, home / name)
        self.own()

    def own(self) -> None:
        """Give everything in the home to its user."""
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(self._home)], check=True)

    def command(self, *words: str) -> list[str]:
        """``words`` as a command of this machine: its user in its home, without any variable but those for indexes."""
        told = {name: value for name, value in os.environ.items() if SETTINGS.fullmatch(name)}
        shared = dict.fromkeys([*SYSTEM_FILES, *told.values()])
        mounts = [path for path in shared if path.startswith("/") and Path(path).exists()]
        for path in mounts:
            self._place(path)
        env = told | {"HOME": HOME, "PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb"}
        assigned = [f"{name}={value}" for name, value in env.items()]
        script = ["sh", "-euc", MOUNTS, "sh", str(self._root), str(self._home), *mounts, "--"]
        return ["unshare", "--mount", *script, *assigned, "sh", "-c", f'cd {HOME} && exec "$@"', "sh", *words]

    def _place(self, path: str) -> None:
        """Something to mount ``path`` over."""
        target = self._root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.touch()
