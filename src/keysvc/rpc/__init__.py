"""How we speak gRPC: requests in, answers out, errors as statuses."""
