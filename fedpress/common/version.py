"""The version of fedpress: here, so that every package can read it where fedpress is unpacked and not installed."""

VERSION = "0.1.0"
