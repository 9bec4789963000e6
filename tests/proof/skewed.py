"""`python -m skewed ...` is `fedpress ...` on a device whose clock is days off, or of another version."""

import datetime
import os
import runpy

from flwr.supercore import date

import fedpress

if version := os.environ.get("FEDPRESS_PROOF_VERSION"):
    fedpress.__version__ = version
if days := int(os.environ.get("FEDPRESS_PROOF_DAYS", "0")):
    right = date.now
    date.now = lambda: right() + datetime.timedelta(days=days)

runpy.run_module("fedpress", run_name="__main__")
