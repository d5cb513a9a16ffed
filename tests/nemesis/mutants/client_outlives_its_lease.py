"""A client that takes its lease for ten times as long as it is."""

from typing import Any

from keysvc.v1.key_service_pb2 import RenewLeaseResponse
from keysvc_client.leasing import leased
from keysvc_client.leasing.answers import Answers
from tests.nemesis.answering import main


class Timeless(Answers):
    """Has time."""

    def renewed(self, sent: float, answer: RenewLeaseResponse, **how: Any) -> bool:
        """Take more than was granted."""
        answer.ttl.FromNanoseconds(10 * answer.ttl.ToNanoseconds())
        return super().renewed(sent, answer, **how)


leased.Answers = Timeless  # type: ignore[misc]
main()
