"""The device's runner: one process that trains where the data is, and talks to one server.

In goes an enrolment file; out go replies to that server's messages. `enrolment.py` reads the file, `checks.py` says
what keeps a device from taking part. Nothing here runs code that the server sent.
"""
