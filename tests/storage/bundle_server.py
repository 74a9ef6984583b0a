"""A small server of the Open Inference Protocol v2 on retune-runtime: it serves what MODEL_URI names, or ends.

It says `ready PORT` when it is asked its golden requests and answers.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import retune_runtime

NAME = "digits"


def main() -> None:
    """Serve until the process is ended."""
    try:
        served = retune_runtime.from_environment(delivered=os.environ.get("DELIVERED"))
    except retune_runtime.ServeError as error:
        sys.exit(str(error))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(served.answer(body, name=NAME)).encode()
            self.send_response(200 if self.path == f"/v2/models/{NAME}/infer" else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing of requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"ready {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
