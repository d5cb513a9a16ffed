"""keysvc: a gRPC service that issues API keys and verifies them."""
