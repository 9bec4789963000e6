"""The settings of an extension, as a section of a run's."""

from typing import TYPE_CHECKING, ClassVar

from fedpress.common.errors import SettingError
from fedpress.common.settings import Settings

if TYPE_CHECKING:
    from fedpress.settings.run import RunSettings


class ExtensionSettings(Settings):
    """A section that an extension adds to a run's settings."""

    files: ClassVar[tuple[str, ...]] = ()  # names of the files that the extension writes to the run's folder

    @property
    def active(self) -> bool:
        """Whether a run with these settings has the extension."""
        raise NotImplementedError

    def complete(self, run: "RunSettings") -> "RunSettings":
        """Return the run's settings with what follows from these; raise SettingError if that contradicts them."""
        return run

    def check_run(self, run: "RunSettings") -> None:
        """Raise SettingError if these settings do not go together with the run's others."""


def require_holdout(run: "RunSettings", key: str) -> None:
    """Raise SettingError if the setting `key` lets nodes evaluate and they hold no examples out."""
    if not run.deployed and not run.simulation.holdout:
        raise SettingError(f"holdout must be above 0 with {key}: nodes evaluate on the examples that they hold out")
