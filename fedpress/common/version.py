"""The version of fedpress, readable where fedpress is unpacked but not installed."""

VERSION = "0.1.0"
