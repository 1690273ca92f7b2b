"""A real Keystone over HTTP on 127.0.0.1: serve.py KEYSTONE.CONF PORT"""

import os
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

os.environ["OS_KEYSTONE_CONFIG_FILES"] = sys.argv[1]
sys.argv = sys.argv[:1] + sys.argv[2:]

from keystone.server.wsgi import initialize_public_application  # noqa: E402


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


port = int(sys.argv.pop())
make_server("127.0.0.1", port, initialize_public_application(), Server, Handler).serve_forever()
