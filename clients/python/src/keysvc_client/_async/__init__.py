"""The asynchronous client. The synchronous one, ``keysvc_client._sync``, is generated from it by `make sync-client`."""
