// SPDX-License-Identifier: Apache-2.0
#include "tests/datapath/packet.h"

#include <algorithm>
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

void put32(Bytes &bytes, uint32_t value)
{
    put16(bytes, static_cast<uint16_t>(value >> 16));
    put16(bytes, static_cast<uint16_t>(value));
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
    case IPPROTO_SCTP:
        return 8;
    default:
        return 2;
    }
}

/// CRC32c (RFC 9260 appendix A), bit by bit.
uint32_t crc32c(const Bytes &bytes)
{
    uint32_t crc = 0xffffffff;
    for (const uint8_t byte : bytes) {
        crc ^= byte;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

Bytes transport(const Packet &packet)
{
    Bytes bytes;
    switch (packet.protocol) {
    case IPPROTO_TCP:
        put16(bytes, packet.source_port);
        put16(bytes, packet.destination_port);
        put32(bytes, packet.sequence);
        put32(bytes, packet.acknowledgement);
        bytes.push_back(5 << 4);
        bytes.push_back(packet.flags);
        put16(bytes, packet.window);
        put16(bytes, 0); // checksum
        put16(bytes, 0);
        break;
    case IPPROTO_UDP:
        put16(bytes, packet.source_port);
        put16(bytes, packet.destination_port);
        put16(bytes, static_cast<uint16_t>(8 + packet.payload.size()));
        put16(bytes, 0);
        break;
    case IPPROTO_SCTP:
        put16(bytes, packet.source_port);
        put16(bytes, packet.destination_port);
        put32(bytes, packet.tag);
        put32(bytes, 0); // checksum
        break;
    default:
        bytes.push_back(packet.icmp_type);
        bytes.push_back(packet.icmp_code);
        put16(bytes, 0);
        put16(bytes, packet.source_port);
        put16(bytes, packet.icmp_sequence);
        break;
    }
    put(bytes, packet.payload.data(), packet.payload.size());
    return bytes;
}

void fill_checksum(const Packet &packet, Bytes &bytes)
{
    if (packet.protocol == IPPROTO_SCTP) {
        const uint32_t crc = crc32c(bytes);
        for (size_t i = 0; i < 4; i++)
            bytes[checksum_at(packet) + i] = static_cast<uint8_t>(crc >> 8 * i);
        return;
    }
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

/// `more`: fragments of the same packet follow.
void put_ip4(const Packet &packet, size_t length, bool more, Bytes &frame)
{
    const size_t size = 20 + packet.options.size();
    Bytes header;
    header.push_back(static_cast<uint8_t>(0x40 | size / 4));
    header.push_back(packet.service);
    put16(header, static_cast<uint16_t>(size + length));
    put16(header, static_cast<uint16_t>(packet.identification));
    put16(header, static_cast<uint16_t>((packet.dont_fragment ? 0x4000 : 0) | (more ? 0x2000 : 0) |
                                        (packet.slice ? packet.slice->offset / 8 : 0)));
    header.push_back(packet.hops);
    header.push_back(packet.protocol);
    put16(header, 0);
    put(header, packet.source.bytes(), 4);
    put(header, packet.destination.bytes(), 4);
    put(header, packet.options.data(), packet.options.size());
    const uint16_t sum = checksum(header);
    header[10] = static_cast<uint8_t>(sum >> 8);
    header[11] = static_cast<uint8_t>(sum);
    put(frame, header.data(), header.size());
}

void put_ip6(const Packet &packet, size_t length, bool more, Bytes &frame)
{
    std::vector<std::pair<uint8_t, Bytes>> extensions = packet.extensions;
    if (packet.slice) {
        Bytes fragment(2);
        put16(fragment, static_cast<uint16_t>(packet.slice->offset | (more ? 1 : 0)));
        put16(fragment, static_cast<uint16_t>(packet.identification >> 16));
        put16(fragment, static_cast<uint16_t>(packet.identification));
        extensions.emplace_back(uint8_t{IPPROTO_FRAGMENT}, fragment);
    }
    extensions.emplace_back(packet.protocol, Bytes());
    for (size_t i = 0; i + 1 < extensions.size(); i++) {
        extensions[i].second.at(0) = extensions[i + 1].first;
        length += extensions[i].second.size();
    }

    put(frame, packet.flow_label.data(), 4);
    put16(frame, static_cast<uint16_t>(length));
    frame.push_back(extensions.front().first);
    frame.push_back(packet.hops);
    put(frame, packet.source.bytes(), 16);
    put(frame, packet.destination.bytes(), 16);
    for (const auto &[kind, bytes] : extensions)
        put(frame, bytes.data(), bytes.size());
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

Packet Packet::with_payload(size_t size) const
{
    Packet packet = *this;
    packet.payload.clear();
    for (size_t i = 0; i < size; i++)
        packet.payload += static_cast<char>(i * 7 + i / 256);
    return packet;
}

Packet Packet::fragment(size_t offset, size_t size) const
{
    Packet packet = *this;
    packet.slice = Slice{offset, size};
    packet.dont_fragment = false;
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
    const bool more = slice && slice->offset + slice->size < body.size();
    if (slice) {
        const auto begin = body.begin() + static_cast<ptrdiff_t>(slice->offset);
        body = Bytes(begin, more ? begin + static_cast<ptrdiff_t>(slice->size) : body.end());
    }
    if (is_v6(*this))
        put_ip6(*this, body.size(), more, frame);
    else
        put_ip4(*this, body.size(), more, frame);
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

Packet sctp(const std::string &source, const std::string &destination)
{
    return make(source, destination, IPPROTO_SCTP);
}

Packet with_chunk(const Packet &packet, Chunk chunk, uint32_t tag)
{
    Bytes bytes{static_cast<uint8_t>(chunk), 0};
    Packet made = packet;
    if (chunk == Chunk::init) {
        made.tag = 0;
        put16(bytes, 20);
        put32(bytes, tag);
        put(bytes, "\0\1\0\0\0\1\0\1\x12\x34\x56\x78", 12); // window, streams, first TSN
    } else {
        put16(bytes, 4);
    }
    made.payload.assign(bytes.begin(), bytes.end());
    return made;
}

Packet error(Fault fault, const Address &source, const Packet &about, size_t size, uint16_t mtu)
{
    struct Number {
        uint8_t type;
        uint8_t code;
    };
    // RFC 792, RFC 1191; RFC 4443.
    static constexpr Number numbers[][2] = {{{3, 3}, {1, 4}}, {{3, 4}, {2, 0}}, {{11, 0}, {3, 0}}, {{12, 0}, {4, 0}}};
    const bool v6 = is_v6(about);
    const Number number = numbers[static_cast<size_t>(fault)][v6];
    const Bytes quoted = about.build();

    Packet packet;
    packet.source = source;
    packet.destination = about.source;
    packet.protocol = v6 ? uint8_t{IPPROTO_ICMPV6} : uint8_t{IPPROTO_ICMP};
    packet.icmp_type = number.type;
    packet.icmp_code = number.code;
    packet.icmp_sequence = mtu;
    packet.payload.assign(quoted.begin() + 14,
                          quoted.begin() + static_cast<ptrdiff_t>(std::min(quoted.size(), 14 + size)));
    return packet;
}

std::ostream &operator<<(std::ostream &out, const Frame &frame)
{
    for (size_t i = 0; i < frame.bytes.size(); i++)
        out << fmt::format("{}{:02x}", i % 2 == 0 && i > 0 ? " " : "", frame.bytes[i]);
    return out;
}

namespace {

/// What all that the datapath says by itself has in common: it goes back by the way that the packet came.
Packet answer(Packet packet, const Packet &about)
{
    packet = packet.with_macs(about.to, about.from);
    packet.identification = 0;
    packet.flow_label = {0x60, 0, 0, 0};
    return packet;
}

} // namespace

Packet own_error(Fault fault, const Address &source, const Packet &about, uint16_t mtu)
{
    const size_t most = is_v6(about) ? 1280 - 40 - 8 : 576 - 20 - 8; // RFC 4443 2.4; RFC 1812 4.3.2.3
    Packet made = answer(error(fault, source, about, most, mtu), about);
    made.service = 0xc0;
    return made;
}

Packet reset_for(const Packet &segment, uint32_t takes)
{
    Packet reset = answer(segment.reversed().with_hops(64), segment);
    const bool acked = segment.flags & ack;
    reset.flags = acked ? rst : rst | ack;
    reset.sequence = acked ? segment.acknowledgement : 0;
    reset.acknowledgement = acked ? 0 : segment.sequence + takes;
    reset.window = 0;
    reset.options.clear();
    reset.extensions.clear();
    reset.payload.clear();
    return reset;
}

Packet abort_for(const Packet &packet)
{
    Packet abort = answer(packet.reversed().with_hops(64), packet);
    const bool init = packet.payload.starts_with(static_cast<char>(Chunk::init));
    if (init) {
        abort.tag = 0;
        for (size_t i = 4; i < 8; i++)
            abort.tag = abort.tag << 8 | static_cast<uint8_t>(packet.payload.at(i));
    }
    abort.options.clear();
    abort.extensions.clear();
    abort.payload = {static_cast<char>(Chunk::abort), init ? '\0' : '\1', '\0', '\4'};
    return abort;
}

std::string destination_of(const Bytes &bytes)
{
    const bool v6 = bytes.at(12) == 0x86;
    return Address::from_bytes(&bytes.at(v6 ? 14 + 24 : 14 + 16), v6 ? Family::ipv6 : Family::ipv4).text();
}

uint16_t source_port_of(const Bytes &bytes)
{
    const size_t at = bytes.at(12) == 0x86 ? 14 + 40 : 14 + 20;
    return static_cast<uint16_t>(bytes.at(at) << 8 | bytes.at(at + 1));
}

} // namespace thruway::test
