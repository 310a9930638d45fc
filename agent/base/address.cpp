// SPDX-License-Identifier: Apache-2.0
#include "agent/base/address.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <charconv>

namespace thruway {
namespace {

constexpr size_t mapped_offset = 12; // where the IPv4 address lies in its IPv4-mapped form

std::string_view trimmed(std::string_view text)
{
    const auto first = text.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos)
        return {};
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

/// Dotted decimal with leading zeros allowed; nothing else that inet_aton would take.
std::optional<std::array<uint8_t, 4>> parse_dotted(std::string_view text)
{
    std::array<uint8_t, 4> bytes{};
    const char *at = text.data();
    const char *end = at + text.size();

    for (size_t i = 0; i < bytes.size(); i++) {
        if (i > 0) {
            if (at == end || *at != '.')
                return std::nullopt;
            at++;
        }
        if (at == end || *at < '0' || *at > '9')
            return std::nullopt;
        auto [next, error] = std::from_chars(at, end, bytes[i]);
        if (error != std::errc{})
            return std::nullopt;
        at = next;
    }
    if (at != end)
        return std::nullopt;
    return bytes;
}

} // namespace

Address Address::from_bytes(const void *bytes, Family family)
{
    Address address;
    if (family == Family::ipv4) {
        address.raw_.word[2] = htonl(0xffff);
        std::memcpy(&address.raw_.word[3], bytes, 4);
    } else {
        std::memcpy(&address.raw_, bytes, sizeof(address.raw_));
    }
    return address;
}

Result<Address> Address::parse(std::string_view text)
{
    const std::string copy(text);
    std::array<uint8_t, 16> bytes{};

    if (inet_pton(AF_INET, copy.c_str(), bytes.data()) == 1)
        return from_bytes(bytes.data(), Family::ipv4);
    if (inet_pton(AF_INET6, copy.c_str(), bytes.data()) == 1)
        return from_bytes(bytes.data(), Family::ipv6);
    return fail("\"{}\" is not an IP address", text);
}

Result<Address> Address::parse_sloppy(std::string_view text)
{
    if (auto bytes = parse_dotted(text))
        return from_bytes(bytes->data(), Family::ipv4);
    return parse(text);
}

Address Address::any(Family family)
{
    static constexpr std::array<uint8_t, 16> zero{};
    return from_bytes(zero.data(), family);
}

Family Address::family() const
{
    const bool mapped = raw_.word[0] == 0 && raw_.word[1] == 0 && raw_.word[2] == htonl(0xffff);
    return mapped ? Family::ipv4 : Family::ipv6;
}

const uint8_t *Address::bytes() const
{
    const auto *all = reinterpret_cast<const uint8_t *>(&raw_);
    return family() == Family::ipv4 ? all + mapped_offset : all;
}

std::string Address::text() const
{
    std::array<char, INET6_ADDRSTRLEN> buffer{};
    inet_ntop(family() == Family::ipv4 ? AF_INET : AF_INET6, bytes(), buffer.data(), buffer.size());
    return buffer.data();
}

bool Address::is_unspecified() const
{
    return *this == any(family());
}

bool Address::is_loopback() const
{
    if (family() == Family::ipv4)
        return bytes()[0] == 127;
    return raw_.word[0] == 0 && raw_.word[1] == 0 && raw_.word[2] == 0 && raw_.word[3] == htonl(1);
}

bool Address::is_link_local() const
{
    if (family() == Family::ipv4)
        return bytes()[0] == 169 && bytes()[1] == 254;
    return bytes()[0] == 0xfe && (bytes()[1] & 0xc0) == 0x80;
}

bool Address::is_multicast() const
{
    return family() == Family::ipv4 ? (bytes()[0] & 0xf0) == 0xe0 : bytes()[0] == 0xff;
}

Address Address::plus(uint64_t n) const
{
    Address sum = *this;
    uint64_t carry = n;

    for (size_t i = 4; i-- > 0 && carry;) {
        carry += ntohl(sum.raw_.word[i]);
        sum.raw_.word[i] = htonl(static_cast<uint32_t>(carry));
        carry >>= 32;
    }
    return sum;
}

Prefix::Prefix(const Address &address, unsigned length) : length_(length)
{
    tw_address raw = address.raw();
    const unsigned mapped = address.family() == Family::ipv4 ? length + 96 : length;

    for (unsigned i = 0; i < 4; i++) {
        const unsigned keep = std::clamp(static_cast<int>(mapped) - static_cast<int>(i * 32), 0, 32);
        raw.word[i] &= keep == 0 ? 0 : htonl(~0U << (32 - keep));
    }
    address_ = Address(raw);
}

Result<Prefix> Prefix::parse(std::string_view text)
{
    const std::string_view body = trimmed(text);
    const auto slash = body.find('/');
    if (slash == std::string_view::npos)
        return fail("\"{}\" is not a CIDR block", text);
    auto address = Address::parse_sloppy(body.substr(0, slash));
    if (!address)
        return fail("\"{}\" is not a CIDR block", text);

    const std::string_view digits = body.substr(slash + 1);
    unsigned length = 0;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
    if (error != std::errc{} || end != digits.data() + digits.size() || length > address->size() * 8)
        return fail("\"{}\" is not a CIDR block", text);
    return Prefix(*address, length);
}

bool Prefix::contains(const Address &address) const
{
    return address.family() == family() && Prefix(address, length_) == *this;
}

std::string Prefix::text() const
{
    return fmt::format("{}/{}", address_.text(), length_);
}

std::string endpoint_text(const Address &address, uint16_t port)
{
    return address.family() == Family::ipv4 ? fmt::format("{}:{}", address.text(), port)
                                            : fmt::format("[{}]:{}", address.text(), port);
}

uint64_t hash_of(const Address &address)
{
    std::array<uint64_t, 2> halves{};
    std::memcpy(halves.data(), &address.raw(), sizeof(halves));
    return hash_mix(hash_mix(0, halves[0]), halves[1]);
}

} // namespace thruway
