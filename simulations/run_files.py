"""The files that fedpress writes into the folder of a run or of a model made from one, and their removal."""

import shutil
from contextlib import suppress
from pathlib import Path

from fedpress.common.errors import SettingError
from fedpress.common.files import check_folder
from fedpress.compression.model.plan import PLAN
from fedpress.server.run.recorder import CHECKPOINT, MODEL, RESULT, TRAFFIC
from fedpress.settings.registry import extension_sections

LOG, PARTITION = "run.log", "partition.png"
PLOTS = ("accuracy_by_round.png", "accuracy_by_bytes.png")
REPORT = "report.json"  # of a shrunk model
EXPORT, EXPORTED = "export", "model"  # the folder of files for devices, and their name without a suffix
_NAMES = (RESULT, MODEL, TRAFFIC, PLAN, REPORT, LOG, PARTITION, *PLOTS)
_OF_EXTENSIONS = tuple(file for section in extension_sections().values() for file in section.files)


def own_files(folder: Path) -> list[Path]:
    """Return the files of a run in `folder`, without its checkpoint and exported files."""
    files = [
        *(folder / name for name in (*_NAMES, *_OF_EXTENSIONS)),
        *folder.glob(MODEL.replace(".", "-*.")),
    ]  # models of groups
    return [path for path in files if path.is_file()]


def holds(folder: Path) -> bool:
    """Return whether `folder` holds any file of a run."""
    return bool(own_files(folder) or _exported(folder) or (folder / CHECKPOINT).exists())


def check_names(folder: Path) -> None:
    """Raise SettingError if a folder has the name of a file of a run in `folder`."""
    for path in (folder / name for name in (*_NAMES, *_OF_EXTENSIONS)):
        if path.is_dir():
            raise SettingError(f"{path} is a folder, where a run has a file: name another folder than {folder}")


def check_made(out: Path, source: Path, *, force: bool) -> None:
    """Raise SettingError if a model made from the run in `source` cannot be written to the folder `out`."""
    if out.resolve() == source.resolve():
        raise SettingError(f"out must be another folder than {source}, from which the model is made")
    check_folder(out)
    check_names(out)
    if not force and holds(out):
        raise SettingError(f"{out} holds a run already: name another folder, or overwrite it with --force")


def clear(folder: Path) -> None:
    """Remove all files of a run: a remaining plan would be applied to the next model."""
    for path in (*own_files(folder), *_exported(folder)):
        path.unlink()
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    with suppress(OSError):  # missing, or it holds other files
        (folder / EXPORT).rmdir()


def _exported(folder: Path) -> list[Path]:
    return [path for path in (folder / EXPORT).glob(f"{EXPORTED}.*") if path.is_file()]
