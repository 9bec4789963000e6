"""Who may talk to the server: a private certificate authority, the server's certificate, and the devices' keys.

In goes a name; out come a record, `devices/NAME.json`, that the server admits the device by, and an enrolment file that
the device is given. `authority.py` makes the certificates, `devices.py` issues, revokes and lists. The authority's
private key never leaves the folder of keys, and a device's is only ever in its enrolment file.
"""

from fedpress.server.keys.authority import PORT, init, renew
from fedpress.server.keys.devices import Device, issue, load_devices, revoke

__all__ = ["PORT", "Device", "init", "issue", "load_devices", "renew", "revoke"]
