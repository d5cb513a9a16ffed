"""IP addresses and ranges as they are written in allow-lists and presentations.

An IPv4 address in IPv6 clothes (``::ffff:a.b.c.d``) counts as the IPv4 address, in both places.
"""

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
