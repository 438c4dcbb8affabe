"""The four layers in Django: request id, log, authentication, time-out. `python3 django_app.py PORT LIMIT_MS`"""

import json
import re
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, TimeoutError as TookTooLong
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.urls import path

port, limit = (int(word) for word in (sys.argv[1:] + ["3001", "2000"])[:2])
threads = ThreadPoolExecutor(32)
finished = 0
behind_next = 0


def problem(status, title, headers=None):
    document = json.dumps({"type": "about:blank", "title": title, "status": status}) + "\n"
    return HttpResponse(document, "application/problem+json", status, headers=headers or {})


def request_id(get_response):
    def middleware(request):
        given = request.headers.get("X-Request-Id", "")
        request.id = given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else str(uuid.uuid4())
        response = get_response(request)
        response["X-Request-Id"] = request.id
        return response

    return middleware


def log(get_response):
    def middleware(request):
        global behind_next
        begun = time.perf_counter()
        response = get_response(request)
        took = (time.perf_counter() - begun) * 1e3
        if request.path == "/slow":
            behind_next = took
        line = f"{request.method} {request.path} {response.status_code} {took:.1f} ms"
        print(f'id="{request.id}" {line}', file=sys.stderr)
        return response

    return middleware


def time_limit(get_response):
    """It can answer, and it cannot stop the thread of the handler."""

    def middleware(request):
        try:
            return threads.submit(get_response, request).result(limit / 1e3 if limit else None)
        except TookTooLong:
            return problem(503, "Service Unavailable", {"Retry-After": "1"})

    return middleware


def authenticate(get_response):
    def middleware(request):
        if request.path != "/notes" and not request.path.startswith("/notes/"):
            return get_response(request)
        found = re.fullmatch(r"bearer +(.*)", request.headers.get("Authorization", ""), re.IGNORECASE)
        if not (found and found[1] == "let-ada-in"):
            return problem(401, "Unauthorized", {"WWW-Authenticate": "Bearer"})
        request.user = "ada"
        return get_response(request)

    return middleware


def forgets(get_response):
    """Neither answers nor calls what is inside."""

    def middleware(request):
        if request.path != "/forgotten":
            return get_response(request)

    return middleware


def slow(request):
    global finished
    time.sleep(int(request.GET["ms"]) / 1e3)
    finished += 1
    return JsonResponse({"slept_ms": int(request.GET["ms"])})


def panic(request):
    raise RuntimeError("POST /panic asks for it")


urlpatterns = [
    path("healthz", lambda request: JsonResponse({"status": "alive"})),
    path("forgotten", lambda request: JsonResponse({"handler": "was reached"})),
    path("notes", lambda request: JsonResponse({"items": [], "owner": getattr(request, "user", "nobody")})),
    path("finished", lambda request: JsonResponse({"finished": finished})),
    path("behind-next", lambda request: JsonResponse({"ms": behind_next})),
    path("slow", slow),
    path("panic", panic),
]


def handler404(request, exception):
    return problem(404, "Not Found")


def handler500(request):
    return problem(500, "Internal Server Error")


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
    MIDDLEWARE=[f"{__name__}.{layer}" for layer in ["request_id", "log", "time_limit", "authenticate", "forgets"]],
)
django.setup()
from django.core.wsgi import get_wsgi_application  # noqa: E402

server = make_server("127.0.0.1", port, get_wsgi_application(), Server, Quiet)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
