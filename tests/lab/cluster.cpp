// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cluster.h"

#include <fstream>
#include <set>
#include <thread>

namespace thruway::lab {
namespace {

std::string slice(const Lab &lab, const WebService &service, Family family)
{
    std::string text =
        fmt::format(R"(---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {0}-{2}, namespace: default, labels: {{kubernetes.io/service-name: {0}}}}}
addressType: {1}
ports: [{{name: tcp, port: 8080, protocol: TCP}}, {{name: udp, port: 8080, protocol: UDP}}]
endpoints:
)",
                    service.name(), family == Family::ipv4 ? "IPv4" : "IPv6", family == Family::ipv4 ? "v4" : "v6");
    const auto servers = service.servers(lab, family);
    for (const auto &[node, address, pod] : servers)
        text += fmt::format("- {{addresses: [\"{}\"], nodeName: {}{}}}\n", address, node,
                            pod.empty() ? ""
                                        : fmt::format(", targetRef: {{kind: Pod, name: {}, namespace: default}}", pod));
    if (servers.empty())
        text.replace(text.rfind("endpoints:"), std::string::npos, "endpoints: []\n");
    return text;
}

} // namespace

Lab thruway_lab(Options options)
{
    options.name = unique_name();
    options.bin_dir = program_folder();
    return must(Lab::up(options));
}

ConfigFile::ConfigFile(std::string_view text)
    : path_(std::filesystem::temp_directory_path() / (unique_name() + ".yaml"))
{
    std::ofstream(path_) << text;
}

ConfigFile::~ConfigFile()
{
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
}

std::string WebService::cluster(Family family, uint16_t port) const
{
    return family == Family::ipv4 ? fmt::format("10.96.0.{}:{}", number, port)
                                  : fmt::format("[fd00:96::{}]:{}", number, port);
}

std::string WebService::node_port(unsigned node, Family family, uint16_t port)
{
    return family == Family::ipv4 ? fmt::format("172.20.0.{}:{}", 10 + node, port)
                                  : fmt::format("[fd20::{}]:{}", 10 + node, port);
}

std::vector<WebService::Server> WebService::servers(const Lab &lab, Family family) const
{
    std::vector<Server> all;
    for (const std::string &name : pods) {
        const Pod pod = must(find_pod(lab, "default", name));
        all.push_back({pod.node, pod.addresses.at(family_index(family)).text(), name});
    }
    for (const unsigned which : nodes) {
        const Node node = must(lab.node(fmt::format("node{}", which)));
        all.push_back({node.name, node.addresses.at(family_index(family)).text(), {}});
    }
    return all;
}

std::string WebService::manifest(const Lab &lab) const
{
    std::string text = fmt::format(R"(apiVersion: v1
kind: Service
metadata: {{name: {0}, namespace: default}}
spec:
  type: NodePort
  clusterIP: 10.96.0.{1}
  clusterIPs: [10.96.0.{1}, "fd00:96::{1}"]
  ipFamilies: [IPv4, IPv6]
  ports:
  - {{name: tcp, port: 80, protocol: TCP, nodePort: {2}}}
  - {{name: udp, port: 53, protocol: UDP, nodePort: {3}}}
)",
                                   name(), number, 30'079 + number, 30'052 + number);
    for (const Family family : families)
        text += slice(lab, *this, family);
    return text;
}

std::string address_of(const Lab &lab, const std::string &place, Family family)
{
    if (place == "client")
        return lab.topology().client.addresses.at(family_index(family)).text();
    if (const auto node = lab.node(place))
        return node->addresses.at(family_index(family)).text();
    return must(find_pod(lab, "default", place)).addresses.at(family_index(family)).text();
}

Output try_cli(const Lab &lab, const std::string &node, std::vector<std::string> arguments)
{
    const std::vector<std::string> where{program_folder() / "thruway", "--run-dir", lab.folder().run_dir(node),
                                         "--bpffs", lab.folder().bpffs(node)};
    arguments.insert(arguments.begin(), where.begin(), where.end());
    return must(lab.run(node, arguments));
}

void check_runs(const Lab &lab, const std::string &place, const std::vector<std::string> &command)
{
    const Output output = must(lab.run(place, command));
    INFO(fmt::format("{}: {}\n{}{}", place, fmt::join(command, " "), output.out, output.err));
    CHECK(output.exit.good());
}

void put(const Lab &lab, const WebService &service)
{
    must(lab.put_manifest(service.name(), service.manifest(lab)));
    std::set<std::string> wanted;
    for (const Family family : families)
        for (const WebService::Server &server : service.servers(lab, family))
            wanted.insert(server.address);
    for (const Node &node : lab.topology().nodes) {
        eventually(fmt::format("{} has {}", node.name, service.name()), [&] {
            const Output output =
                try_cli(lab, node.name, {"backend", "list", "--service", "default/" + service.name(), "-o", "json"});
            if (!output.exit.good()) // the agent has not heard of the Service
                return false;
            const auto listed = nlohmann::json::parse(output.out);
            std::set<std::string> addresses;
            for (const auto &backend : listed)
                addresses.insert(backend.at("address"));
            return addresses == wanted;
        });
    }
}

Seen seen(const Lab &lab, const std::string &place, const std::string &transport, const std::string &target)
{
    const nlohmann::json answer = ask_from(lab, place, transport, target);
    INFO(fmt::format("{} -> {} {}: {}", place, transport, target, answer.dump()));
    REQUIRE(answer.contains("name"));
    return {answer["name"], answer["client_address"]};
}

std::string cli(const Lab &lab, const std::string &node, std::vector<std::string> arguments)
{
    const Output output = try_cli(lab, node, std::move(arguments));
    INFO(output.err);
    REQUIRE(output.exit.good());
    return output.out;
}

void expect_line(const Lab &lab, const std::string &end)
{
    const auto count = [&] {
        const std::string log = must(read_file(lab.folder().agent_log("node1")));
        size_t lines = 0;
        for (size_t at = log.find(end); at != std::string::npos; at = log.find(end, at + 1))
            lines++;
        return lines;
    };
    eventually(end, [&] { return count() > 0; });
    CHECK(count() == 1);
}

void eventually(const std::string &what, const std::function<bool()> &condition)
{
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
        INFO(what);
        REQUIRE(std::chrono::steady_clock::now() < deadline);
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
}

} // namespace thruway::lab
