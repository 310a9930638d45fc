// SPDX-License-Identifier: Apache-2.0
#include "tests/datapath/packet.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <ostream>
#include <stdexcept>

namespace thruway::test {
namespace {

void put16(Bytes &bytes, uint16_t value)
{
    bytes.push_back(static_cast<uint8_t>(value >> 8));
    bytes.push_back(static_cast<uint8_t>(value));
}

void put(Bytes &bytes, const void *data, size_t size)
{
    const auto *from = static_cast<const uint8_t *>(data);
    bytes.insert(bytes.end(), from, from + size);
}

/// The Internet checksum (RFC 1071), the slow and obvious way: from scratch, over all bytes.
uint16_t checksum(const Bytes &bytes)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < bytes.size(); i += 2)
        sum += static_cast<uint32_t>(bytes[i] << 8 | (i + 1 < bytes.size() ? bytes[i + 1] : 0));
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(~sum);
}

std::pair<Address, uint16_t> endpoint(const std::string &text)
{
    const auto colon = text.rfind(':');
    std::string host = text.substr(0, colon);
    if (host.starts_with('['))
        host = host.substr(1, host.size() - 2);
    auto address = Address::parse(host);
    if (!address)
        throw std::invalid_argument(address.error().text());
    return {*address, static_cast<uint16_t>(std::stoul(text.substr(colon + 1)))};
}

Packet make(const std::string &source, const std::string &destination, uint8_t protocol)
{
    Packet packet;
    std::tie(packet.source, packet.source_port) = endpoint(source);
    std::tie(packet.destination, packet.destination_port) = endpoint(destination);
    packet.protocol = protocol;
    return packet;
}

bool is_v6(const Packet &packet)
{
    return packet.source.family() == Family::ipv6;
}

size_t checksum_at(const Packet &packet)
{
    switch (packet.protocol) {
    case IPPROTO_TCP:
        return 16;
    case IPPROTO_UDP:
        return 6;
    default:
        return 2;
    }
}

Bytes transport(const Packet &packet)
{
    Bytes bytes;
    switch (packet.protocol) {
    case IPPROTO_TCP:
        put16(bytes, packet.source_port);
        put16(bytes, packet.destination_port);
        put(bytes, "\x11\x22\x33\x44\x55\x66\x77\x88", 8); // sequence, acknowledgement
        bytes.push_back(5 << 4);
        bytes.push_back(packet.flags);
        put16(bytes, 0x2000);
        put16(bytes, 0); // checksum
        put16(bytes, 0);
        break;
    case IPPROTO_UDP:
        put16(bytes, packet.source_port);
        put16(bytes, packet.destination_port);
        put16(bytes, static_cast<uint16_t>(8 + packet.payload.size()));
        put16(bytes, 0);
        break;
    default:
        bytes.push_back(packet.icmp_type);
        bytes.push_back(0);
        put16(bytes, 0);
        put16(bytes, packet.source_port);
        put16(bytes, 1); // sequence
        break;
    }
    put(bytes, packet.payload.data(), packet.payload.size());
    return bytes;
}

void fill_checksum(const Packet &packet, Bytes &bytes)
{
    Bytes covered;
    if (packet.protocol != IPPROTO_ICMP) {
        put(covered, packet.source.bytes(), packet.source.size());
        put(covered, packet.destination.bytes(), packet.destination.size());
        put16(covered, packet.protocol);
        put16(covered, static_cast<uint16_t>(bytes.size()));
    }
    put(covered, bytes.data(), bytes.size());
    uint16_t sum = checksum(covered);
    if (packet.protocol == IPPROTO_UDP && sum == 0)
        sum = 0xffff; // zero says "none"
    bytes[checksum_at(packet)] = static_cast<uint8_t>(sum >> 8);
    bytes[checksum_at(packet) + 1] = static_cast<uint8_t>(sum);
}

void put_ip4(const Packet &packet, size_t length, Bytes &frame)
{
    Bytes header;
    header.push_back(0x45);
    header.push_back(0);
    put16(header, static_cast<uint16_t>(20 + length));
    put16(header, 0x1234);
    put16(header, 0x4000);
    header.push_back(packet.hops);
    header.push_back(packet.protocol);
    put16(header, 0);
    put(header, packet.source.bytes(), 4);
    put(header, packet.destination.bytes(), 4);
    const uint16_t sum = checksum(header);
    header[10] = static_cast<uint8_t>(sum >> 8);
    header[11] = static_cast<uint8_t>(sum);
    put(frame, header.data(), header.size());
}

void put_ip6(const Packet &packet, size_t length, Bytes &frame)
{
    put(frame, "\x60\x01\x23\x45", 4);
    put16(frame, static_cast<uint16_t>(length));
    frame.push_back(packet.protocol);
    frame.push_back(packet.hops);
    put(frame, packet.source.bytes(), 16);
    put(frame, packet.destination.bytes(), 16);
}

} // namespace

Packet Packet::with_source(const Address &address, uint16_t port) const
{
    Packet packet = *this;
    packet.source = address;
    packet.source_port = port;
    return packet;
}

Packet Packet::with_destination(const Address &address, uint16_t port) const
{
    Packet packet = *this;
    packet.destination = address;
    packet.destination_port = port;
    return packet;
}

Packet Packet::with_hops(uint8_t count) const
{
    Packet packet = *this;
    packet.hops = count;
    return packet;
}

Packet Packet::with_macs(const MacBytes &sender, const MacBytes &receiver) const
{
    Packet packet = *this;
    packet.from = sender;
    packet.to = receiver;
    return packet;
}

Packet Packet::with_flags(uint8_t tcp_flags) const
{
    Packet packet = *this;
    packet.flags = tcp_flags;
    return packet;
}

Packet Packet::reversed() const
{
    Packet packet = *this;
    std::swap(packet.source, packet.destination);
    std::swap(packet.source_port, packet.destination_port);
    return packet;
}

Bytes Packet::build() const
{
    Bytes frame;
    put(frame, to.data(), to.size());
    put(frame, from.data(), from.size());
    put16(frame, is_v6(*this) ? 0x86dd : 0x0800);

    Bytes body = transport(*this);
    if (protocol != IPPROTO_UDP || udp_checksum)
        fill_checksum(*this, body);
    if (is_v6(*this))
        put_ip6(*this, body.size(), frame);
    else
        put_ip4(*this, body.size(), frame);
    put(frame, body.data(), body.size());
    return frame;
}

Packet tcp(const std::string &source, const std::string &destination, uint8_t flags)
{
    Packet packet = make(source, destination, IPPROTO_TCP);
    packet.flags = flags;
    return packet;
}

Packet udp(const std::string &source, const std::string &destination)
{
    return make(source, destination, IPPROTO_UDP);
}

Packet ping(const std::string &source, const std::string &destination, uint16_t identifier)
{
    const bool v6 = source.find(':') != std::string::npos;
    Packet packet = make(source + ":0", destination + ":0", v6 ? uint8_t{IPPROTO_ICMPV6} : uint8_t{IPPROTO_ICMP});
    packet.source_port = identifier;
    packet.icmp_type = v6 ? 128 : 8;
    return packet;
}

Packet pong(const Packet &ping)
{
    Packet packet = ping;
    std::swap(packet.source, packet.destination);
    packet.icmp_type = is_v6(ping) ? 129 : 0;
    return packet;
}

std::ostream &operator<<(std::ostream &out, const Frame &frame)
{
    for (size_t i = 0; i < frame.bytes.size(); i++)
        out << fmt::format("{}{:02x}", i % 2 == 0 && i > 0 ? " " : "", frame.bytes[i]);
    return out;
}

uint16_t source_port_of(const Bytes &bytes)
{
    const size_t at = bytes.at(12) == 0x86 ? 14 + 40 : 14 + 20;
    return static_cast<uint16_t>(bytes.at(at) << 8 | bytes.at(at + 1));
}

} // namespace thruway::test
