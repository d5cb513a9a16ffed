"""A client that hears what has changed, says so, and goes on as before."""

from typing import Any

from keysvc.v1.key_service_pb2 import RenewLeaseResponse, WatchWakeUpsResponse
from keysvc_client.leasing import leased
from keysvc_client.leasing.answers import Answers
from tests.nemesis.answering import main


class Stubborn(Answers):
    """Forgets nothing that it has heard to have changed."""

    def renewed(self, sent: float, answer: RenewLeaseResponse, **how: Any) -> bool:
        """Take the lease and the revision."""
        answer.ClearField("changed_ids")
        return super().renewed(sent, answer, **how)

    def told(self, wake_up: WatchWakeUpsResponse) -> None:
        """Take the revision."""
        wake_up.ClearField("changed_ids")
        super().told(wake_up)


leased.Answers = Stubborn  # type: ignore[misc]
main()
