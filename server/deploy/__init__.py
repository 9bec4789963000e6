"""The deployed server: a SuperLink, a proxy in front of it, and the run on it.

In go settings and a folder of keys; out comes a run's folder. `supervisor.py` is `fedpress server`, `fleet_proxy.py`
all that is reachable from outside, `superlink.py` the process behind it, `device_registry.py` who may take part. A new
way to observe it is a module like `metrics.py`.
"""
