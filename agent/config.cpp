// SPDX-License-Identifier: Apache-2.0
#include "agent/config.h"

#include "agent/base/file.h"
#include "agent/file/yaml.h"

#include <bit>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

namespace thruway {
namespace {

using nlohmann::json;

/// Three days: the clock of flow rows goes round in 78 hours, and gc has to see a dead flow before that.
constexpr uint32_t timeout_max = 259'200;

/// Puts a value where it belongs; throws what the JSON library throws.
using Setter = std::function<Result<>(const json &)>;

template<typename T>
Setter into(T &target)
{
    return [&target](const json &value) -> Result<> {
        value.get_to(target);
        return {};
    };
}

/// Numbers that count something: 1.5 and -1 are none.
Setter into(uint32_t &target)
{
    return [&target](const json &value) -> Result<> {
        if (!value.is_number_unsigned() || value > UINT32_MAX)
            return fail("must be a whole number, is {}", value.dump());
        value.get_to(target);
        return {};
    };
}

std::map<std::string, Setter> setters(Config &config)
{
    return {
        {"node", into(config.node)},
        {"source", into(config.source)},
        {"uplink", into(config.uplinks)},
        {"run-dir", into(config.run_dir)},
        {"bpffs", into(config.bpffs)},
        {"cgroup", into(config.cgroup)},
        {"sock",
         [&config](const json &value) -> Result<> {
             auto mode = parse_sock_mode(value.get<std::string>());
             if (!mode)
                 return std::unexpected(mode.error());
             config.sock = *mode;
             return {};
         }},
        {"xdp",
         [&config](const json &value) -> Result<> {
             auto mode = parse_xdp_mode(value.get<std::string>());
             if (!mode)
                 return std::unexpected(mode.error());
             config.xdp = *mode;
             return {};
         }},
        {"metrics-address", into(config.metrics_address)},
        {"health-address", into(config.health_address)},
        {"log-level", into(config.log_level)},
        {"sizes.services", into(config.sizes.services)},
        {"sizes.frontends", into(config.sizes.frontends)},
        {"sizes.backends", into(config.sizes.backends)},
        {"sizes.slots", into(config.sizes.slots)},
        {"sizes.endpoints", into(config.sizes.endpoints)},
        {"sizes.nexthops", into(config.sizes.nexthops)},
        {"sizes.nodes", into(config.sizes.nodes)},
        {"sizes.node-addresses", into(config.sizes.node_addresses)},
        {"sizes.flows", into(config.sizes.flows)},
        {"timeouts.tcp-established", into(config.timeouts.tcp_established)},
        {"timeouts.tcp-half-open", into(config.timeouts.tcp_half_open)},
        {"timeouts.tcp-closing", into(config.timeouts.tcp_closing)},
        {"timeouts.udp-one-way", into(config.timeouts.udp_one_way)},
        {"timeouts.udp-two-way", into(config.timeouts.udp_two_way)},
        {"timeouts.icmp", into(config.timeouts.icmp)},
        {"timeouts.adopt", into(config.timeouts.adopt)},
    };
}

Result<> apply(const json &settings, const std::string &prefix, const std::map<std::string, Setter> &table)
{
    for (const auto &[name, value] : settings.items()) {
        const std::string key = prefix + name;
        if (value.is_object()) {
            if (auto applied = apply(value, key + ".", table); !applied)
                return applied;
            continue;
        }
        const auto found = table.find(key);
        if (found == table.end())
            return fail("{} is no setting", key);
        try {
            if (auto set = found->second(value); !set)
                return fail_within(key, set.error());
        } catch (const json::exception &) {
            return fail("{}: {} is of the wrong kind", key, value.dump());
        }
    }
    return {};
}

} // namespace

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
        return apply(settings, "", setters(config));
    });
    if (!read)
        return fail_within(path, read.error());
    return {};
}

Result<> check_config(const Config &config)
{
    if (config.node.empty())
        return fail("node: the name of this node is needed (--node)");
    if (config.source == "kube")
        return fail("source: kube is not in this version; use file:DIR");
    if (!config.source.starts_with("file:") || config.source.size() == 5)
        return fail("source: must be file:DIR, is \"{}\"", config.source);
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
