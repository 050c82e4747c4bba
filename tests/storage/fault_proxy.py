"""A proxy in front of an S3 server that spoils the n-th request.

    with FaultProxy(endpoint) as proxy: proxy.arm("503", at=7); ... proxy.endpoint ...; proxy.count
"""
import http.client
import http.server
import socket
import struct
import threading
import time
import urllib.parse

ANSWERS = {
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "500": (500, "InternalError", "We encountered an internal error."),
    "403": (403, "AccessDenied", "Access Denied."),
    "412": (412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold."),
    "409": (409, "ConditionalRequestConflict", "The conditional request cannot succeed due to a conflicting operation."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
}
# Before the server sees the request, after it has acted, in the middle of the answer's body, and later than the client waits.
CONNECTION = ("reset", "reset_after", "cut", "slow")
KINDS = tuple(ANSWERS) + CONNECTION


def serve(handle):
    """A server on a free loopback port that calls handle(request) for every request, each in its thread; with its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self):
            handle(self)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request, client_address):
            pass  # A client that gives up.

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


class FaultProxy:
    def __init__(self, endpoint, slow_seconds=4):
        self.upstream = urllib.parse.urlparse(endpoint).netloc
        self.slow_seconds = slow_seconds
        self.lock = threading.Lock()
        self.arm(None, 0)
        self.server, self.endpoint = serve(self.handle)

    def arm(self, kind, at, forever=False):
        with self.lock:
            self.kind, self.at, self.forever, self.count, self.hits = kind, at, forever, 0, 0

    def fault(self):
        with self.lock:
            self.count += 1
            hit = self.kind is not None and (self.count == self.at or (self.forever and self.count >= self.at))
            self.hits += hit
            return self.kind if hit else None

    def handle(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        kind = self.fault()
        if kind in ANSWERS:
            status, code, message = ANSWERS[kind]
            text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
            request.send_response(status)
            request.send_header("Content-Type", "application/xml")
            request.send_header("Content-Length", str(len(text)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(text)
            return
        if kind == "reset":
            return self.reset(request)
        if kind == "slow":
            time.sleep(self.slow_seconds)
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if kind == "reset_after":
            return self.reset(request)
        request.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        if length is not None:
            request.send_header("Content-Length", length)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content[: len(content) // 2] if kind == "cut" else content)
        if kind == "cut":
            self.reset(request)

    @staticmethod
    def reset(request):
        request.wfile.flush()
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()
        request.close_connection = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
