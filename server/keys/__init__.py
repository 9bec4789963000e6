"""Authentication: a private certificate authority, the server's certificate, and the devices' keys.

In goes a name; out come a record, `devices/NAME.json`, by which the server admits the device, and an enrolment file
for the device. `authority.py` makes the certificates, `devices.py` issues, revokes and lists devices. The authority's
private key never leaves the folder of keys, and a device's private key is only in its enrolment file.
"""

from fedpress.server.keys.authority import PORT, init, renew
from fedpress.server.keys.devices import Device, issue, load_devices, revoke

__all__ = ["PORT", "Device", "init", "issue", "load_devices", "renew", "revoke"]
