// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"

#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thruway/types.h>

namespace thruway {

enum class Family : uint8_t { ipv4, ipv6 };

/// Index of per-family pairs in shared layouts: 0 is IPv4.
constexpr size_t family_index(Family family)
{
    return family == Family::ipv6 ? 1 : 0;
}

/// An IP address of either family, in the form that the datapath uses.
class Address {
public:
    /// The unspecified IPv6 address.
    Address() : raw_{} {}
    explicit Address(const tw_address &raw) : raw_(raw) {}

    /// From `bytes` in network order, 4 or 16 of them.
    static Address from_bytes(const void *bytes, Family family);

    /// Strict: as inet_pton takes it.
    static Result<Address> parse(std::string_view text);

    /// As Kubernetes components have always read addresses: leading zeros are decimal, IPv4-mapped IPv6 is IPv4
    /// (k8s.io/utils/net ParseIPSloppy).
    static Result<Address> parse_sloppy(std::string_view text);

    static Address any(Family family);

    [[nodiscard]] Family family() const;
    [[nodiscard]] const tw_address &raw() const { return raw_; }
    [[nodiscard]] std::string text() const;
    [[nodiscard]] bool is_unspecified() const;
    [[nodiscard]] bool is_loopback() const;
    [[nodiscard]] bool is_link_local() const;
    [[nodiscard]] bool is_multicast() const;

    /// The address in network order as system calls want it: 4 or 16 bytes.
    [[nodiscard]] const uint8_t *bytes() const;
    [[nodiscard]] size_t size() const { return family() == Family::ipv4 ? 4 : 16; }

    /// The n-th address after this one.
    [[nodiscard]] Address plus(uint64_t n) const;

    friend bool operator==(const Address &a, const Address &b)
    {
        return std::memcmp(&a.raw_, &b.raw_, sizeof(a.raw_)) == 0;
    }
    friend std::strong_ordering operator<=>(const Address &a, const Address &b)
    {
        return std::memcmp(&a.raw_, &b.raw_, sizeof(a.raw_)) <=> 0;
    }

private:
    tw_address raw_;
};

/// A CIDR block. The address has no bits set beyond the prefix.
class Prefix {
public:
    Prefix() = default;

    /// Cuts off the bits beyond the prefix. `length` counts in the address's own family.
    Prefix(const Address &address, unsigned length);

    /// The same of a length that counts in the address's 128-bit form.
    static Prefix from_mapped(const Address &address, unsigned length)
    {
        return {address, address.family() == Family::ipv4 ? length - 96 : length};
    }

    /// "10.0.0.0/8". Host bits may be set and are cut off, white space around it is ignored.
    static Result<Prefix> parse(std::string_view text);

    [[nodiscard]] const Address &address() const { return address_; }
    [[nodiscard]] unsigned length() const { return length_; }
    [[nodiscard]] Family family() const { return address_.family(); }
    [[nodiscard]] bool contains(const Address &address) const;
    [[nodiscard]] std::string text() const;

    /// Prefix length over the 128-bit form of the address.
    [[nodiscard]] unsigned mapped_length() const { return family() == Family::ipv4 ? length_ + 96 : length_; }

    friend bool operator==(const Prefix &, const Prefix &) = default;
    friend auto operator<=>(const Prefix &, const Prefix &) = default;

private:
    Address address_;
    unsigned length_ = 0;
};

/// "10.0.0.1:80", "[fd00::1]:80".
std::string endpoint_text(const Address &address, uint16_t port);

/// A 64-bit mix of two values, for hash tables.
constexpr uint64_t hash_mix(uint64_t seed, uint64_t value)
{
    const uint64_t x = (seed ^ value) * 0x9e3779b97f4a7c15ULL;
    return x ^ (x >> 32);
}

uint64_t hash_of(const Address &address);

} // namespace thruway

template<>
struct std::hash<thruway::Address> {
    size_t operator()(const thruway::Address &address) const noexcept { return thruway::hash_of(address); }
};

template<>
struct std::hash<thruway::Prefix> {
    size_t operator()(const thruway::Prefix &prefix) const noexcept
    {
        return thruway::hash_mix(thruway::hash_of(prefix.address()), prefix.length());
    }
};
