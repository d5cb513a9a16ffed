from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.address import RANGES_MAX, parse_address, parse_range, range_text

NO_ADDRESS = [
    "",
    " ",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "1.2.3.04",
    "1.2.3.4 ",
    " 1.2.3.4",
    "1.2.3.4\n",
    "1.2.3.\u0664",
    "0x01020304",
    "16909060",
    "1.2.3.4:80",
    "[::1]",
    "[::1]:80",
    "localhost",
    ":::",
    "1::2::3",
    "::fffff",
    "::ffff:1.2.3",
    "9" * 10**5,
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.7", IPv4Address("203.0.113.7")),
        ("0.0.0.0", IPv4Address(0)),
        ("2001:db8::1", IPv6Address("2001:db8::1")),
        ("2001:DB8:0:0:0:0:0:1", IPv6Address("2001:db8::1")),
        ("::", IPv6Address(0)),
        ("::ffff:203.0.113.7", IPv4Address("203.0.113.7")),
        ("::FFFF:cb00:7107", IPv4Address("203.0.113.7")),
        ("::ffff:0.0.0.0", IPv4Address(0)),
        ("::203.0.113.7", IPv6Address("::cb00:7107")),
        ("64:ff9b::203.0.113.7", IPv6Address("64:ff9b::cb00:7107")),
    ],
)
def test_an_address_is_read(text: str, expected: IPv4Address | IPv6Address) -> None:
    """Both families in every usual form; the mapped form of IPv4 alone counts as IPv4."""
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", [*NO_ADDRESS, "1.2.3.4/32", "::1/128", "fe80::1%"], ids=lambda text: ascii(text[:20]))
def test_what_is_no_address_is_refused(text: str) -> None:
    """Ports, names, ranges, blanks, other ways to write a number: refused, and not repeated."""
    with pytest.raises(ValueError, match=r"^must be an IPv4 or IPv6 address without port$"):
        parse_address(text)


@pytest.mark.parametrize("text", ["fe80::1%eth0", "::ffff:1.2.3.4%eth0", "::1%0"])
def test_a_zone_is_refused(text: str) -> None:
    """A zone means something on one machine only."""
    with pytest.raises(ValueError, match="without zone"):
        parse_address(text)
    with pytest.raises(ValueError, match="without zone"):
        parse_range(text)
    with pytest.raises(ValueError, match="without zone"):
        parse_range(f"{text}/128")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7/32", "203.0.113.7"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.0/255.255.255.0", "203.0.113.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("::/0", "::/0"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:203.0.113.7/128", "203.0.113.7"),
    ],
)
def test_a_range_is_read_and_written_in_one_way(text: str, canonical: str) -> None:
    """Every way to write a range ends in the same text, and reading that changes nothing."""
    network = parse_range(text)
    assert range_text(network) == canonical
    assert parse_range(canonical) == network == ip_network(canonical)


@pytest.mark.parametrize(
    "text",
    [
        *NO_ADDRESS,
        *("1.2.3.4/33", "::1/129", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/a", "1.2.3.0/24/24", "1.2.3.0/24 ", "/24"),
        *("1.2.3.0/24\n", "1.2.3.0/\u0662\u0664", "1.2.3.0/255.0.255.0"),
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_is_no_range_is_refused(text: str) -> None:
    """A bad address or prefix is refused, and not repeated."""
    with pytest.raises(ValueError, match=r"^must be an IPv4 or IPv6 address or CIDR range such as 203\.0\.113\.0/24$"):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("1.2.3.4/0", "0.0.0.0/0"),
        ("2001:db8::1/64", "2001:db8::/64"),
        ("::ffff:203.0.113.7/120", "::ffff:203.0.113.0/120"),
    ],
)
def test_a_range_with_bits_beyond_its_prefix_is_refused(text: str, meant: str) -> None:
    """Nobody knows whether one address or the whole range was meant; the error says what the range would be."""
    with pytest.raises(ValueError, match="has bits set beyond its prefix") as refused:
        parse_range(text)
    assert ip_network(str(refused.value).rpartition(" ")[2]) == ip_network(meant)


@given(address=st.ip_addresses(v=4), prefix=st.integers(0, 32))
def test_ipv4_in_ipv6_clothes_counts_as_ipv4(address: IPv4Address, prefix: int) -> None:
    """In an allow-list and in a presentation, each alone or both, the mapped form is the same address."""
    network = ip_network((int(address), prefix), strict=False)
    dressed_network = f"::ffff:{network.network_address}/{96 + prefix}"
    assert parse_range(dressed_network) == parse_range(str(network)) == network
    assert parse_address(f"::ffff:{address}") == parse_address(str(address)) == address
    assert parse_address(f"::ffff:{address}") in parse_range(dressed_network)


@given(address=st.ip_addresses())
def test_an_address_is_a_range_of_one(address: IPv4Address | IPv6Address) -> None:
    """An address in an allow-list admits itself and nothing else."""
    network = parse_range(str(address))
    assert network.num_addresses == 1
    assert parse_address(str(address)) in network
    assert range_text(network) == str(network.network_address)


@given(text=st.text(max_size=50))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever a request holds, the answer is a value or a ``ValueError``."""
    for parse in (parse_address, parse_range):
        try:
            parse(text)
        except ValueError as refused:
            assert str(refused).startswith(("must ", "has bits "))  # noqa: PT017 (either outcome is right)


def test_families_are_kept_apart() -> None:
    """The widest range of one family admits nobody of the other."""
    assert ip_address("203.0.113.7") not in parse_range("::/0")
    assert ip_address("2001:db8::1") not in parse_range("0.0.0.0/0")


def test_an_allow_list_has_no_more_than_64_ranges() -> None:
    """The bound of the contract."""
    assert RANGES_MAX == 64
