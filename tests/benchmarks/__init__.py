"""What the platform costs, beside what it is built on and beside the shape that FastAPI's tutorial teaches.

`pipenv run bench` needs wrk. It starts everything that it measures on loopback, one worker each, and prints one
table. It never fails for being slow, only for answers that are not 2xx.

- `bare`, `constant`: the floors beneath: uvicorn alone, and FastAPI with a constant model;
- `tutorial`: the tutorial's shape;
- `contestants`: the servers, and what each is asked;
- `databases`: made, filled and dropped;
- `load`: requests a second, p99 and memory, by wrk;
- `statements`: SQL statements a request, counted in a process of its own;
- `fanout`, `crowd`, `broadcast`: a room's messages to all who listen, who they are, and the floor beneath;
- `report`: medians, ratios and the table.
"""
