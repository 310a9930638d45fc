// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/node.h"
#include "tests/shim/shim.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cstring>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <stdexcept>
#include <thruway/drop.h>
#include <thruway/flow.h>
#include <thruway/nexthop.h>
#include <thruway/service.h>

namespace thruway::fuzz {
namespace {

constexpr uint32_t endpoints_max = 64;
constexpr uint32_t uplink_ifindex = 5;
constexpr uint32_t first_pod_ifindex = 10;
constexpr uint32_t flow_buckets = 16;      ///< behind which a spill area lies
constexpr uint32_t uplink = endpoints_max; ///< next hops
constexpr uint32_t gateway = endpoints_max + 1;
constexpr uint32_t other_node = endpoints_max + 2;

template<typename Key, typename Value>
void put(const char *name, const Key &key, const Value &value)
{
    const shim_map &target = map(name);
    if (target.key_size != sizeof(key) || target.value_size != sizeof(value) ||
        shim_update(&target, &key, &value, BPF_ANY) != 0)
        throw std::logic_error("map update");
}

tw_address address(const std::string &text)
{
    tw_address result{};
    if (inet_pton(AF_INET, text.c_str(), &result.word[3]) == 1)
        result.word[2] = htonl(0xffff);
    else if (inet_pton(AF_INET6, text.c_str(), &result) != 1)
        throw std::logic_error("not an address: " + text);
    return result;
}

struct Endpoint {
    tw_address address;
    uint16_t port; ///< network byte order
};

/// "10.0.0.1:80", "[fd00::1]:80"; without address for NodePorts: ":80", "[]:80".
Endpoint endpoint(const std::string &text)
{
    const auto colon = text.rfind(':');
    std::string host = text.substr(0, colon);
    if (host.starts_with('['))
        host = host == "[]" ? "::" : host.substr(1, host.size() - 2);
    else if (host.empty())
        host = "0.0.0.0";
    return {address(host), htons(static_cast<uint16_t>(std::stoul(text.substr(colon + 1))))};
}

void put_nexthop(uint32_t index, uint32_t ifindex, uint8_t mac, uint16_t flags)
{
    tw_nexthop hop{};
    hop.link = {.ifindex = ifindex, .mtu = 1500, .unused = 0};
    hop.to.mac[0] = 2;
    hop.to.mac[5] = mac;
    hop.to.flags = flags;
    std::ranges::copy(uplink_mac, hop.from.mac);
    hop.source[0] = 1;
    hop.source[1] = 2;
    put("nexthops", index, hop);
}

void put_node(const std::string &cidr, uint32_t bits, uint32_t nexthop)
{
    tw_cidr key{.bits = bits, .word = {}};
    const tw_address first = address(cidr);
    std::memcpy(key.word, first.word, sizeof(key.word));
    put("nodes", key, nexthop);
}

void put_service(uint32_t id, const ServiceText &service)
{
    tw_service row{};
    row.flags = TW_SERVICE_USED;
    if (!service.backends.empty()) {
        const Endpoint to = endpoint(service.backends.front());
        put("backends", id,
            tw_backend{.address = to.address, .port = to.port, .flags = TW_BACKEND_SERVING, .unused = 0});
        put("slots", id, tw_slots{{id, id}});
        row.cluster = {.base = id * 2, .count = 1};
    }
    put("services", id, row);
    for (const std::string &text : service.frontends) {
        const Endpoint from = endpoint(text);
        put("frontends",
            tw_frontend{.address = from.address, .port = from.port, .protocol = service.protocol, .unused = {}}, id);
        if (!text.starts_with(":") && !text.starts_with("[]"))
            put("vips", from.address, uint32_t{0});
    }
}

} // namespace

const shim_map &map(const char *name)
{
    if (const shim_map *found = program_map(name))
        return *found;
    throw std::logic_error("no such map");
}

const std::vector<ServiceText> &services()
{
    static const std::vector<ServiceText> all{
        {"local", {"10.96.0.1:80", ":30080"}, {"10.244.1.3:8080"}, IPPROTO_TCP},
        {"remote", {"10.96.0.2:80", ":30081"}, {"10.244.2.9:8080"}, IPPROTO_TCP},
        {"itself", {"10.96.0.3:80"}, {"10.244.1.2:80"}, IPPROTO_TCP},
        {"host", {"10.96.0.4:80", ":30082"}, {"172.20.0.11:8080"}, IPPROTO_TCP},
        {"nobody", {"10.96.0.5:80", ":30083"}, {}, IPPROTO_TCP},
        {"dns", {"10.96.0.10:53", ":30053"}, {"10.244.2.9:53"}, IPPROTO_UDP},
        {"sctp", {"10.96.0.6:80"}, {"10.244.1.3:8080"}, IPPROTO_SCTP},
        {"local6", {"[fd96::1]:80", "[]:30080"}, {"[fd00:10:244:1::3]:8080"}, IPPROTO_TCP},
        {"remote6", {"[fd96::2]:80", "[]:30081"}, {"[fd00:10:244:2::9]:8080"}, IPPROTO_TCP},
        {"dns6", {"[fd96::10]:53", "[]:30053"}, {"[fd00:10:244:2::9]:53"}, IPPROTO_UDP},
    };
    return all;
}

void node_setup()
{
    config = {};
    config.flow_seed = 0x243f6a8885a308d3;
    config.clock = uint64_t{100} << TW_CLOCK_SHIFT;
    config.flow_mask = flow_buckets - 1;
    config.endpoints_max = endpoints_max;
    config.snat_first = 49152;
    config.snat_mask = 16383;
    config.tcp_established = 1000;
    config.tcp_half_open = config.tcp_closing = config.udp_one_way = config.udp_two_way = config.icmp = 10;
    shim_uplink = uplink_ifindex;
    for (const char *name : {"frontends", "services", "slots", "backends", "endpoints", "node_addresses",
                             "node_port_addresses", "addresses", "nodes", "gateways", "ifindexes", "nexthops",
                             "generations", "flows4", "flows6", "drops", "vips", "fragments", "service_cidrs"})
        shim_clear(&map(name));

    put("layout", uint32_t{0}, tw_layout{.version = TW_LAYOUT_VERSION, .carries = 1});
    put("addresses", uint32_t{1}, address("172.20.0.11"));
    put("addresses", uint32_t{2}, address("fd20::11"));
    put("node_addresses", address("172.20.0.11"), uint32_t{1});
    put("node_addresses", address("fd20::11"), uint32_t{2});
    put("node_port_addresses", address("172.20.0.11"), uint32_t{0});
    put("node_port_addresses", address("fd20::11"), uint32_t{0});
    for (uint32_t i = 0; i < pods.size(); i++) {
        const uint32_t id = i + 1;
        put_nexthop(id, first_pod_ifindex + i, static_cast<uint8_t>(pods.at(i)), TW_NEXTHOP_RESOLVED);
        put("endpoints", address("10.244.1." + std::to_string(pods.at(i))), id);
        put("endpoints", address("fd00:10:244:1::" + std::to_string(pods.at(i))), id);
    }
    put_nexthop(uplink, uplink_ifindex, 0, 0);
    put_nexthop(gateway, uplink_ifindex, 0x12, TW_NEXTHOP_RESOLVED);
    put_nexthop(other_node, uplink_ifindex, 0x12, TW_NEXTHOP_RESOLVED | TW_NEXTHOP_XDP | TW_NEXTHOP_REDIRECT);
    put("ifindexes", uplink_ifindex, uplink);
    for (const char *text : {"172.20.0.1", "fd20::1"})
        put("gateways", tw_gateway{.address = address(text), .ifindex = uplink_ifindex, .unused = 0}, gateway);
    put_node("10.244.1.0", 96 + 24, 0);
    put_node("fd00:10:244:1::", 64, 0);
    put_node("10.244.2.0", 96 + 24, other_node);
    put_node("fd00:10:244:2::", 64, other_node);
    uint32_t id = 0;
    for (const ServiceText &service : services())
        put_service(++id, service);
}

void node_reset()
{
    for (const auto *name : {"flows4", "flows6"})
        std::memset(*map(name).values, 0, size_t{flow_buckets_max} * map(name).value_size);
    shim_clear(&map("fragments"));
}

uint32_t ifindex_of(const Step &step)
{
    return step.hook == PROGRAM_FROM_POD || step.hook == PROGRAM_TO_POD ? first_pod_ifindex + step.port
                                                                        : uplink_ifindex;
}

} // namespace thruway::fuzz
