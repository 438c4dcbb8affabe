"""A URL shortener with nothing but Python's standard library and SQLite, for `conform url-shortener`.

    cargo run -- conform url-shortener --target http://127.0.0.1:9000 --load \\
        --restart-cmd 'python3 examples/python/url_shortener.py 9000 links.db'
"""

import datetime, hashlib, json, re, secrets, sqlite3, sys, threading, time, zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote_to_bytes, urlsplit

OWN = f"http://127.0.0.1:{sys.argv[1]}"
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
METHODS = {"links": "POST", "link": "GET, HEAD, PATCH, DELETE", "stats": "GET, HEAD", "code": "GET, HEAD", "health": "GET, HEAD"}
SCHEMA = """create table if not exists links (code text primary key, url text not null, shared int not null, created real not null, expires real, token text);
create table if not exists clicks (code text references links on delete cascade, day text, host text, clicks int, primary key (code, day, host));"""
lock = threading.Lock()  # SQLite has one writer; this makes the others wait in turn.
database = sqlite3.connect(sys.argv[2], check_same_thread=False, isolation_level=None)
database.executescript("pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on;" + SCHEMA)

class Problem(Exception): "A status, what is wrong, and perhaps with which field."

def sql(text, *values):
    with lock:
        return database.execute(text, values).fetchall()

def checked(body, fields=("url", "alias", "expires_in_seconds")):
    if not isinstance(body, dict):
        raise Problem(400, "an object")
    for field in set(body) - set(fields) or {"url"} - {field for field in body if isinstance(body[field], str)}:
        raise Problem(422, f"must be a text, or not be there; the fields are {fields}", field)
    url, alias, seconds = body["url"], body.get("alias"), body.get("expires_in_seconds")
    try:
        parts = urlsplit(url)
        good = re.fullmatch(r"https?://[!-~]{1,2040}", url) and parts.hostname and "@" not in parts.netloc
        good = good and (parts.port is None or parts.port < 65536) and f"{parts.scheme}://{parts.netloc}" != OWN
    except ValueError:
        good = False
    if not good or len(url) > 2048:
        raise Problem(422, "must not be shortened", "url")
    if alias is not None and not (isinstance(alias, str) and re.fullmatch(r"[A-Za-z0-9_-]{3,32}", alias) and alias not in ("links", "healthz", "readyz")):
        raise Problem(422, "3 to 32 letters, digits, _ and -", "alias")
    if seconds is not None and not (type(seconds) is int and 1 <= seconds <= 315_360_000):
        raise Problem(422, "from 1 second to 10 years", "expires_in_seconds")
    return url, alias, seconds

def create(body):
    url, alias, seconds = checked(body)  # Then insert: the primary key decides who owns the code.
    shared, now = alias is None and seconds is None, time.time()
    for salt in range(1000):
        text = url if shared and not salt else f"{url} {salt} {'' if shared else now}"
        number = zlib.crc32(text.encode())
        code = alias or "".join(DIGITS[number // 62**place % 62] for place in range(6, -1, -1))
        sql("delete from links where code = ? and expires <= ?", code, now)
        token = None if shared else secrets.token_urlsafe()
        row = (code, url, shared, now, now + seconds if seconds else None, hashed(token))
        if sql("insert into links values (?, ?, ?, ?, ?, ?) on conflict do nothing returning code", *row):
            return 201, row, {} if shared else {"edit_token": token}
        owner = sql("select * from links where code = ?", code)
        if shared and owner and owner[0][1] == url and owner[0][2]:
            return 200, owner[0], {}
        if alias:
            raise Problem(409, "this alias is taken")
    raise Problem(503, "no free code was found")

def hashed(token):
    return token and hashlib.sha256(token.encode()).hexdigest()

def owned(code, header):
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Problem(401, "send the edit token as `Authorization: Bearer ...`")
    row = find(code)
    if row[5] != hashed(token.strip()):
        raise Problem(403, "this token cannot change this link")
    return row

def change(row, body):
    if isinstance(body, dict):
        body = {"url": row[1], **body}  # What is not sent stays as it is.
    url, _, seconds = checked(body, ("url", "expires_in_seconds"))
    expires = (time.time() + seconds if seconds else None) if "expires_in_seconds" in body else row[4]
    sql("update links set url = ?, expires = ? where code = ?", url, expires, row[0])
    return find(row[0])

def find(code):
    row = sql("select * from links where code = ?", code)
    if not row or (row[0][4] or time.time() + 1) <= time.time():
        raise Problem(410 if row else 404, "this link has expired" if row else "there is nothing here")
    return row[0]

def shown(row):
    day = lambda at: at and datetime.datetime.fromtimestamp(at, datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    return {"code": row[0], "short_url": f"{OWN}/{row[0]}", "url": row[1], "created_at": day(row[3]), "expires_at": day(row[4])}

def stats(code):
    find(code)
    by = lambda column: sql(f"select {column}, sum(clicks) from clicks where code = ? group by 1 order by 2 desc", code)
    days, hosts = ([{name: value, "clicks": clicks} for value, clicks in by(name)] for name in ("day", "host"))
    return {"code": code, "clicks": sum(day["clicks"] for day in days), "by_day": days, "referrers": hosts}

def unique(pairs):
    if len(dict(pairs)) == len(pairs):
        return dict(pairs)
    raise Problem(400, "a field stands there twice")

class Handler(BaseHTTPRequestHandler):
    protocol_version, timeout = "HTTP/1.1", 10

    def answer(self, status, body=None, **headers):
        text = b"" if body is None else json.dumps(body).encode()
        if status != 204:
            headers |= {"Content_Type": "application/problem+json" if status >= 400 else "application/json", "Content_Length": len(text)}
        headers |= {"Connection": "close"} if self.close_connection else {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else text)

    def body(self):
        length = int(self.headers.get("Content-Length", "0"))
        if length > 16384:
            self.close_connection = True  # What is not read would be taken for the next request.
            raise Problem(413, "the body is too long")
        text = self.rfile.read(length)
        if self.headers.get("Content-Type", "").split(";")[0] != "application/json":
            raise Problem(415, "send JSON")
        try:
            return json.loads(text.decode(), object_pairs_hook=unique)
        except (ValueError, RecursionError):
            raise Problem(400, "the body is not JSON")

    def route(self):
        path = unquote_to_bytes(self.path.split("?")[0]).decode("latin-1").strip("/").split("/")
        known = [("health", path in (["healthz"], ["readyz"])), ("links", path == ["links"]), ("link", len(path) == 2 and path[0] == "links"),
                 ("stats", len(path) == 3 and path[0] == "links" and path[2] == "stats"), ("code", len(path) == 1)]
        name = next((name for name, fits in known if fits), None)
        if name is None:
            raise Problem(404, "there is nothing here")
        if self.command not in METHODS[name]:
            return self.answer(405, {"title": "Method Not Allowed", "status": 405}, Allow=METHODS[name])
        if name == "health":
            self.answer(200, {"status": "alive"})
        elif name == "links":
            status, row, token = create(self.body())
            self.answer(status, shown(row) | token, Location=f"/links/{row[0]}")
        elif name == "stats":
            self.answer(200, stats(path[1]))
        elif self.command == "DELETE":
            sql("delete from links where code = ?", owned(path[1], self.headers.get("Authorization"))[0])
            self.answer(204)
        elif self.command == "PATCH":
            body = self.body()  # First: what is not read would be taken for the next request.
            self.answer(200, shown(change(owned(path[1], self.headers.get("Authorization")), body)))
        elif name == "link":
            self.answer(200, shown(find(path[1])))
        else:
            row = find(path[0])
            if self.command == "GET":
                host = re.match(r"https?://([A-Za-z0-9.-]+)", self.headers.get("Referer", ""))
                sql("insert into clicks values (?, date('now'), ?, 1) on conflict do update set clicks = clicks + 1", path[0], host[1] if host else "direct")
            self.answer(302, Location=row[1], Cache_Control="private, max-age=0")

    def handle_call(self):
        try:
            self.route()
        except Problem as problem:
            status, detail, *fields = problem.args
            errors = [{"field": field, "message": detail} for field in fields]
            asks = {"WWW_Authenticate": "Bearer"} if status == 401 else {}
            self.answer(status, {"title": detail, "status": status, "errors": errors}, **asks)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_call
    log_message = lambda *_: None

ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
