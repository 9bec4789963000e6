"""The checks of a federation's extensions: against each other, and against the federation, before anything is sent."""

from collections.abc import Sequence
from itertools import combinations, permutations

from fedpress.common.errors import SettingError
from fedpress.protocol.messages import RESERVED
from fedpress.server.extension import Extension, FederationTerms


def check_extensions(extensions: Sequence[Extension], federation: FederationTerms) -> None:
    """Raise SettingError if the extensions cannot be combined, or the federation cannot have one of them.

    Each declares the properties of the federation that it needs and that it removes, and checks all else in its
    `conflicts`.
    """
    for extension in extensions:
        if extension.name in RESERVED:
            raise SettingError(f"an extension's name must not be one of {', '.join(sorted(RESERVED))}")
    for one, other in combinations(extensions, 2):
        if one.name == other.name:
            raise SettingError(f"an extension must be listed once, got {one.name} twice")
    for one, other in permutations(extensions, 2):
        for lost in one.needs & other.removes:
            raise SettingError(
                f"{one.name} needs that {lost.value}, which {other.name} prevents: leave one of them out"
            )
    for extension in extensions:
        for lost in extension.needs & federation.lacks.keys():
            raise SettingError(
                f"{extension.name} needs that {lost.value}: leave it out, or change {federation.lacks[lost]}"
            )
        extension.conflicts(federation)
