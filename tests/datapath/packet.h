// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"

#include <array>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

namespace thruway::test {

using Bytes = std::vector<uint8_t>;
using MacBytes = std::array<uint8_t, 6>;

enum TcpFlag : uint8_t { fin = 0x01, syn = 0x02, rst = 0x04, psh = 0x08, ack = 0x10 };

/// Bytes [offset, offset + size) of a packet's transport header and payload.
struct Slice {
    size_t offset;
    size_t size;
};

/// A packet as its fields. build() makes the frame with all lengths and checksums right, so a test states what comes
/// out by changing fields of what went in, and compares every byte.
struct Packet {
    MacBytes from{0x02, 0, 0, 0, 0, 0x01};
    MacBytes to{0x02, 0, 0, 0, 0, 0x02};
    Address source;
    Address destination;
    uint16_t source_port = 0; ///< of ICMP echo: the identifier
    uint16_t destination_port = 0;
    uint8_t protocol = 0;
    uint8_t flags = 0; ///< of TCP
    uint32_t sequence = 0x11223344;
    uint32_t acknowledgement = 0x55667788;
    uint16_t window = 0x2000;
    uint32_t tag = 0x11223344; ///< of SCTP
    uint8_t icmp_type = 0;
    uint8_t icmp_code = 0;
    uint16_t icmp_sequence = 1; ///< of an error: the MTU
    uint8_t hops = 64;
    uint8_t service = 0;                                       ///< type of service, of IPv4
    uint32_t identification = 0x1234;                          ///< in 16 bits, if IPv4
    std::array<uint8_t, 4> flow_label{0x60, 0x01, 0x23, 0x45}; ///< with version and class, of IPv6
    bool dont_fragment = true;
    bool udp_checksum = true;
    Bytes options;                                     ///< of IPv4, a multiple of 4 bytes
    std::vector<std::pair<uint8_t, Bytes>> extensions; ///< of IPv6: kind and bytes, the first of which build() sets
    std::optional<Slice> slice;                        ///< a fragment: this part of the whole
    std::string payload = "thruway";

    [[nodiscard]] Packet with_source(const Address &address, uint16_t port) const;
    [[nodiscard]] Packet with_destination(const Address &address, uint16_t port) const;
    [[nodiscard]] Packet with_hops(uint8_t count) const;
    [[nodiscard]] Packet with_macs(const MacBytes &sender, const MacBytes &receiver) const;
    [[nodiscard]] Packet with_flags(uint8_t tcp_flags) const;
    [[nodiscard]] Packet with_payload(size_t size) const;
    [[nodiscard]] Packet fragment(size_t offset, size_t size) const;

    /// The answer's addresses and ports: source and destination exchanged.
    [[nodiscard]] Packet reversed() const;

    [[nodiscard]] Bytes build() const;
};

/// Endpoints are written "10.0.0.1:80" or "[fd00::1]:80".
Packet tcp(const std::string &source, const std::string &destination, uint8_t flags = syn);
Packet udp(const std::string &source, const std::string &destination);
/// An echo request; addresses without ports.
Packet ping(const std::string &source, const std::string &destination, uint16_t identifier);
Packet pong(const Packet &ping);
Packet sctp(const std::string &source, const std::string &destination);
/// Chunks that begin and end associations (RFC 9260 section 3.2).
enum class Chunk : uint8_t { init = 1, abort = 6, shutdown_complete = 14 };
/// The packet with nothing but this chunk. An INIT asks for `tag` in answers, and has itself none.
Packet with_chunk(const Packet &packet, Chunk chunk, uint32_t tag = 0x55667788);

/// What an ICMP error is about, in both families' numbers.
enum class Fault : uint8_t { port_unreachable, too_big, hops_exceeded, parameter };
/// The error that `source` sends to the source of a packet, with the first `size` bytes of it, from its IP header on.
Packet error(Fault fault, const Address &source, const Packet &about, size_t size = 64, uint16_t mtu = 0);

/// The same as the datapath itself makes it, in the place of the packet.
Packet own_error(Fault fault, const Address &source, const Packet &about, uint16_t mtu = 0);

/// A frame whose failure to match can be read: prints as a one-line summary and hex.
struct Frame {
    Bytes bytes;

    friend bool operator==(const Frame &, const Frame &) = default;
};
std::ostream &operator<<(std::ostream &out, const Frame &frame);

inline Frame frame(const Packet &packet)
{
    return {packet.build()};
}

/// What a TCP without such a connection says to a segment that takes so much of the sequence (RFC 9293 3.10.7.1).
Packet reset_for(const Packet &segment, uint32_t takes);

/// The ABORT of an SCTP that does not have such an association, or cannot begin one (RFC 9260 section 8.4).
Packet abort_for(const Packet &packet);

/// Source port of a TCP or UDP frame without options.
uint16_t source_port_of(const Bytes &bytes);

/// The address that the frame's packet goes to, as text.
std::string destination_of(const Bytes &bytes);

} // namespace thruway::test
