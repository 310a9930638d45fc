// SPDX-License-Identifier: Apache-2.0
#include "tools/thruway/names.h"

#include "agent/state/journal.h"

#include <algorithm>
#include <filesystem>

namespace thruway::cli {
namespace {

/// How many letters have to be added, removed or changed to make one word of the other (Levenshtein).
size_t distance(std::string_view a, std::string_view b)
{
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j < row.size(); j++)
        row[j] = j;
    for (size_t i = 0; i < a.size(); i++) {
        size_t diagonal = std::exchange(row[0], i + 1);
        for (size_t j = 0; j < b.size(); j++) {
            const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
            diagonal = row[j + 1];
            row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, changed});
        }
    }
    return row.back();
}

/// Few slips of the finger apart, or the same name in another namespace.
bool is_close(const ObjectName &a, const ObjectName &b)
{
    constexpr size_t slips = 2;
    if (a.name == b.name)
        return true;
    const size_t difference = std::max(a.name.size(), b.name.size()) - std::min(a.name.size(), b.name.size());
    return a.space == b.space && difference <= slips && distance(a.name, b.name) <= slips;
}

} // namespace

PortName port_name(const ServiceKey &key)
{
    return {key.service, key.port, key.protocol};
}

/// Of several who claim an address the first has it: this node's own pods are surest. A pod in its node's network has
/// the node's address, and the node is the better name for it.
Names::Names(std::vector<Object> objects, std::vector<PodInterface> pods) : pods_(std::move(pods))
{
    for (const PodInterface &pod : pods_)
        own(pod.addresses, {false, pod.pod});
    for (Object &object : objects) {
        if (const auto *pod = std::get_if<Pod>(&object); pod && !pod->finished && !pod->host_network) {
            own(pod->addresses, {false, pod->name});
        } else if (auto *node = std::get_if<Node>(&object)) {
            own(node->addresses, {true, node->name});
            nodes_.push_back(std::move(*node));
        }
    }
    for (Object &object : objects) {
        if (auto *service = std::get_if<Service>(&object)) {
            planner_.upsert(std::move(*service));
        } else if (auto *slice = std::get_if<EndpointSlice>(&object)) {
            for (const Endpoint &endpoint : slice->endpoints)
                if (endpoint.pod)
                    own({endpoint.address}, {false, {slice->name.space, std::string(slice->pod_of(endpoint))}});
            planner_.upsert(std::move(*slice));
        }
    }
    plan_services();
}

void Names::own(const std::vector<Address> &addresses, const Owner &owner)
{
    for (const Address &address : addresses)
        owners_.try_emplace(address, owner);
}

void Names::plan_services()
{
    plans_ = planner_.take_changes().upserts;
    for (ServicePlan &plan : plans_) {
        std::ranges::sort(plan.frontends);
        for (const Frontend &frontend : plan.frontends)
            services_.emplace(frontend, plan.key);
    }
}

Names Names::read(const std::string &run_dir)
{
    const std::string pod_folder = run_dir + "/pods";
    std::vector<std::string> complaints;
    auto objects = Journal::read(run_dir + "/objects");
    Result<std::vector<PodInterface>> pods;
    std::error_code error;
    if (std::filesystem::is_directory(pod_folder, error)) // loading would make one
        pods = PodStore(pod_folder).load(complaints);
    return {objects ? std::move(*objects) : std::vector<Object>{},
            pods ? std::move(*pods) : std::vector<PodInterface>{}};
}

const Owner *Names::owner(const Address &address) const
{
    const auto found = owners_.find(address);
    return found == owners_.end() ? nullptr : &found->second;
}

const ServiceKey *Names::service_at(const Frontend &frontend) const
{
    const auto found = services_.find(frontend);
    return found == services_.end() ? nullptr : &found->second;
}

std::map<ObjectName, std::vector<Address>> Names::pods_called(const std::optional<Symbol> &space,
                                                              std::string_view name) const
{
    std::map<ObjectName, std::vector<Address>> pods;
    for (const auto &[address, owner] : owners_)
        if (!owner.is_node && owner.name.name == name && (!space || owner.name.space == *space))
            pods[owner.name].push_back(address);
    for (auto &[pod, addresses] : pods)
        std::ranges::sort(addresses, {}, [](const Address &a) { return std::pair(a.family(), a); });
    return pods;
}

Result<> Names::expect_service(const ObjectName &name) const
{
    if (service(name))
        return {};
    if (planner_.service_count() == 0)
        return fail("no Service is known here: no agent has saved one in its run directory (--run-dir)");
    std::vector<std::string> close;
    planner_.each_service([&](const Service &other) {
        if (is_close(name, other.name))
            close.push_back(other.name.text());
    });
    std::ranges::sort(close);
    constexpr size_t few = 5;
    close.resize(std::min(close.size(), few));
    if (close.empty())
        return fail("no Service {} is known here", name.text());
    return fail("no Service {} is known here; there is {}", name.text(), fmt::join(close, ", "));
}

} // namespace thruway::cli
