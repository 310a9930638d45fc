// SPDX-License-Identifier: Apache-2.0
// Objects that an API server sends in protobuf are those that it would send in JSON.
#include "agent/kube/protobuf.h"

#include "agent/kube/decode.h"
#include "agent/kube/reflector.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <fmt/format.h>

using namespace thruway;

namespace {

// The encoding, written down once more.

std::string varint(uint64_t value)
{
    std::string bytes;
    for (; value > 0x7f; value >>= 7U)
        bytes += static_cast<char>(0x80 | (value & 0x7f));
    return bytes + static_cast<char>(value);
}

std::string field(uint32_t number, std::string_view bytes)
{
    return varint(uint64_t{number} << 3U | 2) + varint(bytes.size()) + std::string(bytes);
}

std::string field(uint32_t number, uint64_t value)
{
    return varint(uint64_t{number} << 3U) + varint(value);
}

/// Fields of a kind that is not used, of each wire type.
std::string foreign()
{
    return field(90, "text") + field(91, 300) + varint(92U << 3U | 1) + std::string(8, 'x') + varint(93U << 3U | 5) +
           std::string(4, 'x');
}

std::string entry(std::string_view key, std::string_view value)
{
    return field(1, key) + field(2, value);
}

std::string metadata(const std::string &name, const std::string &space, const std::string &more = "")
{
    return field(1, field(1, name) + field(3, space) + field(5, "uid") + field(6, "77") + field(7, 3) +
                        field(8, field(1, 1'767'225'600) + field(2, 0)) + more + foreign());
}

std::string wrapped(std::string_view kind, std::string_view object)
{
    return std::string("k8s\0", 4) + field(1, field(1, "v1") + field(2, kind)) + field(2, object) + field(3, "") +
           field(4, "");
}

std::string event(std::string_view type, const std::string &object)
{
    const std::string event = field(1, type) + field(2, field(1, object));
    const auto size = static_cast<uint32_t>(event.size());
    std::string frame;
    for (const unsigned shift : {24U, 16U, 8U, 0U})
        frame += static_cast<char>(size >> shift & 0xffU);
    return frame + event;
}

/// The events of a stream, which comes in pieces of this size.
std::vector<WatchEvent> read(Kind kind, const std::string &bytes, size_t piece = SIZE_MAX)
{
    ProtobufStream stream(kind);
    Decoder decoder;
    std::vector<WatchEvent> events;
    for (size_t at = 0; at < bytes.size(); at += std::min(piece, bytes.size() - at)) {
        const auto fed = stream.feed(std::string_view(bytes).substr(at, piece), [&](std::string &json) -> Result<> {
            INFO(json);
            auto event = decoder.decode_event(kind, json);
            REQUIRE(event);
            events.push_back(std::move(*event));
            return {};
        });
        REQUIRE(fed);
    }
    CHECK(stream.is_complete());
    return events;
}

/// What the protobuf means is what the JSON means.
void check_same(Kind kind, const std::string &protobuf, const std::string &json)
{
    const auto events = read(kind, event("ADDED", wrapped(kind_name(kind), protobuf)));
    REQUIRE(events.size() == 1);
    CHECK(events[0].type == WatchEvent::Type::upsert);
    CHECK(events[0].version == "77");
    CHECK(events[0].decoded.faults.empty());
    std::string text = json;
    const auto wanted = Decoder().decode_item(kind, text);
    REQUIRE(wanted);
    REQUIRE(wanted->faults.empty());
    REQUIRE(wanted->object);
    CHECK(events[0].decoded.object == wanted->object);
}

std::string service_port(const std::string &name, const std::string &protocol, uint64_t port, uint64_t node_port)
{
    const std::string target = field(4, field(1, 0) + field(2, 8080));
    return field(1, field(1, name) + field(2, protocol) + field(3, port) + target + field(5, node_port));
}

std::string web_service()
{
    const std::string spec =
        service_port("http", "TCP", 80, 30'080) + service_port("dns", "UDP", 53, 0) + field(2, entry("app", "web")) +
        field(3, "10.96.0.7") + field(4, "LoadBalancer") + field(5, "192.0.2.1") + field(5, "fd00::5") +
        field(7, "ClientIP") + field(8, "") + field(9, "10.0.0.0/8") + field(10, "") + field(11, "Local") +
        field(12, 30'099) + field(13, 0) + field(14, field(1, field(1, 600))) + field(18, "10.96.0.7") +
        field(18, "fd00:96::7") + field(19, "IPv4") + field(19, "IPv6") + field(22, "Local") + foreign();
    const std::string balancer = field(1, field(1, "192.0.2.2") + field(2, "") + field(3, "VIP")) +
                                 field(1, field(1, "192.0.2.3") + field(3, "Proxy"));
    return metadata("web", "shop", field(11, entry("app", "\"web\"\n"))) + field(2, spec) +
           field(3, field(1, balancer) + foreign());
}

} // namespace

TEST_CASE("protobuf: a Service is what it is in JSON")
{
    check_same(Kind::service, web_service(), R"({
      "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": "\"web\"\n"}},
      "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
        "ipFamilies": ["IPv4", "IPv6"], "externalIPs": ["192.0.2.1", "fd00::5"],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080},
                  {"name": "dns", "protocol": "UDP", "port": 53}],
        "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 30099,
        "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}},
      "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2", "ipMode": "VIP"}, {"ip": "192.0.2.3", "ipMode": "Proxy"}]}}})");
}

TEST_CASE("protobuf: an EndpointSlice is what it is in JSON")
{
    const std::string hints =
        field(8, field(1, field(1, "east")) + field(1, field(1, "west")) + field(2, field(1, "n1")));
    const std::string first =
        field(1, "10.1.0.1") + field(1, "10.1.0.9") + field(2, field(1, 1) + field(2, 1) + field(3, 0)) +
        field(4, field(1, "Pod") + field(2, "shop") + field(3, "web-1") + field(4, "uid")) + field(6, "n1") + hints;
    const std::string second = field(1, "10.1.0.2") + field(2, field(1, 0) + field(2, 1) + field(3, 1));
    const std::string third = field(1, "10.1.0.3") + field(2, "");
    const std::string port = field(1, "http") + field(2, "SCTP") + field(3, 8080);
    check_same(
        Kind::endpoint_slice,
        metadata("web-abc", "shop",
                 field(11, entry("kubernetes.io/service-name", "web")) +
                     field(12, entry("endpoints.kubernetes.io/last-change-trigger-time", "2026-01-01T00:00:01Z"))) +
            field(2, first) + field(2, second) + field(2, third) + field(3, port) + field(4, "IPv4"),
        R"({
      "metadata": {"name": "web-abc", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
        "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:01Z"}},
      "addressType": "IPv4", "ports": [{"name": "http", "protocol": "SCTP", "port": 8080}],
      "endpoints": [
        {"addresses": ["10.1.0.1", "10.1.0.9"], "conditions": {"ready": true, "serving": true, "terminating": false},
         "nodeName": "n1", "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1"},
         "hints": {"forZones": [{"name": "east"}, {"name": "west"}], "forNodes": [{"name": "n1"}]}},
        {"addresses": ["10.1.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.1.0.3"], "conditions": {}}]})");
}

TEST_CASE("protobuf: a Node and a ServiceCIDR are what they are in JSON")
{
    const std::string spec = field(1, "10.244.1.0/24") + field(3, "cloud://x") +
                             field(5, field(1, "ToBeDeletedByClusterAutoscaler") + field(2, "1")) +
                             field(7, "10.244.1.0/24") + field(7, "fd00:10:244:1::/64");
    const std::string status = field(5, field(1, "Hostname") + field(2, "n1")) +
                               field(5, field(1, "InternalIP") + field(2, "172.20.0.11")) +
                               field(5, field(1, "InternalIP") + field(2, "fd20::11"));
    check_same(Kind::node,
               metadata("n1", "", field(11, entry("topology.kubernetes.io/zone", "east"))) + field(2, spec) +
                   field(3, status),
               R"({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "east"}},
      "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"],
        "taints": [{"key": "ToBeDeletedByClusterAutoscaler"}]},
      "status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "172.20.0.11"},
        {"type": "InternalIP", "address": "fd20::11"}]}})");
    check_same(Kind::service_cidr,
               metadata("kubernetes", "") + field(2, field(1, "10.96.0.0/16") + field(1, "fd00:96::/112")),
               R"({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]}})");
}

TEST_CASE("protobuf: events are read whatever pieces they come in")
{
    const std::string bytes =
        event("ADDED", wrapped("Service", web_service())) +
        event("DELETED", wrapped("Service", metadata("web", "shop"))) +
        event("BOOKMARK",
              wrapped("Service", field(1, field(6, "90") + field(12, entry("k8s.io/initial-events-end", "true")))));
    const auto events = read(Kind::service, bytes, GENERATE(size_t{1}, 3, 100, 4096));
    REQUIRE(events.size() == 3);
    CHECK(events[0].decoded.object);
    CHECK(events[1].type == WatchEvent::Type::remove);
    CHECK(events[1].decoded.key == ObjectKey{Kind::service, {Symbol("shop"), "web"}});
    CHECK(events[2].type == WatchEvent::Type::bookmark);
    CHECK(events[2].version == "90");
    CHECK(events[2].initial_end);
}

TEST_CASE("protobuf: a Status says why a watch ends, or was not begun")
{
    const std::string status = wrapped("Status", field(1, "") + field(2, "Failure") + field(3, "too \"old\"") +
                                                     field(4, "Expired") + field(5, field(5, 7)) + field(6, 410));
    const auto events = read(Kind::node, event("ERROR", status));
    REQUIRE(events.size() == 1);
    CHECK(events[0].type == WatchEvent::Type::error);
    for (const ApiStatus &said : {events[0].status, Decoder().decode_status(status_from_protobuf(status))}) {
        CHECK(said.code == 410);
        CHECK(said.reason == "Expired");
        CHECK(said.message == "too \"old\"");
        CHECK(said.retry_after == 7);
    }
    CHECK(status_from_protobuf(wrapped("Service", web_service())).empty());
    CHECK(status_from_protobuf(status.substr(0, 10)).empty());
}

TEST_CASE("protobuf: what is none, or is cut off within a message, is refused")
{
    const auto refused = [](const std::string &bytes) {
        return !ProtobufStream(Kind::service, 4096).feed(bytes, [](std::string &) -> Result<> { return {}; });
    };
    const std::string object = wrapped("Service", web_service());
    CHECK_FALSE(refused(event("ADDED", object)));
    CHECK(refused(event("ADDED", object.substr(4))));
    CHECK(refused(event("ADDED", object.substr(0, object.size() / 2))));
    CHECK(refused(event("ADDED", wrapped("Service", field(2, "\xff\xff\xff")))));
    CHECK(refused(std::string("\0\0\0\4abcd", 8)));
    CHECK(refused(std::string("\0\x10\0\0", 4))); // a megabyte
}

TEST_CASE("protobuf: a server may answer a watch in it, and the next in JSON")
{
    Reflector reflector(resources[0]);
    Learned learned;
    reflector.ask(300);
    const std::string end =
        wrapped("Service", field(1, field(6, "90") + field(12, entry("k8s.io/initial-events-end", "true"))));
    REQUIRE(reflector.feed(event("ADDED", wrapped("Service", web_service())) + event("BOOKMARK", end), learned));
    CHECK(reflector.synced());
    CHECK(reflector.version() == "90");
    CHECK(learned.changes.size() == 1);
    CHECK(reflector.finish({.status = 200}, false, learned).trouble.empty());

    reflector.ask(300);
    REQUIRE(reflector.feed(
        R"({"type":"DELETED","object":{"metadata":{"name":"web","namespace":"shop","resourceVersion":"91"}}})",
        learned));
    CHECK(learned.changes.size() == 2);
    CHECK(reflector.version() == "91");
}
