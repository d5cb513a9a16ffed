"""Run ``keysvc`` as ``python -m keysvc``."""

import sys


def main() -> int:
    """Run the command line, if what it needs is installed."""
    try:
        from keysvc.cli.main import main as run  # noqa: PLC0415 (the base install is for users of the stubs)
    except ModuleNotFoundError as error:
        print(f"keysvc: there is no {error.name}: install keysvc[server] for the command line", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:  # while Python still loads
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
