"""A gateway that gives an S3 server the XML interface of Google Cloud Storage, as its reference describes it
(cloud.google.com/storage/docs/xml-api): the two share paths, listings (list-type=2), errors and multipart uploads, and differ in
the names of headers and in preconditions, which are generations there.

    with Gateway(endpoint) as gateway: ... gateway.endpoint ...

Requests are not signed; the server behind must take them so. Nothing here is Google's: what holds against this gateway holds
against the reference, not against the cloud.
"""
import hashlib
import http.client
import threading
import urllib.parse

import fault_proxy

# Of a request and an answer: everything that belongs to one connection, or is set anew.
PER_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "authorization", "expect"}


def generation_of(etag):
    """A number that is another one for other content."""
    return str(int(hashlib.sha256(etag.encode()).hexdigest()[:14], 16) + 1)


class Gateway:
    def __init__(self, endpoint):
        self.upstream = urllib.parse.urlparse(endpoint).netloc
        self.etags = {}  # generation -> etag
        self.creating = threading.Lock()
        self.server, self.endpoint = fault_proxy.serve(self.handle)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()

    def forward(self, method, path, body, headers):
        connection = http.client.HTTPConnection(self.upstream, timeout=120)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def to_s3(self, headers):
        """The same request's headers, and whether the object must not be there."""
        out, create = {}, False
        for name, value in headers.items():
            lower = name.lower()
            if lower == "x-goog-if-generation-match":
                if value == "0":
                    create = True
                else:
                    out["If-Match"] = self.etags.get(value, '"none"')
            elif lower == "x-goog-copy-source":
                out["x-amz-copy-source"] = "/" + value
            elif lower.startswith("x-goog-"):
                out["x-amz-" + lower.removeprefix("x-goog-")] = value
            elif lower not in PER_CONNECTION:
                out[name] = value
        return out, create

    def handle(self, request):
        if "chunked" in (request.headers.get("Transfer-Encoding") or ""):
            body = b""
            while size := int(request.rfile.readline(), 16):
                body += request.rfile.read(size)
                request.rfile.readline()
            request.rfile.readline()
        else:
            body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        headers, create = self.to_s3(request.headers)
        if create:
            # One at a time: a copy knows no condition there, and one that is checked must not lose to another.
            with self.creating:
                found, _, _ = self.forward("HEAD", request.path, None, {})
                if found == 200:
                    text = b"<?xml version='1.0'?><Error><Code>PreconditionFailed</Code><Message>conditionNotMet</Message></Error>"
                    return self.answer(request, 412, [("Content-Type", "application/xml")], text)
                status, given, content = self.forward(request.command, request.path, body, headers)
        else:
            status, given, content = self.forward(request.command, request.path, body, headers)
        self.answer(request, status, given, content)

    def answer(self, request, status, headers, content):
        request.send_response(status)
        length = str(len(content))
        for name, value in headers:
            lower = name.lower()
            if lower == "content-length" and request.command == "HEAD":
                length = value
            if lower == "etag":
                generation = generation_of(value)
                self.etags[generation] = value
                request.send_header("x-goog-generation", generation)
            if lower.startswith("x-amz-"):
                name = "x-goog-" + lower.removeprefix("x-amz-")
            if lower not in PER_CONNECTION and lower not in ("date", "server"):
                request.send_header(name, value)
        request.send_header("Content-Length", length)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)
