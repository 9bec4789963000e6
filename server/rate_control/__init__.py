"""Rate control: which codec a node uses in a round.

In go the costs of earlier frames and the round's number, out comes a codec. `policies.py` has the policies,
`controller.py` applies and checks them. A new policy is a class in `policies.py` and an entry in its table.
"""
