"""Simulated links and devices: the time and energy of bytes and training.

In go a link, a class of devices and the bytes of a message; out come seconds and joules. `links.py` and `devices.py`
have the named ones, `clock.py` computes times, `deadline.py` drops replies that would be late. A new link or class of
devices is one entry in its table.
"""
