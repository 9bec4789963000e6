"""The device's process: it trains where the data is, and talks to one server.

In goes an enrolment file; out go replies to that server's messages. `enrolment.py` reads the file, `doctor.py` checks
what could keep a device from taking part, `service.py` is `fedpress client`. Nothing here runs code that the server
sent. A new check goes into `doctor.py`.
"""
