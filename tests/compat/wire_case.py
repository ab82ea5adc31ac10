"""What the tests of the wire share: connections to the brokers, and refusals that are expected."""

import os
import unittest

from wire_client import NODEID_ANY, Client, RpcError


class Case(unittest.TestCase):
    def setUp(self):
        self.clients = []
        self.flux = self.client()

    def tearDown(self):
        for client in self.clients:
            client.close()

    def client(self, rank=0):
        client = Client(os.environ["FLUX_URI" if rank == 0 else "FLUX_URI_%d" % rank])
        self.clients.append(client)
        return client

    def refused(self, errnum, topic, payload=None, nodeid=NODEID_ANY, raw=None, flux=None):
        """Sends a request that must fail with an error number; returns the error's text."""
        with self.assertRaises(RpcError) as caught:
            (flux or self.flux).rpc(topic, payload, nodeid, raw=raw)
        self.assertEqual(caught.exception.errnum, errnum, caught.exception)
        return caught.exception.text
