"""The settings of a smaller model."""

from dataclasses import dataclass

from fedpress.common.errors import SettingError
from fedpress.common.settings import Settings, option


@dataclass(frozen=True)
class ShrinkSettings(Settings):
    """The steps that make a model smaller, in this order: prune, factorise, share values; each is then tuned."""

    prune: float = option(0.0, minimum=0, below=1, help="share of every layer's channels to remove")
    by: str = option(
        "l1", choices=("l1", "activation", "taylor"), help="importance of a channel: l1, activation, taylor"
    )
    factorise: str = option(
        "", choices=("", "svd", "spatial"), help="svd or spatial: replace layers by two smaller ones"
    )
    energy: float = option(0.95, above=0, maximum=1, help="share of a layer's energy that its factors keep")
    share: int = option(0, minimum=0, maximum=256, help="different values that every layer keeps, 2 to 256")
    tune: int = option(0, minimum=0, help="steps of distillation from the folder's model after each of these")

    def check(self) -> None:
        if self.share == 1:
            raise SettingError("share must be 0, or 2 to 256, got 1")
        if not (self.prune or self.factorise or self.share):
            raise SettingError("at least one of --prune, --factorise and --share must be given")
