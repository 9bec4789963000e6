"""How a comparison judges its candidates."""

from dataclasses import dataclass

from fedpress.common.settings import Settings, option


@dataclass(frozen=True)
class JudgementSettings(Settings):
    """What candidates are to reach, and what the recommended one may lose."""

    target: float | None = option(
        None, above=0, maximum=1, help="accuracy to be reached; 0.99 of what float32 reaches if not given"
    )
    allowed: float = option(1.0, minimum=0, help="points of accuracy that the recommendation may lose")
