// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/probe.h"

#include <arpa/inet.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>

namespace thruway::cli {
namespace {

constexpr uint8_t hops = 64;
constexpr size_t sctp_header = 12; // RFC 9260 3.1: ports, verification tag, checksum

template<typename Header>
void append(std::vector<uint8_t> &bytes, const Header &header)
{
    const auto *from = reinterpret_cast<const uint8_t *>(&header);
    bytes.insert(bytes.end(), from, from + sizeof(header));
}

std::vector<uint8_t> transport_of(const Probe &probe)
{
    std::vector<uint8_t> bytes;
    switch (probe.protocol) {
    case IPPROTO_TCP: {
        tcphdr header{};
        header.source = htons(probe.source_port);
        header.dest = htons(probe.destination_port);
        header.doff = sizeof(header) / 4;
        header.syn = 1;
        append(bytes, header);
        break;
    }
    case IPPROTO_UDP: {
        udphdr header{};
        header.source = htons(probe.source_port);
        header.dest = htons(probe.destination_port);
        header.len = htons(sizeof(header));
        append(bytes, header);
        break;
    }
    case IPPROTO_SCTP:
        append(bytes, htons(probe.source_port));
        append(bytes, htons(probe.destination_port));
        bytes.resize(sctp_header);
        break;
    default: {
        icmphdr header{}; // that of ICMPv6 looks the same
        header.type = probe.protocol == IPPROTO_ICMPV6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO;
        header.un.echo.id = htons(probe.source_port);
        append(bytes, header);
    }
    }
    return bytes;
}

} // namespace

std::vector<uint8_t> Probe::frame() const
{
    const bool v6 = source.family() == Family::ipv6;
    const std::vector<uint8_t> transport = transport_of(*this);
    std::vector<uint8_t> bytes;
    ethhdr ethernet{};
    ethernet.h_proto = htons(v6 ? ETH_P_IPV6 : ETH_P_IP);
    append(bytes, ethernet);
    if (v6) {
        ipv6hdr header{};
        header.version = 6;
        header.payload_len = htons(static_cast<uint16_t>(transport.size()));
        header.nexthdr = protocol;
        header.hop_limit = hops;
        std::memcpy(&header.saddr, source.bytes(), source.size());
        std::memcpy(&header.daddr, destination.bytes(), destination.size());
        append(bytes, header);
    } else {
        iphdr header{};
        header.version = 4;
        header.ihl = sizeof(header) / 4;
        header.tot_len = htons(static_cast<uint16_t>(sizeof(header) + transport.size()));
        header.ttl = hops;
        header.protocol = protocol;
        std::memcpy(&header.saddr, source.bytes(), source.size());
        std::memcpy(&header.daddr, destination.bytes(), destination.size());
        append(bytes, header);
    }
    bytes.insert(bytes.end(), transport.begin(), transport.end());
    return bytes;
}

} // namespace thruway::cli
