"""`python -m skewed ...` is `fedpress ...` on a device whose clock is days off, or of another version."""

import datetime
import os
import runpy

from flwr.supercore import date, version

from fedpress.common import version as fedpress_version

match os.environ.get("FEDPRESS_PROOF_VERSION"):
    case "fedpress":
        fedpress_version.VERSION = "9.9.9"
    case "flwr":
        version.package_version = "9.9.9"
if days := int(os.environ.get("FEDPRESS_PROOF_DAYS", "0")):
    right = date.now
    date.now = lambda: right() + datetime.timedelta(days=days)

runpy.run_module("fedpress", run_name="__main__")
