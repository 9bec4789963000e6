"""How a comparison evaluates its candidates."""

from dataclasses import dataclass

from fedpress.common.settings import Settings, option


@dataclass(frozen=True)
class JudgementSettings(Settings):
    """The accuracy that candidates must reach, and the loss of it that is allowed."""

    target: float | None = option(
        None, above=0, maximum=1, help="accuracy to reach; 0.99 of that of float32 if not given"
    )
    allowed: float = option(
        1.0, minimum=0, help="percentage points of accuracy that the recommended candidate may lose"
    )
