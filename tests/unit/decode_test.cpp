// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/decode.h"

#include "agent/kube/time.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <fmt/format.h>
#include <random>

using namespace thruway;

namespace {

std::vector<Decoded> decode(std::string json)
{
    Decoder decoder;
    auto objects = decoder.decode(std::move(json));
    INFO((objects ? std::string() : objects.error().text()));
    REQUIRE(objects);
    return std::move(*objects);
}

Decoded decode_one(std::string json)
{
    auto objects = decode(std::move(json));
    REQUIRE(objects.size() == 1);
    return std::move(objects.front());
}

/// The one object in `json`, which lacks the parts that `faults` tell.
template<typename T>
T partly_good(std::string json, const std::vector<std::string> &faults)
{
    const Decoded decoded = decode_one(std::move(json));
    CHECK(decoded.faults == faults);
    const T *object = decoded.object ? std::get_if<T>(&*decoded.object) : nullptr;
    REQUIRE(object != nullptr);
    CHECK(decoded.key == key_of(Object(*object)));
    return *object;
}

/// The one object in `json`, which has no fault.
template<typename T>
T good(std::string json)
{
    return partly_good<T>(std::move(json), {});
}

void check_refused(std::string json, const std::string &line)
{
    INFO(json);
    const Decoded decoded = decode_one(std::move(json));
    CHECK_FALSE(decoded.object);
    CHECK(decoded.faults == std::vector{line});
}

std::string service_json(std::string_view spec, std::string_view more_metadata = "")
{
    return fmt::format(R"({{"apiVersion":"v1","kind":"Service","metadata":{{"name":"web"{}}},"spec":{{{}}}}})",
                       more_metadata, spec);
}

/// A Service with an address and `ports`.
std::string ports_json(std::string_view ports)
{
    return service_json(fmt::format(R"("clusterIP":"10.0.0.1","ports":{})", ports));
}

/// A Service with one port, and `addresses` among its fields.
std::string addresses_json(std::string_view addresses)
{
    return service_json(fmt::format(R"({},"ports":[{{"port":80}}])", addresses));
}

std::string slice_json(std::string_view fields, std::string_view type = "IPv4", std::string_view more_labels = "")
{
    return fmt::format(R"({{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"name":"web-x",
        "labels":{{"kubernetes.io/service-name":"web"{}}}}},"addressType":"{}"{}{}}})",
                       more_labels, type, fields.empty() ? "" : ",", fields);
}

std::string endpoints_json(std::string_view endpoints, std::string_view type = "IPv4")
{
    return slice_json(fmt::format(R"("ports":[{{"name":"http","port":8080}}],"endpoints":{})", endpoints), type);
}

Address address(std::string_view text)
{
    return Address::parse(text).value();
}

std::vector<Address> addresses(std::initializer_list<std::string_view> texts)
{
    std::vector<Address> all;
    for (const std::string_view text : texts)
        all.push_back(address(text));
    return all;
}

constexpr std::string_view full_service = R"({
  "apiVersion": "v1",
  "kind": "Service",
  "metadata": {
    "name": "web", "namespace": "shop", "creationTimestamp": "2026-03-01T12:30:00Z",
    "labels": {"app": "web"}, "managedFields": [{"manager": "x", "fieldsV1": {"f:a": {}}}]
  },
  "spec": {
    "type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
    "ipFamilies": ["IPv4", "IPv6"],
    "ports": [
      {"name": "http", "port": 80, "nodePort": 30080, "targetPort": 8080},
      {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": "dns"},
      {"name": "sctp", "protocol": "SCTP", "port": 99}
    ]
  },
  "status": {"loadBalancer": {}}
})";

constexpr std::string_view full_slice = R"({
  "kind": "EndpointSlice",
  "apiVersion": "discovery.k8s.io/v1",
  "metadata": {
    "name": "web-abcde", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
    "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-03-01T12:30:00.250Z"}
  },
  "addressType": "IPv4",
  "endpoints": [
    {"addresses": ["10.1.0.1"], "nodeName": "n1", "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1"},
     "conditions": {"ready": true, "serving": true, "terminating": false}},
    {"addresses": ["10.1.0.2"], "nodeName": "n2", "targetRef": {"kind": "Node", "name": "n2"},
     "conditions": {"ready": false, "serving": true, "terminating": true}}
  ],
  "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}]
})";

} // namespace

TEST_CASE("A Service is read with all fields that are used")
{
    const auto service = good<Service>(std::string(full_service));
    CHECK(service.name == ObjectName{Symbol("shop"), "web"});
    CHECK(service.type == ServiceType::node_port);
    CHECK(service.proxied);
    CHECK(service.created == 1772368200);
    CHECK(service.cluster_ips == addresses({"10.0.0.1", "fd00::1"}));
    CHECK(service.ports == std::vector<ServicePort>{{Symbol("http"), Protocol::tcp, 80, 30080},
                                                    {Symbol("dns"), Protocol::udp, 53, 0},
                                                    {Symbol("sctp"), Protocol::sctp, 99, 0}});
}

TEST_CASE("An EndpointSlice is read with all fields that are used")
{
    const auto slice = good<EndpointSlice>(std::string(full_slice));
    CHECK(slice.name == ObjectName{Symbol("shop"), "web-abcde"});
    CHECK(slice.service == "web");
    CHECK(slice.family == Family::ipv4);
    CHECK(slice.triggered == 1772368200250);
    CHECK(slice.ports ==
          std::vector<SlicePort>{{Symbol("http"), Protocol::tcp, 8080}, {Symbol("dns"), Protocol::udp, 5353}});
    REQUIRE(slice.endpoints.size() == 2);
    CHECK(slice.endpoints[0].address == address("10.1.0.1"));
    CHECK(slice.endpoints[0].node == Symbol("n1"));
    CHECK(slice.endpoints[0].conditions == (Endpoint::ready | Endpoint::serving));
    CHECK(slice.pod_of(slice.endpoints[0]) == "web-1");
    CHECK(slice.endpoints[1].conditions == (Endpoint::serving | Endpoint::terminating));
    CHECK(slice.pod_of(slice.endpoints[1]).empty());
}

TEST_CASE("Node, Pod and Namespace are read with all fields that are used")
{
    const auto node = good<Node>(R"({"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","namespace":"ignored"},
        "spec":{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24","fd01::/64"]},
        "status":{"addresses":[{"type":"Hostname","address":"n1"},{"type":"InternalIP","address":"192.168.0.1"},
        {"type":"ExternalIP","address":"1.2.3.4"},{"address":"fd00::1","type":"InternalIP"}]}})");
    CHECK(node.name == ObjectName{Symbol(), "n1"});
    CHECK(node.addresses == addresses({"192.168.0.1", "fd00::1"}));
    CHECK(node.pod_cidrs == std::vector{Prefix::parse("10.1.0.0/24").value(), Prefix::parse("fd01::/64").value()});

    const auto pod = good<Pod>(R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1","namespace":"shop"},
        "spec":{"nodeName":"n1","hostNetwork":true,"containers":[{"name":"c","ports":[{"containerPort":80}]}]},
        "status":{"phase":"Running","podIP":"10.1.0.1","podIPs":[{"ip":"10.1.0.1"},{"ip":"fd01::1"}]}})");
    CHECK(pod == Pod{{Symbol("shop"), "web-1"}, Symbol("n1"), true, false, addresses({"10.1.0.1", "fd01::1"})});

    CHECK(good<Namespace>(R"({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}})") ==
          Namespace{{Symbol(), "shop"}});
}

TEST_CASE("A ServiceCIDR is read, but for blocks that are none")
{
    const auto cidr = [](const char *text) { return Prefix::parse(text).value(); };
    CHECK(good<ServiceCidr>(R"({"apiVersion":"networking.k8s.io/v1","kind":"ServiceCIDR","metadata":{"name":"more"},
        "spec":{"cidrs":["10.96.0.0/16","fd00:96::/112"]}})") ==
          ServiceCidr{{Symbol(), "more"}, {cidr("10.96.0.0/16"), cidr("fd00:96::/112")}});
    CHECK(partly_good<ServiceCidr>(R"({"apiVersion":"networking.k8s.io/v1","kind":"ServiceCIDR",
        "metadata":{"name":"more"},"spec":{"cidrs":["10.96.0.0/33","fd00:96::/112"]}})",
                                   {R"(ServiceCIDR more: spec.cidrs: "10.96.0.0/33" is not a CIDR block)"}) ==
          ServiceCidr{{Symbol(), "more"}, {cidr("fd00:96::/112")}});
}

TEST_CASE("What decides over the traffic of a Service is read, for both families")
{
    const Service service = good<Service>(R"({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
      "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1", "fd00::1"], "ports": [{"port": 80, "nodePort": 30080}],
        "externalIPs": ["192.0.2.001", "fd00::5"], "loadBalancerSourceRanges": [" 10.1.2.3/8 ", "fd00::/8"],
        "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30099,
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}},
      "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"ip": "192.0.2.3", "ipMode": "Proxy"},
        {"hostname": "lb.example"}, {"ip": "fd00::2", "ipMode": "VIP"}]}}})");
    const auto address = [](const char *text) { return Address::parse(text).value(); };
    CHECK(service.external_ips == std::vector{address("192.0.2.1"), address("fd00::5")});
    CHECK(service.balancer_ips == std::vector{address("192.0.2.2"), address("fd00::2")});
    CHECK(service.source_ranges == std::vector{Prefix::parse("10.0.0.0/8").value(), Prefix::parse("fd00::/8").value()});
    CHECK(service.internal_local);
    CHECK(service.external_local);
    CHECK(service.health_port == 30099);
    CHECK(service.affinity == 600);
}

TEST_CASE("What is wrong with the traffic of a Service costs the rest of it nothing")
{
    const std::string text = R"({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
      "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "externalIPs": ["127.0.0.1", "no", "192.0.2.1"],
        "loadBalancerSourceRanges": ["10.0.0.0/33", "10.0.0.0/8"], "externalTrafficPolicy": "Near",
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}})";
    const auto service = partly_good<Service>(
        text,
        {"Service default/web: spec.externalIPs[0]: \"127.0.0.1\" cannot be a destination",
         "Service default/web: spec.externalIPs[1]: \"no\" is not an IP address",
         "Service default/web: spec.loadBalancerSourceRanges[0]: \"10.0.0.0/33\" is not a CIDR block",
         "Service default/web: spec.externalTrafficPolicy: must be Cluster or Local, is \"Near\"",
         "Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: must be 1 to 86400, is 86401"});
    CHECK(service.external_ips.size() == 1);
    CHECK(service.source_ranges.size() == 1);
    CHECK(!service.external_local);
    CHECK(service.affinity == 10'800);
}

TEST_CASE("externalTrafficPolicy counts only for what can be dialled from outside")
{
    const auto local = [](const std::string &rest) {
        return good<Service>(R"({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec":
          {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "externalTrafficPolicy": "Local")" +
                             rest + "}}")
            .external_local;
    };
    CHECK(!local(""));
    CHECK(local(R"(, "externalIPs": ["192.0.2.1"])"));
    CHECK(local(R"(, "type": "NodePort")"));
    CHECK(local(R"(, "type": "LoadBalancer")"));
}

TEST_CASE("Hints and zones are read, and endpoints with the same hints share them")
{
    const auto slice = good<EndpointSlice>(R"({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
      "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4", "ports": [],
      "endpoints": [{"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "east"}], "forNodes": [{"name": "n1"}]}},
                    {"addresses": ["10.0.0.2"]},
                    {"addresses": ["10.0.0.3"], "hints": {"forZones": [{"name": "east"}], "forNodes": [{"name": "n1"}]}}]})");
    REQUIRE(slice.endpoints.size() == 3);
    CHECK(slice.hints == std::vector<Hints>{{}, {{Symbol("n1")}, {Symbol("east")}}});
    CHECK(slice.endpoints[0].hints == 1);
    CHECK(slice.endpoints[1].hints == 0);
    CHECK(slice.endpoints[2].hints == 1);
    CHECK(good<Node>(R"({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1",
      "labels": {"topology.kubernetes.io/zone": "east"}}})")
              .zone == Symbol("east"));
}

TEST_CASE("rule 39: a Node that is being deleted, or that the cluster autoscaler is about to delete, is leaving")
{
    const auto leaving = [](const std::string &metadata, const std::string &taints) {
        return good<Node>(fmt::format(R"({{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "n1"{}}},
                                           "spec": {{"taints": {}}}}})",
                                      metadata, taints))
            .leaving;
    };
    CHECK_FALSE(leaving("", "null"));
    CHECK_FALSE(leaving("", R"([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])"));
    CHECK(leaving("", R"([{"key": "a"}, {"key": "ToBeDeletedByClusterAutoscaler", "value": "1700000000"}])"));
    CHECK(leaving(R"(, "deletionTimestamp": "2026-03-01T12:30:00Z")", "[]"));
}

TEST_CASE("A singular field stands in for a plural one that is missing")
{
    CHECK(good<Node>(R"({"apiVersion":"v1","kind":"Node","metadata":{"name":"n"},"spec":{"podCIDR":"10.1.0.0/24"}})")
              .pod_cidrs == std::vector{Prefix::parse("10.1.0.0/24").value()});
    CHECK(good<Pod>(R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"status":{"podIP":"10.1.0.1"}})")
              .addresses == addresses({"10.1.0.1"}));
}

TEST_CASE("A Pod that has ended is finished")
{
    const auto phase = [](std::string_view text) {
        return good<Pod>(fmt::format(
            R"({{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p"}},"status":{{"phase":"{}"}}}})", text));
    };
    CHECK(phase("Succeeded").finished);
    CHECK(phase("Failed").finished);
    CHECK_FALSE(phase("Running").finished);
    CHECK_FALSE(phase("Pending").finished);
}

TEST_CASE("Fields may come in any order, and null is the same as absent")
{
    const auto service = good<Service>(R"({"spec":{"ports":[{"targetPort":8080,"port":80,"protocol":null,"name":null,
        "nodePort":30080}],"clusterIP":"10.0.0.1","clusterIPs":null,"ipFamilies":null,"type":"NodePort"},"status":null,
        "metadata":{"labels":null,"annotations":null,"creationTimestamp":null,"namespace":null,"name":"web"},
        "kind":"Service","apiVersion":"v1"})");
    CHECK(service.name == ObjectName{Symbol("default"), "web"});
    CHECK(service.created == 0);
    CHECK(service.ports == std::vector<ServicePort>{{Symbol(), Protocol::tcp, 80, 30080}});

    const auto slice = good<EndpointSlice>(R"({"endpoints":[{"targetRef":null,"nodeName":null,"conditions":null,
        "addresses":["10.1.0.1"]}],"ports":[{"port":8080}],"addressType":"IPv4","metadata":{"labels":
        {"kubernetes.io/service-name":"web"},"name":"web-x"},"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice"})");
    CHECK(slice.endpoints.size() == 1);
    CHECK(slice.endpoints[0].conditions == (Endpoint::ready | Endpoint::serving));
}

TEST_CASE("Node ports count for Services of type NodePort and LoadBalancer only")
{
    const auto node_port = [](std::string_view type) {
        return good<Service>(
                   service_json(fmt::format(
                       R"("ports":[{{"port":80,"nodePort":30080}}],"clusterIP":"10.0.0.1","type":"{}")", type)))
            .ports[0]
            .node_port;
    };
    CHECK(node_port("NodePort") == 30080);
    CHECK(node_port("LoadBalancer") == 30080);
    CHECK(node_port("ClusterIP") == 0);
    CHECK(node_port("") == 0);
}

TEST_CASE("What kube-proxy leaves alone is not proxied, and headless and ExternalName Services need no ports")
{
    CHECK_FALSE(good<Service>(service_json(R"("clusterIP":"None")")).proxied);
    CHECK_FALSE(good<Service>(service_json(R"("clusterIPs":["None"],"clusterIP":"None","ports":[])")).proxied);
    CHECK_FALSE(good<Service>(service_json(R"("ports":[{"port":80}])")).proxied);
    CHECK_FALSE(good<Service>(service_json(R"("type":"ExternalName","externalName":"a.b")")).proxied);
    CHECK_FALSE(good<Service>(service_json(R"("type":"ExternalName","clusterIP":"10.0.0.1")")).proxied);
    CHECK_FALSE(good<Service>(service_json(R"("clusterIP":"10.0.0.1","ports":[{"port":80}])",
                                           R"(,"labels":{"service.kubernetes.io/service-proxy-name":""})"))
                    .proxied);
}

TEST_CASE("Cluster addresses follow ipFamilies, and their own family without")
{
    struct Case {
        std::string_view fields;
        std::vector<Address> addresses;
    };
    const auto c = GENERATE(from_range(std::vector<Case>{
        {R"("clusterIP":"10.0.0.1")", addresses({"10.0.0.1"})},
        {R"("clusterIP":"fd00::1")", addresses({"fd00::1"})},
        {R"("clusterIP":"10.0.0.1","ipFamilies":["IPv4"])", addresses({"10.0.0.1"})},
        {R"("clusterIPs":["fd00::1","10.0.0.1"],"ipFamilies":["IPv6","IPv4"])", addresses({"fd00::1", "10.0.0.1"})},
        {R"("clusterIPs":["10.0.0.1","fd00::1"])", addresses({"10.0.0.1", "fd00::1"})},
        {R"("clusterIPs":["10.0.0.1","fd00::1"],"ipFamilies":["IPv4"])", addresses({"10.0.0.1"})},
        {R"("clusterIPs":["10.0.0.1"],"ipFamilies":["IPv4","IPv6"])", addresses({"10.0.0.1"})},
        {R"("clusterIP":"010.000.0.01")", addresses({"10.0.0.1"})},
        {R"("clusterIP":"::ffff:10.0.0.1")", addresses({"10.0.0.1"})},
    }));
    INFO(c.fields);
    CHECK(good<Service>(addresses_json(c.fields)).cluster_ips == c.addresses);
}

TEST_CASE("A bad cluster address is skipped, and the last one refuses the Service")
{
    const std::string bad = R"(Service default/web: spec.clusterIPs[1]: "10.0.0.300" is not an IP address)";
    CHECK(partly_good<Service>(addresses_json(R"("clusterIPs":["fd00::1","10.0.0.300"])"), {bad}).cluster_ips ==
          addresses({"fd00::1"}));
    CHECK(partly_good<Service>(addresses_json(R"("clusterIPs":["10.0.0.1","10.0.0.2"])"),
                               {R"(Service default/web: spec.clusterIPs[1]: "10.0.0.2" is a second IPv4 address)"})
              .cluster_ips == addresses({"10.0.0.1"}));

    check_refused(addresses_json(R"("clusterIP":"web.example")"),
                  R"(Service default/web: spec.clusterIP: "web.example" is not an IP address)");
    check_refused(addresses_json(R"("clusterIP":"0.0.0.0")"),
                  R"(Service default/web: spec.clusterIP: "0.0.0.0" cannot be a destination)");
    check_refused(addresses_json(R"("clusterIP":"127.0.0.1")"),
                  R"(Service default/web: spec.clusterIP: "127.0.0.1" cannot be a destination)");
    check_refused(addresses_json(R"("clusterIP":"ff02::1")"),
                  R"(Service default/web: spec.clusterIP: "ff02::1" cannot be a destination)");
    check_refused(addresses_json(R"("clusterIP":"10.0.0.1","ipFamilies":["IPv6"])"),
                  R"(Service default/web: spec.clusterIP: "10.0.0.1" is not "IPv6", as spec.ipFamilies says)");
}

TEST_CASE("A Service with a bad field is refused by object, field and reason")
{
    struct Case {
        std::string json;
        std::string line;
    };
    const auto c = GENERATE(from_range(std::vector<Case>{
        {addresses_json(R"("type":"Balancer","clusterIP":"10.0.0.1")"),
         R"(spec.type: "Balancer" is not a type of Service)"},
        {service_json(R"("clusterIP":"10.0.0.1")"), "spec.ports: missing"},
        {service_json(""), "spec.ports: missing"},
        {ports_json("[]"), "spec.ports: missing"},
        {ports_json("null"), "spec.ports: missing"},
        {ports_json(R"({"port":80})"), "spec.ports: must be a list, is an object"},
        {ports_json("[{}]"), "spec.ports[0].port: missing"},
        {ports_json("[null]"), "spec.ports[0].port: missing"},
        {ports_json("[80]"), "spec.ports[0]: must be an object, is 80"},
        {ports_json(R"([{"port":80},{"port":0,"name":"b"}])"), "spec.ports[1].port: must be 1 to 65535, is 0"},
        {ports_json(R"([{"port":65536}])"), "spec.ports[0].port: must be 1 to 65535, is 65536"},
        {ports_json(R"([{"port":-1}])"), "spec.ports[0].port: must be 1 to 65535, is -1"},
        {ports_json(R"([{"port":"80"}])"), R"(spec.ports[0].port: must be a whole number, is "80")"},
        {ports_json(R"([{"port":80.5}])"), "spec.ports[0].port: must be a whole number, is 80.5"},
        {ports_json(R"([{"port":99999999999999999999}])"),
         "spec.ports[0].port: must be a whole number, is 99999999999999999999"},
        {ports_json(R"([{"port":80,"protocol":"tcp"}])"),
         R"(spec.ports[0].protocol: must be TCP, UDP or SCTP, is "tcp")"},
        {ports_json(R"([{"port":80,"nodePort":70000}])"), "spec.ports[0].nodePort: must be 0 to 65535, is 70000"},
        {addresses_json(R"("clusterIP":"10.0.0.1","healthCheckNodePort":70000)"),
         "spec.healthCheckNodePort: must be 0 to 65535, is 70000"},
        {ports_json(R"([{"port":80,"name":80}])"), "spec.ports[0].name: must be a string, is 80"},
        {ports_json(R"([{"port":80,"name":"a"},{"port":81,"name":"a"}])"),
         "spec.ports[1]: has the name and protocol of ports[0]"},
        {ports_json(R"([{"port":80,"name":"a"},{"port":80,"name":"b"}])"),
         "spec.ports[1]: has the number and protocol of ports[0]"},
        {service_json("", R"(,"labels":[])"), "metadata.labels: must be an object, is a list"},
    }));
    check_refused(c.json, "Service default/web: " + c.line);
}

TEST_CASE("Ports of one number or name may differ in protocol")
{
    CHECK(good<Service>(ports_json(R"([{"port":53},{"port":53,"protocol":"UDP"}])")).ports.size() == 2);
}

TEST_CASE("An object without a usable name is refused")
{
    const auto named = [](std::string_view metadata) {
        return fmt::format(R"({{"apiVersion":"v1","kind":"Pod","metadata":{}}})", metadata);
    };
    check_refused(named("{}"), "Pod in line 1: metadata.name: missing");
    check_refused(named("null"), "Pod in line 1: metadata.name: missing");
    check_refused(named(R"({"name":""})"), "Pod in line 1: metadata.name: missing");
    check_refused(named(R"({"name":5})"), "Pod in line 1: metadata.name: must be a string, is 5");
    check_refused(named(R"({"name":"a\nb"})"), R"(Pod in line 1: metadata.name: "a\x0ab" is not a name)");
    check_refused(named(R"({"name":"a/b"})"), R"(Pod in line 1: metadata.name: "a/b" is not a name)");
    check_refused(named(R"({"name":"a","namespace":"A"})"), R"(Pod in line 1: metadata.namespace: "A" is not a name)");
    check_refused("\n\n" + named("{}"), "Pod in line 3: metadata.name: missing");
}

TEST_CASE("A bad time is skipped")
{
    CHECK(partly_good<Service>(
              service_json(R"("clusterIP":"None")", R"(,"creationTimestamp":"yesterday")"),
              {R"(Service default/web: metadata.creationTimestamp: "yesterday" is not a time (RFC 3339))"})
              .created == 0);
}

TEST_CASE("Conditions that are absent mean ready, serving and not terminating")
{
    struct Case {
        std::string_view conditions;
        int expected;
    };
    const auto c = GENERATE(from_range(std::vector<Case>{
        {"{}", Endpoint::ready | Endpoint::serving},
        {"null", Endpoint::ready | Endpoint::serving},
        {R"({"ready":null,"serving":null,"terminating":null})", Endpoint::ready | Endpoint::serving},
        {R"({"ready":false})", Endpoint::serving},
        {R"({"serving":false})", Endpoint::ready},
        {R"({"terminating":true})", Endpoint::ready | Endpoint::serving | Endpoint::terminating},
        {R"({"ready":false,"serving":false,"terminating":true})", Endpoint::terminating},
    }));
    INFO(c.conditions);
    const auto slice = good<EndpointSlice>(
        endpoints_json(fmt::format(R"([{{"addresses":["10.1.0.1"],"conditions":{}}}])", c.conditions)));
    CHECK(slice.endpoints.at(0).conditions == c.expected);
}

TEST_CASE("Only the first address of an endpoint counts, read as Kubernetes always has")
{
    const auto first = [](std::string_view list) {
        return good<EndpointSlice>(endpoints_json(fmt::format(R"([{{"addresses":{}}}])", list)))
            .endpoints.at(0)
            .address;
    };
    CHECK(first(R"(["10.1.0.1","garbage"])") == address("10.1.0.1"));
    CHECK(first(R"(["010.001.0.01"])") == address("10.1.0.1"));
    CHECK(first(R"(["::ffff:10.1.0.1"])") == address("10.1.0.1"));
}

TEST_CASE("A bad endpoint is skipped and the others are kept")
{
    const auto slice = partly_good<EndpointSlice>(
        endpoints_json(R"([{"addresses":["10.1.0.1"]},{"addresses":["10.0.0.300"]},{"addresses":[]},{},null,
            {"addresses":["fd00::1"]},{"addresses":["127.0.0.1"]},{"addresses":["169.254.0.1"]},
            {"addresses":["10.1.0.2"]}])"),
        {
            R"(EndpointSlice default/web-x: endpoints[1].addresses[0]: "10.0.0.300" is not an IP address)",
            R"(EndpointSlice default/web-x: endpoints[2].addresses[0]: missing)",
            R"(EndpointSlice default/web-x: endpoints[3].addresses[0]: missing)",
            R"(EndpointSlice default/web-x: endpoints[4].addresses[0]: missing)",
            R"(EndpointSlice default/web-x: endpoints[5].addresses[0]: "fd00::1" is not IPv4)",
            R"(EndpointSlice default/web-x: endpoints[6].addresses[0]: "127.0.0.1" cannot be a destination)",
            R"(EndpointSlice default/web-x: endpoints[7].addresses[0]: "169.254.0.1" is link-local)",
        });
    REQUIRE(slice.endpoints.size() == 2);
    CHECK(slice.endpoints[0].address == address("10.1.0.1"));
    CHECK(slice.endpoints[1].address == address("10.1.0.2"));
}

TEST_CASE("Slice ports without a number are left out, and without a name are named by the empty string")
{
    const auto slice = good<EndpointSlice>(
        slice_json(R"("ports":[{"name":"a"},{"name":"b","port":null},{"name":"c","port":0},{"port":80}])"));
    CHECK(slice.ports == std::vector<SlicePort>{{Symbol(), Protocol::tcp, 80}});
    CHECK(good<EndpointSlice>(slice_json("")).ports.empty());
}

TEST_CASE("A slice with a bad field is refused by object, field and reason")
{
    check_refused(slice_json(R"("ports":[{"port":70000}])"),
                  "EndpointSlice default/web-x: ports[0].port: must be 0 to 65535, is 70000");
    check_refused(slice_json("", "IPv5"),
                  R"(EndpointSlice default/web-x: addressType: must be IPv4, IPv6 or FQDN, is "IPv5")");
    check_refused(R"({"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"x"},
                      "addressType":"IPv4"})",
                  "EndpointSlice default/x: metadata.labels: kubernetes.io/service-name is missing");
    check_refused(endpoints_json(R"([{"conditions":{"ready":"yes"},"addresses":["10.1.0.1"]}])"),
                  R"(EndpointSlice default/web-x: endpoints[0].conditions.ready: must be true or false, is "yes")");
}

TEST_CASE("Slices of headless Services and of names are not wanted")
{
    for (const std::string &json : {slice_json("", "IPv4", R"(,"service.kubernetes.io/headless":"")"),
                                    slice_json(R"("endpoints":[{"addresses":["example.org"]}])", "FQDN")}) {
        const Decoded decoded = decode_one(json);
        CHECK(decoded.key == ObjectKey{Kind::endpoint_slice, {Symbol("default"), "web-x"}});
        CHECK_FALSE(decoded.object);
        CHECK(decoded.faults.empty());
    }
}

TEST_CASE("The name of a refused object is known wherever it stands")
{
    const Decoded decoded = decode_one(
        R"({"spec":{"clusterIP":"10.0.0.1","ports":[{"port":0}]},"kind":"Service","metadata":{"name":"web"},
            "apiVersion":"v1"})");
    CHECK(decoded.key == ObjectKey{Kind::service, {Symbol("default"), "web"}});
    CHECK(decoded.faults ==
          std::vector<std::string>{"Service default/web: spec.ports[0].port: must be 1 to 65535, is 0"});
}

TEST_CASE("Lists hold objects of their own kind, or of any")
{
    const auto keys = [](std::string json) {
        std::vector<std::string> keys;
        for (const Decoded &decoded : decode(std::move(json))) {
            CHECK(decoded.faults.empty());
            keys.push_back(decoded.key ? decoded.key->text() : "none");
        }
        return keys;
    };
    CHECK(keys(R"({"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}},
        {"apiVersion":"v1","kind":"Node","metadata":{"name":"b"}}]})") ==
          std::vector<std::string>{"Namespace a", "Node b"});
    CHECK(keys(R"({"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b","namespace":"x"}}],
        "metadata":{"resourceVersion":"5"},"kind":"PodList","apiVersion":"v1"})") ==
          std::vector<std::string>{"Pod default/a", "Pod x/b"});
    CHECK(keys(R"({"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSliceList","items":[{"addressType":"IPv4",
        "metadata":{"name":"a","labels":{"kubernetes.io/service-name":"a"}}}]})") ==
          std::vector<std::string>{"EndpointSlice default/a"});
    CHECK(keys(R"({"apiVersion":"v1","kind":"ServiceList","items":[]})").empty());
    CHECK(keys(R"({"apiVersion":"v1","kind":"ServiceList","items":null})").empty());
    CHECK(keys(R"({"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"NodeList",
        "items":[{"metadata":{"name":"a"}}]}]})") == std::vector<std::string>{"Node a"});
}

TEST_CASE("A bad item of a list costs the others nothing")
{
    const auto objects = decode(R"({"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}},
        {"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"ports":[{"port":{"x":[1]}}]}},
        {"apiVersion":"v1","kind":"Pod","spec":{}},
        7,
        {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}]})");
    REQUIRE(objects.size() == 5);
    CHECK(objects[0].object);
    CHECK(objects[1].faults ==
          std::vector<std::string>{"Service default/web: spec.ports[0].port: must be a whole number, is an object"});
    CHECK(objects[2].faults == std::vector<std::string>{"Pod in line 1, items[2]: metadata.name: missing"});
    CHECK(objects[3].faults == std::vector<std::string>{"object in line 1, items[3]: must be an object, is 7"});
    CHECK(objects[4].object);
}

TEST_CASE("Kinds that are not used are told by kind and version")
{
    check_refused(R"({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"}})",
                  R"(kind "Deployment" of "apps/v1" is not used)");
    check_refused(R"({"apiVersion":"serving.knative.dev/v1","kind":"Service","metadata":{"name":"a"}})",
                  R"(kind "Service" of "serving.knative.dev/v1" is not used)");
    check_refused(R"({"apiVersion":"v1","kind":"ConfigMapList","items":[]})",
                  R"(kind "ConfigMapList" of "v1" is not used)");
    check_refused(R"({"metadata":{"name":"a"}})", "object in line 1: kind: missing");
    check_refused(R"({"kind":"Pod","metadata":{"name":"a"}})", "object in line 1: apiVersion: missing");
}

TEST_CASE("A text may hold several documents")
{
    const auto ns = [](std::string_view name) {
        return fmt::format(R"({{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{}"}}}})", name);
    };
    CHECK(decode(ns("a") + ns("b")).size() == 2);
    CHECK(decode("\n " + ns("a") + "\n\n" + ns("b{") + ns("c\\\"}") + "\n").size() == 3);
    CHECK(decode("").empty());
    CHECK(decode(" \n\t\r\n").empty());
}

TEST_CASE("What is not JSON is an error that says where")
{
    struct Case {
        std::string json;
        std::string error;
    };
    const auto c = GENERATE(from_range(std::vector<Case>{
        {"[]", "line 1: must be an object"},
        {"\n{}\nx", "line 3: must be an object"},
        {"{}}", "line 1: must be an object"},
        {"\n{\"kind\":\"Ser", "ends within the object that begins in line 2"},
        {R"({"kind" "Service"})", ""},
        {R"({"kind": "Service",})", ""},
        {R"({"kind": Service})", ""},
        {"{\"kind\": \"\xff\"}", ""},
        {R"({"kind": "\q"})", ""},
    }));
    INFO(c.json);
    const auto objects = Decoder().decode(c.json);
    REQUIRE_FALSE(objects);
    if (c.error.empty())
        CHECK(objects.error().text().starts_with("object that begins in line 1: "));
    else
        CHECK(objects.error().text() == c.error);
}

TEST_CASE("A document that was cut off is never believed")
{
    for (const std::string_view text : {full_service, full_slice}) {
        for (size_t size = 1; size < text.size(); size++) {
            INFO(text.substr(0, size));
            CHECK_FALSE(Decoder().decode(std::string(text.substr(0, size))));
        }
    }
}

TEST_CASE("No damage to a text crashes the decoder or makes it tell an invalid object")
{
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    constexpr std::string_view spice = "{}[]\",:\\0-9.truenulx \n\xff";
    Decoder decoder;
    for (int round = 0; round < 20'000; round++) {
        std::string text(round % 2 == 0 ? full_service : full_slice);
        for (unsigned i = 0; i <= random() % 4; i++)
            text[random() % text.size()] = spice[random() % spice.size()];
        const auto objects = decoder.decode(text);
        if (!objects)
            continue;
        for (const Decoded &decoded : *objects) {
            const bool sound = decoded.object ? decoded.key == key_of(*decoded.object)
                                              : !decoded.faults.empty() || decoded.key.has_value();
            if (!sound)
                FAIL(text);
        }
    }
}

TEST_CASE("Times are read as RFC 3339 has them")
{
    struct Case {
        std::string_view text;
        std::optional<int64_t> expected;
    };
    const auto c = GENERATE(from_range(std::vector<Case>{
        {"1970-01-01T00:00:00Z", 0},
        {"2026-03-01T12:30:00Z", 1772368200000},
        {"2026-03-01T14:30:00+02:00", 1772368200000},
        {"2026-03-01T07:00:00-05:30", 1772368200000},
        {"2026-03-01T12:30:00.25Z", 1772368200250},
        {"2026-03-01T12:30:00.123456789Z", 1772368200123},
        {"2024-02-29T00:00:00Z", 1709164800000},
        {"2026-02-29T00:00:00Z", std::nullopt},
        {"2026-03-01T24:00:00Z", std::nullopt},
        {"2026-03-01T12:30:00", std::nullopt},
        {"2026-03-01T12:30:00.Z", std::nullopt},
        {"2026-03-01T12:30:00Zx", std::nullopt},
        {"2026-3-1T12:30:00Z", std::nullopt},
        {"-026-03-01T12:30:00Z", std::nullopt},
        {"2026-03-01", std::nullopt},
        {"", std::nullopt},
    }));
    INFO(c.text);
    CHECK(parse_time(c.text) == c.expected);
}
