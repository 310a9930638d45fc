// SPDX-License-Identifier: Apache-2.0
#include "agent/state/journal.h"

#include <algorithm>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_map>

namespace thruway {
namespace {

using nlohmann::json;

constexpr size_t least_rewrite = 1 << 20;

/// Text in quotes. Kubernetes names need no escapes, and those that come from elsewhere get them.
std::string in_quotes(std::string_view text)
{
    const bool plain = text.find_first_of("\"\\") == std::string_view::npos &&
                       std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
    if (plain)
        return fmt::format("\"{}\"", text);
    return json(text).dump(-1, ' ', true, json::error_handler_t::replace);
}

/// A list of what `one` makes of each element.
template<typename Range, typename One>
std::string list(const Range &range, One one)
{
    std::string text = "[";
    for (const auto &element : range) {
        if (text.size() > 1)
            text += ',';
        text += one(element);
    }
    return text += ']';
}

std::string address_list(const std::vector<Address> &addresses)
{
    return list(addresses, [](const Address &a) { return fmt::format("\"{}\"", a.text()); });
}

std::string prefix_list(const std::vector<Prefix> &prefixes)
{
    return list(prefixes, [](const Prefix &p) { return fmt::format("\"{}\"", p.text()); });
}

std::string name_list(const std::vector<Symbol> &names)
{
    return list(names, [](const Symbol &name) { return in_quotes(name.text()); });
}

std::string fields(const Service &service)
{
    return fmt::format("{},{},{},{},{},{},{},{},{},{},{},{}", static_cast<int>(service.type), service.proxied,
                       service.created, address_list(service.cluster_ips),
                       list(service.ports,
                            [](const ServicePort &p) {
                                return fmt::format("[{},{},{},{}]", in_quotes(p.name.text()),
                                                   static_cast<int>(p.protocol), p.port, p.node_port);
                            }),
                       address_list(service.external_ips), address_list(service.balancer_ips),
                       prefix_list(service.source_ranges), service.internal_local, service.external_local,
                       service.health_port, service.affinity);
}

std::string fields(const EndpointSlice &slice)
{
    return fmt::format("{},{},{},{},{},{}", in_quotes(slice.service), static_cast<int>(slice.family), slice.triggered,
                       list(slice.ports,
                            [](const SlicePort &p) {
                                return fmt::format("[{},{},{}]", in_quotes(p.name.text()), static_cast<int>(p.protocol),
                                                   p.port);
                            }),
                       list(slice.endpoints,
                            [&](const Endpoint &e) {
                                return fmt::format("[\"{}\",{},{},{},{}]", e.address.text(), in_quotes(e.node.text()),
                                                   in_quotes(slice.pod_of(e)), e.conditions, e.hints);
                            }),
                       list(slice.hints, [](const Hints &hints) {
                           return fmt::format("[{},{}]", name_list(hints.nodes), name_list(hints.zones));
                       }));
}

std::string fields(const Node &node)
{
    return fmt::format("{},{},{},{}", address_list(node.addresses), prefix_list(node.pod_cidrs),
                       in_quotes(node.zone.text()), node.leaving);
}

std::string fields(const Pod &pod)
{
    return fmt::format("{},{},{},{}", in_quotes(pod.node.text()), pod.host_network, pod.finished,
                       address_list(pod.addresses));
}

std::string fields(const Namespace &)
{
    return "0";
}

std::string fields(const ServiceCidr &range)
{
    return prefix_list(range.cidrs);
}

std::string line_of(const Object &object)
{
    return std::visit(
        [&](const auto &o) {
            return fmt::format("[{},{},{},{}]\n", object.index(), in_quotes(o.name.space.text()),
                               in_quotes(o.name.name), fields(o));
        },
        object);
}

std::string line_of(const ObjectKey &gone)
{
    return fmt::format("[{},{},{}]\n", static_cast<int>(gone.kind), in_quotes(gone.name.space.text()),
                       in_quotes(gone.name.name));
}

/// Reads back what the functions above wrote. Throws what the JSON library throws, and std::bad_expected_access.
class Reader {
public:
    explicit Reader(const json &line) : line_(line) {}

    [[nodiscard]] ObjectKey key() const
    {
        return {static_cast<Kind>(line_.at(0).get<int>()), {Symbol(text(line_.at(1))), text(line_.at(2))}};
    }
    [[nodiscard]] bool gone() const { return line_.size() == 3; }

    [[nodiscard]] Object object() const
    {
        switch (key().kind) {
        case Kind::service:
            return service();
        case Kind::endpoint_slice:
            return slice();
        case Kind::node:
            return node();
        case Kind::pod:
            return pod();
        case Kind::service_cidr:
            return ServiceCidr{key().name, prefixes(line_.at(3))};
        case Kind::name_space:
            break;
        }
        return Namespace{key().name};
    }

private:
    static std::string text(const json &value) { return value.get<std::string>(); }

    static std::vector<Address> addresses(const json &values)
    {
        std::vector<Address> all;
        for (const json &value : values)
            all.push_back(Address::parse(text(value)).value());
        return all;
    }

    static std::vector<Prefix> prefixes(const json &values)
    {
        std::vector<Prefix> all;
        for (const json &value : values)
            all.push_back(Prefix::parse(text(value)).value());
        return all;
    }

    static std::vector<Symbol> names(const json &values)
    {
        std::vector<Symbol> all;
        for (const json &value : values)
            all.emplace_back(text(value));
        return all;
    }

    [[nodiscard]] Service service() const
    {
        Service service;
        service.name = key().name;
        service.type = static_cast<ServiceType>(line_.at(3).get<int>());
        line_.at(4).get_to(service.proxied);
        line_.at(5).get_to(service.created);
        service.cluster_ips = addresses(line_.at(6));
        for (const json &port : line_.at(7))
            service.ports.push_back({Symbol(text(port.at(0))), static_cast<Protocol>(port.at(1).get<int>()),
                                     port.at(2).get<uint16_t>(), port.at(3).get<uint16_t>()});
        service.external_ips = addresses(line_.at(8));
        service.balancer_ips = addresses(line_.at(9));
        service.source_ranges = prefixes(line_.at(10));
        line_.at(11).get_to(service.internal_local);
        line_.at(12).get_to(service.external_local);
        line_.at(13).get_to(service.health_port);
        line_.at(14).get_to(service.affinity);
        return service;
    }

    [[nodiscard]] EndpointSlice slice() const
    {
        EndpointSlice slice;
        slice.name = key().name;
        slice.service = text(line_.at(3));
        slice.family = static_cast<Family>(line_.at(4).get<int>());
        line_.at(5).get_to(slice.triggered);
        for (const json &port : line_.at(6))
            slice.ports.push_back(
                {Symbol(text(port.at(0))), static_cast<Protocol>(port.at(1).get<int>()), port.at(2).get<uint16_t>()});
        for (const json &value : line_.at(7)) {
            Endpoint endpoint;
            endpoint.address = Address::parse(text(value.at(0))).value();
            endpoint.node = Symbol(text(value.at(1)));
            if (const std::string pod = text(value.at(2)); !pod.empty())
                endpoint.pod = slice.add_pod(pod);
            endpoint.conditions = value.at(3).get<uint8_t>();
            endpoint.hints = value.at(4).get<uint16_t>();
            slice.endpoints.push_back(endpoint);
        }
        slice.hints.clear();
        for (const json &value : line_.at(8))
            slice.hints.push_back({names(value.at(0)), names(value.at(1))});
        return slice;
    }

    [[nodiscard]] Node node() const
    {
        Node node;
        node.name = key().name;
        node.addresses = addresses(line_.at(3));
        node.pod_cidrs = prefixes(line_.at(4));
        node.zone = Symbol(text(line_.at(5)));
        line_.at(6).get_to(node.leaving);
        return node;
    }

    [[nodiscard]] Pod pod() const
    {
        Pod pod;
        pod.name = key().name;
        pod.node = Symbol(text(line_.at(3)));
        line_.at(4).get_to(pod.host_network);
        line_.at(5).get_to(pod.finished);
        pod.addresses = addresses(line_.at(6));
        return pod;
    }

    const json &line_;
};

} // namespace

void Journal::note(const std::vector<Change> &changes)
{
    for (const Change &change : changes) {
        if (const auto *upsert = std::get_if<Upsert>(&change))
            noted_ += line_of(upsert->object);
        else
            noted_ += line_of(std::get<Delete>(change).key);
    }
}

Result<> Journal::flush()
{
    const std::string text = std::exchange(noted_, {});
    if (!file_ || size_ > 2 * compact_size_ + least_rewrite)
        return rewrite();
    return append(text);
}

Result<> Journal::append(const std::string &text)
{
    size_t done = 0;
    while (done < text.size()) {
        const ssize_t written = ::write(file_.get(), text.data() + done, text.size() - done);
        if (written < 0)
            return fail_errno("cannot write {}", path_);
        done += static_cast<size_t>(written);
    }
    size_ += text.size();
    return {};
}

Result<> Journal::rewrite()
{
    const std::string next = path_ + ".new";
    file_ = Fd(::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
    if (!file_)
        return fail_errno("cannot create {}", next);
    size_ = 0;
    std::string text;
    Result<> result;
    walk_([&](const Object &object) {
        text += line_of(object);
        if (text.size() > 64 * 1024 && result) {
            result = append(text);
            text.clear();
        }
    });
    if (result)
        result = append(text);
    if (result && std::rename(next.c_str(), path_.c_str()) != 0)
        result = fail_errno("cannot create {}", path_);
    if (!result)
        file_.reset();
    compact_size_ = size_;
    return result;
}

Result<std::vector<Object>> Journal::read(const std::string &path)
{
    std::ifstream file(path);
    if (!file)
        return fail_errno("cannot read {}", path);
    std::unordered_map<ObjectKey, Object> objects;
    std::string line;
    while (std::getline(file, line)) {
        try {
            const json value = json::parse(line);
            const Reader reader(value);
            if (reader.gone())
                objects.erase(reader.key());
            else
                objects.insert_or_assign(reader.key(), reader.object());
        } catch (const std::exception &) { // half a line, or one of another version: a name that is not known
            continue;
        }
    }
    std::vector<Object> all;
    all.reserve(objects.size());
    for (auto &[key, object] : objects)
        all.push_back(std::move(object));
    return all;
}

} // namespace thruway
