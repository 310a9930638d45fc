// SPDX-License-Identifier: Apache-2.0
#include "agent/config.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unistd.h>

using namespace thruway;

namespace {

/// Reads a configuration file with this text.
Result<Config> read(const std::string &text)
{
    std::string path = "/tmp/thruway-config-XXXXXX";
    close(mkstemp(path.data()));
    std::ofstream(path) << text;
    Config config;
    auto done = read_config(path, config);
    unlink(path.c_str());
    if (!done)
        return std::unexpected(Error(done.error().text().substr(path.size() + 2)));
    return config;
}

Config good()
{
    Config config;
    config.node = "n1";
    config.source = "file:/etc/thruway";
    return config;
}

} // namespace

TEST_CASE("a configuration file sets what it names and leaves the rest")
{
    auto config = read("node: n1\nsource: file:/etc/x\nuplink: [eth0, eth1]\nsock: off\nxdp: native\n"
                       "sizes:\n  flows: 4096\ntimeouts: {icmp: 5}\n");
    REQUIRE(config);
    CHECK(config->node == "n1");
    CHECK(config->uplinks == std::vector<std::string>{"eth0", "eth1"});
    CHECK(config->sock == SockMode::off);
    CHECK(config->xdp == XdpMode::native);
    CHECK(config->sizes.flows == 4096);
    CHECK(config->timeouts.icmp == 5);
    CHECK(config->run_dir == "/run/thruway");
    CHECK(config->sizes.services == Sizes().services);
    CHECK(read(""));
}

TEST_CASE("settings in force are told as a file would have them, and such a file sets them")
{
    auto config = read("node: n1\nsource: file:/etc/x\nuplink: [eth0]\nsock: all\nxdp: off\nsizes: {flows: 4096}\n");
    REQUIRE(config);
    const nlohmann::json told = config_json(*config);
    CHECK(told["sock"] == "all");
    CHECK(told["xdp"] == "off");
    CHECK(told["uplink"] == nlohmann::json{"eth0"});
    CHECK(told["sizes"]["flows"] == 4096);
    CHECK(told["timeouts"]["adopt"] == Timeouts().adopt);
    CHECK(told["health-address"] == "0.0.0.0:10256");
    const auto again = read(told.dump());
    REQUIRE(again);
    CHECK(config_json(*again) == told);
}

TEST_CASE("what a configuration file cannot say is told by its key")
{
    const auto [text, complaint] = GENERATE(table<const char *, const char *>({
        {"nodes: x", "nodes is no setting; the nearest is node"},
        {"sizes: {flow: 1}", "sizes.flow is no setting; the nearest is sizes.flows"},
        {"apiserver: x", "apiserver is no setting; the nearest is api-server"},
        {"node: [a]", "node: [\"a\"] is of the wrong kind"},
        {"uplink: eth0", "uplink: \"eth0\" is of the wrong kind"},
        {"sizes: {flows: many}", "sizes.flows: must be a whole number, is \"many\""},
        {"sizes: {flows: -1}", "sizes.flows: must be a whole number, is -1"},
        {"sock: pods", "sock: must be off, host or all, is \"pods\""},
        {"xdp: driver", "xdp: must be auto, native or off, is \"driver\""},
        {"- node", "must be a mapping of settings"},
    }));
    auto config = read(text);
    REQUIRE_FALSE(config);
    CHECK(config.error().text() == complaint);
    Config untouched;
    CHECK(read_config("/nowhere.yaml", untouched).error().text() ==
          "cannot read /nowhere.yaml: No such file or directory");
}

TEST_CASE("a configuration that cannot work is refused by its setting")
{
    CHECK(check_config(good()));
    Config config = good();
    config.node.clear();
    CHECK(check_config(config).error().text() == "node: the name of this node is needed (--node)");
    config = good();
    config.source = GENERATE("", "file:", "http://x");
    CHECK(check_config(config).error().text().starts_with("source: must be kube or file:DIR"));
    config = good();
    config.kube.servers = {"https://a:1", "b:1"};
    CHECK(check_config(config).error().text() == "api-server: must begin with https://, is \"b:1\"");
    config = good();
    config.sizes.flows = GENERATE(0U, 1000U, 3000U);
    CHECK(check_config(config).error().text().starts_with("sizes.flows: must be a power of two"));
    config = good();
    config.sizes.nexthops = config.sizes.endpoints;
    CHECK(check_config(config).error().text().starts_with("sizes.nexthops: must be more than sizes.endpoints"));
}

TEST_CASE("an API server is configured by a kubeconfig or by its addresses")
{
    auto config = read("node: n1\nsource: kube\nkubeconfig: /etc/k\napi-server: [https://a:1, https://b:1]\n");
    REQUIRE(config);
    CHECK(check_config(*config));
    CHECK(config->kube.kubeconfig == "/etc/k");
    CHECK(config->kube.servers == std::vector<std::string>{"https://a:1", "https://b:1"});
}

TEST_CASE("kube-proxy's own configuration is taken as it is, and what means nothing here is noticed once")
{
    // As kubeadm writes it, but for four fields that have got a value.
    auto config = read(R"(apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: 1h30m
  udpStreamTimeout: 0s
  udpTimeout: 45s
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
featureGates: {Some: true}
healthzBindAddress: "0.0.0.0:20256"
hostnameOverride: node-7
iptables: {localhostNodePorts: true, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s,
  tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: true, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: [primary]
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
)");
    REQUIRE(config);
    CHECK(check_config(*config));
    CHECK(config->source == "kube");
    CHECK(config->node == "node-7");
    CHECK(config->kube.kubeconfig == "/var/lib/kube-proxy/kubeconfig.conf");
    CHECK(config->health_address == "0.0.0.0:20256");
    CHECK(config->metrics_address == Config().metrics_address);
    CHECK(config->localhost_node_ports);
    CHECK(config->node_port_addresses == std::vector<std::string>{"primary"});
    CHECK(config->timeouts.tcp_established == 5400);
    CHECK(config->timeouts.udp_one_way == 45);
    CHECK(config->timeouts.udp_two_way == Timeouts().udp_two_way);
    std::vector<std::string> fields;
    for (const char *field :
         {"bindAddress", "clusterCIDR", "featureGates", "logging.options", "nftables.masqueradeAll"})
        fields.push_back(fmt::format("KubeProxyConfiguration: {} is not honoured", field));
    CHECK(config->notices == fields);
}

TEST_CASE("a KubeProxyConfiguration that says what is not there is refused by its field")
{
    const std::string head = "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1\n";
    CHECK_FALSE(read(head)->node.empty());
    CHECK(read(head + "clusterCidr: x").error().text() == "clusterCidr is no setting; the nearest is clusterCIDR");
    CHECK(read(head + "iptables: {syncperiod: 1s}").error().text() ==
          "iptables.syncperiod is no setting; the nearest is iptables.syncPeriod");
    CHECK(read(head + "conntrack: {udpTimeout: soon}").error().text() ==
          "conntrack.udpTimeout: must be a duration of a second or more, such as 1h30m, is \"soon\"");
    CHECK_FALSE(read(head + "nodePortAddresses: null\niptables: {localhostNodePorts: null}")->localhost_node_ports);
    CHECK(check_config(*read(head + "nodePortAddresses: [lo]")).error().text() ==
          "node-port-addresses: must be \"primary\" or a list of CIDRs, has \"lo\"");
    CHECK(read(head + "hostnameOverride: [a]").error().text() == "hostnameOverride: [\"a\"] is of the wrong kind");
    CHECK(read("kind: KubeProxyConfiguration\napiVersion: v1").error().text() ==
          "apiVersion: must be kubeproxy.config.k8s.io/v1alpha1, is \"v1\"");
}
