"""The app behind the load balancers: shop.py ADDRESS PORT SERVER VERSION DATA

/ takes 50 ms, /slow 1.5 s, /hold until there is a file `release` in DATA. It is ended with KILL, so that a request that is
open when it is restarted fails. With a file BROKEN beside it every answer is an error.
"""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

address, port, server, version, data = sys.argv[1:]
broken = os.path.exists(os.path.join(os.path.dirname(os.path.abspath(__file__)), "BROKEN"))


class Shop(BaseHTTPRequestHandler):
    # One packet an answer: a health check that has seen the head closes.
    wbufsize = 65536

    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1.5)
        elif self.path == "/hold":
            open(os.path.join(data, "holding"), "w").close()
            while not os.path.exists(os.path.join(data, "release")):
                time.sleep(0.02)
        elif self.path != "/healthz":
            time.sleep(0.05)
        body = f"shop {version} {server}\n".encode()
        self.send_response(500 if broken else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server((address, int(port)), Shop).serve_forever()
