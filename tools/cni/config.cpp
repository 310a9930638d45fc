// SPDX-License-Identifier: Apache-2.0
#include "tools/cni/config.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace thruway::cni {
namespace {

using nlohmann::json;

constexpr std::array versions{"0.3.1", "0.4.0", "1.0.0", "1.1.0"};

std::string from_environment(const char *name)
{
    const char *value = std::getenv(name);
    return value ? value : "";
}

/// The value of one key of CNI_ARGS, "KEY=value;KEY=value".
std::string from_args(const std::string &args, const std::string &key)
{
    size_t at = 0;
    while (at < args.size()) {
        const size_t end = std::min(args.find(';', at), args.size());
        if (args.compare(at, key.size() + 1, key + "=") == 0)
            return args.substr(at + key.size() + 1, end - at - key.size() - 1);
        at = end + 1;
    }
    return "";
}

template<typename... Args>
std::unexpected<Error> refuse(Code code, fmt::format_string<Args...> format, Args &&...args)
{
    return std::unexpected(Error(fmt::format(format, std::forward<Args>(args)...), code));
}

/// Interface names as the kernel takes them (dev_valid_name).
bool is_interface_name(const std::string &name)
{
    return !name.empty() && name.size() < 16 && name != "." && name != ".." &&
           name.find_first_of("/: \t\n") == std::string::npos;
}

/// Container ids as the specification has them: alphanumeric first, then also "_", "." and "-".
bool is_container_id(const std::string &id)
{
    return !id.empty() && std::isalnum(static_cast<unsigned char>(id.front())) && std::ranges::all_of(id, [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
    });
}

Outcome<> check_environment(const Call &call)
{
    if (call.command == "VERSION")
        return {};
    if (call.command != "ADD" && call.command != "DEL")
        return refuse(invalid_environment, "CNI_COMMAND: \"{}\" is not supported", call.command);
    if (!is_container_id(call.container))
        return refuse(invalid_environment, "CNI_CONTAINERID: \"{}\" is no container id", call.container);
    if (!is_interface_name(call.interface))
        return refuse(invalid_environment, "CNI_IFNAME: \"{}\" is no interface name", call.interface);
    if (call.command == "ADD" && call.netns.empty())
        return refuse(invalid_environment, "CNI_NETNS: is missing");
    return {};
}

} // namespace

bool speaks(const std::string &version)
{
    return std::ranges::find(versions, version) != versions.end();
}

std::string version_answer(const std::string &asked)
{
    return json{{"cniVersion", speaks(asked) ? asked : versions.back()}, {"supportedVersions", versions}}.dump();
}

Outcome<Call> read_call(const std::string &config)
{
    Call call;
    call.command = from_environment("CNI_COMMAND");
    call.container = from_environment("CNI_CONTAINERID");
    call.netns = from_environment("CNI_NETNS");
    call.interface = from_environment("CNI_IFNAME");
    const std::string args = from_environment("CNI_ARGS");
    call.pod_namespace = from_args(args, "K8S_POD_NAMESPACE");
    call.pod_name = from_args(args, "K8S_POD_NAME");
    if (call.pod_name.empty()) // outside of Kubernetes the container has to do
        call.pod_name = call.container;

    const json value = json::parse(config, nullptr, false);
    if (!value.is_object())
        return refuse(decoding_failure, "the network configuration on standard input is no JSON object");
    const auto text = [&](const char *key, std::string &to) -> Outcome<> {
        if (!value.contains(key))
            return {};
        if (!value[key].is_string())
            return refuse(invalid_config, "{}: must be a string", key);
        to = value[key];
        return {};
    };
    call.version = "0.1.0"; // what a configuration without one is, says the specification
    for (const auto &[key, to] : {std::pair{"cniVersion", &call.version}, {"socket", &call.socket}})
        if (auto read = text(key, *to); !read)
            return std::unexpected(read.error());
    if (value.contains("mtu")) {
        if (!value["mtu"].is_number_unsigned() || value["mtu"] < 1280 || value["mtu"] > 65'535)
            return refuse(invalid_config, "mtu: must be 1280 to 65535");
        call.mtu = value["mtu"].get<unsigned>();
    }
    if (auto checked = check_environment(call); !checked)
        return std::unexpected(checked.error());
    if (call.command != "VERSION" && !speaks(call.version))
        return refuse(incompatible_version, "cniVersion: {} is not supported; {} are", call.version,
                      fmt::join(versions, ", "));
    return call;
}

} // namespace thruway::cni
