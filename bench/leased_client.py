"""A process that verifies by itself: of each key string that it reads it says the verdict, and if it was its own."""

import sys

from keysvc_client import KeysvcClient


def main() -> None:
    """Answer until the input ends."""
    address, api_key = sys.argv[1:]
    with KeysvcClient(address, api_key=api_key, lease=True) as client:
        for line in sys.stdin:
            verification = client.verify(line.strip())
            is_own = verification.holder.endswith("(client)")
            sys.stdout.write(f"{verification.verdict.name} {'OWN' if is_own else 'TOLD'}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
