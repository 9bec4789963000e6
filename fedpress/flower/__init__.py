"""All uses of private names of flwr, so that a new release of it can be checked in one folder.

`fleet_api.py` connects a device to a SuperLink, `control_api.py` starts runs on one, `polling_grid.py` collects replies
for its ServerApp, `runtime.py` and `metadata.py` make messages for the simulation engines, `message_size.py` measures
messages. Nothing here imports the client, the server or the simulations. Add further uses of private names
here, behind a public function; tests/layout/test_flower.py reports names that a version of flwr has moved.
"""
