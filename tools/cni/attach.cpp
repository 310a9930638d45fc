// SPDX-License-Identifier: Apache-2.0
#include "tools/cni/attach.h"

#include "agent/base/http_client.h"
#include "agent/node/netlink.h"

#include <chrono>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <thread>

namespace thruway::cni {
namespace {

using nlohmann::json;

/// An agent that is starting gets this long to become ready; then the runtime is told to try again.
constexpr auto patience = std::chrono::seconds(10);

/// What pods take for their gateway: no interface has these addresses; a permanent neighbour leads to the host.
constexpr const char *gateway4 = "169.254.1.1";
constexpr const char *gateway6 = "fe80::1";

struct Answer {
    std::vector<Address> addresses;
    unsigned mtu = 0;
    Mac gateway_mac{};
};

/// Name of the host's side: the same for the same pod interface, so that DEL needs no record of it.
std::string device_name(const Call &call)
{
    uint64_t hash = 0xcbf29ce484222325ULL; // FNV-1a
    for (const char c : call.container + "/" + call.interface)
        hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
    return fmt::format("tw{:012x}", hash & 0xffffffffffffULL);
}

std::unexpected<Error> with_code(Code code, const Error &error)
{
    return std::unexpected(Error(error.text(), code));
}

Outcome<Answer> read_answer(const std::string &body)
{
    try {
        const json value = json::parse(body);
        Answer answer;
        for (const json &text : value.at("addresses")) {
            auto address = Address::parse(text.get<std::string>());
            if (!address)
                return with_code(decoding_failure, address.error());
            answer.addresses.push_back(*address);
        }
        value.at("mtu").get_to(answer.mtu);
        auto mac = parse_mac(value.at("gateway_mac").get<std::string>());
        if (!mac)
            return with_code(decoding_failure, mac.error());
        answer.gateway_mac = *mac;
        return answer;
    } catch (const json::exception &error) {
        return std::unexpected(Error(fmt::format("answer of the agent: {}", error.what()), decoding_failure));
    }
}

std::string error_of(const HttpResponse &response)
{
    const json value = json::parse(response.body, nullptr, false);
    return value.is_object() ? value.value("error", response.body) : response.body;
}

/// Asks the agent, and waits for one that is not there or not ready yet.
Outcome<HttpResponse> ask(const Call &call, const std::string &target, const json &body)
{
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (true) {
        auto response = http_on_socket(call.socket, "POST", target, body.dump(), 10);
        if (response && response->status != 503)
            return response;
        if (std::chrono::steady_clock::now() > deadline)
            return std::unexpected(Error(response ? error_of(*response) : response.error().text(), try_again_later));
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
}

Outcome<Answer> connect(const Call &call, const Mac &mac)
{
    auto response = ask(call, "/cni/add",
                        {{"container_id", call.container},
                         {"interface", call.interface},
                         {"pod_namespace", call.pod_namespace},
                         {"pod_name", call.pod_name},
                         {"device", device_name(call)},
                         {"mac", mac_text(mac)}});
    if (!response)
        return std::unexpected(response.error());
    if (response->status != 200)
        return std::unexpected(Error(error_of(*response), failure));
    return read_answer(response->body);
}

/// Addresses, neighbour and routes, inside the pod.
Result<> configure(Netlink &pod, const Call &call, const Link &link, const Answer &answer)
{
    if (auto set = pod.set_mtu(link.index, call.mtu.value_or(answer.mtu)); !set)
        return set;
    if (auto up = pod.set_up(link.index); !up)
        return up;
    for (const Address &address : answer.addresses) {
        const bool v4 = address.family() == Family::ipv4;
        const Address gateway = Address::parse(v4 ? gateway4 : gateway6).value();
        if (auto added = pod.add_address(link.index, address, v4 ? 32 : 128); !added)
            return added;
        if (auto set = pod.set_permanent_neighbour(link.index, gateway, answer.gateway_mac); !set)
            return set;
        if (auto set = pod.set_route({.destination = Prefix(Address::any(address.family()), 0),
                                      .ifindex = link.index,
                                      .gateway = gateway,
                                      .onlink = true});
            !set)
            return set;
    }
    return {};
}

std::string result_of(const Call &call, const Link &host, const Link &pod, const Answer &answer)
{
    json ips = json::array();
    json routes = json::array();
    for (const Address &address : answer.addresses) {
        const bool v4 = address.family() == Family::ipv4;
        json ip{{"address", fmt::format("{}/{}", address.text(), v4 ? 32 : 128)},
                {"gateway", v4 ? gateway4 : gateway6},
                {"interface", 1}};
        if (call.version.starts_with("0.")) // dropped in 1.0.0
            ip["version"] = v4 ? "4" : "6";
        ips.push_back(ip);
        routes.push_back({{"dst", v4 ? "0.0.0.0/0" : "::/0"}, {"gw", v4 ? gateway4 : gateway6}});
    }
    return json{{"cniVersion", call.version},
                {"interfaces",
                 {{{"name", host.name}, {"mac", mac_text(host.mac)}},
                  {{"name", pod.name}, {"mac", mac_text(pod.mac)}, {"sandbox", call.netns}}}},
                {"ips", ips},
                {"routes", routes},
                {"dns", json::object()}}
        .dump();
}

Result<Netlink> netlink_in(int netns)
{
    auto visit = NetnsVisit::enter(netns);
    if (!visit)
        return std::unexpected(visit.error());
    return Netlink::open();
}

/// No duplicate address detection and no autoconfiguration: nobody else is on this link.
Result<> quiet_ipv6(int netns, const std::string &interface)
{
    auto visit = NetnsVisit::enter(netns);
    if (!visit)
        return std::unexpected(visit.error());
    for (const char *name : {"accept_dad", "accept_ra"})
        if (auto set = set_net_sysctl(fmt::format("ipv6/conf/{}/{}", interface, name), "0");
            !set && set.error().code() != ENOENT)
            return set;
    return {};
}

Outcome<std::string> add_in(const Call &call, Netlink &host, Netlink &pod, int netns)
{
    const std::string device = device_name(call);
    std::ignore = host.delete_link(device); // of an ADD that was cut short
    if (auto made = host.add_veth({.name = device, .peer = call.interface, .peer_netns = netns}); !made)
        return with_code(failure, made.error());
    auto host_link = host.link(device);
    auto pod_link = pod.link(call.interface);
    if (!host_link || !pod_link)
        return with_code(failure, (host_link ? pod_link : host_link).error());
    if (auto quiet = quiet_ipv6(netns, call.interface); !quiet)
        return with_code(failure, quiet.error());
    auto answer = connect(call, pod_link->mac);
    if (!answer)
        return std::unexpected(answer.error());
    if (auto configured = configure(pod, call, *pod_link, *answer); !configured)
        return with_code(failure, configured.error());
    return result_of(call, *host_link, *pod_link, *answer);
}

} // namespace

Outcome<std::string> add(const Call &call)
{
    const Fd netns(::open(call.netns.c_str(), O_RDONLY | O_CLOEXEC));
    if (!netns)
        return std::unexpected(Error(
            fmt::format("CNI_NETNS: {}: {}", call.netns, std::generic_category().message(errno)), invalid_environment));
    auto host = Netlink::open();
    auto pod = netlink_in(netns.get());
    if (!host || !pod)
        return with_code(failure, (host ? pod : host).error());
    if (pod->link(call.interface))
        return std::unexpected(Error(fmt::format("CNI_IFNAME: {} exists already", call.interface), failure));
    auto result = add_in(call, *host, *pod, netns.get());
    if (!result)
        std::ignore = del(call);
    return result;
}

Outcome<> del(const Call &call)
{
    // An agent that does not run finds at its start that the interface is gone.
    auto response = http_on_socket(call.socket, "POST", "/cni/del",
                                   json{{"container_id", call.container}, {"interface", call.interface}}.dump(), 10);
    if (response && response->status != 200 && response->status != 503)
        return std::unexpected(Error(error_of(*response), failure));
    auto host = Netlink::open();
    if (!host)
        return with_code(failure, host.error());
    if (auto deleted = host->delete_link(device_name(call)); !deleted)
        return with_code(failure, deleted.error());
    return {};
}

} // namespace thruway::cni
