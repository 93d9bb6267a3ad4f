"""The end of a client's write, as the object service passes it to the gateway."""

import threading


class ClientEnd:
    """``gone`` is to be set where the client waits no more; ``told`` once it has a result."""

    def __init__(self):
        self.gone = False
        self.results = []
        self.told = threading.Event()

    def is_pointless(self):
        return self.gone

    def __call__(self, result, batch):
        self.results.append(result)
        self.told.set()
