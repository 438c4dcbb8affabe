"""Pricing as a service, in Python, with nothing but its standard library.

    python3 pricing.py PORT

It keeps the contract of the Rust program's pricing: `POST /internal/pricing` with
`{"quote": {"cents": 1000, "quantity": 3}}`. It also keeps the spans of the last traces, for `GET /internal/spans/{trace}`.
"""

import collections
import datetime
import http.server
import json
import re
import secrets
import sys
import time
import urllib.parse

CONTRACT = "1"
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
SPANS = collections.deque(maxlen=20_000)
# In bytes: many times the longest question.
MAX_BODY = 65_536


def quote(question):
    """Whoever buys three gets 5 % off, and whoever buys ten gets 10 %. Half a cent is the customer's."""
    try:
        cents, quantity = question["quote"]["cents"], question["quote"]["quantity"]
    except (KeyError, TypeError):
        raise ValueError("this is no question about a price") from None
    if type(cents) is not int or type(quantity) is not int:
        raise ValueError("these are not numbers")
    percent = 90 if quantity >= 10 else 95 if quantity >= 3 else 100
    return {"cents": cents * quantity * percent // 100}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without it, the body of each answer waits for an acknowledgement of its head.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self):
        begun, at = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
        length = self.headers.get("content-length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > MAX_BODY:
            # What follows is not read, so the connection cannot go on.
            self.close_connection = True
            return self.answer(413, {"title": "Content Too Large", "status": 413})
        body = self.rfile.read(int(length))
        if self.path != "/internal/pricing":
            return self.answer(404, {"title": "Not Found", "status": 404})
        try:
            status, body = 200, quote(json.loads(body))
        except (ValueError, RecursionError):
            status, body = 400, {"title": "Bad Request", "status": 400}
        self.keep_span(begun, at)
        self.answer(status, body)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/internal/about":
            status, body = 200, {"name": "pricing", "version": "python", "contract": CONTRACT}
        elif url.path.startswith("/internal/spans/"):
            trace = url.path.rsplit("/", 1)[1]
            # A copy: other threads add to it. And no more of them than an answer may have.
            status, body = 200, [span for its, span in list(SPANS) if its == trace][:500]
        elif url.path in ("/healthz", "/readyz"):
            status, body = 200, {"status": "alive"}
        else:
            status, body = 404, {"title": "Not Found", "status": 404}
        self.answer(status, body)

    def keep_span(self, begun, at):
        parent = TRACEPARENT.fullmatch(self.headers.get("traceparent", ""))
        if parent:
            micros = int((time.monotonic() - begun) * 1e6)
            SPANS.append((parent[1], {
                "id": secrets.token_hex(8), "parent": parent[2], "service": "pricing in Python",
                "name": "POST /internal/pricing", "at": at.isoformat().replace("+00:00", "Z"),
                "micros": micros, "failed": False,
            }))

    def answer(self, status, body):
        text = (json.dumps(body) + "\n").encode()
        kind = "application/json" if status == 200 else "application/problem+json"
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.send_header("x-contract", CONTRACT)
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
