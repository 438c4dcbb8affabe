"""The four layers in Flask: request id, log, authentication, time-out. `python3 flask_app.py PORT LIMIT_MS`"""

import json
import re
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, TimeoutError as TookTooLong

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

port, limit = (int(word) for word in (sys.argv[1:] + ["3001", "2000"])[:2])
app = Flask(__name__)
finished = 0
behind_next = 0


def document(status, title):
    return json.dumps({"type": "about:blank", "title": title, "status": status}) + "\n"


def problem(status, title, headers=None):
    return Response(document(status, title), status, headers or {}, mimetype="application/problem+json")


class RequestId:
    """Around the whole application (WSGI), so that answers of other layers have it too."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        given = environ.get("HTTP_X_REQUEST_ID", "")
        chosen = given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else str(uuid.uuid4())
        environ["HTTP_X_REQUEST_ID"] = chosen

        def with_id(status, headers, exc_info=None):
            return start_response(status, [*headers, ("X-Request-Id", chosen)], exc_info)

        return self.inner(environ, with_id)


class Log:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        begun = time.perf_counter()

        def logged(status, headers, exc_info=None):
            took = (time.perf_counter() - begun) * 1e3
            line = f'{environ["REQUEST_METHOD"]} {environ["PATH_INFO"]} {status[:3]} {took:.1f} ms'
            print(f'id="{environ["HTTP_X_REQUEST_ID"]}" {line}', file=sys.stderr)
            return start_response(status, headers, exc_info)

        body = self.inner(environ, logged)
        if environ["PATH_INFO"] == "/slow":
            global behind_next
            behind_next = (time.perf_counter() - begun) * 1e3
        return body


class TimeLimit:
    """It can answer, and it cannot stop the thread of the handler."""

    threads = ThreadPoolExecutor(32)

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        heads = []

        def work():
            return list(self.inner(environ, lambda *head: heads.append(head)))

        try:
            body = self.threads.submit(work).result(limit / 1e3 if limit else None)
        except TookTooLong:
            kind = [("Content-Type", "application/problem+json"), ("Retry-After", "1")]
            start_response("503 Service Unavailable", kind)
            return [document(503, "Service Unavailable").encode()]
        start_response(*heads[-1][:2])
        return body


@app.before_request
def authenticate():
    """What it returns is the answer. If it returns nothing, the request goes on."""
    if request.path != "/notes" and not request.path.startswith("/notes/"):
        return None
    found = re.fullmatch(r"bearer +(.*)", request.headers.get("Authorization", ""), re.IGNORECASE)
    if found and found[1] == "let-ada-in":
        g.user = "ada"
        return None
    return problem(401, "Unauthorized", {"WWW-Authenticate": "Bearer"})


@app.before_request
def forgets():
    """It should have answered, and its author forgot to."""
    if request.path == "/forgotten":
        problem(403, "Forbidden")


@app.get("/healthz")
def alive():
    return jsonify(status="alive")


@app.get("/forgotten")
def forgotten():
    return jsonify(handler="was reached")


@app.get("/notes")
def notes():
    return jsonify(items=[], owner=g.get("user", "nobody"))


@app.get("/finished")
def count():
    return jsonify(finished=finished)


@app.get("/behind-next")
def behind():
    return jsonify(ms=behind_next)


@app.get("/slow")
def slow():
    global finished
    time.sleep(int(request.args["ms"]) / 1e3)
    finished += 1
    return jsonify(slept_ms=int(request.args["ms"]))


@app.post("/panic")
def panic():
    raise RuntimeError("POST /panic asks for it")


@app.errorhandler(Exception)
def failed(error):
    if isinstance(error, HTTPException):
        return problem(error.code, error.name)
    return problem(500, "Internal Server Error")


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


app.wsgi_app = RequestId(Log(TimeLimit(app.wsgi_app)))
server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Quiet)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
