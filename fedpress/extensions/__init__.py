"""Features that join the rounds of a federation: a package for each, and a line in `EXTENSIONS`.

The package of an extension holds `settings.py` with the class of its settings, `PersonalLayersSettings` for
`personal_layers`; `server.py` with `build(settings, context)`, which returns the `Extension` that joins the rounds on
the server; and, if the extension also runs on nodes, `client.py` with that side as `EXTENSION`. The core finds them
here and names no extension. A module of a package is imported when it is needed: a node does not import `server.py`.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from fedpress.common.errors import SettingError, unknown

EXTENSIONS = {  # name -> package, in the order in which they run
    "clipping": "fedpress.extensions.clipping",
    "distillation": "fedpress.extensions.distillation",
    "mixed_fleet": "fedpress.extensions.mixed_fleet",
    "personal_layers": "fedpress.extensions.personal_layers",
    "sparsity": "fedpress.extensions.sparsity",
}


def load(name: str, part: str) -> ModuleType:
    """Return a module of an extension's package.

    Parameters
    ----------
    name : str
        A key of `EXTENSIONS`.
    part : str
        "settings", "server" or "client".

    Returns
    -------
    module
        The module.

    Raises
    ------
    SettingError
        If the name is unknown.

    Examples
    --------
    >>> load("clipping", "settings").ClippingSettings(norm=1.0).norm
    1.0
    """
    if name not in EXTENSIONS:
        raise SettingError(unknown("extension", name, EXTENSIONS))
    path = f"{EXTENSIONS[name]}.{part}"
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise SettingError(f"the extension {name} has no part {part}") from error


def client_extension(name: str) -> Any:
    """Return the node's side of an extension.

    Parameters
    ----------
    name : str
        A key of `EXTENSIONS`.

    Returns
    -------
    ClientExtension
        The `EXTENSION` of its module `client`.

    Raises
    ------
    SettingError
        If the name is unknown.

    Examples
    --------
    >>> type(client_extension("personal_layers")).__mro__[1].__name__
    'ClientExtension'
    """
    return load(name, "client").EXTENSION
