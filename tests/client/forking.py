"""A program that forks: verifies in the parent, in children, and in a child of a child.

Arguments: the address of a server; `used` or `fresh`, whether the client is used before the first fork; `deep`,
`shallow` or `anew`: the first child forks too, does not, or children have a client of their own. The caller's key comes
from the environment; so may KEY_STRING, a key that each process verifies under a lease of its own.
"""

import os
import sys
import time

from keysvc_client import KeysvcClient


def make_client() -> KeysvcClient:
    """A client."""
    return KeysvcClient(sys.argv[1], lease="KEY_STRING" in os.environ)


def verify(who: str, client: KeysvcClient) -> None:
    """Ask, and tell what came of it."""
    try:
        verification = client.verify(KEY_STRING, timeout=20)
        while "KEY_STRING" in os.environ and not verification.holder.endswith(f"/{os.getpid()} (client)"):
            time.sleep(0.01)
            verification = client.verify(KEY_STRING, timeout=20)
        said = verification.verdict.name
    except RuntimeError as error:
        said = str(error)
    os.write(1, f"{who}: {said}\n".encode())


def in_a_child(who: str, client: KeysvcClient, *, deep: bool) -> None:
    """The same in a child, and perhaps in one of its own; wait for its good end."""
    child = os.fork()
    if not child:
        if sys.argv[3] == "anew":
            client.close()  # where gRPC was told to do nothing at forks, its end in the child would be a crash
            client = make_client()
        verify(who, client)
        if deep:
            in_a_child(f"{who}'s child", client, deep=False)
        client.close()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0


KEY_STRING = os.environ.get("KEY_STRING", "no key string")
client = make_client()
if sys.argv[2] == "used":
    verify("parent", client)
in_a_child("child", client, deep=sys.argv[3] == "deep")
verify("parent", client)
in_a_child("child", client, deep=False)
verify("parent", client)
client.close()
