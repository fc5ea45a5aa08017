"""No platform: what the library behind its WebSockets costs when it tells all who are there what one of them says."""

import json
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

sockets: set[ServerConnection] = set()
said = 0


async def talk(socket: ServerConnection) -> None:
    global said
    sockets.add(socket)
    try:
        async for text in socket:
            said += 1
            body = json.loads(text)["body"]
            message = {"type": "message", "number": said, "body": body, "html": f"<p>{body}</p>\n"}
            message |= {"writer": {"id": 1, "name": "Author 1"}, "created_at": "2026-11-21T09:30:00Z"}
            broadcast(sockets, json.dumps(message, separators=(",", ":")))
            await socket.send(json.dumps({"type": "posted", "number": said}, separators=(",", ":")))
    finally:
        sockets.discard(socket)


async def main(port: int) -> None:
    async with serve(talk, "127.0.0.1", port, compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
