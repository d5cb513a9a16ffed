"""A program that forks: verifies in the parent, in children, and in a child of a child.

Arguments: the address of a server; `used` or `fresh`, whether the client is used before the first fork; `deep` or
`shallow`, whether the first child forks too. The caller's key comes from the environment.
"""

import os
import sys

from keysvc_client import KeysvcClient


def verify(who: str, client: KeysvcClient) -> None:
    """Ask, and tell what came of it."""
    try:
        said = client.verify("no key string", timeout=20).verdict.name
    except RuntimeError as error:
        said = str(error)
    os.write(1, f"{who}: {said}\n".encode())


def in_a_child(who: str, client: KeysvcClient, *, deep: bool) -> None:
    """The same in a child, and perhaps in one of its own; wait for its good end."""
    child = os.fork()
    if not child:
        verify(who, client)
        if deep:
            in_a_child(f"{who}'s child", client, deep=False)
        client.close()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0


client = KeysvcClient(sys.argv[1])
if sys.argv[2] == "used":
    verify("parent", client)
in_a_child("child", client, deep=sys.argv[3] == "deep")
verify("parent", client)
in_a_child("child", client, deep=False)
verify("parent", client)
client.close()
