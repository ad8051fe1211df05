"""How long a rollout takes and what it costs, next to the least that any safe rollout needs: `python -m tools.bench`.

`setting` makes the cluster, `floor` rolls it by a bare script, `subject` by the controller, `witness` reads from the API
server's audit log what each of them did and when, and `report` prints it.
"""
