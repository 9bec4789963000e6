"""The modules that use private names of flwr, so that a new release of it is checked in one folder.

`fleet_api.py` is how a device talks to a SuperLink, `control_api.py` how a run is started on one, `polling_grid.py` how
its ServerApp waits for replies, `runtime.py` what the engines set up for the apps. Nothing here imports the client, the
server or the simulations. Another use of a private name is added here, with a public function around it.
"""
