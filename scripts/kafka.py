"""Fetch a Kafka broker as jars into ``.cache/kafka``, for the tests that run on it.

Debian packages no broker. Maven fetches the jars that ``.ci/kafka/pom.xml`` names from the repository this
machine uses, and every one must be the one ``.ci/kafka/SHA256SUMS`` names. A second run with the same files
does nothing. Starting the broker takes Java 17.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / ".ci" / "kafka"
FOLDER = ROOT / ".cache" / "kafka"
STAMP = "recipe"


def recipe() -> str:
    """What the folder was made by."""
    return hashlib.sha256((RECIPE / "pom.xml").read_bytes() + (RECIPE / "SHA256SUMS").read_bytes()).hexdigest()


def sums(folder: Path) -> str:
    """One line per jar, as sha256sum prints them."""
    jars = sorted(folder.glob("*.jar"), key=lambda jar: jar.name)
    return "".join(f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n" for jar in jars)


def fetch() -> None:
    """Make the folder anew."""
    maven = shutil.which("mvn")
    if maven is None:
        sys.exit("kafka: needs Maven and Java 17 (apt-get install maven openjdk-17-jre-headless)")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    # The POM is copied: Maven writes a folder beside it.
    shutil.copy(RECIPE / "pom.xml", FOLDER / "pom.xml")
    command = [maven, "-q", "-B", "-f", str(FOLDER / "pom.xml"), "dependency:copy-dependencies"]
    subprocess.run([*command, f"-DoutputDirectory={FOLDER / 'lib'}"], check=True)
    expected = sorted((RECIPE / "SHA256SUMS").read_text().splitlines())
    if sorted(sums(FOLDER / "lib").splitlines()) != expected:
        sys.exit("kafka: the jars that came are not those of .ci/kafka/SHA256SUMS; nothing of them is used")
    (FOLDER / STAMP).write_text(recipe())


def main() -> int:
    stamp = FOLDER / STAMP
    if not stamp.is_file() or stamp.read_text() != recipe():
        fetch()
    print(FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
