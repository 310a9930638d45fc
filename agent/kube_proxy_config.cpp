// SPDX-License-Identifier: Apache-2.0
#include "agent/kube_proxy_config.h"

#include "agent/settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <unistd.h>

namespace thruway {
namespace {

using nlohmann::json;

/// Fields that mean nothing here (kube-proxy/config/v1alpha1/types.go of Kubernetes 1.36).
constexpr std::array not_honoured{
    "bindAddress",
    "bindAddressHardFail",
    "clientConnection.acceptContentTypes",
    "clientConnection.burst",
    "clientConnection.contentType",
    "clientConnection.qps",
    "clusterCIDR",
    "configSyncPeriod",
    "conntrack.maxPerCore",
    "conntrack.min",
    "conntrack.tcpBeLiberal",
    "conntrack.tcpCloseWaitTimeout",
    "detectLocal.bridgeInterface",
    "detectLocal.interfaceNamePrefix",
    "detectLocalMode",
    "enableProfiling",
    "featureGates",
    "iptables.masqueradeAll",
    "iptables.masqueradeBit",
    "iptables.minSyncPeriod",
    "iptables.syncPeriod",
    "ipvs.excludeCIDRs",
    "ipvs.minSyncPeriod",
    "ipvs.scheduler",
    "ipvs.strictARP",
    "ipvs.syncPeriod",
    "ipvs.tcpFinTimeout",
    "ipvs.tcpTimeout",
    "ipvs.udpTimeout",
    "logging.flushFrequency",
    "logging.format",
    "logging.options",
    "logging.verbosity",
    "logging.vmodule",
    "mode",
    "nftables.masqueradeAll",
    "nftables.masqueradeBit",
    "nftables.minSyncPeriod",
    "nftables.syncPeriod",
    "oomScoreAdj",
    "portRange",
    "showHiddenMetricsForVersion",
    "windowsRunAsService",
    "winkernel.enableDSR",
    "winkernel.forwardHealthCheckVip",
    "winkernel.networkName",
    "winkernel.rootHnsEndpointName",
    "winkernel.sourceVip",
};

/// kubeadm writes every field, most of them as what leaves the default in place.
bool says_something(const json &value)
{
    if (value.is_string()) {
        const auto &text = value.get_ref<const std::string &>();
        return !text.empty() && text != "0s";
    }
    if (value.is_array() || value.is_object())
        return !value.empty();
    return !value.is_null() && value != 0 && value != false;
}

/// Seconds of a duration as Go writes it: "1h30m", "500ms".
std::optional<double> parse_duration(std::string_view text)
{
    constexpr std::pair<std::string_view, double> units[] = {{"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9},
                                                             {"h", 3600},  {"m", 60},    {"s", 1}};
    double total = 0;
    while (!text.empty()) {
        double number = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
        text.remove_prefix(static_cast<size_t>(end - text.data()));
        const auto *const unit =
            std::ranges::find_if(units, [&](const auto &item) { return text.starts_with(item.first); });
        if (error != std::errc{} || unit == std::end(units))
            return std::nullopt;
        total += number * unit->second;
        text.remove_prefix(unit->first.size());
    }
    return total;
}

/// What says nothing leaves the default in place.
template<typename T>
Setter said_into(T &target)
{
    return [&target](const json &value) -> Result<> {
        if (says_something(value))
            value.get_to(target);
        return {};
    };
}

Setter seconds_into(uint32_t &target)
{
    return [&target](const json &value) -> Result<> {
        if (!says_something(value))
            return {};
        const auto seconds = parse_duration(value.get<std::string>());
        if (!seconds || *seconds < 1 || *seconds > UINT32_MAX)
            return fail("must be a duration of a second or more, such as 1h30m, is {}", value.dump());
        target = static_cast<uint32_t>(*seconds);
        return {};
    };
}

Setters setters(Config &config)
{
    const auto known = [](const json &) -> Result<> { return {}; };
    Setters all{
        {"apiVersion", known},
        {"kind", known},
        {"clientConnection.kubeconfig", said_into(config.kube.kubeconfig)},
        {"hostnameOverride", said_into(config.node)},
        {"healthzBindAddress", said_into(config.health_address)},
        {"metricsBindAddress", said_into(config.metrics_address)},
        {"nodePortAddresses", said_into(config.node_port_addresses)},
        {"iptables.localhostNodePorts", said_into(config.localhost_node_ports)},
        {"conntrack.tcpEstablishedTimeout", seconds_into(config.timeouts.tcp_established)},
        {"conntrack.udpTimeout", seconds_into(config.timeouts.udp_one_way)},
        {"conntrack.udpStreamTimeout", seconds_into(config.timeouts.udp_two_way)},
    };
    for (const char *field : not_honoured)
        all.emplace(field, [&config, field](const json &value) -> Result<> {
            if (says_something(value))
                config.notices.push_back(fmt::format("KubeProxyConfiguration: {} is not honoured", field));
            return {};
        });
    return all;
}

/// As kube-proxy names its node if it is not told (pkg/util/node, GetHostname).
std::string host_name()
{
    std::array<char, 256> name{};
    gethostname(name.data(), name.size() - 1);
    std::string text = name.data();
    std::ranges::transform(text, text.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return text;
}

} // namespace

bool is_kube_proxy_config(const json &settings)
{
    return settings.value("kind", json()) == "KubeProxyConfiguration";
}

Result<> read_kube_proxy_config(const json &settings, Config &config)
{
    if (const json version = settings.value("apiVersion", json()); version != "kubeproxy.config.k8s.io/v1alpha1")
        return fail("apiVersion: must be kubeproxy.config.k8s.io/v1alpha1, is {}", version.dump());
    config.source = "kube";
    config.node = host_name();
    return apply_settings(settings, setters(config));
}

} // namespace thruway
