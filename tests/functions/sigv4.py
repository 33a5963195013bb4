"""Signature Version 4, checked as a service of AWS does (AWS: "Create a signed AWS API request"). Written from that text, and of none of our code."""

import hashlib
import hmac
import re
import time
import urllib.parse

KEY_ID, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a-session-token"
# What the platform gives a function of its role.
ROLE = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}


def mistake(service, region, method, target, headers, body):
    """What is wrong with a request's signature; None when nothing is. `headers` have names in lower case."""
    found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
                         headers.get("authorization", ""))
    if not found:
        return "no authorization"
    key_id, day, of_region, of_service, names, signature = found.groups()
    if (key_id, of_region, of_service) != (KEY_ID, region, service):
        return f"signed for {key_id} {of_region} {of_service}"
    stamp = headers.get("x-amz-date", "")
    when = time.strptime(stamp, "%Y%m%dT%H%M%SZ")
    if not stamp.startswith(day) or abs(time.time() - (time.mktime(when) - time.timezone)) > 300:
        return f"signed at {stamp}"
    names = names.split(";")
    if headers.get("x-amz-security-token") != TOKEN or not {"host", "x-amz-date", "x-amz-security-token"} <= {*names}:
        return "the session's token, or what must be signed, is missing"
    path, _, query = target.partition("?")
    canonical = "\n".join([
        method,
        "/".join(urllib.parse.quote(segment, safe="-_.~") for segment in path.split("/")),
        "&".join(sorted(query.split("&"))),
        *[f"{name}:{' '.join(headers[name].split())}" for name in names],
        "",
        ";".join(names),
        hashlib.sha256(body).hexdigest(),
    ])
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    expected = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    return None if hmac.compare_digest(expected, signature) else f"another signature than that of\n{canonical}"
