"""The app of the question: the same table of calls as the Rust twin (src/cases/calls.md)."""

import json
import os
import socket
import subprocess
import threading
import time

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
LONGEST = 10_000
MOST = 1_024

lock = threading.Lock()
counts = {"done": 0, "in_flight": 0, "held": 0}


def problem(status, detail, errors=None, retry=False):
    body = {"type": "about:blank", "title": detail, "status": status, "detail": detail}
    if errors:
        body["errors"] = [{"field": field, "message": message} for field, message in errors]
    headers = {"Retry-After": "1"} if retry else {}
    text = json.dumps(body) + "\n"
    return Response(text, status, headers, content_type="application/problem+json")


@app.errorhandler(HTTPException)
def failed(error):
    answer = problem(error.code, error.name)
    for name, value in error.get_headers():
        if name == "Allow":
            answer.headers[name] = value
    return answer


@app.errorhandler(Exception)
def broken(error):
    app.logger.exception("broken: %s", error)
    return problem(500, "something went wrong on our side")


def unique(pairs):
    """A dictionary, unless a key stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


@app.get("/")
def home():
    return jsonify(message="Hello, Docker!", pid=os.getpid(), phase="ready")


@app.post("/jobs")
def job():
    if request.mimetype != "application/json":
        return problem(415, "send JSON")
    try:
        asked = json.loads(request.get_data(), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return problem(400, "the body cannot be read")
    if not isinstance(asked, dict):
        return problem(400, "send an object")
    errors = [(field, "unknown") for field in asked if field not in ("name", "milliseconds")]
    name, milliseconds = asked.get("name"), asked.get("milliseconds")
    if not (isinstance(name, str) and 1 <= len(name) <= 100 and name.isprintable()):
        errors.append(("name", "must be a line of 1 to 100 characters"))
    if type(milliseconds) is not int or not 0 <= milliseconds <= LONGEST:
        errors.append(("milliseconds", "must be a whole number from 0 to 10000"))
    if errors:
        return problem(422, "a field is not as it should be", errors)
    with lock:
        counts["in_flight"] += 1
    try:
        time.sleep(milliseconds / 1000)
    finally:
        with lock:
            counts["in_flight"] -= 1
    with lock:
        counts["done"] += 1
    return jsonify(name=name, milliseconds=milliseconds)


@app.get("/healthz")
def alive():
    return jsonify(status="alive")


@app.get("/readyz")
def ready():
    backend = os.environ.get("BACKEND")
    if backend:
        host, port = backend.rsplit(":", 1)
        try:
            with socket.create_connection((host, int(port)), timeout=0.5) as stream:
                stream.sendall(b"PING\r\n")
                if stream.recv(1) not in (b"+", b"-"):
                    raise OSError("no answer")
        except OSError:
            return problem(503, "its backend is away", retry=True)
    return jsonify(status="ready")


@app.get("/metrics")
def metrics():
    lines = (f"jobs_done_total {counts['done']}", f"jobs_in_flight {counts['in_flight']}")
    return Response("\n".join(lines) + "\n", content_type="text/plain; version=0.0.4")


def limit(path):
    try:
        number = int(open(path).read())
        return number if number < 1 << 60 else None
    except (OSError, ValueError):
        return None


def memory_limit():
    two, one = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    return limit(two) or limit(one)


@app.get("/who")
def who():
    status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
    bits = int(status["CapEff"], 16)
    return jsonify(
        user=os.geteuid(),
        pid=os.getpid(),
        capabilities=[str(n) for n in range(64) if bits >> n & 1],
        may_gain_privileges=status.get("NoNewPrivs") != "1",
        read_only=bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        memory_limit=memory_limit(),
        cpu_limit=None,
        workers=os.cpu_count() or 1,
    )


def number(field, least, most, default=None):
    text = request.args.get(field)
    value = default
    if text is not None:
        # Python refuses to read thousands of digits.
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
    return value if value is not None and least <= value <= most else None


@app.post("/eat")
def eat():
    mib, milliseconds = number("mib", 1, MOST), number("milliseconds", 0, LONGEST, 0)
    for field, value in (("mib", mib), ("milliseconds", milliseconds)):
        if value is None:
            return problem(422, "a value is not as it should be", [(field, "is out of range")])
    most = (memory_limit() or 2 * MOST << 20) * 0.8
    with lock:
        if (counts["held"] + mib + 60 << 20) > most:
            return problem(503, "there is no memory for this now", retry=True)
        counts["held"] += mib
    try:
        held = bytearray(b"\1") * (mib << 20)
        time.sleep(milliseconds / 1000)
        del held
    finally:
        with lock:
            counts["held"] -= mib
    return jsonify(mib=mib, milliseconds=milliseconds)


@app.post("/fork")
def fork():
    children = number("children", 1, 1_000)
    if children is None:
        return problem(422, "a value is not as it should be", [("children", "is out of range")])
    script = "n=0; while [ $n -lt $0 ]; do sleep 0.5 & n=$((n+1)); done"
    subprocess.run(["sh", "-c", script, str(children)], check=False)
    return jsonify(children=children)


if __name__ == "__main__":
    # Flask's own server, as in the textbook: for development only.
    app.run(host="0.0.0.0", port=int(os.environ.get("PORT", "5000")))
