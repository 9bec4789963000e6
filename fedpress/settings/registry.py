"""The sections of settings that extensions add to a run's, from the registry of extensions."""

from functools import cache

from fedpress.extensions import EXTENSIONS, load
from fedpress.settings.extension import ExtensionSettings


@cache
def extension_sections() -> dict[str, type[ExtensionSettings]]:
    """Return the class of each extension's settings by the name of its section: `mixed-fleet` for `mixed_fleet`."""
    return {name.replace("_", "-"): _settings_class(name) for name in EXTENSIONS}


def _settings_class(name: str) -> type[ExtensionSettings]:
    words = "".join(word.capitalize() for word in name.split("_"))
    found: type[ExtensionSettings] = getattr(load(name, "settings"), f"{words}Settings")
    return found
