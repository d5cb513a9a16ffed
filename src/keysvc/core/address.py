"""IP addresses and ranges as they are written in allow-lists and presentations.

An IPv4 address in IPv6 clothes (``::ffff:a.b.c.d``) counts as the IPv4 address, in both places.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

RANGES_MAX = 64

_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_address(text: str) -> Address:
    """Read one address; raise ``ValueError`` saying what is allowed."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address without port") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError("must be an address without zone (no %)")
        return address.ipv4_mapped or address
    return address


def parse_range(text: str) -> Network:
    """Read an address or CIDR range; raise ``ValueError`` saying what is allowed."""
    if "%" in text:
        raise ValueError("must be an address or range without zone (no %)")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address or CIDR range such as 203.0.113.0/24") from None
    if "/" in text and ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f"has bits set beyond its prefix: the range is {network}")
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        address = network.network_address.ipv4_mapped
        return ip_network((int(address or 0), network.prefixlen - 96), strict=True)
    return network


def range_text(network: Network) -> str:
    """Write a range as people do: a single address without its prefix length."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def pack_ranges(ranges: Iterable[Network]) -> bytes:
    """Ranges in few bytes, one after the other: how many bytes an address has, the prefix length, the address."""
    return b"".join(
        bytes((len(network.network_address.packed), network.prefixlen)) + network.network_address.packed
        for network in ranges
    )


def is_within(packed: bytes, address: Address) -> bool:
    """Whether an address is in one of the ranges that ``pack_ranges`` packed."""
    length, number = address.max_prefixlen // 8, int(address)
    start = 0
    while start < len(packed):
        size, prefix = packed[start], packed[start + 1]
        end = start + 2 + size
        if size == length and int.from_bytes(packed[start + 2 : end]) ^ number < 1 << (size * 8 - prefix):
            return True
        start = end
    return False
