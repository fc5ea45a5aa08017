"""What the platform costs, beside what it is built on and beside the shape that FastAPI's tutorial teaches.

`pipenv run bench` needs wrk. It starts everything that it measures on loopback, one worker each, but for rooms,
and prints tables. It does not fail for being slow, but for answers that are not 2xx and for a page that is not renewed
within ten seconds.

- `bare`, `constant`, `page`: the floors beneath: uvicorn alone, FastAPI with a constant model, Starlette with so many
  bytes;
- `tutorial`: the tutorial's shape;
- `contestants`: the servers, and what each is asked;
- `databases`: made, filled and dropped;
- `load`: requests a second, p99 and memory, by wrk;
- `statements`: SQL statements a request, counted in a process of its own;
- `freshness`: how long a page is shown as it was;
- `fanout`, `crowd`, `broadcast`: a room's messages to all who listen, who they are, and the floor beneath;
- `report`: medians, ratios and the tables.
"""
