"""A small HTTP service to call from a workflow: `python examples/local_service/service.py [PORT]` (8765)."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS = {
    "/user": {"id": 123, "name": "Ada"},
    "/posts": [{"id": 1, "title": "Notes on the engine"}, {"id": 2, "title": "On loops"}],
}


class Service(BaseHTTPRequestHandler):
    """Answers two addresses, and sends back what is posted to a third."""

    def do_GET(self) -> None:
        """`/user` and `/posts`."""
        answer = ANSWERS.get(self.path.partition("?")[0])
        self._answer(404 if answer is None else 200, answer)

    def do_POST(self) -> None:
        """Whatever was posted, and the idempotency key it came with."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        self._answer(200, {"received": body, "idempotency_key": self.headers.get("Idempotency-Key")})

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until interrupted."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
    server = ThreadingHTTPServer(("127.0.0.1", port), Service)
    sys.stdout.write(f"listening on http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
