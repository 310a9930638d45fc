// SPDX-License-Identifier: Apache-2.0
// What the `thruway` program makes of what it reads, and of its command line.
#include "tools/thruway/app.h"
#include "tools/thruway/backends.h"
#include "tools/thruway/endpoints.h"
#include "tools/thruway/flows.h"
#include "tools/thruway/nodes.h"
#include "tools/thruway/probe.h"
#include "tools/thruway/services.h"
#include "tools/thruway/status.h"
#include "tools/thruway/steps.h"
#include "tools/thruway/trace_ends.h"
#include "tools/thruway/yaml.h"

#include <arpa/inet.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <netinet/in.h>
#include <sstream>

using namespace thruway;
using namespace thruway::cli;

namespace {

using Texts = std::vector<std::string>;

Address address(const std::string &text)
{
    return Address::parse(text).value();
}

ObjectName name(const std::string &text)
{
    return {Symbol("default"), text};
}

/// Service default/web, port "http" 80 on 10.96.0.10 and fd00:96::10 and NodePort 30080, served by web-1 of node1.
std::vector<Object> web()
{
    Service service;
    service.name = name("web");
    service.type = ServiceType::node_port;
    service.cluster_ips = {address("10.96.0.10"), address("fd00:96::10")};
    service.ports = {{Symbol("http"), Protocol::tcp, 80, 30080}};
    EndpointSlice slice;
    slice.name = name("web-x");
    slice.service = "web";
    slice.ports = {{Symbol("http"), Protocol::tcp, 8080}};
    const uint32_t pod = slice.add_pod("web-1");
    slice.endpoints = {{.address = address("10.244.1.2"), .node = Symbol("node1"), .pod = pod}};
    return {service, slice};
}

Frontend frontend(const std::string &text, uint16_t port)
{
    return {address(text), port, Protocol::tcp};
}

/// The rows that the agent makes of web().
std::vector<ServiceEntry> web_entries()
{
    return {{.id = 1,
             .frontends = {frontend("0.0.0.0", 30080), frontend("10.96.0.10", 80)},
             .backends = {{.index = 7, .at = {address("10.244.1.2"), 8080}}}},
            {.id = 2, .frontends = {frontend("::", 30080), frontend("fd00:96::10", 80)}, .backends = {}}};
}

/// From a client to web's ClusterIP, translated to its pod.
Flow web_flow()
{
    Flow flow;
    flow.original = {.match = {address("10.244.1.9"), address("10.96.0.10"), 40000, 80},
                     .rewrite = {address("10.244.1.9"), address("10.244.1.2"), 40000, 8080},
                     .protocol = IPPROTO_TCP,
                     .state = TW_FLOW_ESTABLISHED,
                     .flags = TW_FLOW_TRANSLATED,
                     .service = 1,
                     .packets = 5,
                     .bytes = 500,
                     .idle_seconds = 9};
    flow.reply.packets = 4;
    flow.reply.idle_seconds = 2;
    return flow;
}

/// What a listing of these rows prints.
std::string printed(const std::vector<Row> &rows, Format format, Shape shape = Shape::list)
{
    const Listing listing{.shape = shape,
                          .columns = {column("NAME", "/name"), column("PORTS", "/ports"), wide(column("UP", "/up"))},
                          .produce = [&rows](const Sink &sink) -> Result<> {
                              for (const Row &row : rows)
                                  sink(row);
                              return {};
                          }};
    std::ostringstream out;
    REQUIRE(print(listing, format, out));
    return out.str();
}

struct Said {
    int code;
    std::string out;
    std::string err;
};

/// Runs the program. No agent has ever run in the folders that it is told.
Said say(Texts words)
{
    words.insert(words.begin(), "thruway");
    std::vector<const char *> argv;
    for (const std::string &word : words)
        argv.push_back(word.c_str());
    std::ostringstream out;
    std::ostringstream err;
    const int code = run(static_cast<int>(argv.size()), argv.data(), out, err);
    return {code, out.str(), err.str()};
}

const std::vector<Row> two_rows{{{"name", "a"}, {"ports", {80, 443}}, {"up", true}}, {{"name", "longer"}}};

} // namespace

TEST_CASE("a table has columns as wide as they need to be, and a dash where nothing is known")
{
    CHECK(printed(two_rows, Format::table) == "NAME    PORTS\n"
                                              "a       80,443\n"
                                              "longer  -\n");
    CHECK(printed(two_rows, Format::wide) == "NAME    PORTS   UP\n"
                                             "a       80,443  yes\n"
                                             "longer  -       -\n");
    CHECK(printed({}, Format::table) == "NAME  PORTS\n");
}

TEST_CASE("records have a line for each field that is known, and an empty line between them")
{
    CHECK(printed(two_rows, Format::table, Shape::records) == "NAME   a\n"
                                                              "PORTS  80,443\n"
                                                              "\n"
                                                              "NAME   longer\n");
}

TEST_CASE("JSON is one array of all rows with the types that they have")
{
    const std::string text = printed(two_rows, Format::json);
    CHECK(Row::parse(text) == Row(two_rows));
    CHECK(Row::parse(text)[0]["ports"][1].is_number_unsigned());
    CHECK(printed({}, Format::json) == "[]\n");
    CHECK(Row::parse(printed({two_rows[0]}, Format::json, Shape::record)) == two_rows[0]);
}

TEST_CASE("YAML is the same data as the JSON")
{
    CHECK(printed(two_rows, Format::yaml) == "- name: a\n"
                                             "  ports:\n"
                                             "    - 80\n"
                                             "    - 443\n"
                                             "  up: true\n"
                                             "- name: longer\n");
    CHECK(printed({}, Format::yaml) == "[]\n");
}

TEST_CASE("YAML puts text in quotes that a reader could take for something else")
{
    for (const char *text :
         {"no", "On", "null", "80", "1e3", "0x10", "10.96.0.1", "fd00::1", "a: b", "", "-", "~", "a\nb"})
        CHECK(yaml_text({{"v", text}}) == "v: " + Row(text).dump() + "\n");
    for (const char *text : {"web", "default/web-1", "TCP"})
        CHECK(yaml_text({{"v", text}}) == std::string("v: ") + text + "\n");
    CHECK(yaml_text({{"v", Row::array()}}) == "v: []\n");
}

TEST_CASE("both families of a Service's port are one row, with the names of what serves it")
{
    const Names names(web(), {});
    const auto services = join_services(web_entries(), names);
    REQUIRE(services.size() == 1);
    CHECK(service_row(services[0]) == Row::parse(R"({
        "namespace": "default", "name": "web", "port_name": "http", "protocol": "TCP", "type": "NodePort",
        "frontends": [{"kind": "ClusterIP", "address": "10.96.0.10", "port": 80},
                      {"kind": "ClusterIP", "address": "fd00:96::10", "port": 80},
                      {"kind": "NodePort", "port": 30080}],
        "backends": [{"address": "10.244.1.2", "port": 8080, "node": "node1", "pod": "web-1",
                      "ready": true, "serving": true, "terminating": false}]})"));
    CHECK(names_by_id(services) == ServiceNames{{1, services[0].name.value()}, {2, services[0].name.value()}});
}

TEST_CASE("a Service that the maps do not hold as it is wanted is told")
{
    const Names names(web(), {});
    auto entries = web_entries();
    SECTION("a backend is missing")
    {
        entries[0].backends.clear();
    }
    SECTION("a frontend is missing")
    {
        entries[1].frontends.pop_back();
    }
    SECTION("a family is missing")
    {
        entries.pop_back();
    }
    SECTION("all is missing")
    {
        entries.clear();
    }
    const auto services = join_services(entries, names);
    REQUIRE(services.size() == 1);
    CHECK(service_row(services[0]).at("programmed") == false);
}

TEST_CASE("what stands in the maps without a name is listed last, without one")
{
    const auto services = join_services(web_entries(), Names());
    REQUIRE(services.size() == 2);
    CHECK(service_row(services[0]) == Row::parse(R"({"protocol": "TCP",
        "frontends": [{"address": "10.96.0.10", "port": 80}, {"kind": "NodePort", "port": 30080}],
        "backends": [{"address": "10.244.1.2", "port": 8080}]})"));
    CHECK(names_by_id(services).empty());
}

TEST_CASE("a backend is listed once with all services that use it, or only those of one")
{
    const Names names(web(), {});
    const auto services = join_services(web_entries(), names);
    const std::vector<BackendEntry> all{{.index = 8, .at = {address("10.244.1.3"), 8080}},
                                        {.index = 7, .at = {address("10.244.1.2"), 8080}}};
    std::vector<Row> rows;
    const auto sink = [&](const Row &row) { rows.push_back(row); };
    backend_rows(all, services, {}, sink);
    REQUIRE(rows.size() == 2);
    CHECK(rows[0] == Row::parse(R"({"address": "10.244.1.2", "port": 8080, "namespace": "default", "pod": "web-1",
        "node": "node1", "services": [{"namespace": "default", "name": "web", "port_name": "http", "protocol": "TCP"}],
        "index": 7})"));
    CHECK(rows[1].at("services").empty());
    rows.clear();
    backend_rows(all, services, name("web"), sink);
    CHECK(rows.size() == 1);
}

TEST_CASE("a flow's row has both ends by name, what they become, and the counters of both directions")
{
    const Names names(web(), {});
    const ServiceNames services = names_by_id(join_services(web_entries(), names));
    CHECK(flow_row(web_flow(), names, services) == Row::parse(R"({"protocol": "TCP", "state": "established",
        "source": {"address": "10.244.1.9", "port": 40000},
        "destination": {"address": "10.96.0.10", "port": 80, "kind": "service", "namespace": "default", "name": "web"},
        "translated": {"source": {"address": "10.244.1.9", "port": 40000},
                       "destination": {"address": "10.244.1.2", "port": 8080, "kind": "pod", "namespace": "default",
                                       "name": "web-1"}},
        "flags": ["translated"],
        "service": {"namespace": "default", "name": "web", "port_name": "http", "protocol": "TCP"},
        "idle_seconds": 2, "original": {"packets": 5, "bytes": 500}, "reply": {"packets": 4, "bytes": 0}})"));
}

TEST_CASE("flows are found by either end, before and after translation, and by protocol")
{
    Flow flow = web_flow();
    for (const char *end : {"10.244.1.9", "10.96.0.10", "10.244.1.2"})
        CHECK(matches({.address = address(end)}, flow));
    for (const uint16_t end : {uint16_t{40000}, uint16_t{80}, uint16_t{8080}})
        CHECK(matches({.port = end}, flow));
    CHECK_FALSE(matches({.address = address("10.244.1.3")}, flow));
    CHECK_FALSE(matches({.port = 443}, flow));
    CHECK(matches({.protocol = "tcp"}, flow));
    CHECK_FALSE(matches({.protocol = "udp"}, flow));
    CHECK_FALSE(matches({.address = address("10.96.0.10"), .port = 443}, flow));
    flow.original.protocol = IPPROTO_ICMPV6;
    CHECK(matches({.protocol = "icmp"}, flow));
}

TEST_CASE("a pod's interface that the maps do not know is listed as not programmed")
{
    PodInterface pod{.container = "c1", .interface = "eth0", .pod = name("web-1"), .device = "tw1", .ifindex = 4};
    pod.addresses = {address("10.244.1.2")};
    const Names names({}, {pod});
    const std::vector<Row> missing = endpoint_rows({}, names);
    REQUIRE(missing.size() == 1);
    CHECK(missing[0].at("programmed") == false);
    const std::vector<Row> held =
        endpoint_rows({{.id = 3, .addresses = pod.addresses, .way = {.ifindex = 4, .interface = "tw1"}}}, names);
    REQUIRE(held.size() == 1);
    CHECK_FALSE(held[0].contains("programmed"));
    CHECK(held[0].at("name") == "web-1");
    CHECK(held[0].at("container_id") == "c1");
}

TEST_CASE("the ways to a node's pods are under its name, those of nobody under none")
{
    Node node;
    node.name = {Symbol(), "node2"};
    node.pod_cidrs = {Prefix::parse("10.244.2.0/24").value()};
    const auto way = [](const char *cidr) {
        return NodeEntry{Prefix::parse(cidr).value(), HopEntry{.ifindex = 2, .interface = "eth0", .mtu = 1500}};
    };
    const auto rows = node_rows({way("10.244.2.0/24"), way("10.244.9.0/24")}, {node});
    REQUIRE(rows.size() == 2);
    CHECK(rows[0].at("name") == "node2");
    CHECK(rows[0].at("pod_cidrs")[0].at("cidr") == "10.244.2.0/24");
    CHECK_FALSE(rows[1].contains("name"));
    CHECK(node_rows({}, {node}).at(0).at("programmed") == false);
}

TEST_CASE("status calls attention to what is not as it should be, and to nothing else")
{
    Status status;
    status.agent = {{"running", true}, {"synced", true}};
    status.names_saved = true;
    status.attachments = {{.program = "from_net", .ifindex = 2, .interface = "eth0"}};
    status.fill = {{.map = "backends", .entries = 89, .capacity = 100}};
    status.agent["watches"] = Row::array({{{"resource", "services"}, {"last_error", "was once"}}});
    CHECK(attention(status).empty());

    status.agent["watches"][0]["trouble"] = "Connection refused";
    CHECK(attention(status) == Texts{"services are not followed: Connection refused"});
    status.agent.erase("watches");
    status.fill[0].entries = 90;
    CHECK(attention(status) == Texts{"map backends is nearly full: 90 of 100 entries"});
    status.fill.clear();
    status.flow_rows[0].rows[TW_FLOW_HALF_OPEN] = 900;
    status.flow_rows[0].rows[TW_FLOW_ESTABLISHED] = 100;
    CHECK(attention(status).empty()); // there is room for them
    status.news[TW_FLOW_EVENT_EVICTED_HALF_OPEN] = 1;
    REQUIRE(attention(status).size() == 1);
    CHECK(attention(status)[0].contains("900 of 1000 IPv4 flow rows are half-open"));
    status.news = {};
    status.news[TW_FLOW_EVENT_FULL] = 3;
    status.events[TW_FLOW_EVENT_FULL] = 7;
    REQUIRE(attention(status).size() == 1);
    CHECK(attention(status)[0].contains("new ones are refused, 7 up to now"));
    status.news = {};
    status.flow_rows = {};
    status.attachments.clear();
    CHECK(attention(status) == Texts{"no uplink has programs: nothing from outside the node is served"});
    status.attachments = {{.program = "from_net", .ifindex = 2}};
    status.agent = {{"running", false}};
    status.silence = "connection refused";
    CHECK(attention(status) == Texts{"the agent does not run: traffic goes on as it was, but nothing follows the "
                                     "cluster's changes; connection refused"});
}

TEST_CASE("an end of a trace is an address, or a name with or without a namespace, each with or without a port")
{
    const auto &[text, space, host, port] = GENERATE(table<std::string, std::string, std::string, std::string>({
        {"10.244.1.2", "", "10.244.1.2", ""},
        {"10.244.1.2:80", "", "10.244.1.2", "80"},
        {"fd00::2", "", "fd00::2", ""},
        {"[fd00::2]", "", "fd00::2", ""},
        {"[fd00::2]:80", "", "fd00::2", "80"},
        {"web-1", "", "web-1", ""},
        {"default/web:http", "default", "web", "http"},
        {"host:40000", "", "host", "40000"},
    }));
    const TraceEnd end = parse_trace_end(text).value();
    CHECK(end.port.value_or("") == port);
    CHECK((end.space ? end.space->text() : "") == space);
    CHECK((end.address ? end.address->text() : end.name) == host);
}

TEST_CASE("the destination of a trace may be a Service, by port or without, or a pod")
{
    const Names names(web(), {});
    const auto find = [&](const char *text, const std::optional<std::string> &protocol = {}) {
        return find_destination(parse_trace_end(text).value(), protocol, names);
    };
    for (const char *text : {"web", "default/web", "web:80", "default/web:http"}) {
        const TracePoint to = find(text).value();
        CHECK(to.addresses == std::vector{address("10.96.0.10"), address("fd00:96::10")});
        CHECK(to.port == 80);
        CHECK(to.protocol == Protocol::tcp);
    }
    CHECK(find("web", "icmp").value().port == 0);
    CHECK(find("default/web-1:8080").value().addresses == std::vector{address("10.244.1.2")});
    CHECK(find("default/web:443").error().text() == "Service default/web has no such port; it has 80/TCP");
    CHECK(find("web", "udp").error().text() == "Service default/web has no such port; it has 80/TCP");
    CHECK(find("prod/web").error().text() == "no Service or pod prod/web is known here");
}

TEST_CASE("a name that several objects have is not guessed at")
{
    std::vector<Object> objects = web();
    Service other = std::get<Service>(objects[0]);
    other.name.space = Symbol("prod");
    other.cluster_ips = {address("10.96.0.11")};
    objects.emplace_back(other);
    const Names names(objects, {});
    CHECK(find_destination(parse_trace_end("web").value(), {}, names).error().text() ==
          "web may be any of default/web, prod/web");
    CHECK(find_destination(parse_trace_end("prod/web").value(), {}, names).value().addresses ==
          std::vector{address("10.96.0.11")});
}

TEST_CASE("each step of a trace is a typed row, and a line in words")
{
    const Names names(web(), {});
    const Terms terms{
        names, names_by_id(join_services(web_entries(), names)), [](uint32_t index) {
            if (index == 0)
                return Row{{"index", 0}, {"kind", "stack"}};
            return Row{{"index", index},  {"kind", "pod"},      {"address", "10.244.1.2"},    {"namespace", "default"},
                       {"name", "web-1"}, {"interface", "tw1"}, {"mac", "02:00:00:00:00:01"}, {"mtu", 1500}};
        }};
    const auto said = [&](const tw_step &step) { return step_words(step_row(step, IPPROTO_TCP, terms)); };
    const tw_end client{address("10.244.1.9").raw(), htons(40000), {}};
    const tw_end backend{address("10.244.1.2").raw(), htons(8080), {}};
    const tw_end frontend{address("10.96.0.10").raw(), htons(80), {}};

    tw_step step{.kind = TW_STEP_TUPLE};
    step.tuple = {client, frontend, IPPROTO_TCP, {}};
    CHECK(step_row(step, IPPROTO_TCP, terms) == Row::parse(R"({"step": "packet", "protocol": "TCP",
        "source": {"address": "10.244.1.9", "port": 40000},
        "destination": {"address": "10.96.0.10", "port": 80, "kind": "service", "namespace": "default",
                        "name": "web"}})"));
    CHECK(said(step) == "TCP from 10.244.1.9:40000 to default/web:80 (10.96.0.10)");
    step = {.kind = TW_STEP_FLOW, .result = TW_STEP_MISSING};
    CHECK(said(step) == "none is known");
    step.result = TW_STEP_FOUND;
    step.flow = {client, backend, 3, 2, 1, TW_FLOW_ESTABLISHED, TW_FLOW_TRANSLATED, 0};
    CHECK(said(step) == "established, destination becomes default/web-1:8080 (10.244.1.2), next hop is pod "
                        "default/web-1 (10.244.1.2) by tw1");
    step = {.kind = TW_STEP_FRONTEND, .number = 1};
    CHECK(said(step) == "of service default/web:http");
    step = {.kind = TW_STEP_BACKEND};
    step.backend = {backend, 7, 12, {10, 4}};
    CHECK(said(step) == "default/web-1:8080 (10.244.1.2), slot 12 of 10 to 13");
    step = {.kind = TW_STEP_ROUTE, .result = TW_STEP_ROUTE_NODE, .number = 0};
    CHECK(said(step) == "an address of this node: the host stack");
    step = {.kind = TW_STEP_DELIVER, .result = TW_STEP_PEER};
    step.nexthop.index = 3;
    CHECK(said(step) == "redirected into pod default/web-1 (10.244.1.2) by tw1, MAC 02:00:00:00:00:01, MTU 1500");
    CHECK(step_words(verdict_row({.verdict = 7, .steps = {step}}, terms.hop(0), terms)) ==
          "delivered to pod default/web-1 (10.244.1.2) by tw1");
    CHECK(step_words(verdict_row({.verdict = -1}, terms.hop(0), terms)) == "handed to the host stack");
    step = {.kind = TW_STEP_DROP, .result = TW_DROP_NO_BACKEND, .number = TW_HOOK_FROM_POD};
    CHECK(verdict_row({.verdict = 2, .steps = {step}}, terms.hop(0), terms) ==
          Row::parse(R"({"step": "verdict", "verdict": "dropped", "reason": "no_backend", "direction": "from_pod",
                         "meaning": "the service has no backend to send to"})"));
}

TEST_CASE("the packet that a trace sends opens a conversation")
{
    const auto frame = [](const char *from, const char *to, uint8_t protocol) {
        return Probe{address(from), address(to), 1000, 80, protocol}.frame();
    };
    const auto tcp = frame("10.0.0.1", "10.0.0.2", IPPROTO_TCP);
    CHECK(tcp.size() == 14 + 20 + 20);
    CHECK(tcp[14 + 20 + 13] == 0x02); // SYN alone
    CHECK(frame("fd00::1", "fd00::2", IPPROTO_UDP).size() == 14 + 40 + 8);
    CHECK(frame("10.0.0.1", "10.0.0.2", IPPROTO_SCTP).size() == 14 + 20 + 12);
    CHECK(frame("10.0.0.1", "10.0.0.2", IPPROTO_ICMP)[14 + 20] == 8);
    CHECK(frame("fd00::1", "fd00::2", IPPROTO_ICMPV6)[14 + 40] == 128);
}

TEST_CASE("wrong usage ends with 2 and one line that says what is wrong")
{
    const auto &[words, line] = GENERATE(table<Texts, std::string>({
        {{}, "thruway needs one of status, service, backend, endpoint, node, flow, map, trace, drops"},
        {{"service"}, "service needs one of list, get"},
        {{"service", "get", "web"}, "service: \"web\" is not NAMESPACE/NAME"},
        {{"service", "get", "a/b/c"}, "service: \"a/b/c\" is not NAMESPACE/NAME"},
        {{"flow", "list", "--port", "0"}, "--port: \"0\" is not a port (1 to 65535)"},
        {{"flow", "list", "--port", "65536"}, "--port: \"65536\" is not a port (1 to 65535)"},
        {{"flow", "list", "--address", "10.0.0"}, "--address: "},
        {{"flow", "list", "--protocol", "gre"}, "--protocol: \"gre\" is not tcp, udp, icmp or sctp"},
        {{"flow", "list", "--limit", "-1"}, "--limit: \"-1\" is not a number of 1 or more"},
        {{"map", "dump", "nonsense"}, "map: there is no map \"nonsense\"; there are layout"},
        {{"drops", "-o", "xml"}, "--output: xml not in {"},
        {{"trace", "default/web-1"}, "DST is required"},
        {{"trace", "a/b/c", "web"}, "SRC: \"a/b/c\" is neither an address nor [NAMESPACE/]NAME"},
        {{"trace", "web-1:http", "web"}, "SRC: \"http\" is not a port (1 to 65535)"},
        {{"trace", "web-1", "10.96.0.10:http"}, "DST: \"http\" is not a port (1 to 65535)"},
        {{"trace", "web-1", "web:65536"}, "DST: \"web:65536\" has no port (1 to 65535) behind its colon"},
        {{"trace", "web-1", "fd00::1", "--proto", "tcp"}, "DST: tcp needs a port: fd00::1:PORT"},
    }));
    const Said said = say(words);
    INFO(said.err);
    CHECK(said.code == wrong_usage);
    CHECK(said.out.empty());
    CHECK(said.err.starts_with("thruway: " + line));
    CHECK(said.err.find('\n') == said.err.size() - 1);
}

TEST_CASE("help and version go to the output and end well")
{
    const Said help = say({"flow", "list", "--help"});
    CHECK(help.code == good);
    CHECK(help.out.find("--protocol tcp|udp|icmp|sctp") != std::string::npos);
    CHECK(help.out.find("Examples:") != std::string::npos);
    CHECK(say({"--version"}).out == "thruway " THRUWAY_VERSION "\n");
}

TEST_CASE("where no agent has run, every command says so in one line")
{
    const Said said = say({"service", "list", "--bpffs", "/nowhere/thruway", "--run-dir", "/nowhere/run"});
    CHECK(said.code == failed);
    CHECK(said.out.empty());
    CHECK(said.err.find("/nowhere/thruway") != std::string::npos);
    CHECK(said.err.find('\n') == said.err.size() - 1);
}
