// SPDX-License-Identifier: Apache-2.0
#include "agent/config.h"

#include "agent/base/file.h"
#include "agent/base/yaml.h"
#include "agent/kube_proxy_config.h"
#include "agent/node/node_port_addresses.h"
#include "agent/settings.h"

#include <bit>
#include <nlohmann/json.hpp>

namespace thruway {
namespace {

using nlohmann::json;

/// Three days: the clock of flow rows goes round in 78 hours, and gc has to see a dead flow before that.
constexpr uint32_t timeout_max = 259'200;

/// How a setting is set and, for those who want to see what is in force, read.
struct Setting {
    Setter set;
    std::function<json()> get;
};

template<typename T>
Setting of(T &target)
{
    return {into(target), [&target] { return json(target); }};
}

/// One of a few words.
template<typename Mode>
Setting of(Mode &target, Result<Mode> (*parse)(const std::string &text), std::string_view (*name)(Mode mode))
{
    const auto set = [&target, parse](const json &value) -> Result<> {
        auto mode = parse(value.get<std::string>());
        if (!mode)
            return std::unexpected(mode.error());
        target = *mode;
        return {};
    };
    return {set, [&target, name] { return json(name(target)); }};
}

std::map<std::string, Setting> settings(Config &config)
{
    return {
        {"node", of(config.node)},
        {"source", of(config.source)},
        {"kubeconfig", of(config.kube.kubeconfig)},
        {"api-server", of(config.kube.servers)},
        {"uplink", of(config.uplinks)},
        {"run-dir", of(config.run_dir)},
        {"bpffs", of(config.bpffs)},
        {"cgroup", of(config.cgroup)},
        {"sock", of(config.sock, &parse_sock_mode, &sock_mode_name)},
        {"xdp", of(config.xdp, &parse_xdp_mode, &xdp_mode_name)},
        {"node-port-addresses", of(config.node_port_addresses)},
        {"localhost-node-ports", of(config.localhost_node_ports)},
        {"metrics-address", of(config.metrics_address)},
        {"health-address", of(config.health_address)},
        {"log-level", of(config.log_level)},
        {"sizes.services", of(config.sizes.services)},
        {"sizes.frontends", of(config.sizes.frontends)},
        {"sizes.backends", of(config.sizes.backends)},
        {"sizes.slots", of(config.sizes.slots)},
        {"sizes.endpoints", of(config.sizes.endpoints)},
        {"sizes.nexthops", of(config.sizes.nexthops)},
        {"sizes.nodes", of(config.sizes.nodes)},
        {"sizes.node-addresses", of(config.sizes.node_addresses)},
        {"sizes.flows", of(config.sizes.flows)},
        {"timeouts.tcp-established", of(config.timeouts.tcp_established)},
        {"timeouts.tcp-half-open", of(config.timeouts.tcp_half_open)},
        {"timeouts.tcp-closing", of(config.timeouts.tcp_closing)},
        {"timeouts.udp-one-way", of(config.timeouts.udp_one_way)},
        {"timeouts.udp-two-way", of(config.timeouts.udp_two_way)},
        {"timeouts.icmp", of(config.timeouts.icmp)},
        {"timeouts.adopt", of(config.timeouts.adopt)},
    };
}

Setters setters(Config &config)
{
    Setters all;
    for (auto &[key, setting] : settings(config))
        all.emplace(key, std::move(setting.set));
    return all;
}

} // namespace

json config_json(Config config)
{
    json all;
    for (const auto &[key, setting] : settings(config)) {
        const auto dot = key.find('.');
        (dot == std::string::npos ? all[key] : all[key.substr(0, dot)][key.substr(dot + 1)]) = setting.get();
    }
    return all;
}

Result<SockMode> parse_sock_mode(const std::string &text)
{
    for (const SockMode mode : {SockMode::off, SockMode::host, SockMode::all})
        if (text == sock_mode_name(mode))
            return mode;
    return fail("must be off, host or all, is \"{}\"", text);
}

Result<> read_config(const std::string &path, Config &config)
{
    const auto text = read_file(path);
    if (!text)
        return std::unexpected(text.error());
    auto read = yaml_to_json(*text, [&](size_t, const std::string &document) -> Result<> {
        const json settings = json::parse(document);
        if (!settings.is_object())
            return fail("must be a mapping of settings");
        if (is_kube_proxy_config(settings))
            return read_kube_proxy_config(settings, config);
        return apply_settings(settings, setters(config));
    });
    if (!read)
        return fail_within(path, read.error());
    return {};
}

Result<> check_config(const Config &config)
{
    if (config.node.empty())
        return fail("node: the name of this node is needed (--node)");
    if (config.source != "kube" && (!config.source.starts_with("file:") || config.source.size() == 5))
        return fail("source: must be kube or file:DIR, is \"{}\"", config.source);
    if (auto meant = NodePortAddresses::parse(config.node_port_addresses); !meant)
        return fail_within("node-port-addresses", meant.error());
    for (const std::string &server : config.kube.servers)
        if (!server.starts_with("https://") && !server.starts_with("http://"))
            return fail("api-server: must begin with https://, is \"{}\"", server);
    if (config.sizes.flows < 1024 || !std::has_single_bit(config.sizes.flows))
        return fail("sizes.flows: must be a power of two, at least 1024, is {}", config.sizes.flows);
    for (const auto &[name, seconds] : {std::pair{"tcp-established", config.timeouts.tcp_established},
                                        {"tcp-half-open", config.timeouts.tcp_half_open},
                                        {"tcp-closing", config.timeouts.tcp_closing},
                                        {"udp-one-way", config.timeouts.udp_one_way},
                                        {"udp-two-way", config.timeouts.udp_two_way},
                                        {"icmp", config.timeouts.icmp}})
        if (seconds < 1 || seconds > timeout_max)
            return fail("timeouts.{}: must be 1 to {} seconds, is {}", name, timeout_max, seconds);
    if (config.sizes.nexthops <= config.sizes.endpoints)
        return fail("sizes.nexthops: must be more than sizes.endpoints ({}), is {}", config.sizes.endpoints,
                    config.sizes.nexthops);
    for (const auto &[name, size] : {std::pair{"services", config.sizes.services},
                                     {"frontends", config.sizes.frontends},
                                     {"backends", config.sizes.backends},
                                     {"slots", config.sizes.slots},
                                     {"endpoints", config.sizes.endpoints},
                                     {"nodes", config.sizes.nodes},
                                     {"node-addresses", config.sizes.node_addresses}})
        if (size < 2 || size > 1U << 26)
            return fail("sizes.{}: must be 2 to {}, is {}", name, 1U << 26, size);
    return {};
}

} // namespace thruway
