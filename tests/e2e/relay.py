"""A TCP relay between a client and a server, either direction of which can be held."""

import contextlib
import socket
import threading


class Relay:
    """Forwards connections to `target` (HOST:PORT); `endpoint` is its own address. What is held is not lost: it waits in
    the sockets, and flows on when it is let go. Held connections look alive to both ends. With `cut_after`, everything
    ends once clients have sent so many bytes; with `cut_down_after`, each connection once its server has."""

    def __init__(self, target, cut_after=None, cut_down_after=None):
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._flows = {"up": threading.Event(), "down": threading.Event()}  # client to server, server to client
        self.release()
        self._sockets = []
        self._closed = False
        self._left = cut_after
        self.cut_down_after = cut_down_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, *directions):
        for direction in directions:
            self._flows[direction].clear()

    def release(self):
        for flow in self._flows.values():
            flow.set()

    def close(self):
        self._closed = True
        self.release()
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        while not self._closed:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                continue  # the target is down: the client sees its connection end
            self._sockets += [client, server]
            for direction, source, sink in (("up", client, server), ("down", server, client)):
                threading.Thread(target=self._copy, args=(direction, source, sink), daemon=True).start()

    def _copy(self, direction, source, sink):
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                passed += len(data)
                if direction == "down" and self.cut_down_after is not None and passed > self.cut_down_after:
                    break
                self._flows[direction].wait()
                if direction == "up" and self._left is not None:
                    self._left -= len(data)
                    if self._left < 0:
                        self.close()
                        return
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
