"""Simulated links and devices: how long bytes and training would take on them.

In go a link, a kind of device and the bytes of a message; out come seconds and joules. `links.py` and `devices.py` have
those with names, `clock.py` computes, `deadline.py` drops replies that would be late. A link or a fleet is one entry in
its table.
"""
