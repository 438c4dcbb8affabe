"""What keeps strangers out? Tokens, addresses that a webhook may have, types that a file has, and a log that nobody can mend.

In reading order: `bearer`, `may`, `public_url`, `deliver`, `kind_of`, `pdf_of`, `audit`, `Headers`.
"""

import asyncio
import hashlib
import ipaddress
import json
import os
import re
import secrets
import socket
import uuid
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import jwt
from fastapi import Depends, Request
from starlette.datastructures import MutableHeaders

import edge
from edge import Problem

# Made at each start: a token ends with the process that gave it out.
KEY = secrets.token_bytes(32)
LIFE_SECONDS = 600
# The one address that is not public and may be called, for trying it out.
ALLOWED = os.environ.get("WEBHOOK_ALLOW", "127.0.0.1:9")
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def bearer(request: Request) -> dict:
    """Who asks: `sub`, `role` and `customer`."""
    values = request.headers.getlist("authorization")
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise jwt.InvalidTokenError
        # The algorithm is ours to say, and not the token's.
        claims = jwt.decode(token, KEY, ["HS256"], options={"require": ["exp", "sub", "role"]})
    except jwt.InvalidTokenError:
        raise Problem(401, "Send a good token.", headers={"WWW-Authenticate": "Bearer"}) from None
    return claims | {"request": request.scope["id"]}


def may(*roles: str):
    """Who has none of these roles may not. A call without this has no user either, so it cannot be forgotten."""

    def checked(claims: Annotated[dict, Depends(bearer)]) -> dict:
        if claims["role"] not in roles:
            raise Problem(403, "Your role may not do this.")
        return claims

    return Depends(checked)


def is_public(ip) -> bool:
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if ip.version == 6 and ip in NAT64:
        inner = ipaddress.ip_address(int(ip) & 0xFFFFFFFF)
    return is_public(inner) if inner else ip.is_global and not ip.is_multicast


def literal(host: str):
    """The address that a host is, in every spelling that a C library takes: 127.1, 0x7f.1, 2130706433."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_aton(host))
    except OSError:
        return None


def public_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if not re.fullmatch("[!-~]{1,2000}", url) or "#" in url or "@" in parts.netloc or "\\" in url:
        raise ValueError("must have no user, password or fragment, and visible ASCII characters only")
    if parts.scheme == "http" and f"{host}:{port}" == ALLOWED:
        return url
    ip = literal(host)
    inside = ip and not is_public(ip) or not ip and ("." not in host or host.endswith((".localhost", ".local", ".internal")))
    if parts.scheme != "https" or inside:
        raise ValueError("must be https, and lead to a public address")
    return url


async def deliver(url: str) -> int | None:
    """The status of the answer. The name is looked up once, and what was found is checked and called: a second look could find
    another address."""
    parts = urlsplit(url)
    try:
        port = parts.port or 443
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(address[0]) for *_, address in found]
        if f"{parts.hostname}:{port}" != ALLOWED and not all(is_public(ip) for ip in addresses):
            return None
        at = f"[{addresses[0]}]" if addresses[0].version == 6 else str(addresses[0])
        async with httpx.AsyncClient(timeout=3, trust_env=False, follow_redirects=False) as http:
            answer = await http.post(
                parts._replace(netloc=f"{at}:{port}").geturl(), json={"event": "test"},
                headers={"Host": parts.netloc}, extensions={"sni_hostname": parts.hostname},
            )  # fmt: skip
            return answer.status_code
    except (OSError, httpx.HTTPError, UnicodeError):
        return None


KINDS = {b"%PDF-": ("application/pdf", ("pdf",)), b"\x89PNG\r\n\x1a\n": ("image/png", ("png",)),
         b"\xff\xd8\xff": ("image/jpeg", ("jpg", "jpeg"))}  # fmt: skip


def kind_of(data: bytes, name: str) -> str:
    """The type that the bytes have. What the client calls it counts for nothing."""
    known = next((kind for start, kind in KINDS.items() if data.startswith(start)), None)
    if not known:
        raise Problem(415, "This is no PDF, PNG or JPEG.")
    media_type, endings = known
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_ .-]{0,90}\.[a-z]{3,4}", name) or name.rpartition(".")[2] not in endings:
        raise Problem(422, f"must be a plain file name that ends with .{endings[0]}", "name")
    return media_type


def pdf_of(line: str) -> bytes:
    """A page with this line. No program is run for it, and nothing is fetched."""
    text = re.sub(rb"([\\()])", rb"\\\1", line.encode("cp1252", "replace"))
    shown = b"BT /F1 16 Tf 72 720 Td (" + text + b") Tj ET"
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R /Resources << /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(shown), shown),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"xref\n0 6\n0000000000 65535 f \n%strailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        table, len(out),
    )  # fmt: skip


def chained(before: str, entry: dict) -> str:
    return hashlib.sha256((before + json.dumps(entry, sort_keys=True)).encode()).hexdigest()


async def audit(connection, user: dict, action: str, object: str) -> None:
    """In the transaction of what was done. Each entry's hash covers the one before, so a change to any breaks the chain."""
    await connection.execute("select pg_advisory_xact_lock(hashtext('audit'))")
    before = await connection.fetchval("select hash from audit order by seq desc limit 1") or ""
    entry = {"actor": user["sub"], "action": action, "object": object, "request_id": user["request"]}
    await connection.execute(
        "insert into audit (actor, action, object, request_id, hash) values ($1, $2, $3, $4, $5)",
        *entry.values(), chained(before, entry),
    )  # fmt: skip


def broken_at(before: str, rows: list[dict]) -> int | None:
    for row in rows:
        entry = {name: row[name] for name in ("actor", "action", "object", "request_id")}
        if row["hash"] != chained(before, entry):
            return row["seq"]
        before = row["hash"]
    return None


class Headers:
    """On every answer, those of errors too. No origin is listed, so none may read answers: there is no CORS."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["id"] = str(uuid.uuid4())

        async def adding(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(
                    {
                        "X-Request-Id": scope["id"],
                        "Cache-Control": "no-store",
                        "X-Content-Type-Options": "nosniff",
                        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
                        "Strict-Transport-Security": "max-age=31536000",
                    }
                )
            await send(message)

        await self.app(scope, receive, adding)
