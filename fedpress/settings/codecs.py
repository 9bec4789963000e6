"""The codecs that settings name: specs, or `auto` for those that fedpress chooses."""

from fedpress.compression import Codec, parse_stateless, parse_trusted

AUTO = "auto"
STEPS, DELTAS = "steps", "deltas"  # what nodes are sent
STEP_NOISE = 4.0  # of the server's steps
FIRST_NOISE = 8.0  # of updates, before anything is measured; less if fewer than ten nodes take part in a round


def auto_up(noise: float, subspace: float = 0.0) -> str:
    """Return the spec that `auto` stands for as the codec of updates.

    Parameters
    ----------
    noise : float
        Expected squared error over the update's squared norm.
    subspace : float
        Share of the dimensions in which nodes train; 0 for all.

    Returns
    -------
    str
        The spec, with the noise to three digits.

    Examples
    --------
    >>> auto_up(8.0)
    'crosspolytope(noise=8.0)'
    >>> auto_up(8.0, subspace=0.1)
    'subspace(0.1) | crosspolytope(noise=8.0)'
    """
    return _within(subspace, f"crosspolytope(noise={float(f'{noise:.3g}')!r})")


def auto_down(subspace: float = 0.0) -> str:
    """Return the spec that `auto` stands for as the codec of the model's deltas.

    Parameters
    ----------
    subspace : float
        Share of the dimensions in which nodes train; 0 for all.

    Returns
    -------
    str
        The spec.

    Examples
    --------
    >>> auto_down()
    'even(0.5) | lowrank(nmse=0.3) | ans'
    """
    return _within(
        subspace, "even(0.5) | deadzone(nmse=0.1) | ans" if subspace else "even(0.5) | lowrank(nmse=0.3) | ans"
    )


def auto_step(subspace: float = 0.0) -> str:
    """Return the spec that `auto` stands for as the codec of the server's steps.

    Parameters
    ----------
    subspace : float
        Share of the dimensions in which nodes train; 0 for all.

    Returns
    -------
    str
        The spec: unbiased, since an error of the server's model stays until later rounds correct it.

    Examples
    --------
    >>> auto_step()
    'crosspolytope(noise=4.0)'
    """
    return auto_up(STEP_NOISE, subspace)


def up_codec(spec: str, subspace: float = 0.0) -> Codec:
    """Return the codec of the first updates with the setting `up`.

    Parameters
    ----------
    spec : str
        The setting.
    subspace : float
        Share of the dimensions in which nodes train; 0 for all.

    Returns
    -------
    Codec
        The codec.

    Raises
    ------
    SpecError
        If the spec does not describe a codec.

    Examples
    --------
    >>> str(up_codec("auto"))
    'crosspolytope(noise=8.0)'
    """
    return parse_trusted(auto_up(FIRST_NOISE, subspace) if spec == AUTO else spec)


def down_codec(spec: str, subspace: float = 0.0, broadcast: str = DELTAS) -> Codec:
    """Return the codec of what nodes are sent with the setting `down`.

    Parameters
    ----------
    spec : str
        The setting.
    subspace : float
        Share of the dimensions in which nodes train; 0 for all.
    broadcast : str
        What nodes are sent, "deltas" or "steps".

    Returns
    -------
    Codec
        The codec.

    Raises
    ------
    SpecError
        If the spec does not describe a codec, or the codec keeps a state.

    Examples
    --------
    >>> str(down_codec("auto", subspace=0.1))
    'subspace(0.1) | even(0.5) | deadzone(nmse=0.1) | ans'
    """
    chosen = auto_step if broadcast == STEPS else auto_down
    return parse_stateless(chosen(subspace) if spec == AUTO else spec)


def _within(subspace: float, spec: str) -> str:
    return f"subspace({subspace!r}) | {spec}" if subspace else spec
