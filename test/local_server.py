"""An HTTP server of this machine that serves ranges and breaks connections when told to."""

import re
from http.server import BaseHTTPRequestHandler


class Handler(BaseHTTPRequestHandler):
    """Serves server.files with ranges; server.cut is after how many bytes connections break."""

    def do_GET(self):
        server = self.server
        begin = 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            begin = int(found.group(1)) if server.ranges else 0
        server.asked.append((self.path, self.headers.get("Range")))
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(206 if begin else 200)
        if begin:
            end = f"{begin}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", f"bytes {end}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[begin : begin + cut])

    def log_message(self, *_):
        pass
