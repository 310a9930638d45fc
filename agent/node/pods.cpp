// SPDX-License-Identifier: Apache-2.0
#include "agent/node/pods.h"

#include "agent/base/file.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

namespace thruway {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int store_version = 1;

json to_json(const PodInterface &pod)
{
    json addresses = json::array();
    for (const Address &address : pod.addresses)
        addresses.push_back(address.text());
    return {{"version", store_version},
            {"container", pod.container},
            {"interface", pod.interface},
            {"namespace", pod.pod.space.text()},
            {"name", pod.pod.name},
            {"device", pod.device},
            {"ifindex", pod.ifindex},
            {"mac", mac_text(pod.mac)},
            {"host_mac", mac_text(pod.host_mac)},
            {"addresses", addresses}};
}

Result<PodInterface> from_json(const json &value)
{
    try {
        if (value.at("version").get<int>() != store_version)
            return fail("version {} is unknown", value.at("version").get<int>());
        PodInterface pod;
        value.at("container").get_to(pod.container);
        value.at("interface").get_to(pod.interface);
        pod.pod = {Symbol(value.at("namespace").get<std::string>()), value.at("name").get<std::string>()};
        value.at("device").get_to(pod.device);
        value.at("ifindex").get_to(pod.ifindex);
        const auto mac = parse_mac(value.at("mac").get<std::string>());
        const auto host_mac = parse_mac(value.at("host_mac").get<std::string>());
        if (!mac)
            return std::unexpected(mac.error());
        if (!host_mac)
            return std::unexpected(host_mac.error());
        pod.mac = *mac;
        pod.host_mac = *host_mac;
        for (const json &text : value.at("addresses")) {
            auto address = Address::parse(text.get<std::string>());
            if (!address)
                return std::unexpected(address.error());
            pod.addresses.push_back(*address);
        }
        return pod;
    } catch (const json::exception &error) {
        return fail("{}", error.what());
    }
}

Prefix host_prefix(const Address &address)
{
    return {address, static_cast<unsigned>(address.size() * 8)};
}

} // namespace

std::string PodStore::path(const PodInterface &pod) const
{
    return fmt::format("{}/{}-{}.json", folder_, pod.container, pod.interface);
}

Result<std::vector<PodInterface>> PodStore::load(std::vector<std::string> &complaints) const
{
    std::vector<PodInterface> pods;
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error)
        return fail_code(error.value(), "cannot create {}", folder_);
    for (const auto &entry : fs::directory_iterator(folder_, error)) {
        if (entry.path().extension() != ".json")
            continue;
        std::ifstream file(entry.path());
        auto pod = from_json(json::parse(file, nullptr, false));
        if (pod)
            pods.push_back(std::move(*pod));
        else
            complaints.push_back(fmt::format("{}: {}", entry.path().string(), pod.error().text()));
    }
    if (error)
        return fail_code(error.value(), "cannot read {}", folder_);
    return pods;
}

Result<> PodStore::save(const PodInterface &pod) const
{
    return replace_file(path(pod), to_json(pod).dump() + "\n");
}

void PodStore::remove(const PodInterface &pod) const
{
    std::remove(path(pod).c_str());
}

Result<> PodStore::delete_links() const
{
    std::vector<std::string> complaints;
    auto pods = load(complaints);
    auto netlink = Netlink::open();
    if (!pods)
        return std::unexpected(pods.error());
    if (!netlink)
        return std::unexpected(netlink.error());
    for (const PodInterface &pod : *pods)
        if (auto deleted = netlink->delete_link(pod.device); !deleted)
            return deleted;
    return {};
}

Pods::Pods(Datapath &datapath, NextHopTables &nexthops, HostNetwork &host, PodStore store)
    : datapath_(&datapath), nexthops_(&nexthops), host_(&host), store_(std::move(store))
{
}

Result<> Pods::restore()
{
    std::vector<std::string> complaints;
    auto stored = store_.load(complaints);
    if (!stored)
        return std::unexpected(stored.error());
    for (const std::string &line : complaints)
        spdlog::error("{}", line);
    for (PodInterface &pod : *stored) {
        auto link = host_->netlink().link(pod.device);
        if (!link || link->index != pod.ifindex) {
            spdlog::info("pod {}: its interface {} is gone, so are its addresses", pod.pod.text(), pod.device);
            disconnect(pod);
            store_.remove(pod);
            continue;
        }
        for (const Address &address : pod.addresses)
            if (!pool_.reserve(address))
                spdlog::error("pod {}: {} belongs to another pod", pod.pod.text(), address.text());
        if (auto connected = connect(pod); !connected)
            spdlog::error("pod {}: {}", pod.pod.text(), connected.error().text());
        const std::pair key{pod.container, pod.interface};
        pods_.insert_or_assign(key, std::move(pod));
    }
    return {};
}

Result<std::vector<Address>> Pods::allocate(const PodRequest &request)
{
    std::vector<Address> addresses;
    for (const Family family : pool_.families()) {
        auto address = pool_.allocate(family);
        if (!address) {
            for (const Address &taken : addresses)
                pool_.release(taken);
            return fail("pod {}: no {} address is left in this node's pod CIDRs", request.pod.text(),
                        family == Family::ipv4 ? "IPv4" : "IPv6");
        }
        addresses.push_back(*address);
    }
    if (addresses.empty())
        return fail("pod {}: this node has no pod CIDR: its Node object has no spec.podCIDRs", request.pod.text());
    return addresses;
}

Result<PodInterface> Pods::add(const PodRequest &request)
{
    auto link = host_->netlink().link(request.device);
    if (!link)
        return std::unexpected(link.error());
    const std::pair key{request.container, request.interface};
    if (const auto found = pods_.find(key); found != pods_.end()) {
        if (found->second.ifindex == link->index)
            return found->second;
        if (auto removed = remove(request.container, request.interface); !removed)
            return std::unexpected(removed.error());
    }
    auto addresses = allocate(request);
    if (!addresses)
        return std::unexpected(addresses.error());

    PodInterface pod{.container = request.container,
                     .interface = request.interface,
                     .pod = request.pod,
                     .device = request.device,
                     .ifindex = link->index,
                     .mac = request.mac,
                     .host_mac = link->mac,
                     .addresses = *addresses};
    Result<> done = store_.save(pod);
    if (done)
        done = connect(pod);
    if (!done) {
        disconnect(pod);
        store_.remove(pod);
        for (const Address &address : pod.addresses)
            pool_.release(address);
        return fail_within(fmt::format("pod {}", request.pod.text()), done.error());
    }
    pods_.insert_or_assign(key, pod);
    return pod;
}

Result<> Pods::remove(const std::string &container, const std::string &interface)
{
    const auto found = pods_.find({container, interface});
    if (found == pods_.end())
        return {};
    const PodInterface pod = found->second;
    disconnect(pod);
    pods_.erase(found);
    auto deleted = host_->netlink().delete_link(pod.device);
    store_.remove(pod);
    for (const Address &address : pod.addresses)
        pool_.release(address);
    return deleted;
}

NextHop Pods::hop_to(const PodInterface &pod) const
{
    NextHop hop;
    hop.ifindex = pod.ifindex;
    hop.mtu = static_cast<uint16_t>(host_->mtu());
    hop.from = pod.host_mac;
    hop.to = pod.mac;
    hop.source = {host_->primary(Family::ipv4), host_->primary(Family::ipv6)};
    return hop;
}

Result<> Pods::connect(const PodInterface &pod)
{
    Netlink &netlink = host_->netlink();

    // Our interface, our sysctls: what pods send is forwarded by the stack where the programs leave it to it, and their
    // source has been checked better than by the reverse path.
    for (const auto &[name, value] : {std::pair{"ipv4/conf/{}/rp_filter", "0"},
                                      {"ipv4/conf/{}/forwarding", "1"},
                                      {"ipv6/conf/{}/forwarding", "1"},
                                      {"ipv6/conf/{}/accept_ra", "0"}})
        if (auto set = set_net_sysctl(fmt::format(fmt::runtime(name), pod.device), value);
            !set && set.error().code() != ENOENT)
            return set;
    if (auto set = netlink.set_mtu(pod.ifindex, host_->mtu()); !set)
        return set;
    for (const Address &address : pod.addresses) {
        if (auto set = netlink.set_permanent_neighbour(pod.ifindex, address, pod.mac); !set)
            return set;
    }
    if (auto placed = place(pod); !placed)
        return placed;
    return datapath_->attach_pod(pod.ifindex, pod.device);
}

void Pods::disconnect(const PodInterface &pod)
{
    nexthops_->remove_endpoint(pod.addresses);
    for (const Address &address : pod.addresses)
        if (auto dropped = host_->routes().drop(host_prefix(address)); !dropped)
            spdlog::error("pod {}: {}", pod.pod.text(), dropped.error().text());
}

/// What depends on the host's own addresses.
Result<> Pods::place(const PodInterface &pod)
{
    for (const Address &address : pod.addresses)
        if (auto routed = host_->routes().want({.destination = host_prefix(address),
                                                .ifindex = pod.ifindex,
                                                .source = host_->primary(address.family()),
                                                .protocol = route_protocol});
            !routed)
            return routed;
    return nexthops_->set_endpoint(pod.addresses, hop_to(pod));
}

Result<> Pods::attach()
{
    for (const auto &[key, pod] : pods_)
        if (auto attached = datapath_->attach_pod(pod.ifindex, pod.device); !attached)
            return attached;
    return {};
}

void Pods::refresh()
{
    for (const auto &[key, pod] : pods_)
        if (auto placed = place(pod); !placed)
            spdlog::error("pod {}: {}", pod.pod.text(), placed.error().text());
}

} // namespace thruway
